"""Networks of each task, trained on small real data sets with the users' commands; curves and results are kept.

python -m benchmarks.real_training --data FOLDER: an hour or two on 2 cores; a stopped run is resumed. FOLDER has,
unpacked, imagenette-128 (image folder), camvid-11 (images, masks, split lists) and lspet-coco (COCO's keypoint layout).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from benchmarks.interleave import RESULTS, record
from scalenet_zoo import ArchSpec, load_spec

SIGMAS = [0.089, 0.087, 0.107, 0.107, 0.087, 0.089, 0.062, 0.072, 0.079, 0.079, 0.072, 0.062, 0.079, 0.079]
"""COCO's sigmas for Leeds' joints, in Leeds' order; 0.079 for neck and head top, which COCO does not have."""
NARROW = 8
"""Width of the networks for dense tasks, narrow enough to train in minutes on a CPU."""

Flags = dict[str, str]
IMAGENETTE: Flags = {"--data": "imagefolder:{data}/imagenette-128", "--size": "96"}
CAMVID: Flags = {"--data": "masks:{data}/camvid-11", "--ignore-index": "11", "--size": "144x192"}
LEEDS: Flags = {"--data": "coco:{data}/lspet-coco", "--joints": "{runs}/joints.yaml", "--size": "96x96"}
DENSE: Flags = {"--batch-size": "8", "--lr": "2e-3", "--hflip": "0.5", "--resize": "0.75 1.5"}

RUNS: dict[str, tuple[str, Flags, str]] = {
    "imagenette_scalenet_s0": (
        "scalenet_s0",
        IMAGENETTE | {"--epochs": "6", "--hflip": "0.5", "--scale": "0.35 1.0", "--smoothing": "0.1"},
        "val",
    ),
    "camvid_hrnet_w8": ("hrnet_w18", CAMVID | DENSE | {"--epochs": "12", "--color-jitter": "0.2"}, "test"),
    "camvid_scalenas_s1_w8": ("scalenas_s1", CAMVID | DENSE | {"--epochs": "12", "--color-jitter": "0.2"}, "test"),
    "leeds_hrnet_w8": (
        "hrnet_w18_pose",
        LEEDS | DENSE | {"--batch-size": "16", "--epochs": "5", "--rotation": "30", "--resize": "0.8 1.25"},
        "val",
    ),
}
"""For each name, the zoo's entry, the flags of `train`, and the split to report on."""


def narrowed(name: str) -> ArchSpec:
    """Make a multipath entry with branches of `NARROW`, 2 `NARROW`, ... channels."""
    spec = load_spec(name)
    network = spec.network.model_copy(update={"width": NARROW})
    return ArchSpec.create(f"{name}_w{NARROW}", spec.task, spec.input, spec.classes, network, spec.provenance)


def run(name: str, data: Path, runs: Path) -> dict[str, Any]:
    """Train, then evaluate the best network: plainly, and averaged over each image and its mirror image."""
    entry, flags, split = RUNS[name]
    spec = load_spec(entry)
    source = entry
    if spec.network.type == "multipath":
        narrowed(entry).save(runs / f"{name}.json")
        source = str(runs / f"{name}.json")
    given = {flag: value.format(data=data, runs=runs) for flag, value in flags.items()}
    folder = runs / name
    scalenet_zoo(
        "train", source, *words(given), "--output", str(folder), "--resume", "--workers", "1", "--log-interval", "20"
    )
    on_data = [
        "--workers",
        "1",
        *words({flag: given[flag] for flag in ("--data", "--ignore-index", "--joints") if flag in given}),
    ]
    plain, flipped = (
        json.loads(scalenet_zoo("evaluate", str(folder / "best"), *on_data, "--split", split, "--json", *more))
        for more in ([], ["--flip"])
    )
    kept = RESULTS / "real_training" / name
    kept.mkdir(parents=True, exist_ok=True)
    for file in ("log.jsonl", "curves.png", "recipe.yaml"):
        shutil.copy(folder / file, kept / file)
    best = json.loads((folder / "best" / "spec.json").read_text())
    training = best["provenance"]["details"]["training"]
    return {
        "command": training["command"].replace(str(runs), "RUNS").replace(str(data), "FOLDER"),
        "macs": best["cost"]["macs"],
        "params": best["cost"]["params"],
        "images": training["images"],
        "best_epoch": training["epochs"],
        "seconds": training["seconds"],
        "split": split,
        "metrics": plain["metrics"],
        "metrics_flipped": flipped["metrics"],
    }


def words(flags: Flags) -> list[str]:
    return [word for flag, value in flags.items() for word in (flag, *value.split())]


def scalenet_zoo(*arguments: str) -> str:
    print("scalenet-zoo", *arguments, file=sys.stderr)
    command = [sys.executable, "-m", "scalenet_zoo", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # so that parallel runs do not wait for each other's threads
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where checkpoints go")
    arguments = parser.parse_args()
    arguments.runs.mkdir(parents=True, exist_ok=True)
    (arguments.runs / "joints.yaml").write_text(yaml.safe_dump({"sigmas": SIGMAS}))
    record("real_training", {name: run(name, arguments.data, arguments.runs) for name in RUNS})


if __name__ == "__main__":
    main()
