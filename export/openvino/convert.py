"""Conversion of exported ONNX files to OpenVINO's IR.

x.onnx --OpenVINO--> model, metadata --> x.xml, x.bin --check--> done
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from scalenet_zoo.core.errors import ExportError, InputError, OutputError
from scalenet_zoo.core.files import file_sha256, replacing
from scalenet_zoo.export.metadata import Metadata
from scalenet_zoo.export.onnx_file import OnnxFile
from scalenet_zoo.export.openvino.ir_file import WEIGHTS_HASH, weights_path
from scalenet_zoo.export.openvino.library import NAME, open_core, open_openvino, openvino_complaint
from scalenet_zoo.export.openvino.network import OpenVinoNetwork

_log = logging.getLogger(__name__)

Checked = TypeVar("Checked")


def convert_onnx(source: Path, path: Path, check: Callable[[OpenVinoNetwork], Checked]) -> Checked:
    """Write an ONNX file as OpenVINO's IR: NAME.xml, and NAME.bin beside it; both appear whole or not at all.

    The IR has the precision of the ONNX file. In fp16, all weights and types are float16; a device computes in float16
    if it can, but most CPUs cannot and compute in fp32. Int8 that was made for another back end is converted with a
    warning.

    Args:
        source: an ONNX file that `export` wrote.
        path: the path of the XML file; its name ends in `.xml`.
        check: called with the opened IR before the files appear at `path`; its errors are passed on.

    Returns:
        The result of `check`.

    Raises:
        BackendError: OpenVINO is not installed.
        InputError: the ONNX file cannot be read, `export` did not write it, or its graph is not what its metadata say.
        ExportError: OpenVINO cannot convert the file, for example because it does not know an operator.
        OutputError: the files cannot be written.
    """
    openvino, core = open_openvino(), open_core()
    metadata = Metadata.of(OnnxFile.read(source))
    if doubt := metadata.options.doubt(NAME):
        _log.warning("%s: %s", source.name, doubt)
    with replacing(path) as temporary:
        try:
            model = core.read_model(source)
        except RuntimeError as error:
            raise ExportError(f"{source}: cannot be converted by OpenVINO: {openvino_complaint(error)}") from None
        if "framework" in model.rt_info:  # OpenVINO's copy of the ONNX file's metadata
            del model.rt_info["framework"]
        for key, value in metadata.entries().items():
            model.set_rt_info(value, key)
        try:
            openvino.save_model(model, temporary, compress_to_fp16=False)
            model.set_rt_info(file_sha256(weights_path(temporary)), WEIGHTS_HASH)
            openvino.save_model(model, temporary, compress_to_fp16=False)
            network = OpenVinoNetwork.load(temporary)
        except (RuntimeError, InputError) as error:  # on a full disk, OpenVINO 2026.1 reports no error
            raise OutputError(f"{path}: cannot be written by OpenVINO: {openvino_complaint(error)}") from None
        return check(network)
