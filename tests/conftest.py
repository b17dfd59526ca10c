"""Settings that all tests share."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import settings

settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if "CI" in os.environ else "here")
torch.manual_seed(0)

if TYPE_CHECKING:
    from tests.helpers.command import Run
    from tests.helpers.hub_server import Hub


def pytest_collection_finish() -> None:
    """Garbage collection takes a tenth of the tests' time: leave out all modules, and collect less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run of the tests, for all its processes."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def once(shared: Path) -> Iterator[None]:
    """Traces are nine tenths of an export, curves half of a small training: each is made once."""
    from tests.helpers.once import drawn_once, traced_once

    with traced_once(shared / "traces"), drawn_once():
        yield


@pytest.fixture(scope="session")
def s0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX file of a small `scalenet_s0`."""
    from scalenet_zoo.export.onnx import export_onnx
    from tests.helpers.networks import random_model, small

    path = tmp_path_factory.mktemp("s0") / "scalenet_s0.onnx"
    export_onnx(random_model(small("scalenet_s0")), path)
    return path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator["Hub"]:
    """A Hub on this machine that the Hub's client talks to, with an empty cache and no token.

    No installed package has weights, so that they come from the Hub.
    """
    from huggingface_hub import constants

    from tests.helpers.hub_server import Hub

    server = Hub()
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    files = "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in {
        "ENDPOINT": server.address,
        "HUGGINGFACE_CO_URL_TEMPLATE": server.address + files,
        "HF_HUB_CACHE": str(tmp_path / "hub-cache"),
        "HF_TOKEN_PATH": str(tmp_path / "no-token"),
        "HF_STORED_TOKENS_PATH": str(tmp_path / "no-tokens"),
        "HF_HUB_DISABLE_PROGRESS_BARS": True,
        "HF_HUB_DISABLE_XET": True,  # a protocol of its own, which the server does not speak
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr("scalenet_zoo.zoo.installed.WEIGHTS_PACKAGES", {})
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> "Run":
    """The command line, in a folder of its own."""
    from tests.helpers.command import Run

    monkeypatch.chdir(tmp_path)
    return Run(monkeypatch, capsys)


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A GPU whose memory is the host's, and a cache folder of its own."""
    from scalenet_zoo.export.tensorrt import library, network
    from tests.helpers.fake_tensorrt import HERE

    for module in (network, library):
        monkeypatch.setattr(module, "find_gpu", lambda: HERE)
    monkeypatch.setattr(network, "_current_device", lambda: torch.device("cpu"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    library.open_library.cache_clear()
    yield
    library.open_library.cache_clear()
