"""python -m benchmarks.evidence smoke|run --data cifar10-jpeg.tar.gz --run FOLDER --device cuda; or tables."""

import argparse
import os
import time
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

from benchmarks.evidence.tables import RESULTS, print_tables
from benchmarks.evidence.workers import Workers, multi_process_service, start_server

IMAGES = "images.safetensors"
"""In the folder of a run."""
WAYS: tuple[tuple[bool, Literal["forkserver", "spawn"]], ...] = (
    (True, "forkserver"),
    (True, "spawn"),
    (False, "spawn"),
)
"""With the multi-process service or without, and how processes are begun: until one works."""


def main() -> None:
    """Read the words of the command line, and do what they say."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    smoke = commands.add_parser("smoke", help="how fast the device is, in which way")
    run = commands.add_parser("run", help="all studies, in order of worth; goes on where it was stopped")
    tables = commands.add_parser("tables", help="print the tables of docs/evidence.md")
    tables.add_argument("results", type=Path, nargs="?", default=RESULTS, help="results.jsonl of a run")
    for command, minutes in ((smoke, 0.9), (run, float("inf"))):
        command.add_argument("--data", type=Path, help="the archive: SPLIT/CLASS/IMAGE, train and test; the first time")
        command.add_argument("--run", type=Path, required=True, help="a folder for images, weights and the state")
        command.add_argument("--out", type=Path, help="a folder for results; left out: that of the run")
        command.add_argument("--plan", type=Path, default=Path(__file__).with_name("plan.yaml"))
        command.add_argument("--device", choices=("cuda", "cpu"), default="cpu")
        command.add_argument("--processes", type=int, default=14)
        command.add_argument(
            "--minutes", type=float, default=minutes, help="after which it stops; run: left out, when all is done"
        )
    smoke.add_argument("--seconds", type=float, default=1.0, help="of a measurement")
    given = parser.parse_args()
    if given.command == "tables":
        print_tables(given.results)
        return
    given.out = given.out or given.run
    if given.data is None and not (given.run / IMAGES).exists():
        parser.error(f"--data: found none, expected the archive: {given.run} has no {IMAGES} yet")
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # a server of forks must not open the GPU
    given.out.mkdir(parents=True, exist_ok=True)
    for wanted, method in WAYS if given.device == "cuda" else WAYS[-1:]:
        with ExitStack() as stack:
            mps = stack.enter_context(multi_process_service(given.run / "mps", wanted))
            print(f"{time.monotonic() - began:.1f} s: multi-process service: {mps}", flush=True)
            if _work(given, began, method, mps):
                break
    print(f"ended after {time.monotonic() - began:.1f} s", flush=True)


def _work(given: argparse.Namespace, began: float, method: Literal["forkserver", "spawn"], mps: str) -> bool:
    """Begin processes in a way, and do what was asked for; whether they work."""
    if method == "forkserver":  # it imports what processes need, while this one does
        start_server()
    from benchmarks.evidence.images import decode
    from benchmarks.evidence.plan import Plan
    from benchmarks.evidence.run import Run
    from benchmarks.evidence.smoke import Smoke, can_record, greet

    plan, data, until = Plan.load(given.plan).on(given.device), given.run / IMAGES, began + 60 * given.minutes
    decoder = get_context("fork").Process(target=decode, args=(given.data, data, 12))
    if given.device == "cuda":  # meanwhile processes are begun
        decoder.start()
    with Workers(given.processes, given.device, data, method) as workers:
        print(f"{time.monotonic() - began:.1f} s: processes are begun", flush=True)
        if given.device == "cuda":
            decoder.join()
        decode(given.data, data, 1)  # does nothing where that is done
        print(f"{time.monotonic() - began:.1f} s: images are decoded", flush=True)
        if given.command == "smoke":
            return Smoke(plan, workers, given.out, until, given.seconds, mps).run()
        facts: dict[str, Any] = {}
        if not greet(workers, facts, mps):
            return False
        studies = Run(plan, workers, given.run, given.out, until, can_record(workers, plan, facts))
        print("all is done" if studies.run() else "stopped by the clock", flush=True)
        studies.tell(0)
    return True


if __name__ == "__main__":
    main()
