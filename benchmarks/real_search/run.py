"""The parts of the run, each a method that does what is missing."""

import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from benchmarks.alone import Data, Training, train_missing
from benchmarks.interleave import RESULTS, record
from benchmarks.networks import draw_networks, spread
from benchmarks.real_search.costs import compare_costs
from benchmarks.real_search.figures import Figures
from benchmarks.real_search.plan import SOURCES, Budgets, Drawn, Plan, Samplers, load_ledger
from benchmarks.run_folder import keep, write
from scalenet_zoo import ArchSpec
from scalenet_zoo.core.files import replacing_folder
from scalenet_zoo.core.quantities import format_ms
from scalenet_zoo.search.driver import Run, RunOptions
from scalenet_zoo.search.measured_latency import LatencyMeter
from scalenet_zoo.search.report.page import write_report
from scalenet_zoo.search.scalenet.config import ScaleNetConfig
from scalenet_zoo.search.scalenet.ledger import ScaleNetLedger
from scalenet_zoo.search.scalenet.limits import Bounds, Limits
from scalenet_zoo.search.scalenet.method import ScaleNetMethod
from scalenet_zoo.search.scalenet.sampling import FeasibleSampler
from scalenet_zoo.spaces.candidates import Kernels, to_kernels
from scalenet_zoo.spaces.scalenet import Scaling, Space

PARTS = ("supernet", "samplers", "search", "family", "rank", "costs", "latency", "record")
"""The parts after `data`, in their order."""


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
        with replacing_folder(self.folder / "data") as new:
            (new / "train").symlink_to(self.images.resolve() / "train")
            for label in sorted((self.images.resolve() / "val").iterdir()):
                for place, image in enumerate(sorted(label.iterdir())):
                    link = new / ("test" if place % 2 else "val") / label.name / image.name
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(image)

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
        keys = [candidate.key for candidate in drawn]
        scores = [run.make_scorer(run.train()).score(keys) for run in (self.hss, self.uniform)]
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

    def family(self) -> None:
        """(c): train the networks that searches found alone."""
        trainings = []
        for group, method in SOURCES.items():
            state = load_ledger(self.folder, method)
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
        joint, separate = (load_ledger(self.folder, method) for method in ("joint", "separate"))
        write(path, compare_costs(self.hss, self.bounds, joint, separate))

    def latency(self) -> None:
        """(e): search under a latency limit, and measure the networks found once more."""
        path, folder, plan = self.folder / "latency.json", self.folder / "latency_run", self.plan.latency
        if path.exists():
            return
        joint = load_ledger(self.folder, "joint")
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
        state = load_ledger(self.folder, "joint", "latency_run")
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
        images = sum(1 for _ in (self.folder / "data" / "test").glob("*/*"))
        record("real_search", Figures(self.plan, self.folder, images).summary())


def train_supernet_of(real: RealSearch, run: Literal["hss", "uniform"]) -> None:
    torch.set_num_threads(1)
    getattr(real, run).train()
