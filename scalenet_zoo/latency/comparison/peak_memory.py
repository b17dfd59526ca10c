"""The memory of a network: a fresh process, in which nothing else runs, opens its file and runs it.

On a CPU, it is the largest resident set of that process, less the resident set just before the file was opened. By then
the back end has already run a network with a single convolution, so the memory covers weights, buffers and what the
back end makes of the graph, but not its libraries. On a GPU, it is the GPU memory that the process took.
"""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import cast

from scalenet_zoo.core.backends import Precision
from scalenet_zoo.core.files import scratch_folder

LAPS = 5
"""The number of inferences."""
PROBE_SECONDS = 600
"""The longest time that the process may take."""
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_log = logging.getLogger(__name__)


def peak_memory(
    path: Path, backend: str, precision: Precision = "fp32", batch: int = 1, threads: int | None = None
) -> int | None:
    """Measure the memory of a network in a process of its own.

    Args:
        path: an exported file, or for torch a model folder.
        backend: the back end to run it on.
        precision: for torch, the precision of weights and activations; a file has its own.
        batch: images per inference.
        threads: CPU threads that an operator may use; None: torch's default in a fresh process.

    Returns:
        Bytes; None: this system does not report them, or the process failed, which is logged.
    """
    if not _STATUS.exists():
        return None
    arguments = json.dumps([str(path.absolute()), backend, precision, batch, threads])
    command = [sys.executable, "-m", __name__, arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PROBE_SECONDS)
        return int(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, OSError, ValueError, IndexError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        _log.warning("%s on %s: its memory cannot be measured: %s", path.name, backend, said[-1] if said else error)
        return None


def measure_here(path: Path, backend: str, precision: Precision, batch: int, threads: int | None) -> int:
    """Open a file in this process, run it, and return the bytes; `peak_memory` runs this in a fresh process."""
    import torch

    from scalenet_zoo.latency.cases import Case, Subject
    from scalenet_zoo.latency.comparison.running import on_gpu, open_network
    from scalenet_zoo.models.opening import open_model
    from scalenet_zoo.zoo import weights  # noqa: F401 - this code is not part of the network's memory

    _start(backend, threads)
    subject, is_gpu = Subject.load(path), on_gpu(backend)
    free = torch.cuda.mem_get_info()[0] if is_gpu else 0
    before = _reset_peak()
    model = subject.path or cast("torch.nn.Module", open_model(path))
    with open_network(model, Case(subject, backend, precision, batch), threads) as opened:
        for _ in range(LAPS):
            opened.lap()
        if is_gpu:
            return max(0, free - torch.cuda.mem_get_info()[0])
        return max(0, _kilobytes("VmHWM") - before) * 1024


def _start(backend: str, threads: int | None) -> None:
    """Run a single convolution, so that a back end loads what it needs for any network."""
    import numpy as np
    import onnx
    import torch
    from onnx import helper, numpy_helper

    from scalenet_zoo.latency.comparison.running import on_gpu
    from scalenet_zoo.latency.runners import open_runner

    images = torch.zeros(1, 3, 8, 8, device="cuda" if on_gpu(backend) else "cpu")
    with scratch_folder() as folder:
        model: torch.nn.Module | Path = torch.nn.Conv2d(3, 4, 3)
        if not backend.startswith("torch"):
            shapes = (("image", [1, 3, 8, 8]), ("output", [1, 4, 6, 6]))
            ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes]
            weight = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "weight")
            convolution = helper.make_node("Conv", ["image", "weight"], ["output"])
            graph = helper.make_graph([convolution], "one", ends[:1], ends[1:], [weight])
            model = folder / "one.onnx"
            onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), model)
        with open_runner(model, images, backend, threads) as runner:
            runner.lap()


def _reset_peak() -> int:
    """Reset the peak to the current resident set, if the system allows it; return the peak in kilobytes."""
    with suppress(OSError):
        _CLEAR.write_text("5")
    return _kilobytes("VmHWM")


def _kilobytes(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"{_STATUS}: found no {field}, expected one")
    return int(found[1])


if __name__ == "__main__":
    file, *others = json.loads(sys.argv[1])
    print(measure_here(Path(file), *others))
