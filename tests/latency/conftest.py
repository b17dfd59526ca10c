"""Settings of the tests of latency."""

import pytest

from scalenet_zoo.latency import budget
from scalenet_zoo.latency.yardstick import RUNS, Yardstick


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests run side by side, so no measurement waits for a quiet machine, unless a test says how long."""
    monkeypatch.setattr(budget, "PAUSE", 0.0)
    monkeypatch.setattr(Yardstick.visit, "__defaults__", (0.0, RUNS))  # of patience and runs
