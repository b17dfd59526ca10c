"""A search whose supernet starts with EfficientNet-Lite0's weights, compared with the same supernet from scratch.

python -m benchmarks.inherited_search --data FOLDER --run RUN: an hour on one core; a stopped run is resumed.
FOLDER has imagenette-128, unpacked; RUN keeps both runs. Networks are extracted from the supernet and judged without
further training: those that the search found, and one at each of several budgets. The supernet from scratch is trained
for the same time with the same recipe, and the same networks are extracted from it.
"""

import argparse
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from benchmarks.imagenette import FOLDER, imagenette
from benchmarks.interleave import record
from scalenet_zoo import create_model
from scalenet_zoo.arch.spec import spec_of
from scalenet_zoo.inference.evaluate import evaluate_network

CONFIG = Path(__file__).with_suffix(".yaml")
BUDGETS = ("20M", "30M", "40M", "60M")


def scalenet_zoo(*arguments: str) -> float:
    """Run a command; return the CPU time that it took, in seconds."""
    before = _cpu_seconds()
    subprocess.run([sys.executable, "-m", "scalenet_zoo", *arguments], check=True)
    return _cpu_seconds() - before


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def write_config(path: Path, data: Path, inherits: bool) -> Path:
    """Write the configuration with the folder of the data; return its path."""
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    config["data"] = f"imagefolder:{data.resolve() / FOLDER}"
    if not inherits:
        config["supernet"] = {**config["supernet"], "sides": "left"}
        del config["supernet"]["inherit"]
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def judged(folder: Path, data: Path) -> dict[str, object]:
    """Compute a network's cost, and its accuracy on all validation images."""
    network = create_model(folder)
    spec = spec_of(network)
    found = evaluate_network(network, imagenette(data, "val"), batch_size=50)
    cost = {"macs": spec.cost.macs, "params": spec.cost.params, "pixels": spec.input.height}
    return {**cost, "top1": found.metrics["top1"], "images": found.images}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.run.mkdir(parents=True, exist_ok=True)
    measured: dict[str, Any] = {}
    for name, inherits in (("inherited", True), ("from nothing", False)):
        config = write_config(arguments.run / f"{name.replace(' ', '_')}.yaml", arguments.data, inherits)
        run = arguments.run / name.replace(" ", "_")
        options = ("--output", str(run), "--workers", "0", "--cpu")
        found: dict[str, Any] = {"cpu_minutes": {}}
        found["cpu_minutes"]["supernet"] = scalenet_zoo("supernet", "train", str(config), *options) / 60
        if inherits:
            found["cpu_minutes"]["search"] = scalenet_zoo("search", str(config), *options) / 60
        specs = arguments.run / "inherited" / "specs"
        for spec in sorted(specs.glob("*.json")):
            folder = run / "extracted" / spec.stem
            scalenet_zoo("supernet", "extract", str(run), str(spec), "--output", str(folder), "--workers", "0", "--cpu")
            found[spec.stem] = judged(folder, arguments.data)
        for budget in BUDGETS if inherits else ():
            folder = run / "extracted" / budget
            seconds = scalenet_zoo(
                *("supernet", "extract", str(run), "--flops", budget, "--output", str(folder)),
                *("--workers", "0", "--cpu"),
            )
            found[budget] = {**judged(folder, arguments.data), "cpu_minutes": seconds / 60}
        measured[name] = found
        record("inherited_search", {"config": yaml.safe_load(CONFIG.read_text()), **measured})


if __name__ == "__main__":
    main()
