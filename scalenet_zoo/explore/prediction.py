"""Predicted latencies of the zoo's entries, if `profile` made a latency model of their family for the setting."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.backends import Precision
from scalenet_zoo.explore.figures import Setting
from scalenet_zoo.latency.model import LatencyModel, model_path
from scalenet_zoo.latency.profile import Settings
from scalenet_zoo.zoo.catalog import FAMILIES

SURE = 3.0
"""A model's prediction may be off by its usual error times this factor."""
MOST_OFF = 0.9
"""The largest share by which a prediction may be off; worse models predict nothing of use."""
_FAMILY_OF = {
    "scalenet": re.compile(r"scalenet_s\d"),
    "efficientnet": re.compile(r"(tf_)?efficientnet_b\d"),
    "efficientnet_lite": re.compile(r"(tf_)?efficientnet_lite\d"),
}
"""How the entries of each family with a base model are named."""


@dataclass(frozen=True)
class PredictedEntry:
    """A predicted latency of an entry.

    Attributes:
        ms: latency in milliseconds.
        error: the largest share of `ms` by which it may be off.
    """

    ms: float
    error: float


def predict_entries(specs: Sequence[ArchSpec], setting: Setting, precision: Precision) -> dict[str, PredictedEntry]:
    """Predict the latency of entries by the latency models of this machine; entries without a model are left out.

    Returns:
        Predictions by the entries' names.

    Raises:
        SpecError: the file of a model is damaged.
    """
    models: dict[str, LatencyModel | None] = {}
    found: dict[str, PredictedEntry] = {}
    for spec in specs:
        for name in _profiled_as(spec):
            if name not in models:
                settings = Settings(
                    family=name,
                    backend=setting.backend,
                    precision=precision,
                    threads=setting.threads,
                    batch=setting.batch,
                )
                path = model_path(settings)
                models[name] = LatencyModel.load(path) if path.exists() else None
            if model := models[name]:
                error = min(MOST_OFF, SURE * model.held_out.rms)
                found[spec.name] = PredictedEntry(model.predict_spec(spec), error)
                break
    return found


def _profiled_as(spec: ArchSpec) -> list[str]:
    """The possible names of the latency models that cover an entry."""
    if spec.task == "classification":
        return [family for family, pattern in _FAMILY_OF.items() if pattern.fullmatch(spec.name)]
    families = [f"{family}-{spec.task}" for family in FAMILIES[spec.task] if spec.name.startswith(family)]
    return families if spec.bottom_up else [*families, spec.task]
