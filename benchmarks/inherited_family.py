"""Do searches find a better family than scaling a known network, if all of them inherit the same weights?

python -m benchmarks.inherited_family --data FOLDER --run RUN [--processes 2]: many hours.
FOLDER has imagenette-128, unpacked. RUN keeps every finished part, so the same command resumes a stopped run; it writes
benchmarks/results/inherited_family.jsonl, one line per job. `tables` prints the tables of docs/evidence.md:
python -m benchmarks.inherited_family --tables.

    train --> train and held out --> supernets that inherit EfficientNet-Lite0 --> searches --> families
    families, Lite0 under EfficientNet's rule, random networks --inherit, fine-tune--> accuracy on the 2,000 of val

The first part limits MACs. The second part limits int8 latency (`inherited_latency`): it searches the supernets of the
first part, and compares networks at the latencies that Lite0 has at the MACs of the first part. Jobs that time networks
run alone, so the machine should have nothing else to do when only they are left.

No search and no training sees val. Every network inherits EfficientNet-Lite0's weights, trains for the same epochs on
the same images, and is judged after the last epoch.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from pydantic import JsonValue

from benchmarks.imagenette import FOLDER
from benchmarks.inherited_latency import int8_latencies, latency_limits, search_within, with_latency
from benchmarks.inherited_peers import CLASSES, compound, drawn
from benchmarks.jobs import Answers, Job, Results, do_missing, study_command
from benchmarks.markdown import markdown
from benchmarks.run_folder import keep_page
from benchmarks.significance import COMPARISON, comparison
from scalenet_zoo import ArchSpec, fit, run_search
from scalenet_zoo.arch.constraints import Predictor
from scalenet_zoo.core.documents import Strict, spec_errors
from scalenet_zoo.core.files import read_yaml, replacing_folder
from scalenet_zoo.search.run_search import SearchResult, train_supernet
from scalenet_zoo.search.scalenet.config import ScaleNetConfig
from scalenet_zoo.search.scalenet.limits import Bounds
from scalenet_zoo.search.settings import LatencySettings
from scalenet_zoo.supernet.summary import SUPERNET_WEIGHTS

PLAN = Path(__file__).with_suffix(".yaml")
RESULTS = Path(__file__).parent / "results" / "inherited_family.jsonl"
SOURCE = "tf_efficientnet_lite0"
ALONE = ("latency", "search_int8", "measured_int8")
"""Jobs that time networks, so that nothing else may run beside them."""


class Plan(Strict):
    """The content of inherited_family.yaml.

    Attributes:
        search: the configuration of the searches.
        held_out: number of training images of each class by which searches score networks.
        searches: the seeds of supernets and searches.
        random: number of networks drawn per stage.
        seeds: the seeds of fine-tuning.
        fine_tuning: values of the recipe.
        latency: how searches model and measure int8 latency.
        timing: how long all networks are timed at the end, as `benchmark` takes it.
    """

    search: dict[str, JsonValue]
    held_out: int
    searches: tuple[int, ...]
    random: int
    seeds: tuple[int, ...]
    fine_tuning: dict[str, JsonValue]
    latency: LatencySettings
    timing: dict[str, JsonValue]

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

    def int8_config(self, data: str, seed: int = 0, limits: Sequence[str | None] = ()) -> ScaleNetConfig:
        """The configuration of one search within limits on int8 latency, such as 1.5ms, one per stage, or None."""
        return with_latency(self.config(data, seed), self.latency, limits)

    def bounds(self) -> Bounds:
        """The limits on the MACs of networks."""
        config = self.config("imagefolder:.")
        return Bounds(config.open_space(), CLASSES, config.limits)


def split_data(source: Path, target: Path, held_out: int) -> None:
    """Copy Imagenette: `train` without the first images of each class, which are `val`; its own val is `test`."""
    if target.exists():
        return
    with replacing_folder(target) as new:
        shutil.copytree(source / "val", new / "test")
        for folder in sorted((source / "train").iterdir()):
            for place, image in enumerate(sorted(folder.iterdir())):
                copy = new / ("val" if place < held_out else "train") / folder.name / image.name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(image, copy)


def search(plan: Plan, run: Path, seed: int) -> dict[str, Any]:
    """Train a supernet that inherits, search it, and return the specs that were found, one per stage."""
    torch.set_num_threads(1)
    return _specs(run_search(plan.config(_data(run), seed), _searched(run, seed), workers=0, cpu=True), run)


def supernet(plan: Plan, run: Path, seed: int) -> dict[str, Any]:
    """Train the supernet of a search again; see `jobs`."""
    torch.set_num_threads(1)
    _, summary = train_supernet(plan.config(_data(run), seed), _searched(run, seed), workers=0, cpu=True)
    return {"images": summary.images, "seconds": summary.seconds}


def latency(plan: Plan, run: Path) -> dict[str, Any]:
    """Profile the space in int8, and return the limit of each stage and the networks drawn within the limits."""
    torch.set_num_threads(1)
    peers = compounds(plan)
    found = latency_limits(plan.int8_config(_data(run)), peers, run / "latency")
    return {
        "conditions": found.conditions,
        "held_out": found.model.held_out.model_dump(),
        "limits": list(found.limits),
        "measured": {spec.name: ms for spec, ms in zip(peers, found.measured, strict=True)},
        "random": [spec.model_dump(mode="json") for spec in drawn_within(plan, found.limits, found.model)],
    }


def drawn_within(plan: Plan, limits: Sequence[str], model: Predictor) -> list[ArchSpec]:
    """Draw networks at random for each stage within its limit on int8 latency; see `drawn`.

    Their base models keep no limit of stage 0: from one that does, hardly any strategy reaches the limit of stage 2.
    """
    found: list[ArchSpec] = []
    for stage, limit in enumerate(limits):
        config = plan.int8_config("imagefolder:.", limits=[*[None] * stage, limit])
        found += drawn(Bounds(config.open_space(), CLASSES, config.limits, model), plan.random, "random_int8")
    return found


def search_int8(plan: Plan, run: Path, seed: int, limits: Sequence[str]) -> dict[str, Any]:
    """Search the supernet of the search with this seed within limits on int8 latency; the answer is as for `search`.

    It runs alone, so networks are scored on all cores. Their latencies are measured on one.
    """
    torch.set_num_threads(os.cpu_count() or 1)
    config, output = plan.int8_config(_data(run), seed, limits), run / f"search_int8_{seed}"
    return _specs(search_within(config, output, _searched(run, seed), run / "latency"), run)


def measured_int8(plan: Plan, run: Path, specs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Export all networks of the second part to int8, and time the files in turn."""
    torch.set_num_threads(1)
    return int8_latencies([ArchSpec.from_dict(values, source="spec") for values in specs], plan.timing)


def _data(run: Path) -> str:
    return f"imagefolder:{run / 'data'}"


def _searched(run: Path, seed: int) -> Path:
    """The folder of the first part's search with this seed, which has the supernet of both parts."""
    return run / f"search_{seed}"


def _weights(run: Path, seed: int) -> Path:
    return _searched(run, seed) / "supernet" / SUPERNET_WEIGHTS


def _specs(found: SearchResult, run: Path) -> dict[str, Any]:
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
        _data(run),
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


def jobs(plan: Plan, run: Path, answers: Answers) -> Iterator[Job]:
    """All jobs whose arguments are known, finished or not.

    A run that begins with the committed results of the first part has no supernets: it trains them again.
    """
    for seed in plan.searches:
        yield Job(f"search/{seed}", search, (plan, run, seed))
        is_needed = f"search/{seed}" in answers and f"search_int8/{seed}" not in answers
        if is_needed and not _weights(run, seed).exists():
            yield Job(f"supernet/{seed}", supernet, (plan, run, seed))
    peers = {spec.name: spec.model_dump(mode="json") for spec in compounds(plan)}
    random = {spec.name: spec.model_dump(mode="json") for spec in drawn(plan.bounds(), plan.random)}
    yield from _tunings(plan, run, {**peers, **random, **_found(plan, answers, "search", "found")})
    yield Job("latency", latency, (plan, run))
    if known := answers.get("latency"):
        for seed in plan.searches:
            if f"search/{seed}" in answers:
                arguments = plan, run, seed, known["limits"]
                yield Job(f"search_int8/{seed}", search_int8, arguments, needs=_weights(run, seed))
        if all(f"search_int8/{seed}" in answers for seed in plan.searches):  # while the supernets are at hand
            found = _found(plan, answers, "search_int8", "found_int8")
            ours = {**{values["name"]: values for values in known["random"]}, **found}
            yield from _tunings(plan, run, ours)
            yield Job("measured_int8", measured_int8, (plan, run, [*peers.values(), *ours.values()]))


def _found(plan: Plan, answers: Answers, job: str, name: str) -> dict[str, dict[str, Any]]:
    """The specs that searches have found, by their names: NAME_sSTAGE_SEED."""
    return {
        f"{name}_s{stage}_{seed}": {**values, "name": f"{name}_s{stage}_{seed}"}
        for seed in plan.searches
        for stage, values in enumerate(answers.get(f"{job}/{seed}", {}).get("specs", ()))
    }


def _tunings(plan: Plan, run: Path, specs: dict[str, dict[str, Any]]) -> Iterator[Job]:
    for seed in plan.seeds:
        for name, values in specs.items():
            yield Job(f"tuned/{name}/{seed}", tune, (plan, run, values, seed))


def compounds(plan: Plan) -> list[ArchSpec]:
    """EfficientNet-Lite0, scaled to the MACs of each stage."""
    return [compound(budget) for budget in _budgets(plan).values()]


def _budgets(plan: Plan) -> dict[int, float]:
    bounds = plan.bounds()
    return bounds.limits.amounts("macs", list(bounds.constraints))


def work(plan: Plan, data: Path, run: Path, processes: int) -> None:
    """Do all that is missing, in several processes; keep the page of the first int8 search beside the results."""
    run.mkdir(parents=True, exist_ok=True)
    split_data(data / FOLDER, run / "data", plan.held_out)
    try:
        do_missing(partial(jobs, plan, run), Results(run / "results.jsonl", RESULTS), processes, ALONE)
    finally:
        keep_page(run / f"search_int8_{plan.searches[0]}", "joint.json", RESULTS, run)


def tables(path: Path) -> str:
    """The tables of docs/evidence.md: accuracies, and the paired differences of the found networks to their peers.

    The tables of the second part follow if its networks have been measured.
    """
    plan = Plan.load()
    rows = {row.pop("job"): row for row in map(json.loads, path.read_text().splitlines())}
    parts = [_part(plan, rows, "found", "random", [])]
    if "measured_int8" in rows:
        parts.append(_part(plan, rows, "found_int8", "random_int8", rows["latency"]["limits"]))
    return "\n\n".join(parts)


def _part(plan: Plan, rows: dict[str, Any], found: str, random: str, limits: Sequence[str]) -> str:
    """Two tables of the networks with these names; with limits on latency, the first one has measured latencies."""

    def reached(names: Sequence[str]) -> list[list[dict[str, Any]]]:
        return [[{**rows[f"tuned/{name}/{seed}"], "name": name} for seed in plan.seeds] for name in names]

    cells, differences = [], []
    for stage, scaled in enumerate(compounds(plan)):
        ours = reached([f"{found}_s{stage}_{search}" for search in plan.searches])
        rivals = reached([f"{random}_s{stage}_{number}" for number in range(plan.random)])
        rule = reached([scaled.name])
        for name, group in (("found", ours), ("Lite0, compound rule", rule), ("random", rivals)):
            costs = [_span([network[0]["macs"] / 1e6 for network in group], 1)]
            if limits:
                times = [rows["measured_int8"][network[0]["name"]]["ms"] for network in group]
                costs = [limits[stage].removesuffix("ms"), _span(times, 3), *costs]
            cells.append([stage, name, len(group), *costs, f"{100 * fmean(_means(group)):.2f}", _spread(group)])
        for name, group in (("Lite0, compound rule", rule * len(ours)), ("random", rivals)):
            differences += [(name, *pair) for pair in zip(_means(ours), _means(group), strict=True)]
    compared = []
    for name in ("Lite0, compound rule", "random"):
        mine, theirs = zip(*(pair for peer, *pair in differences if peer == name), strict=True)
        compared.append([name, *comparison([100 * each for each in mine], [100 * each for each in theirs])])
    head = ["limit, ms", "int8 latency, ms", "M multiply-adds"] if limits else ["M multiply-adds"]
    first = markdown(["stage", "networks", "how many", *head, "top-1, %", "from, to"], cells)
    return f"{first}\n\n{markdown(['found against', *COMPARISON], compared)}"


def _span(values: Sequence[float], digits: int) -> str:
    low, high = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
    return low if len(values) == 1 else f"{low} to {high}"


def _means(group: Sequence[Sequence[dict[str, Any]]]) -> list[float]:
    return [fmean(row["top1"] for row in network) for network in group]


def _spread(group: Sequence[Sequence[dict[str, Any]]]) -> str:
    every = [100 * row["top1"] for network in group for row in network]
    return f"{min(every):.1f} to {max(every):.1f}"


def main() -> None:
    study_command(__doc__, "the folder that has imagenette-128", RESULTS, partial(work, Plan.load()), tables)


if __name__ == "__main__":
    main()
