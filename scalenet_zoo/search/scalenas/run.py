"""A whole search of topologies, from data to specs; what is there already is not done again.

RUN/config.yaml, run.json   what was asked for; versions and machine
RUN/latency                 the profile of the space, where latency is limited
RUN/supernet                teacher, checkpoints, log, weights
RUN/scores.jsonl, images    of the scorer
RUN/search/METHOD.json      `multipath_state.TopologyState` of topology evolution and of each baseline
RUN/specs/NAME_0.json ...   the front of topology evolution, the cheapest first, for `train` and `export`
RUN/baselines/METHOD/       the same of the baselines
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scalenet_zoo.arch.provenance import public_source
from scalenet_zoo.arch.spec import ArchSpec, Provenance, Result
from scalenet_zoo.core.distributed import on_main_rank
from scalenet_zoo.core.files import replacing_folder
from scalenet_zoo.core.quantities import format_count
from scalenet_zoo.data.examples import Part
from scalenet_zoo.search.images import cached_images
from scalenet_zoo.search.run import BaseRun, RunOptions
from scalenet_zoo.search.scalenas.latency import TopologyLatency
from scalenet_zoo.search.scalenas.limits import TopologyBounds
from scalenet_zoo.search.scalenas.scoring import MultipathScorer
from scalenet_zoo.search.scalenas.search import TopologySearch
from scalenet_zoo.search.scalenas.topology import random_search
from scalenet_zoo.search.scoring import Calibrated
from scalenet_zoo.search.settings import TopologySettings
from scalenet_zoo.supernet.loop import load_supernet
from scalenet_zoo.supernet.scalenas.network import ScaleNASSupernet
from scalenet_zoo.supernet.scalenas.train import train_scalenas
from scalenet_zoo.supernet.summary import SUMMARY, trained_supernet
from scalenet_zoo.zoo.model_folder import save_model
from scalenet_zoo.zoo.preparation import pretrained_cfg

if TYPE_CHECKING:
    from scalenet_zoo.search.config import MultipathConfig
    from scalenet_zoo.search.scalenas.state import ScoredTopology, TopologyMethod, TopologyState
    from scalenet_zoo.spaces.scalenas import Topologies
    from scalenet_zoo.supernet.summary import SupernetSummary

SAID = {
    "evolution": "multi-scale topology evolution in a multipath supernet",
    "random": "random search in a multipath supernet",
    "ageing": "ageing evolution in a multipath supernet",
}


class MultipathRun(BaseRun):
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

    may_change = ("baselines",)

    def __init__(self, config: MultipathConfig, folder: Path, options: RunOptions) -> None:
        config.check()
        self.config, self.space = config, config.open_space()
        task = self.space.head
        self.metric = config.scoring.metric_of(task)
        reading: dict[str, Any] = {"ignore_index": config.ignore_index}
        if config.joints:
            reading["joints"] = Path(config.joints)
        super().__init__(config, folder, options, self.space, task, config.supernet.make_recipe(task), **reading)
        self._check_limits(TopologyBounds(self.space, self.classes, config.limits))
        self.supernet: ScaleNASSupernet | None = None

    def train(self) -> SupernetSummary:
        """Train the teacher and the supernet, if they are not trained yet.

        Raises:
            TrainingError: another run is at work in the folder, or it holds one with another configuration.
        """
        with self.at_work():
            return self._train()

    def search(self) -> TopologyState:
        """Do what is missing, and write the front's specs.

        Returns:
            What topology evolution found.

        Raises:
            TrainingError: another run is at work in the folder, or it holds one with another configuration.
        """
        with self.at_work():
            return self._search()

    def _train(self) -> SupernetSummary:
        torch.manual_seed(self.recipe.seed)
        self.supernet = ScaleNASSupernet(self.space, self.classes)
        folder = self.folder / "supernet"
        if (folder / SUMMARY).exists():
            self.supernet.to(self.accelerator.device)
            return load_supernet(self.supernet, folder)
        return train_scalenas(
            self.supernet, self.config.supernet, self.training, self.validation, folder, **self.training_options
        )

    def _search(self) -> TopologyState:
        config = self.config
        bounds = TopologyBounds(self.space, self.classes, config.limits)
        if config.limits.latency:  # out of reach is found out before the long work
            self._check_limits(bounds.with_model(self._latency().model()))
        self.check_validation(self.space.spec(self.space.largest, self.classes, "largest"), config.scoring)
        summary = self._train()
        assert self.supernet is not None
        scorer = MultipathScorer(
            self.supernet,
            self.training,
            self.validation,
            config.scoring,
            self.folder,
            summary.weights_sha256,
            self.options.workers,
            self.recipe.broken_limit,
        )
        context = {"supernet": summary.weights_sha256, "scoring": config.scoring.model_dump(mode="json")}
        if config.limits.latency:
            context["latency"] = config.latency.model_dump(mode="json")
        methods: tuple[TopologyMethod, ...] = ("evolution", *config.baselines)
        states = {}
        for method in methods:
            states[method] = TopologySearch(
                method,
                bounds,
                scorer,
                config.search,
                self.state_path(method),
                config.name,
                context,
                self._latency() if config.limits.latency else None,
                config.latency.every,
                config.latency.measured,
                self._tell,
            ).run()
            folder = self.folder / "specs" if method == "evolution" else self.folder / "baselines" / method
            on_main_rank(partial(self._write_specs, states[method], summary, folder))
        return states["evolution"]

    def extract(self, spec: ArchSpec, folder: Path) -> None:
        """Write a network with the supernet's weights, as it was scored: a model folder, usable without training.

        Args:
            spec: of a network of the space.
            folder: to write, or to replace.

        Raises:
            InputError: there is no trained supernet, the network is not one of the space's, or the data are unfit.
            OutputError: the folder cannot be written.
        """
        trained_supernet(self.folder)
        self.check()
        self._train()
        assert self.supernet is not None
        network = self.supernet.extract(spec)
        settings = self.config.scoring
        images = cached_images(
            Part(self.training, settings.bn_images),
            spec,
            self.folder / "images",
            self.options.workers,
            self.recipe.broken_limit,
        )
        Calibrated(network, spec, images, settings, fold=False)
        network.pretrained_cfg = pretrained_cfg(spec) | {"labels": self.training.labels.to_cfg()}  # type: ignore[assignment]
        with replacing_folder(folder) as new:
            save_model(network.cpu().to(memory_format=torch.contiguous_format), new)

    def _check_limits(self, bounds: TopologyBounds) -> None:
        """Find out before the long work whether there is anything to search for: draw one network."""
        bounds.check()

        def unjudged(topologies: Topologies) -> np.ndarray:
            return np.zeros(len(topologies))

        one = TopologySettings(first=1, evaluations=1, seed=self.config.search.seed)
        next(random_search(self.space, self.classes, unjudged, one, bounds.feasible))

    def _latency(self) -> TopologyLatency:
        return TopologyLatency(
            space=self.space,
            classes=self.classes,
            backend=str(self.config.limits.backend),
            threads=self.config.limits.threads,
            settings=self.config.latency,
            folder=self.folder / "latency",
            on_progress=self.options.on_step,
        )

    def _tell(self, state: TopologyState) -> None:
        done, total = len(state.networks), self.config.search.evaluations
        best = max(network.score for network in state.networks)
        what = (
            f"{state.method}: {done:,} networks scored, best {self.metric} {best:.4f}, {len(state.front)} on the front"
        )
        self.options.on_step(what, done, total)

    def _write_specs(self, state: TopologyState, summary: SupernetSummary, folder: Path) -> None:
        """Write the networks of a front."""
        suffix = "" if state.method == "evolution" else f"_{state.method}"
        with replacing_folder(folder) as new:
            for number, network in enumerate(state.found):
                name = f"{self.config.name}{suffix}_{number}"
                self._spec(state, network, name, summary).save(new / f"{name}.json")

    def _spec(self, state: TopologyState, network: ScoredTopology, name: str, summary: SupernetSummary) -> ArchSpec:
        config, data = self.config, public_source(self.config.data)
        of_machine = self._latency().told if config.limits.latency else ""
        measured = (
            (f"supernet_{self.metric}", network.score, f"{data} {config.val_split}"),
            ("latency_ms", network.measured_ms, of_machine),
        )
        provenance = Provenance(
            source=f"searched in the space {self.space.name} on {data}",
            method=SAID[state.method],
            paper="ScaleNAS: Multi-Path One-Shot NAS for Scale-Aware High-Resolution Representation, AutoML-Conf 2022",
            results=tuple(
                Result(metric=metric, value=value, data=where, origin="measured")
                for metric, value, where in measured
                if value is not None
            ),
            details={
                "space": self.space.name,
                "space_hash": self.space.hash,
                "topology": network.key,
                "data": f"{data} {config.train_split}, scored on {config.val_split}",
                "limits": config.limits.model_dump(mode="json", exclude_none=True),
                **self.details(summary, len(state.networks), state.seconds),
            },
        )
        topology = self.space.from_keys([network.key])[0]
        return self.space.spec(topology, self.classes, name).model_copy(update={"provenance": provenance})


def describe_front(state: TopologyState) -> list[tuple[str, str, str, str, str]]:
    """Name, MACs, parameters, latency and score of each network of a front, as people read them."""
    return [
        (
            f"{state.name}_{number}",
            format_count(network.macs),
            format_count(network.params),
            "-" if network.measured_ms is None else f"{network.measured_ms:.3f}",
            f"{network.score:.4f}",
        )
        for number, network in enumerate(state.found)
    ]
