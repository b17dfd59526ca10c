"""Commands killed (SIGKILL) at any moment: run again, they end as if nothing had been, and leave nothing behind."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import pytest
from safetensors.torch import load_file

from scalenet_zoo.core.files import SCRATCH
from scalenet_zoo.core.run_folder import LOCK
from scalenet_zoo.export.tensorrt.record import read_engine
from scalenet_zoo.latency.profile import Profile
from scalenet_zoo.search.scalenet.ledger import ScaleNetLedger
from tests.helpers.search_config import HERE, write_config
from tests.helpers.shapes import SPECS

PROGRAM = Path(sys.executable).with_name("scalenet-zoo")
KILLS = 7
"""Of each command."""


@dataclass(frozen=True)
class Work:
    """A command, and what comes of it.

    Attributes:
        arguments: for a folder of inputs and one to write to.
        result: what it wrote there that has to be the same each time.
        again: further arguments once there is something of it.
    """

    arguments: Callable[[Path, Path], Sequence[object]]
    result: Callable[[Path], object]
    again: tuple[str, ...] = ()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _searched(folder: Path) -> object:
    state = ScaleNetLedger.load(folder / "search" / "joint.json").model_dump(mode="json")
    return {name: value for name, value in state.items() if "seconds" not in name}


def _trained(folder: Path) -> object:
    return {name: tensor.tolist() for name, tensor in load_file(folder / "best" / "model.safetensors").items()}


def _profiled(folder: Path) -> object:
    """What was measured: how long it took differs from run to run."""
    profile = Profile.load(folder / "model.profile.json")
    return [(measurement.role, measurement.terms) for measurement in profile.measurements]


def _built(folder: Path) -> object:
    record, _ = read_engine(folder / "x.engine")
    return record.onnx_sha256, record.options


WORKS = {
    "train": Work(
        lambda inputs, out: (
            *("train", inputs / "tiny.json", "--data", "digits", "--size", 32, "--epochs", 2, "--batch-size", 64),
            *("--workers", 1, "--save-every", 5, "--output", out, "--cpu"),
        ),
        _trained,
        ("--resume",),
    ),
    "supernet train": Work(
        lambda inputs, out: ("supernet", "train", inputs / "toy.yaml", "--output", out, *HERE),
        lambda folder: _digest(folder / "supernet" / "supernet.safetensors"),
    ),
    "search": Work(lambda inputs, out: ("search", inputs / "toy.yaml", "--output", out, *HERE), _searched),
    "profile": Work(
        lambda inputs, out: (
            *("profile", "--on", "torch", "--threads", 1, "--layers", 2, "--networks", 4, "--held-out", 2),
            *("--output", out / "model.json"),
        ),
        _profiled,
    ),
    "export": Work(
        lambda inputs, out: ("export", inputs / "tiny.json", "--output", out / "x.onnx"),
        lambda folder: _digest(folder / "x.onnx"),
    ),
    "engine": Work(
        lambda inputs, out: (
            *("export", inputs / "tiny.onnx", "--to", "tensorrt-rtx", "--compute-capability", "8.9"),
            *("--output", out / "x.engine"),
        ),
        _built,
    ),
}


@pytest.mark.nightly
@pytest.mark.parametrize("name", WORKS)
def test_killed_commands_end_as_if_nothing_had_been(name: str, tmp_path: Path) -> None:
    work, inputs = WORKS[name], tmp_path / "inputs"
    inputs.mkdir()
    temporary = Path(mkdtemp())  # a short name: sockets of loaders' workers lie in it
    write_config(inputs, baselines=[])
    SPECS["classification"].save(inputs / "tiny.json")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary), "CUDA_VISIBLE_DEVICES": ""}

    def start(out: Path) -> "subprocess.Popen[str]":
        arguments = [*work.arguments(inputs, out), *(work.again if out.exists() else ())]
        return subprocess.Popen(
            [PROGRAM, *map(str, arguments)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(process: "subprocess.Popen[str]") -> None:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors

    if name == "engine":
        subprocess.run([PROGRAM, "export", inputs / "tiny.json", "--output", inputs / "tiny.onnx"], check=True)
    began = time.monotonic()
    finish(start(tmp_path / "whole"))
    seconds = time.monotonic() - began

    rng, out, died = random.Random(name), tmp_path / "killed", 0
    for _ in range(KILLS):
        process = start(out)
        time.sleep(seconds * rng.uniform(0.3, 0.95))  # before that it imports
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        died += process.returncode == -signal.SIGKILL
    finish(start(out))
    assert died > KILLS // 2
    assert work.result(out) == work.result(tmp_path / "whole")
    assert not [path for path in out.rglob("*") if path.name.startswith(SCRATCH) or path.name == LOCK]
    # What libraries leave: loaders' workers, for one, the folders of their sockets.
    assert not [path for path in temporary.iterdir() if not path.name.startswith(("torchinductor_", ".ses", "pymp-"))]
    shutil.rmtree(temporary)
    left = {path.name for path in out.rglob("*")} ^ {path.name for path in (tmp_path / "whole").rglob("*")}
    assert not [name for name in left if "events.out.tfevents" not in name], json.dumps(sorted(left))
