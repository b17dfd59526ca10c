"""A whole search, from data to a family of specs; what is there already is not done again.

RUN/config.yaml, run.json   what was asked for; versions and machine
RUN/latency                 the profile of the space, where latency is limited
RUN/supernet                checkpoints, log, weights
RUN/scores.jsonl, images    of the scorer
RUN/search/METHOD.json      `state.SearchState` of the joint search and of each baseline
RUN/family.json, specs/     what was found, for `build`, `train`, `export`
RUN/baselines/METHOD/       specs of the baselines' networks
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scalenet_zoo.arch.family import Family
from scalenet_zoo.arch.provenance import public_source
from scalenet_zoo.arch.scaling import apply_strategy, extrapolate
from scalenet_zoo.arch.spec import Provenance, Result
from scalenet_zoo.core.distributed import on_main_rank
from scalenet_zoo.core.files import replacing_folder
from scalenet_zoo.core.quantities import format_count
from scalenet_zoo.search.latency import LatencyLoop
from scalenet_zoo.search.run import BaseRun, RunOptions
from scalenet_zoo.search.scalenet.baselines import search_baseline
from scalenet_zoo.search.scalenet.limits import Bounds
from scalenet_zoo.search.scalenet.mcea import MCEA
from scalenet_zoo.search.scalenet.sampling import FeasibleSampler
from scalenet_zoo.search.scoring import SupernetScorer
from scalenet_zoo.supernet.loop import load_supernet
from scalenet_zoo.supernet.scalenet.network import ScaleNetSupernet
from scalenet_zoo.supernet.scalenet.train import train_scalenet
from scalenet_zoo.supernet.summary import SUMMARY

if TYPE_CHECKING:
    from pathlib import Path

    from scalenet_zoo.search.config import SearchConfig
    from scalenet_zoo.search.scalenet.state import SearchState
    from scalenet_zoo.supernet.summary import SupernetSummary


class SearchRun(BaseRun):
    """A run in a folder; each method does its part, or gives what an earlier sitting did.

    Args:
        config: what is asked for.
        folder: of the run.
        options: where and how it is told of.

    Raises:
        InputError: data, space and configuration do not fit.
        BudgetError: the limits cannot be kept.
        TrainingError: the folder holds a run with another configuration.
        BackendError: the back end whose latency is limited cannot run here.
    """

    may_change = ("baselines", "extrapolate")

    def __init__(self, config: SearchConfig, folder: Path, options: RunOptions) -> None:
        config.check()
        self.config, self.space = config, config.open_space()
        super().__init__(config, folder, options, self.space, "classification", config.supernet.make_recipe())
        if not config.limits.latency:  # of latency, more must be known first
            self._check_limits(Bounds(self.space, self.classes, config.limits))
        self.supernet: ScaleNetSupernet | None = None

    def train(self) -> SupernetSummary:
        """Train the supernet, if it is not trained yet.

        Raises:
            TrainingError: another run is at work in the folder, or it holds one with another configuration.
        """
        with self.at_work():
            return self._train()

    def search(self) -> Family:
        """Do what is missing, and write the family.

        Raises:
            TrainingError: another run is at work in the folder, or it holds one with another configuration.
        """
        with self.at_work():
            return self._search()

    def _train(self) -> SupernetSummary:
        torch.manual_seed(self.recipe.seed)
        self.supernet = ScaleNetSupernet(self.space, self.classes)
        folder = self.folder / "supernet"
        if (folder / SUMMARY).exists():
            self.supernet.to(self.accelerator.device)
            return load_supernet(self.supernet, folder)
        return train_scalenet(self.supernet, self.config.supernet, self.training, folder, **self.training_options)

    def _search(self) -> Family:
        limits = self.config.limits
        loop = self._latency_loop() if limits.latency else None
        bounds = Bounds(self.space, self.classes, limits, loop.model() if loop else None)
        if loop:
            self._check_limits(bounds)
        self.check_validation(
            self.space.spec(self.space.largest, self.space.unscaled, self.classes), self.config.scoring
        )
        summary = self._train()
        assert self.supernet is not None
        scorer = SupernetScorer(
            self.supernet,
            self.training,
            self.validation,
            self.config.scoring,
            self.folder,
            summary.weights_sha256,
            self.options.workers,
            self.recipe.broken_limit,
        )
        context = {"supernet": summary.weights_sha256, "scoring": self.config.scoring.model_dump(mode="json")}
        joint = MCEA(
            bounds,
            scorer,
            self.config.search,
            self.state_path("joint"),
            self.config.name,
            context,
            loop.follow(bounds) if loop else None,
            self._tell,
        ).run()
        if loop:
            joint = loop.verify_found(joint, bounds, scorer)
            on_main_rank(partial(joint.save, self.state_path("joint")))
            bounds = bounds.with_model(loop.model(joint.latency_rounds))  # the best there is, for the baselines too
        for method in self.config.baselines:
            state = search_baseline(
                method,
                bounds,
                scorer,
                self.config.search,
                joint.evaluations,
                self.state_path(method),
                self.config.name,
                context,
                self._tell,
            )
            if loop:
                state = loop.measure_found(state)
                on_main_rank(partial(state.save, self.state_path(method)))
            on_main_rank(partial(self._write_baseline, state))
        return on_main_rank(partial(self._write_family, joint, summary))

    def _check_limits(self, bounds: Bounds) -> None:
        """Find out before the long work whether there is anything to search for."""
        sampler = FeasibleSampler(bounds)
        bases = sampler.draw(np.random.default_rng(self.config.search.seed), self.config.search.first_bases)
        for stage in self.space.scaling[1:]:
            bounds.some_admissible(stage.stage, bases)

    def _latency_loop(self) -> LatencyLoop:
        limits = self.config.limits
        return LatencyLoop(
            space=self.space,
            classes=self.classes,
            budgets=limits.amounts("latency", [stage.stage for stage in self.space.scaling]),
            backend=str(limits.backend),
            threads=limits.threads,
            settings=self.config.latency,
            folder=self.folder / "latency",
            on_progress=self.options.on_step,
        )

    def _tell(self, state: SearchState) -> None:
        step = state.half_steps[-1] if state.half_steps else None
        if step is None:
            return
        best = f", best fitness {step.generations[-1].best:.4f}" if step.generations else ""
        what = f"{state.method} search: round {step.round}, {step.kind}{best}, {state.evaluations:,} networks scored"
        self.options.on_step(what, step.round, max(step.round, self.config.search.rounds))

    def _write_family(self, joint: SearchState, summary: SupernetSummary) -> Family:
        """Write what was found as a family, with the stages extrapolated, and its specs."""
        config, data = self.config, public_source(self.config.data)
        details: dict[str, Any] = {
            "space": self.space.name,
            "space_hash": self.space.hash,
            "data": f"{data} {config.train_split}, scored on {config.val_split}",
            "limits": config.limits.model_dump(mode="json", exclude_defaults=True),
            **self.details(summary, joint.evaluations, joint.seconds),
        }
        provenance = Provenance(
            source=f"searched in the space {self.space.name} on {data}",
            method="joint search of base model and scaling strategies (Markov-chain evolution in a super-supernet)",
            paper="ScaleNet: Searching for the Model to Scale, ECCV 2022",
            details=details,
        )
        base = self.space.to_array(joint.found[0].kernels)
        family = self.space.family(
            base, [found.scaling for found in joint.found], self.classes, config.name, provenance
        )
        of_data, of_machine = f"{data} {config.val_split}", self._latency_loop().told if config.limits.latency else ""
        strategies = []
        for strategy, found in zip(family.strategies, joint.found, strict=True):
            measured = (("supernet_top1", found.score, of_data), ("latency_ms", found.latency_ms, of_machine))
            results = tuple(
                Result(metric=metric, value=value, data=where, origin="measured")
                for metric, value, where in measured
                if value is not None
            )
            strategies.append(strategy.model_copy(update={"results": results}))
        family = family.model_copy(update={"strategies": tuple(strategies)})
        last = joint.found[-1].stage
        if config.extrapolate and last > 0:
            more = extrapolate(family, tuple(range(last + 1, last + 1 + config.extrapolate)))
            family = family.model_copy(update={"strategies": (*family.strategies, *more)})
        with replacing_folder(self.folder / "specs") as folder:
            for strategy in family.strategies:
                apply_strategy(family, strategy).save(folder / f"{strategy.name}.json")
        family.save(self.folder / "family.json")
        return family

    def _write_baseline(self, state: SearchState) -> None:
        with replacing_folder(self.folder / "baselines" / state.method) as folder:
            for found in state.found:
                name = f"{self.config.name}_{state.method}_s{found.stage}"
                base = self.space.to_array(found.kernels)
                self.space.spec(base, found.scaling, self.classes, name).save(folder / f"{name}.json")


def describe(family: Family) -> list[tuple[str, str, str, str, str, str]]:
    """Name, depth, width, resolution, MACs and parameters of each network of a family, as people read them."""
    rows = []
    for strategy in family.strategies:
        cost = apply_strategy(family, strategy).cost
        figures = (f"{strategy.depth:g}", f"{strategy.width:g}", str(strategy.resolution))
        rows.append((strategy.name, *figures, format_count(cost.macs), format_count(cost.params)))
    return rows
