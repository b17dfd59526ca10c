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
from typing import Any

import numpy as np
from scipy.stats import nct
from scipy.stats import t as student

from benchmarks.evidence.plan import PLAN, Plan
from benchmarks.evidence.ranking import Ranking, mean_ranking, rank
from benchmarks.evidence.run import METHODS, STAGES
from benchmarks.significance import RESAMPLES, paired, rank_correlation
from scalenet_zoo.arch.trace import trace

RESULTS = Path(__file__).parents[1] / "results" / "evidence.jsonl"
TRAIN, SEARCH = 45_000, 5_000
"""Images that networks learn from, and that supernets judge by."""
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
        facts: of the machine; empty where none are written beside the answers.
    """

    rows: dict[str, dict[str, Any]]
    plan: Plan
    facts: dict[str, Any]

    @classmethod
    def load(cls, path: Path) -> "Answers":
        """The answers of results.jsonl; beside a committed NAME.jsonl, NAME.json has facts and the plan of then."""
        rows = {row.pop("job"): row for row in map(json.loads, path.read_text().splitlines())}
        beside = path.with_suffix(".json")
        facts = json.loads(beside.read_text()) if beside.exists() else {}
        return cls(rows, Plan.load(PLAN, **facts.get("plan", {})), facts)

    @cached_property
    def drawn(self) -> dict[int, list[str]]:
        """Keys of the networks drawn at random, of each stage."""
        return {stage: self.plan.draw(stage, self.plan.study.drawn, 100) for stage in STAGES}

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
        macs = rank_correlation([found.macs(key) for key in keys], list(points.mean(axis=1)))
        seeds = rank_correlation(list(points[:, 0]), list(points[:, 1]))
        rows.append([stage, _tau(seeds), f"{best:.2f} [{low:.2f}, {high:.2f}]", _tau(macs)])
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


def throughput(found: Answers) -> str:
    """How fast networks were trained alone, a process each."""
    recipe, rows = found.plan.recipe(), []
    images = recipe.epochs * (TRAIN // recipe.batch_size) * recipe.batch_size
    for stage, keys in found.drawn.items():
        seconds = found.of(keys, "seconds")
        middle = float(np.median(seconds))
        span = f"{seconds.min():.1f} to {seconds.max():.1f}"
        rows.append([stage, seconds.size, f"{images:,}", f"{middle:.1f}", span, f"{images / middle:,.0f}"])
    head = "stage|trainings|images each|seconds, median|from, to|images/s per process"
    return markdown(head.split("|"), rows)


def missing(found: Answers) -> str:
    """What the rest of today's plan takes on one core of a CPU, by its rates."""
    plan, rates, rows = Plan.load(), found.facts["cpu_images_per_second"], []
    study = plan.study
    ways = {way.name: way for way in study.supernets}
    paired = {way.seed for way in study.supernets if way.sampler == "uniform"}
    kinds = [name for name, way in ways.items() if name.startswith(("hss", "uniform")) and way.seed in paired]
    searched = [name for name in study.searches if name not in kinds]
    rest = [name for name in ways if name not in (*kinds, *searched)]
    each, scored = plan.recipe().epochs * TRAIN, plan.scoring.bn_images + SEARCH
    slow = len(STAGES) / sum(1 / rates["scoring"][str(stage)] for stage in STAGES)

    def supernets(names: Iterable[str]) -> tuple[float, float]:
        epochs = (plan.settings_of(ways[name]).make_recipe().epochs * plan.networks_of(ways[name]) for name in names)
        images = sum(epochs) * TRAIN
        return images, images / rates["supernet"]

    def scores(count: int, images: int = scored) -> tuple[float, float]:
        return count * images, count * images / slow

    def alone(stages: Sequence[int], count: int) -> tuple[float, float]:
        return count * len(stages) * each, count * sum(each / rates["alone"][str(stage)] for stage in stages)

    both, seeds = 2 * study.drawn * len(STAGES), len(study.seeds)
    searches, averaged = len(study.searches) * len(METHODS), sum(way.average is not None for way in study.supernets)
    left = seeds * (2 * study.drawn - found.plan.study.drawn)
    for name, parts in (
        ("a", [supernets(kinds[:1]), scores(study.pool * len(STAGES) + both), alone(STAGES, left)]),
        ("b, beyond a", [supernets(kinds[1:]), scores(both * (len(kinds) - 1))]),
        ("e, beyond b", [supernets(rest), scores(both * (len(rest) + averaged))]),
        ("e, statistics from more images", [scores(both * averaged, study.bn_images + SEARCH)]),
        (
            "c, beyond b",
            [supernets(searched), scores(searches * study.evaluations), alone(STAGES[1:], searches * seeds)],
        ),
    ):
        images, seconds = (sum(part[place] for part in parts) for place in (0, 1))
        rows.append([name, f"{images / 1e6:.1f}", f"{seconds / 3600:.1f}"])
    return markdown(["study", "million images", "hours of one core"], rows)


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
        plan, seeds = Plan.load(), found.plan.study.seeds
        keys = []
        for stage in STAGES:
            known = [*plan.draw(stage, plan.study.drawn, 100), *found.rows.get(f"pool/{stage}", {}).get("scores", {})]
            trained = [key for key in known if all(f"alone/{key}/{seed}" in found.rows for seed in seeds)]
            keys.append([key for key in dict.fromkeys(trained) if all(key in each for each in scores.values())])
        return cls(keys, [found.of(each).mean(axis=1) for each in keys], dict(scores))

    def of_way(self, way: str) -> list[np.ndarray]:
        """The scores of each stage."""
        return [np.array([self.scores[way][key] for key in keys]) for keys in self.keys]

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
    """Tau between the scores of every supernet and what networks reach alone."""
    head = ["scores by", *(f"stage {stage}, {len(keys)} networks" for stage, keys in enumerate(scored.keys)), "mean"]
    rows = [[name, *each.stages, each.mean] for name, each in sorted(scored.rankings.items())]
    for name in ("hss", "uniform"):
        if len(group := scored.group(name)) > 1:
            both = mean_ranking([scored.rankings[way] for way in group])
            rows.append([f"{name}, mean of {len(group)}", *both.stages, both.mean])
    return markdown(head, rows)


def samplers(scored: Scored) -> str:
    """Hierarchical against uniform sampling, a pair of supernets per seed; with a paired t-test over the seeds."""
    pairs = scored.pairs
    means = [[100 * float(np.concatenate(scored.of_way(way)).mean()) for way in pair] for pair in pairs]
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
            p = "no difference" if test["t_test_p"] is None else f"p = {test['t_test_p']:.2f}"
            cells += ["", "", f"{test['difference']:.2f} ± {half:.2f}, {p}"]
        rows.append(["mean", *cells])
    head = "seed|mean score, HSS, %|uniform|difference|mean tau, HSS|uniform|difference"
    return markdown(head.split("|"), rows)


def ways(scored: Scored) -> str:
    """What other ways to train or to score change in the mean tau, against the default with the same seeds."""
    rows = []
    default = scored.group("hss")
    rankings = scored.rankings
    for way in ("averaged", "statistics"):
        group = [name for name in default if f"{name}/{way}" in rankings]
        if group:
            mine, theirs = (mean_ranking([rankings[f"{name}{end}"] for name in group]) for end in (f"/{way}", ""))
            rows.append([way, len(group), mine.mean, theirs.mean, mine.minus(theirs)])
    for name in rankings:
        if "/" not in name and not name.startswith(("hss", "uniform")) and "hss-0" in rankings:
            mine, theirs = rankings[name], rankings["hss-0"]
            rows.append([name.removesuffix("-0"), 1, mine.mean, theirs.mean, mine.minus(theirs)])
    return markdown(["way", "supernets", "mean tau", "default, same seeds", "difference"], rows)


def tables(found: Answers) -> dict[str, str]:
    """All tables that the answers suffice for, by their names."""
    made = {each.__name__: each(found) for each in (accuracies, ceiling, needs, throughput)}
    scored = Scored.of(found)
    if scored.scores:
        made["ranks"] = ranks(scored)
    if scored.pairs:
        made["samplers"] = samplers(scored)
    if any("/" in name for name in scored.scores):
        made["ways"] = ways(scored)
    if "cpu_images_per_second" in found.facts:
        made["missing"] = missing(found)
    return made


def print_tables(path: Path) -> None:
    """Print the tables of a run's results."""
    for name, table in tables(Answers.load(path)).items():
        print(f"{name}\n\n{table}\n", flush=True)


def _tau(found: dict[str, Any]) -> str:
    if found["tau"] is None:
        return "none"
    low, high = found["interval_95"]
    return f"{found['tau']:.2f} [{low:.2f}, {high:.2f}]"
