"""The benchmarks of this checkout and of another one, timed in turn: is anything slower than it was?

python -m benchmarks.beside OTHER [--only NAME ...] [--repeats N]: OTHER is a checkout of another commit, whose
requirements are installed here. It takes about 25 minutes. Ratios are of seconds, this / other; below 1 is faster. Each
checkout runs its own benchmark in a process of its own, which waits for its turn. What is timed is `ours` in the
benchmarks' calls of `interleave`; for training, a turn is a whole run of `train`.
"""

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.interleave import ratio, record

NAMES = ("cli_start", "population_cost", "supernet_speed", "scalenas_speed", "scoring_speed", "train_speed")
LIMITS = {"train_speed": 4}  # fewer turns of long benchmarks
HERE = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--repeats", type=int, default=12)
    asked = parser.parse_args()
    measured: dict[str, object] = {}
    for name in asked.only:
        with tempfile.TemporaryDirectory() as folder:
            sides = [_start(checkout, name, Path(folder)) for checkout in (HERE, asked.other)]
            while True:
                told = [_answer(side) for side in sides]
                if told[0] == told[1] == "end":
                    break
                if told[0] != told[1]:
                    raise SystemExit(f"{name}: found the turns {told}, expected the same in both checkouts")
                seconds = _turns(sides, min(asked.repeats, LIMITS.get(name, asked.repeats)))
                measured[f"{name}: {told[0]}"] = figures = ratio(*seconds)
                print(f"{name}: {told[0]}: {figures['ratio']:.3f}", flush=True)
            for side in sides:
                side.wait()
    record("beside", {"other": _commit(asked.other), "this": _commit(HERE), **measured})


def _start(checkout: Path, name: str, folder: Path) -> "subprocess.Popen[str]":
    """Start a process that runs a benchmark of a checkout, turn by turn."""
    package = folder / str(abs(hash(checkout)))  # this checkout's package, laid out as if installed
    (package / "scalenet_zoo").mkdir(parents=True)
    for part in [*(checkout / "scalenet_zoo").iterdir(), checkout / "export", checkout / "searched_archs"]:
        (package / "scalenet_zoo" / part.name).symlink_to(part.resolve())
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{package}:{checkout.resolve()}"}
    command = [sys.executable, str(Path(__file__)), "--turns", name]
    return subprocess.Popen(
        command, env=environment, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _turns(sides: "list[subprocess.Popen[str]]", repeats: int) -> tuple[list[float], list[float]]:
    seconds: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 1):  # the first one warms up
        for i in (0, 1) if repeat % 2 else (1, 0):
            _say(sides[i], "go")
            taken = float(_answer(sides[i]))
            if repeat:
                seconds[i].append(taken)
    for side in sides:
        _say(side, "next")
    return seconds


def _say(side: "subprocess.Popen[str]", word: str) -> None:
    assert side.stdin
    side.stdin.write(f"{word}\n")
    side.stdin.flush()


def _answer(side: "subprocess.Popen[str]") -> str:
    """Read the next line that is meant for this process; other output of the benchmark is skipped."""
    assert side.stdout
    for line in side.stdout:
        if line.startswith("beside: "):
            return line.removeprefix("beside: ").strip()
    raise SystemExit("found no answer from a benchmark, expected one")


def _commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def take_turns(name: str) -> None:
    """Run a benchmark of the checkout that is on the path; the other process says when each turn begins."""
    module: Any = importlib.import_module(f"benchmarks.{name}")
    count = 0

    def turns(ours: Callable[[], object], *_: object, **__: object) -> tuple[list[float], list[float]]:
        nonlocal count
        count += 1
        print(f"beside: {count}", flush=True)
        while input() == "go":
            start = time.perf_counter()
            ours()
            print(f"beside: {time.perf_counter() - start}", flush=True)
        return [1.0, 1.0], [1.0, 1.0]

    if name == "population_cost":
        for size in ((100_000, 1), (1_000, 100), (1, 10_000)):
            turns(partial(module.networks_per_second, *size))
    elif name == "train_speed":
        folder = Path.cwd() / f"run{os.getpid()}"
        module.make_images(folder / "images")
        runs = iter(range(1000))
        turns(lambda: module.ours(folder / "images", folder / str(next(runs)), dict(os.environ)))
    else:
        module.interleave, module.record = turns, lambda *_: None
        sys.argv = [name]
        module.main()
    print("beside: end", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--turns"]:
        sys.path.pop(0)  # this file's own folder
        take_turns(sys.argv[2])
    else:
        main()
