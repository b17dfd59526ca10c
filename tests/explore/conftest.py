"""A machine whose latencies are made up, and a cache of its own for each test."""

from pathlib import Path

import pytest

from tests.helpers.bench import MadeUpMachine, pretend


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "scalenet-zoo" / "explore"


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> MadeUpMachine:
    machine = MadeUpMachine()
    pretend(monkeypatch, machine)
    return machine
