"""Export of networks to ONNX files.

network --trace--> fp32 graph --to_half or make_int8--> graph, metadata --> file --verify--> done
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import onnx
import torch
from torch import nn

from scalenet_zoo.arch.spec import spec_of, unwrapped
from scalenet_zoo.core.errors import ExportError, SpecError
from scalenet_zoo.core.files import replacing
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.core.version import __version__
from scalenet_zoo.export.graph import trace_graph
from scalenet_zoo.export.inputs import FileBatches, Remembered
from scalenet_zoo.export.int8 import make_int8
from scalenet_zoo.export.metadata import Metadata, OnnxOptions
from scalenet_zoo.export.onnx_network import OnnxNetwork
from scalenet_zoo.export.precision import to_half
from scalenet_zoo.export.processing import AROUND, with_processing
from scalenet_zoo.export.verify import Verification, agreement, network_decisions, run_torch, verify
from scalenet_zoo.inference.predict import class_names as known_names
from scalenet_zoo.networks.modes import evaluation_mode
from scalenet_zoo.zoo.interface import Interface, pretrained_cfg

__all__ = ["LARGEST_FILE", "OnnxNetwork", "OnnxOptions", "export_onnx"]

JUDGED = 64
"""Images, spread evenly, on which calibrators are compared; the file itself is judged on all images."""
LARGEST_FILE = 2**31 - 2**20
"""Bytes of weights that fit into one ONNX file: protobuf's limit, less some room for the graph."""


def export_onnx(
    model: nn.Module,
    path: str | Path,
    options: OnnxOptions | None = None,
    calibration: Sequence[Path] = (),
    images: Sequence[Path] = (),
    class_names: Sequence[str] = (),
    min_agreement: float = 0.0,
    auto: bool = False,
    fp32_beside: Path | None = None,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Verification:
    """Write a network as an ONNX file, and check it against the network.

    By default, the input `image` is float32 (batch, channels, height, width), prepared as in `data.preparation`; the
    output is `logits` or `heatmaps`. The options change both. The file's metadata hold the spec, its hash, the
    preprocessing, the class names, the versions and the options.

    Args:
        model: a network from `create_model`, wrapped or not; it is exported in evaluation mode.
        path: the file to write; weights above 2 GB go into a second file beside it.
        options: precision, batch sizes, and the processing of images and outputs in the graph; None: the defaults.
        calibration: image files from which the ranges of activations are found; int8 needs them.
        images: image files to check the file on; none: those of `calibration`, or else the sample photographs.
        class_names: one name per class or joint; none: those of the network's `pretrained_cfg`, or ImageNet's for a
            classifier with 1000 classes.
        min_agreement: the least share of decisions on `images` in which an int8 file must agree with the network.
            Above 0, several calibrators are tried, and the one that agrees best is taken.
        auto: find the few layers whose rounding costs an int8 file most, and keep them in fp32; the file's options name
            them.
        fp32_beside: another file to write: the same network in fp32, for comparison.
        on_progress: reports the layers that `auto` has judged.

    Returns:
        The result of the check.

    Raises:
        ExportError: the network cannot be exported with these options.
        InputError: an image cannot be read.
        OutputError: the file cannot be written.
        VerificationError: the file does not compute what the network does; no file is left behind.
    """
    model, spec, options = unwrapped(model), spec_of(model), options or OnnxOptions()
    if options.precision == "int8":
        options = options.model_copy(update={"target": options.target or "ort-cpu"})
    options.check(spec)
    if auto and options.precision != "int8":
        raise ExportError(f"auto: found it with {options.precision}, expected it with int8")
    if (dtype := next(model.parameters()).dtype) != torch.float32:
        raise ExportError(f"{spec.name}: found weights of {dtype}, expected torch.float32")
    if options.precision == "int8" and not calibration:
        raise ExportError("calibration: found no images, expected some, since int8 takes its ranges from them")
    if class_names and len(class_names) != spec.classes:
        raise ExportError(f"class_names: found {len(class_names)}, expected {spec.classes}, as in {spec.name}")
    metadata = metadata_of(model, options, class_names)
    calibration = Remembered(calibration)
    images = Remembered(images) if images and list(images) != list(calibration) else calibration
    with evaluation_mode(model), replacing(Path(path)) as temporary:
        graph = trace_network(model, metadata)
        if fp32_beside is not None:
            fp32_beside.parent.mkdir(parents=True, exist_ok=True)
            plain = OnnxOptions(batch=options.batch, preprocess=options.preprocess, output=options.output)
            _save(graph, replace(metadata, options=plain), fp32_beside)
        around = [node.name for node in graph.graph.node if node.name.startswith(_AROUND)]
        if options.precision == "fp16":
            graph = to_half(graph, options.keep_fp32, around, options.io)
        if options.precision == "int8":
            reference = partial(run_torch, model)
            judged = images[:: -(-len(images) // JUDGED)]
            known = network_decisions(reference, metadata, judged) if spec.classes and min_agreement > 0 else None
            made = make_int8(
                graph,
                metadata,
                FileBatches(metadata, calibration, (options.batch or (1, 1, 1))[0]),
                around,
                None if known is None else lambda file: agreement(known, file, judged).share,
                auto,
                on_progress,
            )
            graph, kept = made.graph, (*options.keep_fp32, *made.kept)
            options = options.model_copy(update={"calibrator": made.calibrator, "keep_fp32": kept})
            metadata = replace(metadata, options=options)
        _save(graph, metadata, temporary)
        return verify(model, temporary, images, min_agreement)


def metadata_of(model: nn.Module, options: OnnxOptions, class_names: Sequence[str] = ()) -> Metadata:
    """Make the metadata of a network's exported file, with all values of its preprocessing.

    Raises:
        ExportError: the network's `pretrained_cfg` is not valid.
    """
    spec = spec_of(model)
    try:
        interface = Interface.of_network(model)
    except SpecError as error:
        raise ExportError(str(error)) from None
    return Metadata(
        spec=spec,
        interface=interface,
        options=options,
        class_names=tuple(class_names) or known_names(spec, interface.labels),
        versions={"scalenet_zoo": __version__, "torch": torch.__version__, "onnx": onnx.__version__},
        timm=pretrained_cfg(spec) | (getattr(model, "pretrained_cfg", None) or {}),
    )


def trace_network(model: nn.Module, metadata: Metadata) -> onnx.ModelProto:
    """Trace a network to an fp32 graph for its options' batches, with their processing before and after the network.

    Raises:
        ExportError: torch cannot export the network.
    """
    spec, options = metadata.spec, metadata.options
    smallest, _, largest = options.batch or (1, 1, None)
    fixed = smallest == largest
    example = torch.zeros(
        smallest if fixed else max(smallest, 2),  # torch treats a batch of 1 as fixed
        *metadata.image_shape,
        dtype=torch.uint8 if options.preprocess else torch.float32,
        device=next(model.parameters()).device,
    )
    return trace_graph(
        with_processing(model, spec, metadata.interface, options),
        example,
        metadata.output.name,
        None if fixed else torch.export.Dim("batch", min=smallest, max=largest),
    )


def _save(graph: onnx.ModelProto, metadata: Metadata, path: Path) -> None:
    """Write a graph with its metadata; weights that do not fit into one file go into a second one beside it."""
    labelled = copy.deepcopy(graph)
    for key, value in metadata.entries().items():
        labelled.metadata_props.add(key=key, value=value)
    weights = sum(tensor.ByteSize() for tensor in graph.graph.initializer)
    onnx.save(labelled, path, save_as_external_data=weights > LARGEST_FILE, location=f"{path.name}.data")


_AROUND = tuple(f"{part}/" for part in AROUND)
