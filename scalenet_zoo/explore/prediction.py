"""Predicted latencies of the zoo's entries, where `profile` made a latency model of their family for this setting."""

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
"""How many times its usual error a model's prediction may be off."""
MOST_OFF = 0.9
"""The largest share of a prediction by which it may be off: predictions of a worse model say nothing."""
_FAMILY_OF = {
    "scalenet": re.compile(r"scalenet_s\d"),
    "efficientnet": re.compile(r"(tf_)?efficientnet_b\d"),
    "efficientnet_lite": re.compile(r"(tf_)?efficientnet_lite\d"),
}
"""Names of the entries of the families that have a base model."""


@dataclass(frozen=True)
class PredictedEntry:
    """Milliseconds of an entry, and the largest share of them by which they may be off."""

    ms: float
    error: float


def predict_entries(specs: Sequence[ArchSpec], setting: Setting, precision: Precision) -> dict[str, PredictedEntry]:
    """What latency models of this machine say of entries, by name; those without a model are left out.

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
    """What the latency models may be called that hold for an entry."""
    if spec.task == "classification":
        return [family for family, pattern in _FAMILY_OF.items() if pattern.fullmatch(spec.name)]
    families = [f"{family}-{spec.task}" for family in FAMILIES[spec.task] if spec.name.startswith(family)]
    return families if spec.bottom_up else [*families, spec.task]
