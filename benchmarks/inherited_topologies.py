"""Do ScaleNAS's claims hold if supernets and networks alone inherit the same HRNet's weights?

python -m benchmarks.inherited_topologies --data FOLDER --run RUN [--processes 2]: hours.
FOLDER is camvid-11, unpacked. RUN keeps every finished part, so the same command resumes a stopped run; it writes
benchmarks/results/inherited_topologies.jsonl, one line per job. The tables of docs/evidence.md, for the jobs that are
finished: python -m benchmarks.inherited_topologies --tables.

    source, an HRNet trained alone --inherit--> teacher, the largest network: teaches all supernets
       |
       +--inherit--> grouped, uniform and sandwich supernets --> scores of the same random networks on val          (2)
       |                |
       |                +--> searches --> hypervolume on val                                                        (3)
       |                |       |
       |                |       +--> networks found, the HRNet, random networks: with a supernet's weights, on test (1)
       +--inherit--> the same networks, trained alone for as many epochs, on test                                   (1)

Supernets and networks learn from train, and searches score by val. No training and no search sees test.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from pydantic import JsonValue

from benchmarks.evidence.power import SPREAD, spread_of
from benchmarks.jobs import Answers, Job, Results, do_missing, study_command
from benchmarks.markdown import markdown
from benchmarks.networks import spread
from benchmarks.real_scalenas.plan import SAMPLERS, SamplerName
from benchmarks.real_scalenas.run import hrnet_modules
from benchmarks.run_folder import keep_page
from benchmarks.significance import COMPARISON, comparison
from scalenet_zoo import ArchSpec, evaluate, fit, load_spec, run_search
from scalenet_zoo.core.documents import Strict, spec_errors
from scalenet_zoo.core.files import read_yaml
from scalenet_zoo.search.driver import RunOptions
from scalenet_zoo.search.ledger import Ledger
from scalenet_zoo.search.methods import open_run
from scalenet_zoo.search.run_search import extract_found, train_supernet
from scalenet_zoo.search.scalenas.config import ScaleNASConfig
from scalenet_zoo.search.scalenas.search import SEARCHES
from scalenet_zoo.search.scalenas.topology import ScoredTopologies
from scalenet_zoo.spaces.scalenas import Group, MultipathSpace
from scalenet_zoo.training.recipe import Recipe

PLAN = Path(__file__).with_suffix(".yaml")
RESULTS = Path(__file__).parent / "results" / "inherited_topologies.jsonl"
CLASSES = 11
DRAWS = {"uniform": "drawn uniformly", "groups": "drawn from the groups"}
"""The two ways in which the networks that compare samplers are drawn."""
NETWORKS_OF_A_STEP: Mapping[SamplerName, int] = {"grouped": 1, "uniform": 1, "sandwich": 4}


class Plan(Strict):
    """The content of inherited_topologies.yaml.

    Attributes:
        search: the configuration of the grouped supernets and of the searches.
        source: values of the source's recipe that differ from the supernets'.
        sandwich_epochs: epochs with the sandwich rule, chosen so that it costs as much as the other samplers.
        supernets: the seeds of supernets, for each sampler.
        drawn: number of networks that all supernets score, for each way of drawing.
        searches: the seeds of the searches.
        found: number of networks from the Pareto front of the first search, as far apart in MACs as possible.
        random: number of random networks that are trained alone.
        seeds: the seeds of the networks trained alone.
    """

    search: dict[str, JsonValue]
    source: dict[str, JsonValue]
    sandwich_epochs: int
    supernets: tuple[int, ...]
    drawn: int
    searches: tuple[int, ...]
    found: int
    random: int
    seeds: tuple[int, ...]

    @classmethod
    def load(cls, path: Path = PLAN) -> "Plan":
        with spec_errors(str(path)):
            return cls.model_validate_json(json.dumps(read_yaml(path)))

    def config(self, run: Path, sampler: SamplerName = "grouped", supernet: int = 0, search: int = 0) -> ScaleNASConfig:
        """The configuration of one supernet and one search, by the sampler and the two seeds."""
        values: dict[str, Any] = json.loads(json.dumps(self.search))
        values["data"] = data_of(run)
        values["search"]["seed"] = search
        section = values["supernet"]
        section |= {"sampler": sampler, "inherit": str(run / "source"), "teacher": {"weights": str(run / "teacher")}}
        section["recipe"]["seed"] = supernet
        if sampler == "sandwich":
            section["recipe"]["epochs"] = self.sandwich_epochs
        return ScaleNASConfig.model_validate_json(json.dumps(values))

    @property
    def space(self) -> MultipathSpace:
        """The space of topologies."""
        return self.config(Path()).open_space()

    @property
    def ignore_index(self) -> int | None:
        """The value of void pixels in masks."""
        return self.config(Path()).ignore_index

    def recipe(self, **changes: JsonValue) -> Recipe:
        """The recipe of networks trained alone: the grouped supernets', with changes."""
        return self.config(Path()).make_recipe().replace(changes, "recipe")


def data_of(run: Path) -> str:
    """The data as the commands take them: a link in the run's folder, so that the images may move between sessions."""
    return f"masks:{run / 'data'}"


def hrnet(space: MultipathSpace) -> ArchSpec:
    """HRNet's topology in the space, with as many modules as the space has."""
    topology = space.from_modules(hrnet_modules(load_spec("hrnet_w18"), space.modules))
    return space.spec(topology, CLASSES, "hrnet")


def drawn(plan: Plan) -> dict[str, list[str]]:
    """Keys of random networks, drawn before any training.

    Uniform draws take each depth with equal probability and each path with probability 1/2, as uniform sampling does;
    the others come from the groups of grouped sampling. So neither sampler alone is judged on its own networks.
    """
    space, rng = plan.space, np.random.default_rng(7)
    uniform = space.sample_group(rng, Group(space.depths, 0.5), plan.drawn)
    return {"uniform": space.keys(uniform), "groups": space.keys(space.sample(rng, plan.drawn))}


def networks(plan: Plan, answers: Answers) -> dict[str, ArchSpec]:
    """The networks that are judged on test, by name, as far as they are known."""
    space = plan.space
    keys = {f"random_{place}": key for place, key in enumerate(drawn(plan)["uniform"][: plan.random])}
    if first := answers.get(f"search/{plan.searches[0]}"):
        macs = {key: macs for key, _, macs in first["front"]}
        chosen = sorted(spread(macs, macs.__getitem__, min(plan.found, len(macs))), key=macs.__getitem__)
        keys |= {f"found_{place}": key for place, key in enumerate(chosen)}
    specs = {name: space.spec(space.from_keys([key])[0], CLASSES, name) for name, key in keys.items()}
    return {"hrnet": hrnet(space), **specs}


# --- jobs ----------------------------------------------------------------------------------------------------------


def learn(plan: Plan, run: Path, spec: ArchSpec, output: Path, split: str, recipe: Recipe) -> dict[str, Any]:
    """Train a network alone; judge it after the last epoch. All but the source inherit the source."""
    torch.set_num_threads(1)
    source = run / "source"
    fitted = fit(
        spec,
        data_of(run),
        val_split=split,
        val_interval=recipe.epochs,
        output=output,
        recipe=recipe,
        inherit=None if output == source else str(source),
        ignore_index=plan.ignore_index,
        workers=0,
        keep=1,
        cpu=True,
        resume=(output / "log.jsonl").exists(),
    )
    return {"miou": fitted.best, "macs": spec.cost.macs}


def train_source(plan: Plan, run: Path) -> dict[str, Any]:
    """Train HRNet's topology from scratch; its folder has the weights that all others inherit."""
    return learn(plan, run, hrnet(plan.space), run / "source", "val", plan.recipe(**plan.source))


def train_teacher(plan: Plan, run: Path) -> dict[str, Any]:
    """Train the largest network, which teaches all supernets."""
    largest = plan.space.spec(plan.space.largest, CLASSES, "largest")
    return learn(plan, run, largest, run / "teacher", "val", plan.recipe())


def train_alone(plan: Plan, run: Path, values: dict[str, Any], seed: int) -> dict[str, Any]:
    """Train a network alone for as many epochs as the grouped supernets, and judge it by test."""
    spec = ArchSpec.from_dict(values, source="spec")
    output = run / "alone" / f"{spec.name}_{seed}"
    answer = learn(plan, run, spec, output, "test", plan.recipe(seed=seed))
    shutil.rmtree(output)  # what counts is in the results
    return answer


def train(plan: Plan, run: Path, sampler: SamplerName, seed: int) -> dict[str, Any]:
    """Train a supernet."""
    torch.set_num_threads(1)
    config = plan.config(run, sampler, seed)
    _, summary = train_supernet(config, supernet_of(run, sampler, seed), workers=0, save_every=200, cpu=True)
    return {"images": summary.images, "image_macs": summary.image_macs}


def score(plan: Plan, run: Path, sampler: SamplerName, seed: int) -> dict[str, Any]:
    """Score the random networks with a supernet's weights, by val."""
    torch.set_num_threads(1)
    options = RunOptions(workers=0, cpu=True)
    opened = open_run(plan.config(run, sampler, seed), supernet_of(run, sampler, seed), options)
    scorer = opened.make_scorer(opened.train())
    return {way: scorer.score(keys) for way, keys in drawn(plan).items()}


def search(plan: Plan, run: Path, seed: int) -> dict[str, Any]:
    """Search with the first grouped supernet by all methods, which share scores; return the front and the areas."""
    torch.set_num_threads(1)
    supernet, output = supernet_of(run, "grouped", plan.supernets[0]), run / "searches" / str(seed)
    config = plan.config(run, "grouped", plan.supernets[0], seed)
    run_search(config, output, supernet=supernet, workers=0, cpu=True)
    ledgers = {name: Ledger.load(output / "search" / f"{name}.json") for name in SEARCHES}
    return {
        "front": [[network.key, network.score, network.macs] for network in ledgers["evolution"].found],
        **{name: area(plan.space, ledger) for name, ledger in ledgers.items()},
    }


def judge(plan: Plan, run: Path, values: dict[str, Any], seed: int) -> dict[str, Any]:
    """Judge a network with a grouped supernet's weights by test, without training."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        spec, model = Path(folder) / "spec.json", Path(folder) / "network"
        ArchSpec.from_dict(values, source="spec").save(spec)
        extracted = extract_found(supernet_of(run, "grouped", seed), str(spec), model, workers=0, cpu=True)
        given: dict[str, Any] = {"split": "test", "ignore_index": plan.ignore_index}
        found = evaluate(model, data_of(run), workers=0, device="cpu", **given)
    return {"miou": found.metrics["miou"], "score": extracted.score, "macs": extracted.spec.cost.macs}


def supernet_of(run: Path, sampler: SamplerName, seed: int) -> Path:
    """The folder of a supernet's run."""
    return run / "supernets" / f"{sampler}_{seed}"


def area(space: MultipathSpace, ledger: Ledger) -> float:
    """The hypervolume of a search, 0 to 1, between the MACs of the space's smallest and largest network.

    It is the best score within a budget, averaged over all budgets in this range; the score is 0 where no network keeps
    the budget.
    """
    least, most = (float(space.cost(end[None], CLASSES).macs[0]) for end in (space.smallest, space.largest))
    scored = ScoredTopologies(
        space.from_keys([network.key for network in ledger.networks]),
        np.array([network.score for network in ledger.networks]),
        np.array([network.macs for network in ledger.networks]),
    )
    return scored.hypervolume(most) * most / (most - least)  # no network costs less than the smallest


def jobs(plan: Plan, run: Path, answers: Answers) -> Iterator[Job]:
    """All work that can be done with what is known, finished or not: that of question (1) first, then (3), then (2)."""
    yield Job("source", train_source, (plan, run))
    if "source" not in answers:
        return
    yield Job("teacher", train_teacher, (plan, run))
    grouped, *others = SAMPLERS
    supernets = plan.supernets if "teacher" in answers else ()
    seeds = plan.searches if f"supernet/{grouped}/{plan.supernets[0]}" in answers else ()
    searches = [Job(f"search/{seed}", search, (plan, run, seed)) for seed in seeds]
    for seed in supernets:
        yield Job(f"supernet/{grouped}/{seed}", train, (plan, run, grouped, seed))
    yield from searches[:1]
    for name, spec in networks(plan, answers).items():
        values = spec.model_dump(mode="json")
        for seed in plan.supernets:
            if f"supernet/{grouped}/{seed}" in answers:
                yield Job(f"inherited/{name}/{seed}", judge, (plan, run, values, seed))
        for seed in plan.seeds:
            yield Job(f"alone/{name}/{seed}", train_alone, (plan, run, values, seed))
    yield from searches[1:]
    for seed in supernets:
        for sampler in others:
            yield Job(f"supernet/{sampler}/{seed}", train, (plan, run, sampler, seed))
        for sampler in SAMPLERS:
            if f"supernet/{sampler}/{seed}" in answers:
                yield Job(f"scores/{sampler}/{seed}", score, (plan, run, sampler, seed))


def work(plan: Plan, data: Path, run: Path, processes: int) -> None:
    """Do all that is missing, in several processes; keep the page of the first search beside the results."""
    run.mkdir(parents=True, exist_ok=True)
    link = run / "data"
    link.unlink(missing_ok=True)
    link.symlink_to(data.resolve(), target_is_directory=True)
    try:
        do_missing(partial(jobs, plan, run), Results(run / "results.jsonl", RESULTS), processes)
    finally:
        keep_page(run / "searches" / str(plan.searches[0]), "evolution.json", RESULTS, run)


# --- tables --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tables:
    """The tables of docs/evidence.md, of the jobs that are finished."""

    plan: Plan
    answers: Answers

    @classmethod
    def load(cls, path: Path) -> "Tables":
        rows = map(json.loads, path.read_text().splitlines())
        return cls(Plan.load(), {row.pop("job"): row for row in rows})

    def __str__(self) -> str:
        return "\n\n".join((self.usable(), self.samplers(), self.evolution(), self.tests()))

    @cached_property
    def judged(self) -> dict[str, tuple[list[float], list[float]]]:
        """Networks judged in both ways: mean IoUs in percent, one per grouped supernet and one per seed alone."""
        found = {}
        for name in networks(self.plan, self.answers):
            inherited = [f"inherited/{name}/{seed}" for seed in self.plan.supernets]
            alone = [f"alone/{name}/{seed}" for seed in self.plan.seeds]
            if self._finished(inherited + alone):
                found[name] = self._reached(inherited), self._reached(alone)
        return found

    @property
    def compared(self) -> list[int]:
        """The seeds for which supernets of all samplers are scored."""
        every = {seed: [f"scores/{each}/{seed}" for each in SAMPLERS] for seed in self.plan.supernets}
        return [seed for seed, names in every.items() if self._finished(names)]

    def scores(self, sampler: SamplerName, way: str) -> list[float]:
        """Mean scores in percent, one per seed that is compared."""
        return [100 * fmean(self.answers[f"scores/{sampler}/{seed}"][way]) for seed in self.compared]

    def areas(self, method: str) -> list[float]:
        """Hypervolumes in percent, one per seed."""
        names = [f"search/{seed}" for seed in self.plan.searches]
        return [100 * self.answers[name][method] for name in names if name in self.answers]

    def usable(self) -> str:
        """(1): what each network reaches on test, the cheapest network first."""
        macs = {name: self.answers[f"alone/{name}/{self.plan.seeds[0]}"]["macs"] / 1e6 for name in self.judged}
        rows = [
            [name, f"{macs[name]:.1f}", *(text for group in self.judged[name] for text in _mean_and_span(group))]
            for name in sorted(macs, key=macs.__getitem__)
        ]
        head = ["network", "M multiply-adds", "supernets' weights, %", "from, to", "trained alone, %", "from, to"]
        return markdown(head, rows)

    def samplers(self) -> str:
        """(2): what supernets cost, and how their networks score."""
        space = self.plan.space
        teacher = int(space.cost(space.largest[None], CLASSES).macs[0])
        rows = []
        for sampler in SAMPLERS:
            names = [f"supernet/{sampler}/{seed}" for seed in self.compared]
            costs = [  # a backward pass costs as much as two forward passes; the teacher sees each image once per step
                3 * each["image_macs"] + each["images"] / NETWORKS_OF_A_STEP[sampler] * teacher
                for each in (self.answers[name] for name in names)
            ]
            means = [self.scores(sampler, way) for way in DRAWS]
            if costs:
                reached = (text for group in means for text in _mean_and_span(group))
                rows.append([sampler, len(costs), f"{fmean(costs) / 1e12:.1f}", *reached])
        head = ["sampler", "supernets", "T multiply-adds each"]
        return markdown([*head, *(text for way in DRAWS.values() for text in (f"{way}, %", "from, to"))], rows)

    def evolution(self) -> str:
        """(3): the hypervolumes of searches."""
        found = {method: self.areas(method) for method in SEARCHES}
        rows = [[method, len(areas), *_mean_and_span(areas)] for method, areas in found.items() if areas]
        return markdown(["search", "seeds", "hypervolume, %", "from, to"], rows)

    def tests(self) -> str:
        """All comparisons; those with fewer than two pairs are left out."""
        inherited, alone = ([fmean(reached[side]) for reached in self.judged.values()] for side in (0, 1))
        compared = [("(1) supernets' weights, trained alone", inherited, alone)]
        compared += [
            (f"(2) grouped, {other}; {text}", self.scores("grouped", way), self.scores(other, way))
            for (way, text), other in product(DRAWS.items(), SAMPLERS[1:])
        ]
        first, *others = SEARCHES
        compared += [(f"(3) {first}, {other}", self.areas(first), self.areas(other)) for other in others]
        rows = [
            [what, *comparison(ours, theirs), *spread_of(list(zip(ours, theirs, strict=True)))]
            for what, ours, theirs in compared
            if len(ours) > 1
        ]
        return markdown(["compared", *COMPARISON, *SPREAD], rows)

    def _reached(self, names: Sequence[str]) -> list[float]:
        return [100 * self.answers[name]["miou"] for name in names]

    def _finished(self, names: Sequence[str]) -> bool:
        return all(name in self.answers for name in names)


def _mean_and_span(values: Sequence[float]) -> tuple[str, str]:
    return f"{fmean(values):.2f}", f"{min(values):.2f} to {max(values):.2f}"


def main() -> None:
    study_command(__doc__, "camvid-11, unpacked", RESULTS, partial(work, Plan.load()), Tables.load)


if __name__ == "__main__":
    main()
