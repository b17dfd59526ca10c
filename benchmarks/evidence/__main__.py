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
"""The name of the decoded images in the folder of a run."""
WAYS: tuple[tuple[bool, Literal["forkserver", "spawn"]], ...] = (
    (True, "forkserver"),
    (True, "spawn"),
    (False, "spawn"),
)
"""Whether the multi-process service is used, and how processes start; the first way that works is taken."""


def main() -> None:
    """Read the command line, and do what it asks for."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    smoke = commands.add_parser("smoke", help="measure how fast the device is, in several setups")
    run = commands.add_parser("run", help="do all studies, the most important jobs first; resume a stopped run")
    tables = commands.add_parser("tables", help="print the tables of docs/evidence.md")
    tables.add_argument("results", type=Path, nargs="?", default=RESULTS, help="the results.jsonl of a run")
    for command, minutes in ((smoke, 0.9), (run, float("inf"))):
        command.add_argument("--data", type=Path, help="the archive of SPLIT/CLASS/IMAGE; a run needs it only once")
        command.add_argument("--run", type=Path, required=True, help="the folder of the images, weights and state")
        command.add_argument("--out", type=Path, help="the folder of the results; by default that of the run")
        command.add_argument("--plan", type=Path, default=Path(__file__).with_name("plan.yaml"))
        command.add_argument("--device", choices=("cuda", "cpu"), default="cpu")
        command.add_argument("--processes", type=int, default=14)
        command.add_argument(
            "--minutes", type=float, default=minutes, help="the time limit; by default, `run` has none"
        )
    smoke.add_argument("--seconds", type=float, default=1.0, help="duration of one measurement")
    given = parser.parse_args()
    if given.command == "tables":
        print_tables(given.results)
        return
    given.out = given.out or given.run
    if given.data is None and not (given.run / IMAGES).exists():
        parser.error(f"--data: found none, expected the archive: {given.run} has no {IMAGES} yet")
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # the fork server must not open the GPU
    given.out.mkdir(parents=True, exist_ok=True)
    for wanted, method in WAYS if given.device == "cuda" else WAYS[-1:]:
        with ExitStack() as stack:
            mps = stack.enter_context(multi_process_service(given.run / "mps", wanted))
            print(f"{time.monotonic() - began:.1f} s: multi-process service: {mps}", flush=True)
            if _work(given, began, method, mps):
                break
    print(f"ended after {time.monotonic() - began:.1f} s", flush=True)


def _work(given: argparse.Namespace, began: float, method: Literal["forkserver", "spawn"], mps: str) -> bool:
    """Start the workers by a method and do the command; return False if no worker works."""
    if method == "forkserver":  # it imports its modules while this process imports others
        start_server()
    from benchmarks.evidence.images import decode
    from benchmarks.evidence.plan import Plan
    from benchmarks.evidence.run import Run
    from benchmarks.evidence.smoke import Smoke, are_ready, can_record

    plan, data, until = Plan.load(given.plan).on(given.device), given.run / IMAGES, began + 60 * given.minutes
    decoder = get_context("fork").Process(target=decode, args=(given.data, data, 12))
    if given.device == "cuda":  # the workers start meanwhile
        decoder.start()
    with Workers(given.processes, given.device, data, method) as workers:
        print(f"{time.monotonic() - began:.1f} s: workers have started", flush=True)
        if given.device == "cuda":
            decoder.join()
        decode(given.data, data, 1)  # does nothing if the images are decoded
        print(f"{time.monotonic() - began:.1f} s: images are decoded", flush=True)
        if given.command == "smoke":
            return Smoke(plan, workers, given.out, until, given.seconds, mps).run()
        facts: dict[str, Any] = {}
        if not are_ready(workers, facts, mps):
            return False
        studies = Run(plan, workers, given.run, given.out, until, can_record(workers, plan, facts))
        print("all is done" if studies.run() else "stopped by the clock", flush=True)
        studies.tell(0)
    return True


if __name__ == "__main__":
    main()
