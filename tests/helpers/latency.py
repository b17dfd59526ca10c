"""A made-up machine, whose latency model and profile are known without a measurement."""

import math
from pathlib import Path

import numpy as np

from scalenet_zoo.arch.family import Family
from scalenet_zoo.core.backends import Precision
from scalenet_zoo.latency.items import sample_items
from scalenet_zoo.latency.plan import Plan
from scalenet_zoo.latency.profile import Profile, Settings
from scalenet_zoo.latency.terms import terms_of
from scalenet_zoo.latency.yardstick import Visit
from scalenet_zoo.zoo.catalog import Entries, load_family

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
"""Committed figures, among them two real profiles."""
SCALENET = load_family("scalenet")
SETTINGS = Settings(family="scalenet", backend="ort-cpu", threads=1)
TINY = Plan(layers=2, networks=4, held_out=2)


def law(terms: np.ndarray, precision: Precision = "fp32") -> np.ndarray:
    """A made-up machine: milliseconds (...) for terms (terms, ...) of a precision."""
    weights = {
        "widen.blocks": 6e-9,
        "narrow.macs": 8e-9,
        "depthwise.k2": 4e-8,
        "widen.written": 4e-7,
        "dense.macs": 5e-9,
        "elementwise.elements": 2e-7,
        "resize.elements": 3e-7,
        "graph.calls": 0.05,
    }
    if precision == "int8":
        weights |= {"depthwise.points": 2e-6, "depthwise.left": 2e-7, "elementwise.gated": 3e-5}
    names = terms_of(precision)
    return np.asarray(sum(weight * terms[names.index(term)] for term, weight in weights.items()))


MADE_UP = Plan(layers=60, networks=60, held_out=20)


def made_up_profile(
    noise: float = 0.0, plan: Plan = MADE_UP, of: Family | Entries = SCALENET, precision: Precision = "fp32"
) -> Profile:
    """A profile of the made-up machine: nothing is measured."""
    rng = np.random.default_rng(1)
    measurements = []
    for item in sample_items(of, plan, divisor=8):
        ms = float(law(item.terms(precision), precision) * math.exp(noise * rng.standard_normal()))
        measurements.append(item.measured(precision, [Visit(ms, 1.0, 1.0)]))
    settings = SETTINGS.model_copy(update={"family": of.name, "precision": precision})
    names, made = terms_of(precision), tuple(measurements)
    return Profile(settings=settings, plan=plan, machine={}, terms=names, measurements=made)
