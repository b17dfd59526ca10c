"""The tables of docs/evidence.md, from the answers of a run.

results.jsonl (a line a job) --> figures of networks, a row a network, a column a seed --> tables, in Markdown

A seed's standard deviation is that of one training; the networks' own is what is left of the spread of their means.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from scipy.stats import nct
from scipy.stats import t as student

from benchmarks.evidence.plan import Plan
from benchmarks.evidence.ranking import Estimate, Ranking, mean_ranking, rank
from benchmarks.evidence.run import METHODS, STAGES
from benchmarks.significance import COMPARISON, RESAMPLES, comparison, paired, shown_p
from scalenet_zoo.arch.trace import trace

RESULTS = Path(__file__).parents[1] / "results" / "evidence.jsonl"
TAU = 0.5
"""Between scores and what networks are worth in truth: what must be seen."""
POWER, LEVEL = 0.8, 0.05
MOST = 60
"""Networks, or pairs, that are thought of."""


@dataclass(frozen=True)
class Answers:
    """The answers of a run.

    Attributes:
        rows: by the names of jobs.
        plan: of the run.
    """

    rows: dict[str, dict[str, Any]]
    plan: Plan

    @classmethod
    def load(cls, path: Path) -> "Answers":
        """The answers of results.jsonl."""
        return cls({row.pop("job"): row for row in map(json.loads, path.read_text().splitlines())}, Plan.load())

    @cached_property
    def drawn(self) -> dict[int, list[str]]:
        """Keys of the networks drawn at random, of each stage, that were trained with all seeds."""
        drawn = {stage: self.plan.draw(stage, self.plan.study.drawn, 100) for stage in STAGES}
        return {stage: [key for key in keys if self.is_trained(key)] for stage, keys in drawn.items()}

    def seeds(self, key: str) -> set[int]:
        """The seeds with which a network was trained alone."""
        return {seed for seed in self.plan.study.seeds if f"alone/{key}/{seed}" in self.rows}

    def is_trained(self, key: str) -> bool:
        """Whether a network was trained alone with all seeds."""
        return len(self.seeds(key)) == len(self.plan.study.seeds)

    def mean(self, key: str, seeds: Iterable[int]) -> float:
        """The accuracy of a network trained alone, in percent: the mean over seeds."""
        return 100 * fmean(self.rows[f"alone/{key}/{seed}"]["top1"] for seed in seeds)

    def of(self, keys: Iterable[str], what: str = "top1") -> np.ndarray:
        """A figure of networks trained alone, a row a network, a column a seed."""
        return np.array([[self.rows[f"alone/{key}/{seed}"][what] for seed in self.plan.study.seeds] for key in keys])

    def macs(self, key: str) -> int:
        """Multiply-adds of a network."""
        spec = self.plan.spec(key)
        return trace(spec.network, spec.input, spec.classes).macs


def deviations(reached: np.ndarray) -> tuple[float, float]:
    """Standard deviations of networks in truth, and of seeds; of accuracies, a row a network, a column a seed."""
    seeds = reached.shape[1]
    within = float(reached.var(axis=1, ddof=1).mean())
    between = float(reached.mean(axis=1).var(ddof=1)) - within / seeds
    return math.sqrt(max(0.0, between)), math.sqrt(within)


def expected_tau(truth: float, networks: float, seed: float, seeds: int) -> float:
    """Kendall's tau with means over seeds, of scores whose tau with the truth is known; by normal variates."""
    noise = seed**2 / seeds
    reliable = networks**2 / (networks**2 + noise) if networks or noise else 1.0
    return 2 / math.pi * math.asin(math.sin(math.pi / 2 * truth) * math.sqrt(reliable))


def least_concordance(count: int) -> int:
    """The least difference of pairs in order and not in order that so many networks need for two-sided p < 0.05."""
    chances = np.ones(1)
    for size in range(2, count + 1):  # of so many pairs out of order, if all orders are as likely
        chances = np.convolve(chances, np.full(size, 1 / size))
    pairs = count * (count - 1) // 2
    enough = np.flatnonzero(np.cumsum(chances) <= LEVEL / 2)
    return pairs - 2 * int(enough[-1]) if len(enough) else pairs + 1


def networks_needed(tau: float, times: int = 4000) -> int | None:
    """Networks with which a tau that is so large is seen with a power of 0.8; None: more than 60. By simulation."""
    rng, r = np.random.default_rng(0), math.sin(math.pi / 2 * tau)
    xs, noise = rng.standard_normal((2, times, MOST))
    ys = r * xs + math.sqrt(1 - r**2) * noise
    concordance = np.zeros(times)
    for count in range(2, MOST + 1):
        last = count - 1
        pairs = np.sign(xs[:, :last] - xs[:, last:count]) * np.sign(ys[:, :last] - ys[:, last:count])
        concordance += pairs.sum(axis=1)
        if (abs(concordance) >= least_concordance(count)).mean() >= POWER:
            return count
    return None


def pairs_needed(difference: float, deviation: float) -> int | None:
    """Pairs with which a paired t-test sees a difference with a power of 0.8; None: more than 60."""
    for pairs in range(2, MOST + 1):
        limit, shift = student.ppf(1 - LEVEL / 2, pairs - 1), difference / deviation * math.sqrt(pairs)
        if nct.sf(limit, pairs - 1, shift) + nct.cdf(-limit, pairs - 1, shift) >= POWER:
            return pairs
    return None


def spread_of(pairs: Sequence[Sequence[float]]) -> list[str]:
    """The standard deviation of the differences of pairs, and how many pairs see a difference of 1 with it."""
    deviation = float(np.subtract(*zip(*pairs, strict=True)).std(ddof=1))
    return [f"{deviation:.2f}", str(pairs_needed(1.0, deviation) or f"over {MOST}")]


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def accuracies(found: Answers) -> str:
    """What the networks drawn reach, and how much they differ."""
    rows = []
    for stage, keys in found.drawn.items():
        points, macs = 100 * found.of(keys), [found.macs(key) / 1e6 for key in keys]
        networks, seed = deviations(points)
        span, reached = f"{min(macs):.1f} to {max(macs):.1f}", f"{points.min():.1f} to {points.max():.1f}"
        spread = points.mean(axis=1).std(ddof=1)
        rows.append(
            [stage, len(keys), span, f"{points.mean():.2f}", reached, f"{spread:.2f}", f"{networks:.2f}", f"{seed:.2f}"]
        )
    head = "stage|networks|M multiply-adds|mean, %|from, to|SD of networks' means|SD of networks in truth|SD of seeds"
    return markdown(head.split("|"), rows)


def ceiling(found: Answers) -> str:
    """What tau can be measured, and what a score that costs nothing reaches."""
    rows = []
    for stage, keys in found.drawn.items():
        points = 100 * found.of(keys)
        rng, perfect = np.random.default_rng(0), []
        for _ in range(RESAMPLES):
            chosen = points[rng.integers(len(points), size=len(points))]
            perfect.append(expected_tau(1.0, *deviations(chosen), points.shape[1]))
        low, high = np.percentile(perfect, [2.5, 97.5])
        best = expected_tau(1.0, *deviations(points), points.shape[1])
        macs = rank([np.array([found.macs(key) for key in keys])], [points.mean(axis=1)])
        seeds = rank([points[:, 0]], [points[:, 1]])
        rows.append([stage, seeds.mean, Estimate(best, float(low), float(high)), macs.mean])
    head = "stage|tau between seeds|tau that a perfect score reaches|tau of multiply-adds"
    return markdown(head.split("|"), rows)


def needs(found: Answers) -> str:
    """How many networks show a tau, and how many pairs a difference, by how many seeds."""
    rows = []
    for stage, keys in found.drawn.items():
        networks, seed = deviations(100 * found.of(keys))
        for seeds in (1, 2, 4):
            tau, noise = expected_tau(TAU, networks, seed, seeds), seed * math.sqrt(2 / seeds)
            counts = (number or f"over {MOST}" for number in (networks_needed(tau), pairs_needed(1.0, noise)))
            rows.append([stage, seeds, f"{tau:.2f}", next(counts), f"{noise:.2f}", next(counts)])
    head = "stage|seeds|tau seen if it is 0.5 in truth|networks|SD of a difference, points|pairs for 1 point"
    return markdown(head.split("|"), rows)


@dataclass(frozen=True)
class Scored:
    """The networks that were both trained alone, with all seeds, and scored.

    Attributes:
        keys: of each stage.
        reached: the means over seeds of their accuracies, of each stage.
        scores: by the way of scoring, such as `hss-0` or `hss-0/averaged`: of each network, by its key.
    """

    keys: list[list[str]]
    reached: list[np.ndarray]
    scores: dict[str, dict[str, float]]

    @classmethod
    def of(cls, found: Answers) -> "Scored":
        """What a run has of them so far."""
        scores: dict[str, dict[str, float]] = defaultdict(dict)
        for name, answer in found.rows.items():
            if name.startswith("score/"):
                _, supernet, _, *way = name.split("/")  # drawn and chosen networks are scored one after the other
                scores["/".join([supernet, *way])] |= answer["scores"]
        plan = found.plan
        keys = []
        for stage in STAGES:
            known = [*plan.draw(stage, plan.study.drawn, 100), *found.rows.get(f"pool/{stage}", {}).get("scores", {})]
            every = [key for key in dict.fromkeys(known) if all(key in each for each in scores.values())]
            keys.append([key for key in every if found.is_trained(key)])
        return cls(keys, [found.of(each).mean(axis=1) for each in keys], dict(scores))

    def of_way(self, way: str) -> list[np.ndarray]:
        """The scores of each stage."""
        return [np.array([self.scores[way][key] for key in keys]) for keys in self.keys]

    def mean_of(self, way: str) -> float:
        """The mean score of all networks, in percent."""
        return 100 * float(np.concatenate(self.of_way(way)).mean())

    @cached_property
    def rankings(self) -> dict[str, Ranking]:
        """How every way of scoring ranks the networks."""
        return {way: rank(self.of_way(way), self.reached) for way in self.scores}

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Supernets of hierarchical and of uniform sampling with the same seed."""
        both = [(way, way.replace("hss", "uniform")) for way in self.group("hss")]
        return [pair for pair in both if pair[1] in self.scores]

    def group(self, name: str) -> list[str]:
        """Supernets that differ in their seed alone, GROUP-SEED, in order of their seeds."""
        return sorted(way for way in self.scores if re.fullmatch(rf"{name}-\d+", way))


def ranks(scored: Scored) -> str:
    """Tau between the scores of every supernet and what networks reach alone, and the mean score."""
    stages = [f"stage {stage}, {len(keys)} networks" for stage, keys in enumerate(scored.keys)]
    head = ["scores by", *stages, "mean", "mean score, %"]
    rows = [
        [name, *its.stages, its.mean, f"{scored.mean_of(name):.1f}"] for name, its in sorted(scored.rankings.items())
    ]
    for name in ("hss", "uniform"):
        if len(group := scored.group(name)) > 1:
            both = mean_ranking([scored.rankings[way] for way in group])
            points = fmean(scored.mean_of(way) for way in group)
            rows.append([f"{name}, mean of {len(group)}", *both.stages, both.mean, f"{points:.1f}"])
    return markdown(head, rows)


def samplers(scored: Scored) -> str:
    """Hierarchical against uniform sampling, a pair of supernets per seed; with a paired t-test over the seeds."""
    pairs = scored.pairs
    means = [[scored.mean_of(way) for way in pair] for pair in pairs]
    taus = [[float(scored.rankings[way].mean.value) for way in pair] for pair in pairs]
    rows = []
    for (ours, _), score, tau in zip(pairs, means, taus, strict=True):
        figures = [f"{each:.2f}" for each in (*score, score[0] - score[1], *tau, tau[0] - tau[1])]
        rows.append([ours.removeprefix("hss-"), *figures])
    if len(pairs) > 1:
        cells = []
        for figures_of in (means, taus):
            test = paired(*zip(*figures_of, strict=True))
            half = student.ppf(0.975, len(pairs) - 1) * test["difference_standard_error"]
            cells += [
                "",
                "",
                f"{test['difference']:.2f} ± {half:.2f}, p = {shown_p(test)}",
            ]
        rows.append(["mean", *cells])
        deviation, needed = spread_of(means)
        rows.append(["SD of differences", "", "", f"{deviation}; {needed} pairs for 1 point", "", "", ""])
    head = "seed|mean score, HSS, %|uniform|difference|mean tau, HSS|uniform|difference"
    return markdown(head.split("|"), rows)


def ways(scored: Scored) -> str:
    """What other ways to train or to score change in the mean tau, against the default.

    Ways to score are compared on the same supernets; ways to train, of one supernet each, with the mean of all default
    supernets.
    """
    rankings, default = scored.rankings, scored.group("hss")
    compared = []
    for way in ("averaged", "statistics"):
        same = [name for name in default if f"{name}/{way}" in rankings]
        compared.append((way, [rankings[f"{name}/{way}"] for name in same], same))
    scores = [np.mean([scored.of_way(name)[stage] for name in default], axis=0) for stage in STAGES]
    compared.append((f"mean of {len(default)} supernets' scores", [rank(scores, scored.reached)], default))
    others = [name for name in rankings if "/" not in name and not name.startswith(("hss", "uniform"))]
    compared += [(name.removesuffix("-0"), [rankings[name]], default) for name in others]
    rows = []
    for way, ours, same in compared:
        if ours:
            mine, theirs = mean_ranking(ours), mean_ranking([rankings[name] for name in same])
            rows.append([way, len(ours), mine.mean, f"{theirs.mean.value:.2f} ({len(same)})", mine.minus(theirs)])
    return markdown(["way", "supernets", "mean tau", "default (supernets)", "difference"], rows)


@dataclass(frozen=True)
class Searched:
    """The networks of stages 1 and 2 that searches found and that were trained alone.

    Attributes:
        keys: of each method: by search and stage.
    """

    found: Answers
    keys: dict[str, dict[tuple[str, int], str]]

    @classmethod
    def of(cls, found: Answers) -> "Searched":
        """What a run has of them so far."""
        keys: dict[str, dict[tuple[str, int], str]] = {}
        for method in METHODS:
            searches = {name: found.rows.get(f"search/{name}/{method}", {}) for name in found.plan.study.searches}
            networks = {
                (name, stage): key for name, its in searches.items() for stage, key in enumerate(its.get("found", ()))
            }
            keys[method] = {at: key for at, key in networks.items() if at[1] > 0 and found.seeds(key)}
        return cls(found, keys)

    def pairs(self, other: str) -> dict[tuple[str, int], tuple[float, float]]:
        """Accuracies in percent of the joint search's networks and another method's, by search and stage.

        A pair is compared by the seeds that both networks were trained with.
        """
        pairs = {}
        for at, ours in self.keys["joint"].items():
            theirs = self.keys[other].get(at)
            if theirs and (seeds := self.found.seeds(ours) & self.found.seeds(theirs)):
                pairs[at] = self.found.mean(ours, seeds), self.found.mean(theirs, seeds)
        return pairs


def searches(searched: Searched) -> str:
    """What the networks that searches found reach, by stage and method."""
    found, rows = searched.found, []
    for stage in STAGES[1:]:
        for method, networks in searched.keys.items():
            keys = [key for at, key in networks.items() if at[1] == stage]
            if keys:
                points = [found.mean(key, found.seeds(key)) for key in keys]
                macs, trainings = [found.macs(key) / 1e6 for key in keys], sum(len(found.seeds(key)) for key in keys)
                span, reached = f"{min(macs):.1f} to {max(macs):.1f}", f"{min(points):.1f} to {max(points):.1f}"
                rows.append([stage, method, len(keys), trainings, span, f"{fmean(points):.2f}", reached])
    head = ["stage", "method", "searches", "trainings", "M multiply-adds", "mean, %", "from, to"]
    return markdown(head, rows)


def against(searched: Searched) -> str:
    """The joint search against each other method, with the same supernets, by paired t-tests.

    A pair is one stage of one search, as the protocol has it; and, since the stages of a search share its base model,
    one search, by the mean of its stages.
    """
    rows = []
    for other in METHODS[1:]:
        pairs, whole = searched.pairs(other), []
        for name in searched.found.plan.study.searches:
            stages = [pairs[name, stage] for stage in STAGES[1:] if (name, stage) in pairs]
            if len(stages) == len(STAGES[1:]):
                whole.append(tuple(map(fmean, zip(*stages, strict=True))))
        for unit, compared in (("stage of a search", list(pairs.values())), ("search", whole)):
            if len(compared) > 1:
                rows.append([other, unit, *comparison(*zip(*compared, strict=True)), *spread_of(compared)])
    return markdown(
        ["joint search against", "a pair is a", *COMPARISON, "SD of pairs, points", "pairs for 1 point"], rows
    )


def differences(searched: Searched) -> str:
    """By how many points the joint search's networks are better than another method's, by search."""
    rows = []
    for other in METHODS[1:]:
        pairs = searched.pairs(other)
        for name in dict.fromkeys(name for name, _ in pairs):
            cells = [pairs.get((name, stage)) for stage in STAGES[1:]]
            rows.append([other, name, *("-" if pair is None else f"{pair[0] - pair[1]:.2f}" for pair in cells)])
    return markdown(["joint search minus", "supernet", *(f"stage {stage}, points" for stage in STAGES[1:])], rows)


def costs(found: Answers) -> str:
    """What supernets and searches cost in million images forward; a step backward counts as two forward.

    A search's figures are means over the searches done. The last row compares the separate search with one supernet per
    stage, as the paper counts it, with the joint search and its one supernet.
    """
    names, rows, millions = found.plan.study.searches, [], {}
    supernet = found.rows[f"supernet/{names[0]}"]
    training = 3 * supernet["steps"] * supernet["batch_size"] / 1e6
    rows.append(["train one supernet", 1, "-", f"{training:.2f}"])
    for method in METHODS:
        done = [row for name in names if (row := found.rows.get(f"search/{name}/{method}"))]
        if done:
            millions[method] = fmean(row["images"] for row in done) / 1e6
            networks = fmean(row["evaluations"] for row in done)
            rows.append([f"{method} search", len(done), f"{networks:.0f}", f"{millions[method]:.2f}"])
    if {"joint", "separate"} <= set(millions):
        factor = (len(STAGES) * training + millions["separate"]) / (training + millions["joint"])
        rows.append(["separate / joint, with supernets", "-", "-", f"{factor:.2f} times"])
    return markdown(["step", "done", "networks scored", "million images forward"], rows)


def tables(found: Answers) -> dict[str, str]:
    """All tables that the answers suffice for, by their names."""
    made = {each.__name__: each(found) for each in (accuracies, ceiling, needs)}
    scored = Scored.of(found)
    if scored.scores:
        made["ranks"] = ranks(scored)
    if scored.pairs:
        made["samplers"] = samplers(scored)
        made["ways"] = ways(scored)
    searched = Searched.of(found)
    if any(searched.keys.values()):
        made["searches"] = searches(searched)
    if any(len(searched.pairs(method)) > 1 for method in METHODS[1:]):
        made["differences"] = differences(searched)
        made["against"] = against(searched)
    if any(name.startswith("search/") for name in found.rows):
        made["costs"] = costs(found)
    return made


def print_tables(path: Path) -> None:
    """Print the tables of a run's results."""
    for name, table in tables(Answers.load(path)).items():
        print(f"{name}\n\n{table}\n", flush=True)
