"""Settings of the tests of latency."""

import pytest

from scalenet_zoo.latency import budget, yardstick


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests run side by side, so no measurement waits for a quiet machine, unless a test says how long."""
    monkeypatch.setattr(budget, "PAUSE", 0.0)
    monkeypatch.setattr(yardstick, "PATIENCE", 0.0)
