"""Do searches find a better family than scaling a known network, if all of them inherit the same weights?

python -m benchmarks.inherited_family --data FOLDER --run RUN [--processes 2]: five hours of one core.
FOLDER has imagenette-128, unpacked. RUN keeps every finished part, so the same command resumes a stopped run; it writes
benchmarks/results/inherited_family.jsonl, one line per search or fine-tuning. `tables` prints the tables of
docs/evidence.md: python -m benchmarks.inherited_family --tables.

    train --> train and held out --> supernets that inherit EfficientNet-Lite0 --> searches --> families
    families, Lite0 under EfficientNet's rule, random networks --inherit, fine-tune--> accuracy on the 2,000 of val

No search and no training sees val. Every network inherits EfficientNet-Lite0's weights, trains for the same epochs on
the same images, and is judged after the last epoch.
"""

import argparse
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from pydantic import JsonValue

from benchmarks.evidence.run import Results
from benchmarks.evidence.tables import markdown
from benchmarks.imagenette import FOLDER
from benchmarks.significance import paired
from scalenet_zoo import ArchSpec, fit, run_search
from scalenet_zoo.arch.scaling import apply_strategy, follow_law
from scalenet_zoo.arch.spec import Strict, spec_errors
from scalenet_zoo.core.files import read_yaml
from scalenet_zoo.search.scalenet.baselines import COMPOUND
from scalenet_zoo.search.scalenet.config import ScaleNetConfig
from scalenet_zoo.search.scalenet.limits import Bounds
from scalenet_zoo.search.scalenet.sampling import FeasibleSampler
from scalenet_zoo.zoo.catalog import load_family

PLAN = Path(__file__).with_suffix(".yaml")
RESULTS = Path(__file__).parent / "results" / "inherited_family.jsonl"
SOURCE = "tf_efficientnet_lite0"
CLASSES = 10
SMALLEST_PHI = -12.0
"""The end of the part of EfficientNet's rule that is searched: a 2,500th of Lite0's MACs."""


class Plan(Strict):
    """The content of inherited_family.yaml.

    Attributes:
        search: the configuration of the searches.
        held_out: number of training images of each class by which searches score networks.
        searches: the seeds of supernets and searches.
        random: number of networks drawn per stage.
        seeds: the seeds of fine-tuning.
        fine_tuning: values of the recipe.
    """

    search: dict[str, JsonValue]
    held_out: int
    searches: tuple[int, ...]
    random: int
    seeds: tuple[int, ...]
    fine_tuning: dict[str, JsonValue]

    @classmethod
    def load(cls, path: Path = PLAN) -> "Plan":
        with spec_errors(str(path)):
            return cls.model_validate_json(json.dumps(read_yaml(path)))

    def config(self, data: str, seed: int = 0) -> ScaleNetConfig:
        """The configuration of one search."""
        values: dict[str, Any] = json.loads(json.dumps(self.search))
        values["data"] = data
        values["supernet"]["recipe"]["seed"] = values["search"]["seed"] = seed
        return ScaleNetConfig.model_validate_json(json.dumps(values))

    def bounds(self) -> Bounds:
        """The limits on the networks."""
        config = self.config("imagefolder:.")
        return Bounds(config.open_space(), CLASSES, config.limits)


def split_data(source: Path, target: Path, held_out: int) -> None:
    """Copy Imagenette: `train` without the first images of each class, which are `val`; its own val is `test`."""
    if target.exists():
        return
    scratch = target.with_suffix(".part")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(source / "val", scratch / "test")
    for folder in sorted((source / "train").iterdir()):
        for place, image in enumerate(sorted(folder.iterdir())):
            copy = scratch / ("val" if place < held_out else "train") / folder.name / image.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(image, copy)
    scratch.rename(target)


def compound(macs: float) -> ArchSpec:
    """EfficientNet-Lite0 scaled down by EfficientNet's rule, to at most so many MACs and as near to them as it gets.

    Depth, width and resolution follow one coefficient, phi: 1.2^phi, 1.1^phi and 1.15^phi (ICML 2019).
    """
    family = load_family("efficientnet_lite").model_copy(update={"classes": CLASSES})
    base = apply_strategy(family, family.strategies[0])
    stage, name = math.log2(macs / base.cost.macs), f"compound_{macs / 1e6:.0f}m"
    return apply_strategy(family, follow_law(family, COMPOUND, stage, SMALLEST_PHI, name))


def drawn(plan: Plan) -> list[ArchSpec]:
    """Networks drawn at random for each stage, before any search: base models, each under a strategy.

    They use 95% to 100% of the stage's MACs, so that all networks of a stage are compared at equal MACs.
    """
    bounds, found = plan.bounds(), []
    sampler = FeasibleSampler(bounds)
    for stage, budget in bounds.limits.amounts("macs", list(bounds.constraints)).items():
        rng, count = np.random.default_rng([7, stage]), 0
        while count < plan.random:
            (base,) = sampler.draw(rng, 1)
            scalings = bounds.admissible(stage, base[None])
            macs = bounds.population(base[None], scalings).cost.macs[0] if scalings else np.empty(0)
            if near := [scaling for scaling, cost in zip(scalings, macs, strict=True) if cost >= 0.95 * budget]:
                scaling = near[rng.integers(len(near))]
                found.append(bounds.space.spec(base, scaling, CLASSES, f"random_s{stage}_{count}"))
                count += 1
    return found


def search(plan: Plan, run: Path, seed: int) -> dict[str, Any]:
    """Train a supernet that inherits, search it, and return the specs that were found, one per stage."""
    torch.set_num_threads(1)
    output = run / f"search_{seed}"
    found = run_search(plan.config(f"imagefolder:{run / 'data'}", seed), output, workers=0, cpu=True)
    paths = sorted((found.folder / "specs").glob("*.json"))
    return {"specs": [json.loads(path.read_text().replace(str(run), "RUN")) for path in paths]}


def tune(plan: Plan, run: Path, values: dict[str, Any], seed: int) -> dict[str, Any]:
    """Fine-tune a network that inherits, and judge it by the test images after the last epoch."""
    torch.set_num_threads(1)
    spec = ArchSpec.from_dict(values, source="spec")
    output = run / "tuned" / f"{spec.name}_{seed}"
    recipe: dict[str, Any] = {**plan.fine_tuning, "seed": seed}
    fitted = fit(
        spec,
        f"imagefolder:{run / 'data'}",
        val_split="test",
        val_interval=recipe["epochs"],
        output=output,
        recipe="quick",
        inherit=SOURCE,
        workers=0,
        cpu=True,
        resume=(output / "log.jsonl").exists(),
        **recipe,
    )
    shutil.rmtree(output)  # what counts is in the results
    return {"top1": fitted.best, "macs": spec.cost.macs, "pixels": spec.input.height}


def jobs(plan: Plan, results: Results) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """All work that can be done with what is known, finished or not: the name, the function and its arguments."""
    for seed in plan.searches:
        yield f"search/{seed}", search, (seed,)
    peers = [*(compound(budget) for budget in _budgets(plan).values()), *drawn(plan)]
    specs = {spec.name: spec.model_dump(mode="json") for spec in peers}
    for seed in plan.searches:
        for stage, values in enumerate(results.answers.get(f"search/{seed}", {}).get("specs", ())):
            specs[f"found_s{stage}_{seed}"] = {**values, "name": f"found_s{stage}_{seed}"}
    for seed in plan.seeds:
        for name, values in specs.items():
            yield f"tuned/{name}/{seed}", tune, (values, seed)


def _budgets(plan: Plan) -> dict[int, float]:
    bounds = plan.bounds()
    return bounds.limits.amounts("macs", list(bounds.constraints))


def work(plan: Plan, data: Path, run: Path, processes: int) -> None:
    """Do all that is missing, in several processes."""
    run.mkdir(parents=True, exist_ok=True)
    split_data(data / FOLDER, run / "data", plan.held_out)
    results = Results(run / "results.jsonl", RESULTS)
    os.environ["OMP_NUM_THREADS"] = "1"
    while missing := [job for job in jobs(plan, results) if job[0] not in results]:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            running = {pool.submit(function, plan, run, *given): name for name, function, given in missing}
            for future in as_completed(running):
                results.add(running[future], future.result())
                print(f"{running[future]}: {str(future.result())[:100]}", flush=True)


def tables(path: Path = RESULTS) -> str:
    """The tables of docs/evidence.md: accuracies, and the paired differences of the found networks to their peers."""
    plan = Plan.load()
    rows = {row.pop("job"): row for row in map(json.loads, path.read_text().splitlines())}
    cells, differences = [], []
    for stage, budget in _budgets(plan).items():
        found = [[rows[f"tuned/found_s{stage}_{search}/{seed}"] for seed in plan.seeds] for search in plan.searches]
        random = [[rows[f"tuned/random_s{stage}_{each}/{seed}"] for seed in plan.seeds] for each in range(plan.random)]
        scaled = [[rows[f"tuned/{compound(budget).name}/{seed}"] for seed in plan.seeds]]
        for name, group in (("found", found), ("Lite0, compound rule", scaled), ("random", random)):
            macs = [network[0]["macs"] / 1e6 for network in group]
            span = f"{min(macs):.1f}" if len(macs) == 1 else f"{min(macs):.1f} to {max(macs):.1f}"
            cells.append([stage, name, len(group), span, f"{100 * fmean(_means(group)):.2f}", _spread(group)])
        for name, group in (("Lite0, compound rule", scaled * len(found)), ("random", random)):
            differences += [(name, *pair) for pair in zip(_means(found), _means(group), strict=True)]
    compared = []
    for name in ("Lite0, compound rule", "random"):
        ours, theirs = zip(*(pair for peer, *pair in differences if peer == name), strict=True)
        test = paired([100 * each for each in ours], [100 * each for each in theirs])
        error = test["difference_standard_error"]
        compared.append([name, test["pairs"], f"{test['difference']:.2f} ± {error:.2f}", f"{test['t_test_p']:.3f}"])
    reached = markdown(["stage", "networks", "how many", "M multiply-adds", "top-1, %", "from, to"], cells)
    tested = markdown(["found against", "pairs", "difference, points", "p, paired t-test"], compared)
    return f"{reached}\n\n{tested}"


def _means(group: Sequence[Sequence[dict[str, Any]]]) -> list[float]:
    return [fmean(row["top1"] for row in network) for network in group]


def _spread(group: Sequence[Sequence[dict[str, Any]]]) -> str:
    every = [100 * row["top1"] for network in group for row in network]
    return f"{min(every):.1f} to {max(every):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder that has imagenette-128")
    parser.add_argument("--run", type=Path, help="a folder for the data, the searches and the state")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--tables", action="store_true", help="print the tables of the committed results")
    given = parser.parse_args()
    if given.tables:
        print(tables())
        return
    if given.data is None or given.run is None:
        parser.error("found no --data or no --run, expected both, or --tables")
    work(Plan.load(), given.data, given.run.resolve(), given.processes)


if __name__ == "__main__":
    main()
