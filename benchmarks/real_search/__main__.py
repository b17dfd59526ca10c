"""python -m benchmarks.real_search --data FOLDER --run RUN."""

import argparse
from pathlib import Path

import torch

import benchmarks.real_search
from benchmarks.real_search.plan import PLAN, Plan
from benchmarks.real_search.run import PARTS, RealSearch
from benchmarks.run_folder import Told, do_parts


def main() -> None:
    """Read the command line, and do the parts that it names."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real_search",
        description=benchmarks.real_search.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="Imagenette-128, unpacked")
    parser.add_argument("--run", type=Path, required=True, help="the folder for all files of the run")
    parser.add_argument("--config", type=Path, default=PLAN)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="do only these parts, in their order")
    parser.add_argument("--jobs", type=int, default=2, help="networks trained alone at a time, with one thread each")
    parser.add_argument("--threads", type=int, default=1, help="threads of all other work; 1 suits a busy machine best")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    study = RealSearch(Plan.load(given.config), given.data.resolve(), given.run.resolve(), given.jobs, Told())
    do_parts(study, PARTS, given.parts)


if __name__ == "__main__":
    main()
