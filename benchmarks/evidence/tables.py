"""The tables of docs/evidence.md, in Markdown, from the answers of a run.

results.jsonl --> `Answers` --> `Scored`, `Searched` --> one function per table
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import numpy as np
from scipy.stats import t as student

from benchmarks.evidence.answers import Answers, Scored, Searched
from benchmarks.evidence.power import SPREAD, deviations, expected_tau, networks_needed, pairs_needed, shown, spread_of
from benchmarks.evidence.ranking import Estimate, agreement, mean_ranking, rank
from benchmarks.evidence.run import METHODS, STAGES
from benchmarks.markdown import markdown
from benchmarks.significance import COMPARISON, RESAMPLES, comparison, paired, shown_p

RESULTS = Path(__file__).parents[1] / "results" / "evidence.jsonl"
TAU = 0.5
"""The smallest tau between scores and true accuracies that a study should show."""


def accuracies(found: Answers) -> str:
    """The accuracies of the networks drawn at random, and how much they differ."""
    rows = []
    for stage, keys in found.drawn.items():
        points, macs = found.accuracies(keys), [found.macs(key) / 1e6 for key in keys]
        networks, seed = deviations(points)
        span, reached = f"{min(macs):.1f} to {max(macs):.1f}", f"{points.min():.1f} to {points.max():.1f}"
        spread = points.mean(axis=1).std(ddof=1)
        rows.append(
            [stage, len(keys), span, f"{points.mean():.2f}", reached, f"{spread:.2f}", f"{networks:.2f}", f"{seed:.2f}"]
        )
    head = "stage|networks|M multiply-adds|mean, %|from, to|SD of networks' means|SD of networks in truth|SD of seeds"
    return markdown(head.split("|"), rows)


def ceiling(found: Answers) -> str:
    """The largest tau that can be measured, and the tau of multiply-adds, which cost nothing to know."""
    rows = []
    for stage, keys in found.drawn.items():
        points = found.accuracies(keys)
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
    """How many networks show a tau of 0.5, and how many pairs a difference of 1 point, by the number of seeds."""
    rows = []
    for stage, keys in found.drawn.items():
        networks, seed = deviations(found.accuracies(keys))
        for seeds in (1, 2, 4):
            tau, noise = expected_tau(TAU, networks, seed, seeds), seed * (2 / seeds) ** 0.5
            counts = shown(networks_needed(tau)), shown(pairs_needed(1.0, noise))
            rows.append([stage, seeds, f"{tau:.2f}", counts[0], f"{noise:.2f}", counts[1]])
    head = "stage|seeds|tau seen if it is 0.5 in truth|networks|SD of a difference, points|pairs for 1 point"
    return markdown(head.split("|"), rows)


def ranks(scored: Scored) -> str:
    """How well each kind of supernet and of scoring ranks networks, and how well its supernets agree."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for way in sorted(scored.scores):
        kinds[re.sub(r"-\d+", "", way)].append(way)
    rows = []
    for kind, names in kinds.items():
        rankings = [scored.rankings[name] for name in names]
        means, mean = [float(its.values.mean()) for its in rankings], mean_ranking(rankings)
        several = ["-", "-"]
        if len(names) > 1:
            agree = agreement([scored.of_way(name) for name in names])
            several = [f"{min(means):.2f} to {max(means):.2f}", f"{agree:.2f}"]
        points = fmean(scored.mean_of(name) for name in names)
        rows.append([kind, len(names), *mean.stages, mean.mean, *several, f"{points:.1f}"])
    stages = [f"stage {stage}, {len(keys)} networks" for stage, keys in enumerate(scored.keys)]
    head = ["scores by", "supernets", *stages, "mean", "from, to", "tau between supernets", "mean score, %"]
    return markdown(head, rows)


def samplers(scored: Scored) -> str:
    """Hierarchical against uniform sampling, one pair of supernets per seed, with paired t-tests over seeds."""
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
            cells += ["", "", f"{test['difference']:.2f} ± {half:.2f}, p = {shown_p(test)}"]
        rows.append(["mean", *cells])
        deviation, needed = spread_of(means)
        rows.append(["SD of differences", "", "", f"{deviation}; {needed} pairs for 1 point", "", "", ""])
    head = "seed|mean score, HSS, %|uniform|difference|mean tau, HSS|uniform|difference"
    return markdown(head.split("|"), rows)


def ways(scored: Scored) -> str:
    """How other ways of training and of scoring change the mean tau of the default.

    A way of scoring is compared on the same supernets. A way of training has one supernet, which is compared with the
    mean of all default supernets.
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


def searches(searched: Searched) -> str:
    """The accuracies of the networks that searches found, by stage, method and the device that trained them."""
    found, rows = searched.found, []
    for stage in STAGES[1:]:
        for method, networks in searched.keys.items():
            for device, on_gpu in (("CPU", False), ("GPU", True)):
                at = {key: found.seeds(key, on_gpu) for place, key in networks.items() if place[1] == stage}
                points = [found.mean(key, seeds) for key, seeds in at.items() if seeds]
                if not points:
                    continue
                macs = [found.macs(key) / 1e6 for key, seeds in at.items() if seeds]
                trainings = sum(map(len, at.values()))
                cells: list[str] = []
                for values, digits in ((macs, 1), (points, 2)):
                    cells += [f"{fmean(values):.{digits}f}", f"{min(values):.1f} to {max(values):.1f}"]
                rows.append([stage, method, device, len(points), trainings, *cells])
    head = "stage|method|trained on a|networks|trainings|mean M multiply-adds|from, to|mean top-1, %|from, to"
    return markdown(head.split("|"), rows)


def differences(searched: Searched) -> str:
    """By how many points the joint search's networks are better than another method's, by supernet and stage."""
    rows = []
    for other in METHODS[1:]:
        pairs = searched.pairs(other)
        for name in dict.fromkeys(name for name, _ in pairs):
            cells = [pairs.get((name, stage)) for stage in STAGES[1:]]
            rows.append([other, name, *("-" if pair is None else f"{pair[0] - pair[1]:.2f}" for pair in cells)])
    return markdown(["joint search minus", "supernet", *(f"stage {stage}, points" for stage in STAGES[1:])], rows)


def against(searched: Searched) -> str:
    """The joint search against each other method with the same supernets, by paired t-tests.

    A pair is one stage of one search, as the protocol has it. The stages of a search share its base model, so whole
    searches, each the mean of its stages, are compared too. The number of the added searches was chosen once the first
    ones had results, so they are compared by themselves as well.
    """
    rows = []
    for other, which, pairs in _parts(searched):
        stages: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for (name, _), pair in pairs.items():
            stages[name].append(pair)
        whole = [tuple(map(fmean, zip(*each, strict=True))) for each in stages.values() if len(each) == len(STAGES[1:])]
        for unit, compared in (("stage of a search", list(pairs.values())), ("search", whole)):
            if len(compared) > 1:
                rows.append([other, which, unit, *comparison(*zip(*compared, strict=True)), *spread_of(compared)])
    return markdown(["joint search against", "searches", "a pair is a", *COMPARISON, *SPREAD], rows)


def equal_macs(searched: Searched) -> str:
    """The joint search against each other method as if both networks of a pair had equal multiply-adds.

    All networks of a stage keep one limit, but some come closer to it. What more multiply-adds are worth is the slope
    of accuracy over their logarithm among the networks drawn at random, over all stages.
    """
    found, rows = searched.found, []
    drawn = [key for keys in found.drawn.values() for key in keys]
    logs = np.log2([found.macs(key) for key in drawn])
    slope = float(np.polyfit(logs, found.accuracies(drawn).mean(axis=1), 1)[0])
    for other, which, pairs in _parts(searched):
        theirs, ours = ([found.macs(searched.keys[method][at]) for at in pairs] for method in (other, "joint"))
        more = np.log2(np.divide(ours, theirs))
        reached = [(own - slope * each, peer) for (own, peer), each in zip(pairs.values(), more, strict=True)]
        rows.append(
            [other, which, f"{2 ** more.mean():.2f} times", f"{slope:.2f}", *comparison(*zip(*reached, strict=True))]
        )
    head = ["joint search against", "searches", "its multiply-adds", "points for twice as many", *COMPARISON]
    return markdown(head, rows)


def _parts(searched: Searched) -> Iterator[tuple[str, str, dict[tuple[str, int], tuple[float, float]]]]:
    """Yield the pairs of the first searches, of the added ones, and all if these are not the same, by method."""
    study = searched.found.plan.study
    for other in METHODS[1:]:
        pairs = searched.pairs(other)
        parts = {
            which: {at: pair for at, pair in pairs.items() if at[0] in names}
            for which, names in (("first", study.searches), ("added", study.added))
        }
        if all(parts.values()):
            parts["all"] = pairs
        yield from ((other, which, part) for which, part in parts.items() if len(part) > 1)


def costs(found: Answers) -> str:
    """What supernets and searches cost in million images forward; a backward pass counts as two forward passes.

    The figures of a search are means over finished searches. The last row compares the separate search, with one
    supernet per stage as the paper counts it, with the joint search and its one supernet.
    """
    names, rows, millions = found.plan.study.searched, [], {}
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
    """All tables for which the answers suffice, by name."""
    made = {each.__name__: each(found) for each in (accuracies, ceiling, needs)}
    scored = Scored.of(found)
    if scored.scores:
        made["ranks"] = ranks(scored)
        made["ranks_of_the_drawn"] = ranks(Scored.of(found, only_drawn=True))
    if scored.pairs:
        made["samplers"] = samplers(scored)
        made["ways"] = ways(scored)
    searched = Searched.of(found)
    if any(searched.keys.values()):
        made["searches"] = searches(searched)
    if any(len(searched.pairs(method)) > 1 for method in METHODS[1:]):
        made["differences"] = differences(searched)
        made["against"] = against(searched)
        made["equal_macs"] = equal_macs(searched)
    if any(name.startswith("search/") for name in found.rows):
        made["costs"] = costs(found)
    return made


def print_tables(path: Path) -> None:
    """Print all tables of a run's results."""
    for name, table in tables(Answers.load(path)).items():
        print(f"{name}\n\n{table}\n", flush=True)
