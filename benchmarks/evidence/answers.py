"""The answers of a run, read from results.jsonl, and the networks that were trained, scored or found."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.evidence.plan import Plan
from benchmarks.evidence.ranking import Ranking, rank
from benchmarks.evidence.run import METHODS, STAGES
from scalenet_zoo.arch.trace import trace


@dataclass(frozen=True)
class Answers:
    """All answers of a run.

    Attributes:
        rows: the answers, by the names of jobs.
        plan: the plan of the run.
    """

    rows: dict[str, dict[str, Any]]
    plan: Plan

    @classmethod
    def load(cls, path: Path) -> "Answers":
        """Load the answers from results.jsonl."""
        return cls({row.pop("job"): row for row in map(json.loads, path.read_text().splitlines())}, Plan.load())

    @cached_property
    def drawn(self) -> dict[int, list[str]]:
        """The keys of the networks that were drawn at random and trained alone with all seeds, by stage."""
        drawn = {stage: self.plan.draw(stage, self.plan.study.drawn, 100) for stage in STAGES}
        return {stage: [key for key in keys if self.is_trained(key)] for stage, keys in drawn.items()}

    def seeds(self, key: str, on_gpu: bool) -> set[int]:
        """The seeds with which a network was trained alone, on a GPU in bf16 or on a CPU in fp32."""
        rows = {seed: self.rows.get(f"alone/{key}/{seed}") for seed in self.plan.study.seeds}
        return {seed for seed, row in rows.items() if row and row["recorded"] == on_gpu}  # only a GPU records steps

    def is_trained(self, key: str) -> bool:
        """Whether a network was trained alone with all seeds, on one kind of device."""
        return any(len(self.seeds(key, on_gpu)) == len(self.plan.study.seeds) for on_gpu in (False, True))

    def mean(self, key: str, seeds: Iterable[int]) -> float:
        """The mean accuracy of a network over seeds, in percent."""
        return 100 * fmean(self.rows[f"alone/{key}/{seed}"]["top1"] for seed in seeds)

    def accuracies(self, keys: Iterable[str]) -> np.ndarray:
        """Accuracies of networks trained alone with all seeds, in percent: (networks, seeds)."""
        seeds = self.plan.study.seeds
        return 100 * np.array([[self.rows[f"alone/{key}/{seed}"]["top1"] for seed in seeds] for key in keys])

    def macs(self, key: str) -> int:
        """The multiply-adds of a network."""
        spec = self.plan.spec(key)
        return trace(spec.network, spec.input, spec.classes).macs


@dataclass(frozen=True)
class Scored:
    """The networks that were scored and trained alone with all seeds; ways that have not scored all are left out.

    Attributes:
        keys: their keys, by stage.
        reached: their accuracies in percent, means over seeds, by stage.
        scores: their scores, 0 to 1, by the way of scoring, such as `hss-0` or `hss-0/averaged`, and by key.
    """

    keys: list[list[str]]
    reached: list[np.ndarray]
    scores: dict[str, dict[str, float]]

    @classmethod
    def of(cls, found: Answers, only_drawn: bool = False) -> "Scored":
        """Collect the networks of a run, finished or not; all, or only those drawn at random, which no score chose."""
        scores: dict[str, dict[str, float]] = defaultdict(dict)
        for name, answer in found.rows.items():
            if name.startswith("score/"):
                _, supernet, _, *way = name.split("/")  # the drawn and the chosen half are two jobs
                scores["/".join([supernet, *way])] |= answer["scores"]
        plan = found.plan
        keys = []
        for stage in STAGES:
            pool = {} if only_drawn else found.rows.get(f"pool/{stage}", {}).get("scores", {})
            known = [*plan.draw(stage, plan.study.drawn, 100), *pool]
            scored = [key for key in dict.fromkeys(known) if any(key in each for each in scores.values())]
            keys.append([key for key in scored if found.is_trained(key)])
        whole = {way: each for way, each in scores.items() if all(key in each for stage in keys for key in stage)}
        return cls(keys, [found.accuracies(each).mean(axis=1) for each in keys], whole)

    def of_way(self, way: str) -> list[np.ndarray]:
        """The scores by one way of scoring, by stage."""
        return [np.array([self.scores[way][key] for key in keys]) for keys in self.keys]

    def mean_of(self, way: str) -> float:
        """The mean score of all networks by one way of scoring, in percent."""
        return 100 * float(np.concatenate(self.of_way(way)).mean())

    @cached_property
    def rankings(self) -> dict[str, Ranking]:
        """How well each way of scoring ranks the networks."""
        return {way: rank(self.of_way(way), self.reached) for way in self.scores}

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Pairs of supernets with the same seed, by hierarchical and by uniform sampling."""
        both = [(way, way.replace("hss", "uniform")) for way in self.group("hss")]
        return [pair for pair in both if pair[1] in self.scores]

    def group(self, name: str) -> list[str]:
        """The names of the supernets GROUP-SEED that differ only in their seed, in order of seeds."""
        return sorted(way for way in self.scores if re.fullmatch(rf"{name}-\d+", way))


@dataclass(frozen=True)
class Searched:
    """The networks of stages 1 and 2 that searches found.

    Attributes:
        found: the answers of the run.
        keys: their keys, by method, and by supernet and stage.
    """

    found: Answers
    keys: dict[str, dict[tuple[str, int], str]]

    @classmethod
    def of(cls, found: Answers) -> "Searched":
        """Collect the networks of a run, finished or not."""
        keys: dict[str, dict[tuple[str, int], str]] = {}
        for method in METHODS:
            searches = {name: found.rows.get(f"search/{name}/{method}", {}) for name in found.plan.study.searched}
            networks = {
                (name, stage): key for name, its in searches.items() for stage, key in enumerate(its.get("found", ()))
            }
            keys[method] = {at: key for at, key in networks.items() if at[1] > 0}
        return cls(found, keys)

    def pairs(self, other: str) -> dict[tuple[str, int], tuple[float, float]]:
        """Accuracies in percent of the joint search's networks and of another method's, by supernet and stage.

        A pair is compared by the seeds with which both networks were trained on the same kind of device.
        """
        found, pairs = self.found, {}
        for at, ours in self.keys["joint"].items():
            if theirs := self.keys[other].get(at):
                on_cpu, on_gpu = (found.seeds(ours, device) & found.seeds(theirs, device) for device in (False, True))
                if seeds := on_cpu | on_gpu:
                    pairs[at] = found.mean(ours, seeds), found.mean(theirs, seeds)
        return pairs
