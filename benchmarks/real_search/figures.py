"""The figures of (a) to (e), from the files of a run's folder, as far as the run has got."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.real_search.plan import SOURCES, Drawn, Plan, Samplers, load_ledger
from benchmarks.significance import paired, rank_correlation
from scalenet_zoo.search.scalenet.ledger import ScaleNetLedger
from scalenet_zoo.search.standalone import Standalone, StandaloneGroup, StandaloneRow, over_seeds
from scalenet_zoo.supernet.summary import SupernetSummary

STANDALONE, SAMPLERS, COSTS, LATENCY = "hss/standalone.json", "samplers.json", "costs.json", "latency.json"
"""The files of a run that figures are computed from."""
PAPERS_RATIO = 2.53
"""How many times less a joint search costs than separate searches (ScaleNet, ECCV 2022)."""
PEERS: tuple[StandaloneGroup, ...] = ("compound", "random")
"""The groups that the networks of the joint search are compared with."""


@dataclass(frozen=True)
class Figures:
    """The figures of a run.

    Attributes:
        plan: the configuration of the run.
        folder: the folder of the run, or the files of it that are kept in benchmarks/results/real_search.
        images: the number of images that networks are judged by.
    """

    plan: Plan
    folder: Path
    images: int

    def summary(self) -> dict[str, object]:
        """Compute all figures; a part that has not run names the file that it lacks."""
        parts: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
            "rank": (STANDALONE, self.rank),
            "samplers": (SAMPLERS, self.samplers),
            "family": (STANDALONE, self.family),
            "costs": (COSTS, self.costs),
            "time_outside_scoring": ("hss/search", self.time_outside_scoring),
            "latency": (LATENCY, self.latency),
        }
        return {
            part: figures() if (self.folder / name).exists() else {"not_run": f"RUN/{name} is not there"}
            for part, (name, figures) in parts.items()
        }

    def rank(self) -> dict[str, Any]:
        """(a): how scores rank networks that were trained alone."""
        trained = Standalone.load(self.folder / STANDALONE).rows
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

    def samplers(self) -> dict[str, Any]:
        """(b): scores of the same networks in both supernets."""
        networks = Samplers.load(self.folder / SAMPLERS).networks
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

    def family(self) -> dict[str, Any]:
        """(c): networks that searches found, trained alone."""
        rows = [row for row in Standalone.load(self.folder / STANDALONE).rows if row.group in SOURCES]
        networks = over_seeds(rows)
        spread_of_seeds = [network.spread**2 for network in networks if network.seeds > 1]
        seed_sd = math.sqrt(fmean(spread_of_seeds)) if spread_of_seeds else None
        figures: dict[str, Any] = {
            "trainings": len(rows),
            "of": len(SOURCES) * len(self.plan.search.open_space().scaling) * len(self.plan.alone.seeds),
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
        for peer in PEERS:
            figures[f"found_minus_{peer}"] = self._differences(rows, peer, seed_sd)
        return figures

    def _differences(
        self, rows: Sequence[StandaloneRow], peer: StandaloneGroup, seed_sd: float | None
    ) -> dict[str, Any]:
        """Differences of the networks found to a peer's, by stage and in all, over pairs of one stage and seed."""
        top1 = {(row.group, row.stage, row.seed): row.reached for row in rows}
        pairs = {
            (stage, seed): (ours, top1[peer, stage, seed])
            for (group, stage, seed), ours in top1.items()
            if group == "found" and (peer, stage, seed) in top1
        }
        differences = {
            f"stage_{stage}": fmean(ours - theirs for (of, _), (ours, theirs) in pairs.items() if of == stage)
            for stage in sorted({stage for stage, _ in pairs})
        }
        error = None if seed_sd is None else seed_sd * math.sqrt(2 / len(self.plan.alone.seeds))
        return {
            **differences,
            "standard_error_of_a_stage": error,
            "all": paired(*zip(*pairs.values(), strict=True)) if len(pairs) > 1 else None,
        }

    def _error_of_images(self, top1: float) -> float:
        """The standard error of an accuracy over test sets of this size."""
        return math.sqrt(top1 * (1 - top1) / self.images)

    def costs(self) -> dict[str, Any]:
        """(d): what joint and separate searches cost, beside the paper's ratio."""
        return {"papers_ratio": PAPERS_RATIO, **json.loads((self.folder / COSTS).read_text())}

    def time_outside_scoring(self) -> dict[str, Any]:
        """Shares of the searches' time spent outside scoring; they include measuring, if latency is limited."""
        shares = {}
        for file in sorted(file for run in ("hss", "latency_run") for file in self.folder.glob(f"{run}/search/*.json")):
            state = ScaleNetLedger.load(file)
            shares[f"{file.parent.parent.name}/{file.stem}"] = 1 - state.scoring_seconds / state.seconds
        return shares

    def latency(self) -> dict[str, Any]:
        """(e): the search under a latency limit, and the errors of its latency model."""
        found = json.loads((self.folder / LATENCY).read_text())["found"]
        rounds = []
        for measured in load_ledger(self.folder, "joint", "latency_run").latency_rounds:
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


def compare(networks: Sequence[Drawn]) -> dict[str, Any]:
    """Compare the scores of the same networks in both supernets."""
    scores = ([network.hierarchical for network in networks], [network.uniform for network in networks])
    return paired(*scores, names=("hierarchical", "uniform"))


def correlate(rows: Sequence[StandaloneRow]) -> dict[str, Any]:
    """Correlate the ranking of networks by score with the ranking by their results when trained alone."""
    scores = [row.score for row in rows if row.score is not None]
    return rank_correlation(scores, [row.reached for row in rows if row.score is not None])
