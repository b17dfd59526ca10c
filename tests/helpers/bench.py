"""A made-up machine to explore the zoo on: what entries take is known without a measurement."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.explore import bench
from scalenet_zoo.latency.yardstick import Visit


def law(spec: ArchSpec, precision: str) -> float:
    """Milliseconds in proportion to MACs; int8 takes half of them."""
    return spec.cost.macs / 1e8 * (0.5 if precision == "int8" else 1.0)


@dataclass
class MadeUpMachine:
    """What it takes, and what was asked of it.

    Attributes:
        takes: milliseconds of an entry in a precision; it may raise.
        slow: times slower than undisturbed at the next entries that are visited, and then not at all.
        asked: names and precisions of what was measured, in order.
    """

    takes: Callable[[ArchSpec, str], float] = law
    slow: list[float] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)


def pretend(monkeypatch: pytest.MonkeyPatch, machine: MadeUpMachine) -> None:
    """Let benches measure on a made-up machine, whose yardstick takes 1 ms."""

    class FakeYardstick:
        best = 1.0

        def visit(self, runner: Any, visits: int, patience: float, runs: int) -> list[Visit]:
            times = machine.slow.pop(0) if machine.slow else 1.0
            return [Visit(runner.lap() * times, times, times)] * visits

    @contextmanager
    def fake_yardstick(*_: object, **__: object) -> Iterator[FakeYardstick]:
        yield FakeYardstick()

    @contextmanager
    def fake_runner(model: Any, images: object, backend: str, threads: int, precision: str) -> Iterator[Any]:
        machine.asked.append((model.spec.name, precision))
        ms = machine.takes(model.spec, precision)
        yield SimpleNamespace(lap=lambda: ms)

    monkeypatch.setattr(bench, "open_runner", fake_runner)
    monkeypatch.setattr(bench, "prepare_yardstick", fake_yardstick)
    monkeypatch.setattr(bench.Bench, "_model", lambda _, spec, *__: SimpleNamespace(spec=spec))
    monkeypatch.setattr(bench.Bench, "_images", lambda *_: None)
    monkeypatch.setattr(bench, "REST_SECONDS", 0.0)
