"""python -m benchmarks.real_scalenas CONFIG --data FOLDER --run RUN."""

import argparse
from pathlib import Path

import torch

import benchmarks.real_scalenas
from benchmarks.real_scalenas.plan import CONFIGS, Plan
from benchmarks.real_scalenas.run import PARTS, RealScaleNAS
from benchmarks.run_folder import Told, do_parts


def main() -> None:
    """Read the command line, and do the parts that it names."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real_scalenas",
        description=benchmarks.real_scalenas.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", choices=sorted(CONFIGS))
    parser.add_argument("--data", type=Path, required=True, help="camvid-11 or lspet-coco, unpacked")
    parser.add_argument("--run", type=Path, required=True, help="the folder for all files of the run")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="do only these parts, in their order")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, with one thread each")
    given = parser.parse_args()
    torch.set_num_threads(1)
    plan = Plan.load(CONFIGS[given.config])
    do_parts(RealScaleNAS(plan, given.data.resolve(), given.run.resolve(), given.jobs, Told()), PARTS, given.parts)


if __name__ == "__main__":
    main()
