"""A made-up machine, whose latency model and profile are known without a measurement."""

import math

import numpy as np

from scalenet_zoo.arch.family import Family
from scalenet_zoo.latency.profile import Measurement, Plan, Profile, Settings, sample_items
from scalenet_zoo.latency.terms import TERMS
from scalenet_zoo.zoo.catalog import Entries, load_family

SCALENET = load_family("scalenet")


SETTINGS = Settings(family="scalenet", backend="ort-cpu", threads=1)


def law(terms: np.ndarray) -> np.ndarray:
    """A made-up machine: milliseconds (...) for terms (terms, ...)."""
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
    return np.asarray(sum(weight * terms[TERMS.index(term)] for term, weight in weights.items()))


MADE_UP = Plan(layers=60, networks=60, held_out=20)


def made_up_profile(noise: float = 0.0, plan: Plan = MADE_UP, of: Family | Entries = SCALENET) -> Profile:
    """A profile of the made-up machine: nothing is measured."""
    rng = np.random.default_rng(1)
    measurements = []
    for item in sample_items(of, plan, divisor=8):
        ms = float(law(item.terms) * math.exp(noise * rng.standard_normal()))
        terms = tuple(map(float, item.terms))
        measurements.append(Measurement(role=item.role, terms=terms, macs=item.macs, visits=((ms, 1.0, 1.0),)))
    settings = SETTINGS.model_copy(update={"family": of.name})
    return Profile(settings=settings, plan=plan, machine={}, terms=TERMS, measurements=tuple(measurements))
