"""Settings and fixtures that the tests of latency share."""

import math
from pathlib import Path

import pytest

from scalenet_zoo.latency import budget, items, measuring, yardstick
from scalenet_zoo.latency.model import LatencyModel, fit_latency_model
from tests.helpers.latency import made_up_profile


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests run side by side, so no measurement waits for a quiet machine, unless a test says how long."""
    monkeypatch.setattr(budget, "PAUSE", 0.0)
    monkeypatch.setattr(yardstick, "PATIENCE", 0.0)


@pytest.fixture(scope="session")
def made_up() -> LatencyModel:
    """The latency model of a made-up machine."""
    return fit_latency_model(made_up_profile())


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache; the folder of its latency models."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "scalenet-zoo" / "latency"


@pytest.fixture
def small_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only small networks and few visits, which are quick to measure."""
    monkeypatch.setattr(items, "macs_range", lambda base_macs: (100e6, 200e6))
    monkeypatch.setattr(measuring, "VISITS", 1)
    monkeypatch.setattr(yardstick, "QUIET", math.inf)  # on a busy machine too
    monkeypatch.setattr(yardstick, "REST", 0.01)
