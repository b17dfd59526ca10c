"""Statistical tests of differences and rankings."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np
from scipy.stats import kendalltau, ttest_rel, wilcoxon
from scipy.stats import t as student

RESAMPLES = 2000
"""Number of resamples of a bootstrap."""
COMPARISON = ("pairs", "difference, points", "95% interval", "p, paired t-test")
"""The columns of `comparison`."""


def paired(
    ours: Sequence[float], theirs: Sequence[float], names: tuple[str, str] = ("found", "peer")
) -> dict[str, Any]:
    """Compute the means of paired values with standard errors, and their difference, with tests against zero."""
    differences = np.subtract(ours, theirs)
    same = not differences.any()  # the tests are undefined then
    return {
        "pairs": len(differences),
        names[0]: {"mean": fmean(ours), "standard_error": stdev(ours) / math.sqrt(len(ours))},
        names[1]: {"mean": fmean(theirs), "standard_error": stdev(theirs) / math.sqrt(len(theirs))},
        "difference": float(differences.mean()),
        "difference_standard_error": float(differences.std(ddof=1) / math.sqrt(len(differences))),
        "t_test_p": None if same else float(ttest_rel(ours, theirs).pvalue),
        "wilcoxon_p": None if same else float(wilcoxon(differences).pvalue),
    }


def shown_p(test: dict[str, Any]) -> str:
    """The t-test's p of `paired`, as tables show it; "-" if all pairs are equal."""
    return "-" if test["t_test_p"] is None else f"{test['t_test_p']:.3f}"


def comparison(ours: Sequence[float], theirs: Sequence[float]) -> list[str]:
    """The cells of a comparison: pairs, the mean difference with its standard error, its 95% interval, and p."""
    test = paired(ours, theirs)
    difference, error, pairs = test["difference"], test["difference_standard_error"], test["pairs"]
    half = float(student.ppf(0.975, pairs - 1)) * error
    interval = f"{difference - half:.2f} to {difference + half:.2f}"
    return [str(pairs), f"{difference:.2f} ± {error:.2f}", interval, shown_p(test)]


def rank_correlation(scores: Sequence[float], reached: Sequence[float]) -> dict[str, Any]:
    """Compute Kendall's tau between networks' scores and results alone, with a bootstrap interval over networks."""
    xs, ys = np.array(scores), np.array(reached)
    if len(set(xs)) < 2 or len(set(ys)) < 2:
        return {"networks": len(xs), "tau": None}
    found = kendalltau(xs, ys)
    rng, taus = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        chosen = rng.integers(len(xs), size=len(xs))
        if len(set(xs[chosen])) > 1 and len(set(ys[chosen])) > 1:
            taus.append(float(kendalltau(xs[chosen], ys[chosen]).statistic))
    low, high = np.percentile(taus, [2.5, 97.5])
    return {
        "networks": len(xs),
        "tau": float(found.statistic),
        "p": float(found.pvalue),
        "interval_95": [float(low), float(high)],
    }
