"""The joint search on real data, and the paper's claims about it, checked at a scale that a CPU can run.

python -m benchmarks.real_search --data FOLDER --run RUN: a few hours on 2 cores; a stopped run is resumed. FOLDER is
Imagenette-128, unpacked (train and val, one folder per class).

    RUN/data            links: train; val, every other image of val, for the search; test, the rest, for judgement
    RUN/hss, uniform    `Run`s that differ in the sampler of the supernet; the search itself uses hss
    RUN/samplers.json   random networks scored in both supernets                                            (b)
    RUN/standalone      networks trained alone; RUN/hss/standalone.json has their results                   (a), (c)
    RUN/costs.json      images and MACs of joint and separate searches                                      (d)
    RUN/latency_run     a second search in the same supernet, with a limit on latency; RUN/latency.json     (e)
"""

import argparse
import json
import math
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from pydantic import JsonValue

from benchmarks.alone import Data, Training, train_missing
from benchmarks.interleave import RESULTS, record
from benchmarks.networks import draw_networks, spread
from benchmarks.run_folder import Told, keep, write
from benchmarks.significance import paired, rank_correlation
from scalenet_zoo import ArchSpec
from scalenet_zoo.core.documents import Document, Strict, spec_errors
from scalenet_zoo.core.files import read_yaml, replacing_folder
from scalenet_zoo.core.quantities import format_ms
from scalenet_zoo.search.driver import Run, RunOptions
from scalenet_zoo.search.measured_latency import LatencyMeter
from scalenet_zoo.search.record import Record
from scalenet_zoo.search.report.page import write_report
from scalenet_zoo.search.scalenet.config import ScaleNetConfig
from scalenet_zoo.search.scalenet.ledger import ScaleNetLedger
from scalenet_zoo.search.scalenet.limits import Bounds, Limits
from scalenet_zoo.search.scalenet.method import ScaleNetMethod
from scalenet_zoo.search.scalenet.sampling import FeasibleSampler
from scalenet_zoo.search.scoring import Scorer
from scalenet_zoo.search.standalone import Standalone, StandaloneGroup, StandaloneRow, over_seeds
from scalenet_zoo.spaces.candidates import Kernels, to_kernels
from scalenet_zoo.spaces.scalenet import Scaling, Space
from scalenet_zoo.supernet.summary import SupernetSummary

SOURCES: dict[StandaloneGroup, str] = {"found": "joint", "compound": "compound", "random": "random"}
"""For each group of networks that a search found, the name of the search."""
PAPERS_RATIO = 2.53
"""How many times less a joint search costs than separate searches (ScaleNet, ECCV 2022)."""


class Ranked(Strict):
    """Networks drawn to compare rankings: their stages, and how many networks of each."""

    stages: tuple[int, ...]
    each: int


class Alone(Strict):
    """How networks are trained alone: values of the recipe, and the seeds for networks that searches found."""

    seeds: tuple[int, ...]
    recipe: dict[str, JsonValue]


class LatencyPlan(Strict):
    """The search under a latency limit: the limit as a share of the joint search's latencies, and its rounds."""

    share: float
    backend: str
    threads: int
    rounds: int


class Plan(Strict):
    """The content of real_search.yaml; `networks` per stage are drawn to compare samplers."""

    search: ScaleNetConfig
    networks: int
    ranked: Ranked
    alone: Alone
    latency: LatencyPlan

    @classmethod
    def load(cls, path: Path) -> "Plan":
        with spec_errors(str(path)):
            return cls.model_validate_json(json.dumps(read_yaml(path)))


class Drawn(Strict):
    """A network drawn at random, and its scores in both supernets."""

    kernels: Kernels
    scaling: Scaling
    macs: int
    hierarchical: float
    uniform: float


class Samplers(Document):
    """RUN/samplers.json."""

    networks: tuple[Drawn, ...]


class Budgets(Document):
    """RUN/budgets.json: latencies of the joint search's networks in milliseconds, and the limits for (e)."""

    joint_ms: tuple[float, ...]
    budgets: tuple[str, ...]


@dataclass
class Counting:
    """A scorer that records the MACs of the networks that it scores."""

    scorer: Scorer
    images_each: int
    seconds: float = 0.0
    macs: list[int] = field(default_factory=list)

    def score(self, keys: Sequence[str]) -> list[float]:
        self.macs += [self.scorer.method.spec(key).cost.macs for key in keys]
        return self.scorer.score(keys)


@dataclass(frozen=True)
class RealSearch:
    """The whole run; every part does the work that is missing."""

    plan: Plan
    images: Path
    folder: Path
    jobs: int
    tell: Callable[[str, int, int], None]

    @property
    def config(self) -> ScaleNetConfig:
        return self.plan.search.model_copy(update={"data": str(self.folder / "data")})

    @cached_property
    def hss(self) -> Run:
        return Run(ScaleNetMethod, self.config, self.folder / "hss", self._options)

    @cached_property
    def uniform(self) -> Run:
        supernet = self.config.supernet.model_copy(update={"sampler": "uniform"})
        config = self.config.model_copy(update={"supernet": supernet})
        return Run(ScaleNetMethod, config, self.folder / "uniform", self._options)

    @cached_property
    def space(self) -> Space:
        return self.config.open_space()

    @property
    def _options(self) -> RunOptions:
        return RunOptions(workers=0, save_every=200, cpu=True, on_progress=self.tell)

    @property
    def bounds(self) -> Bounds:
        return Bounds(self.space, self.hss.method.classes, self.config.limits)

    def data(self) -> None:
        """Link the images: some for the search, and others for judgement."""
        if (self.folder / "data").exists():
            return
        scratch = self.folder / "data.part"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        (scratch / "train").symlink_to(self.images.resolve() / "train")
        for label in sorted((self.images.resolve() / "val").iterdir()):
            for place, image in enumerate(sorted(label.iterdir())):
                link = scratch / ("test" if place % 2 else "val") / label.name / image.name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(image)
        scratch.rename(self.folder / "data")

    def supernet(self) -> None:
        """Train both supernets for the same number of steps, each in a process of its own."""
        with ProcessPoolExecutor(self.jobs, get_context("spawn")) as pool:
            list(pool.map(train_supernet_of, (self, self), ("hss", "uniform")))

    def samplers(self) -> None:
        """(b): score the same random networks of each stage in both supernets."""
        path = self.folder / "samplers.json"
        if path.exists():
            return
        drawn = []
        for stage in (each.stage for each in self.space.scaling):
            rng = np.random.default_rng([0, stage])
            self.bounds.some_admissible(stage, FeasibleSampler(self.bounds).draw(rng, 100))  # or say why there is none
            drawn += draw_networks(self.bounds, stage, self.plan.networks, rng)
        scores = [make_scorer(run).score([candidate.key for candidate in drawn]) for run in (self.hss, self.uniform)]
        networks = tuple(
            Drawn(
                kernels=to_kernels(candidate.kernels),
                scaling=candidate.scaling,
                macs=int(self.bounds.population(candidate.kernels[None], [candidate.scaling]).cost.macs[0, 0]),
                hierarchical=hierarchical,
                uniform=uniform,
            )
            for candidate, hierarchical, uniform in zip(drawn, *scores, strict=True)
        )
        Samplers(networks=networks).save(path)

    def search(self) -> None:
        """Run the joint search and the baselines."""
        self.hss.search()

    def state(self, method: str, run: str = "hss") -> ScaleNetLedger:
        return ScaleNetLedger.load(self.folder / run / "search" / f"{method}.json")

    def family(self) -> None:
        """(c): train the networks that searches found alone."""
        trainings = []
        for group, method in SOURCES.items():
            state = self.state(method)
            for found, candidate in zip(state.found, state.candidates(self.space), strict=True):
                stage = candidate.scaling.stage
                name = f"{self.config.name}_{method}_s{stage}"
                spec = self._spec(to_kernels(candidate.kernels), candidate.scaling, name)
                trainings += [Training(group, name, stage, seed, spec, found.score) for seed in self.plan.alone.seeds]
        self._train(trainings)

    def rank(self) -> None:
        """(a): train networks with scores from the lowest to the highest alone."""
        networks = Samplers.load(self.folder / "samplers.json").networks
        trainings = []
        for stage in self.plan.ranked.stages:
            of_stage = [network for network in networks if network.scaling.stage == stage]
            chosen = spread(of_stage, lambda network: network.hierarchical, self.plan.ranked.each)
            for number, network in enumerate(chosen):
                name = f"{self.config.name}_rank_s{stage}_{number}"
                spec = self._spec(network.kernels, network.scaling, name)
                trainings.append(Training("rank", name, stage, self.plan.alone.seeds[0], spec, network.hierarchical))
        self._train(trainings)

    def _spec(self, kernels: Kernels, scaling: Scaling, name: str) -> ArchSpec:
        return self.space.spec(self.space.to_array(kernels), scaling, self.hss.method.classes, name)

    def _train(self, trainings: Iterable[Training]) -> None:
        path, data = self.folder / "hss" / "standalone.json", Data(self.config.data, "classification")
        train_missing(trainings, path, self.folder / "standalone", data, self.plan.alone.recipe, self.jobs)

    def costs(self) -> None:
        """(d): compute the costs of joint and separate searches; the searches run again with the existing scores."""
        path = self.folder / "costs.json"
        if path.exists():
            return
        summary, scorer = self.hss.train(), make_scorer(self.hss)
        joint, separate = self.state("joint"), self.state("separate")
        bounds = self.bounds
        asked = {method: Counting(scorer, scorer.images_each) for method in ("joint", "separate")}
        ledgers, again = {"joint": joint}, []
        with TemporaryDirectory() as folder:
            for before in (joint, separate):
                first = ScaleNetLedger(**before.asked)
                record = Record(Path(folder) / f"{before.search}.json", first, asked[before.search], bounds)
                again.append(record.run(partial(self.hss.method.search, before.search, record, ledgers)))
        for before, now in zip((joint, separate), again, strict=True):
            if (before.found, before.evaluations) != (now.found, now.evaluations):
                raise RuntimeError(f"{before.search}: found another result when run again, expected the same")
        space, rng = bounds.space, np.random.default_rng(0)
        bases = space.sample(rng, 1000)
        means = [
            float(bounds.population(bases, space.scalings(stage.stage)).cost.macs.mean()) for stage in space.scaling
        ]
        trained = {"joint": [summary.image_macs], "separate": [round(summary.images * mean) for mean in means]}
        costs: dict[str, Any] = {
            method: {
                "supernets": len(macs),
                "training_images": len(macs) * summary.images,
                "training_image_macs_forward": sum(macs),
                "networks_scored": len(asked[method].macs),
                "scoring_images": len(asked[method].macs) * scorer.images_each,
                "scoring_image_macs_forward": sum(asked[method].macs) * scorer.images_each,
            }
            for method, macs in trained.items()
        }
        for cost in costs.values():  # a backward pass takes twice the MACs of a forward pass
            cost["passes"] = 2 * cost["training_images"] + cost["scoring_images"]
            cost["image_macs"] = 3 * cost["training_image_macs_forward"] + cost["scoring_image_macs_forward"]
        costs["note"] = "separate searches: a supernet for each size, each trained with as many images as the joint one"
        for figure in ("passes", "image_macs"):
            costs[f"ratio_{figure}"] = costs["separate"][figure] / costs["joint"][figure]
        write(path, costs)

    def latency(self) -> None:
        """(e): search under a latency limit, and measure the networks found once more."""
        path, folder, plan = self.folder / "latency.json", self.folder / "latency_run", self.plan.latency
        if path.exists():
            return
        joint = self.state("joint")
        budgets_path = self.folder / "budgets.json"
        if not budgets_path.exists():
            took = self._measure(joint)
            texts = tuple(format_ms(plan.share * ms) for ms in took)
            Budgets(joint_ms=tuple(took), budgets=texts).save(budgets_path)
        budgets = Budgets.load(budgets_path)
        hss = self.folder / "hss"
        folder.mkdir(exist_ok=True)
        if not (folder / "images").exists():
            (folder / "images").symlink_to(hss.resolve() / "images")
        if not (folder / "scores.jsonl").exists():
            shutil.copy(hss / "scores.jsonl", folder / "scores.jsonl")
        limits = Limits(latency=budgets.budgets, backend=plan.backend, threads=plan.threads, growth=None)
        changes = {
            "name": f"{self.config.name}_latency",
            "limits": limits,
            "search": self.config.search.model_copy(update={"rounds": plan.rounds}),
            "baselines": (),
        }
        options = replace(self._options, supernet=hss)
        Run(ScaleNetMethod, self.config.model_copy(update=changes), folder, options).search()
        state = self.state("joint", "latency_run")
        again = self._measure(state)
        stages = [0, *state.stages]
        amounts = limits.amounts("latency", stages)
        write(
            path,
            {
                "found": [
                    {
                        "stage": stage,
                        "joint_ms": before,
                        "budget_ms": amounts[stage],
                        "measured_ms": found.measured_ms,
                        "measured_again_ms": later,
                        "score": found.score,
                        "macs": found.macs,
                    }
                    for stage, found, later, before in zip(stages, state.found, again, budgets.joint_ms, strict=True)
                ]
            },
        )

    def _measure(self, state: ScaleNetLedger) -> list[float]:
        """Measure the networks that a search ended with, in milliseconds."""
        plan, folder = self.plan.latency, self.folder / "latency_run" / "latency"
        limits = Limits(latency=("1s",), backend=plan.backend, threads=plan.threads)
        config = self.config.model_copy(update={"limits": limits})
        latency = LatencyMeter(ScaleNetMethod(config, self.hss.method.labels), folder, self.tell)
        return latency.measure([found.key for found in state.found])

    def record(self) -> None:
        """Write reports and the summary, and keep the files of the run worth keeping."""
        for run in (self.folder / name for name in ("hss", "latency_run")):
            if (run / "search").exists():
                write_report(run)
        patterns = ["*.yaml", "*.json", "search/*.json", "supernet/log.jsonl", "supernet/summary.json", "report/*.html"]
        elsewhere = {str(self.folder): "RUN", str(self.images): "FOLDER"}
        with replacing_folder(RESULTS / "real_search") as kept:
            for run in (self.folder / name for name in ("hss", "uniform", "latency_run")):
                for file in (file for pattern in patterns for file in run.glob(pattern)):
                    keep(file, kept / file.relative_to(self.folder), elsewhere)
            for file in self.folder.glob("*.json"):
                keep(file, kept / file.name, elsewhere)
        record("real_search", self.summary())

    def summary(self) -> dict[str, object]:
        """Compute the figures of (a) to (e), as far as the run has got."""
        parts: dict[str, tuple[str, Callable[[Path], dict[str, Any]]]] = {
            "rank": ("hss/standalone.json", self._rank_figures),
            "samplers": ("samplers.json", self._sampler_figures),
            "family": ("hss/standalone.json", self._family_figures),
            "costs": ("costs.json", lambda path: {"papers_ratio": PAPERS_RATIO, **json.loads(path.read_text())}),
            "time_outside_scoring": ("hss/search", self._overhead_figures),
            "latency": ("latency.json", self._latency_figures),
        }
        found: dict[str, object] = {}
        for part, (name, figures) in parts.items():
            path = self.folder / name
            found[part] = figures(path) if path.exists() else {"not_run": f"RUN/{name} is not there"}
        return found

    def _rank_figures(self, path: Path) -> dict[str, Any]:
        trained = Standalone.load(path).rows
        rows = [row for row in trained if row.group == "rank"]
        stages = self.plan.ranked.stages
        wanted = len(stages) * self.plan.ranked.each
        return {
            "networks": len(rows),
            "of": wanted,
            "all": correlate(rows),
            **{f"stage_{stage}": correlate([row for row in rows if row.stage == stage]) for stage in stages},
            "with_those_that_searches_found": correlate(
                [network.first.model_copy(update={"reached": network.reached}) for network in over_seeds(trained)]
            ),
            "top1_standard_error_of_images": [round(self._error_of_images(row.reached), 4) for row in rows],
        }

    def _overhead_figures(self, path: Path) -> dict[str, Any]:
        """Shares of the searches' time spent outside scoring; they include measuring, if latency is limited."""
        shares = {}
        for file in sorted(file for run in ("hss", "latency_run") for file in self.folder.glob(f"{run}/search/*.json")):
            state = ScaleNetLedger.load(file)
            shares[f"{file.parent.parent.name}/{file.stem}"] = 1 - state.scoring_seconds / state.seconds
        return shares

    def _sampler_figures(self, path: Path) -> dict[str, Any]:
        networks = Samplers.load(path).networks
        stages: dict[str, list[Drawn]] = {"all": list(networks)}
        for network in networks:
            stages.setdefault(f"stage_{network.scaling.stage}", []).append(network)
        runs = {
            name: SupernetSummary.load(self.folder / name / "supernet" / "summary.json") for name in ("hss", "uniform")
        }
        return {
            "steps": {name: summary.steps for name, summary in runs.items()},
            "training_image_macs_forward": {name: summary.image_macs for name, summary in runs.items()},
            "note": "one supernet of each sampler: what another seed of its training changes is not in these errors",
            **{name: compare(of_stage) for name, of_stage in stages.items()},
        }

    def _family_figures(self, path: Path) -> dict[str, Any]:
        rows = [row for row in Standalone.load(path).rows if row.group in SOURCES]
        networks = over_seeds(rows)
        spread_of_seeds = [network.spread**2 for network in networks if network.seeds > 1]
        seed_sd = math.sqrt(fmean(spread_of_seeds)) if spread_of_seeds else None
        top1 = {(row.group, row.stage, row.seed): row.reached for row in rows}
        figures: dict[str, Any] = {
            "trainings": len(rows),
            "of": len(SOURCES) * len(self.space.scaling) * len(self.plan.alone.seeds),
            "networks": [
                {
                    "group": network.first.group,
                    "stage": network.first.stage,
                    "macs": network.first.macs,
                    "params": network.first.params,
                    "score": network.first.score,
                    "top1": network.reached,
                    "top1_of_seeds": [row.reached for row in rows if row.name == network.first.name],
                    "standard_error_of_images": self._error_of_images(network.reached),
                }
                for network in networks
            ],
            "standard_deviation_of_seeds": seed_sd,
        }
        for peer in ("compound", "random"):
            pairs = {
                (stage, seed): (ours, top1[peer, stage, seed])
                for (group, stage, seed), ours in top1.items()
                if group == "found" and (peer, stage, seed) in top1
            }
            differences = {
                f"stage_{stage}": fmean(ours - theirs for (of, _), (ours, theirs) in pairs.items() if of == stage)
                for stage in sorted({stage for stage, _ in pairs})
            }
            figures[f"found_minus_{peer}"] = {
                **differences,
                "standard_error_of_a_stage": None
                if seed_sd is None
                else seed_sd * math.sqrt(2 / len(self.plan.alone.seeds)),
                "all": paired(*zip(*pairs.values(), strict=True)) if len(pairs) > 1 else None,
            }
        return figures

    def _error_of_images(self, top1: float) -> float:
        """The standard error of an accuracy over test sets of this size."""
        images = sum(1 for _ in (self.folder / "data" / "test").glob("*/*"))
        return math.sqrt(top1 * (1 - top1) / images)

    def _latency_figures(self, path: Path) -> dict[str, Any]:
        found = json.loads(path.read_text())["found"]
        rounds = []
        for measured in self.state("joint", "latency_run").latency_rounds:
            ratios = np.array([network.predicted / network.measured for network in measured.networks])
            rounds.append(
                {
                    "round": measured.round,
                    "networks": len(ratios),
                    "predicted_to_measured_mean": float(ratios.mean()),
                    "relative_error_rms": float(np.sqrt(np.square(ratios - 1).mean())),
                    "relative_error_worst": float(np.abs(ratios - 1).max()),
                }
            )
        return {
            "on": f"{self.plan.latency.backend}, {self.plan.latency.threads} thread(s)",
            "rounds": rounds,
            "found": found,
            "meet_budget": all(each["measured_ms"] <= each["budget_ms"] for each in found),
            "meet_budget_measured_again": all(each["measured_again_ms"] <= each["budget_ms"] for each in found),
        }


def make_scorer(run: Run) -> Scorer:
    """The scorer of the run's searches, which share their scores."""
    return run.make_scorer(run.train())


def train_supernet_of(real: RealSearch, run: Literal["hss", "uniform"]) -> None:
    torch.set_num_threads(1)
    getattr(real, run).train()


def compare(networks: Sequence[Drawn]) -> dict[str, Any]:
    """Compare the scores of the same networks in both supernets."""
    scores = ([network.hierarchical for network in networks], [network.uniform for network in networks])
    return paired(*scores, names=("hierarchical", "uniform"))


def correlate(rows: Sequence[StandaloneRow]) -> dict[str, Any]:
    """Correlate the ranking of networks by score with the ranking by their results when trained alone."""
    scores = [row.score for row in rows if row.score is not None]
    return rank_correlation(scores, [row.reached for row in rows if row.score is not None])


PARTS = ("supernet", "samplers", "search", "family", "rank", "costs", "latency", "record")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Imagenette-128, unpacked")
    parser.add_argument("--run", type=Path, required=True, help="the folder for all files of the run")
    parser.add_argument("--config", type=Path, default=Path(__file__).with_suffix(".yaml"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="do only these parts, in their order")
    parser.add_argument("--jobs", type=int, default=2, help="networks trained alone at a time, with one thread each")
    parser.add_argument("--threads", type=int, default=1, help="threads of all other work; 1 suits a busy machine best")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    real = RealSearch(Plan.load(given.config), given.data.resolve(), given.run.resolve(), given.jobs, Told())
    real.data()
    for part in PARTS:
        if part in given.parts:
            print(part, file=sys.stderr, flush=True)
            getattr(real, part)()


if __name__ == "__main__":
    main()
