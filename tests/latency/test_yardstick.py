"""The yardstick, which tells when a machine is undisturbed."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from scalenet_zoo.latency.yardstick import QUIET, Visit, Yardstick, quiet, quiet_ms


class Machine:
    """A fake machine whose clock advances by what runs on it, and which slows down and recovers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, slow: Callable[[float], bool]) -> None:
        self.now, self.slow = 0.0, slow
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.rest)

    def rest(self, seconds: float) -> None:
        self.now += seconds

    def runner(self, ms: float) -> Any:
        machine = self

        class Runner:
            def lap(self) -> float:
                taken = ms * (1.5 if machine.slow(machine.now) else 1.0)
                machine.now += taken / 1000
                return taken

        return Runner()


def test_only_quiet_visits_count(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, slow=lambda now: int(now) % 4 in (1, 2, 3))  # slow three seconds of four
    steady = Yardstick(machine.runner(3.0))
    visits = steady.visit(machine.runner(10.0), visits=5, patience=60)
    assert steady.best == pytest.approx(3.0)
    assert len(quiet(visits, steady.best)) == 5
    assert len(visits) > 5
    assert quiet_ms(visits, steady.best) == pytest.approx(10.0)


def test_patience_ends_on_a_machine_that_stays_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, slow=lambda now: True)
    steady = Yardstick(machine.runner(3.0), known=3.0)
    visits = steady.visit(machine.runner(10.0), visits=5, patience=20)
    assert quiet(visits, steady.best) == []
    assert 20 < machine.now < 25
    assert quiet_ms(visits, steady.best) == pytest.approx(10.0)  # as much shortened as the yardstick was slowed down


def test_a_slow_start_is_found_out_later() -> None:
    visits = [Visit(15.0, 4.5, 4.5), Visit(15.1, 4.4, 4.5), Visit(10.0, 3.0, 3.0)]
    assert quiet_ms(visits[:2], best=4.4) == pytest.approx(14.8, abs=0.2)
    assert quiet_ms(visits, best=3.0) == 10.0
    assert quiet([Visit(1.0, 3.0, 3.0 * QUIET)], best=3.0)
    assert not quiet([Visit(1.0, 3.0 * QUIET + 0.01, 3.0)], best=3.0)
    assert quiet_ms([Visit(10.5, 3.15, 3.15)], best=3.0) == pytest.approx(10.0)  # quiet, but not quite as fast
