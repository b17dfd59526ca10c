"""A latency model, which predicts a network's milliseconds on a back end from the network's operations.

    terms of layers and networks ---non-negative least squares---> milliseconds per unit of each term
    its errors on networks       ---kernel ridge regression------> a factor, near 1 and 1 far from the data

The first part is additive, so it can be learnt from layers as well as from networks, and it interpolates between their
sizes. The second part covers what depends on a network as a whole. `predict` takes a whole population at once.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import numpy as np
from pydantic import Field, JsonValue, model_validator
from scipy.optimize import nnls
from scipy.stats import spearmanr
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import GridSearchCV, KFold

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.backends import machine
from scalenet_zoo.core.bounds import CORRECTION_POINTS, PREDICTED_AT_ONCE
from scalenet_zoo.core.documents import Document, Strict
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.files import cache_folder
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.latency.measuring import measure_profile
from scalenet_zoo.latency.plan import Plan
from scalenet_zoo.latency.profile import LARGEST, Milliseconds, Profile, Settings
from scalenet_zoo.latency.terms import KINDS, kind_slices, population_terms, terms_of, trace_terms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from scalenet_zoo.arch.family import Family
    from scalenet_zoo.arch.population import Population
    from scalenet_zoo.zoo.catalog import Entries

    Floats = NDArray[np.float64]


RIDGE = 1e-5
"""The strength of the additive part's ridge: terms that grow alike share the time, so that none gets all of it."""

FEATURES = Field(min_length=1 + len(KINDS), max_length=1 + len(KINDS))
Features = Annotated[tuple[Annotated[float, Field(ge=-LARGEST, le=LARGEST)], ...], FEATURES]
ShareOfOne = Annotated[float, Field(ge=0, le=1)]


class Correction(Strict):
    """A kernel ridge regression of log(measured / additive prediction), with a Gaussian kernel.

    Attributes:
        mean: the mean of each feature; see `_features`.
        scale: the standard deviation of each feature.
        gamma: the parameter of the kernel exp(-gamma |a - b|^2).
        points: the standardised features of the networks that it was fitted to.
        weights: one weight per point.
    """

    mean: Features
    scale: Annotated[tuple[Annotated[float, Field(ge=0, le=LARGEST)], ...], FEATURES]
    gamma: Annotated[float, Field(gt=0, le=LARGEST)]
    points: Annotated[tuple[Features, ...], Field(min_length=1, max_length=CORRECTION_POINTS)]
    weights: tuple[Annotated[float, Field(ge=-LARGEST, le=LARGEST)], ...]

    @model_validator(mode="after")
    def _a_weight_a_point(self) -> Self:
        if len(self.weights) != len(self.points):
            raise ValueError(f"weights: found {len(self.weights)}, expected {len(self.points)}, one per point")
        return self


class Accuracy(Strict):
    """How well predictions agree with measurements of networks that the model was not fitted to.

    Attributes:
        networks: the number of networks.
        within_10: the share of predictions within 10% of the measurement.
        within_5: the share of predictions within 5% of the measurement.
        rms: the root mean square of predicted / measured - 1.
        worst: the largest |predicted / measured - 1|.
        spearman: Spearman's rank correlation.
    """

    networks: Annotated[int, Field(ge=1)]
    within_10: ShareOfOne
    within_5: ShareOfOne
    rms: Annotated[float, Field(ge=0)]
    worst: Annotated[float, Field(ge=0)]
    spearman: Annotated[float, Field(ge=-1, le=1)]


class LatencyModel(Document):
    """A model of the latency of a family's networks on a back end.

    Attributes:
        settings: back end, threads, batch and precision; the precision decides the terms.
        machine: the machine that it was measured on.
        yardstick: milliseconds of the yardstick on the undisturbed machine; see `yardstick.py`.
        terms: the names of the terms, in the order of `milliseconds`.
        milliseconds: milliseconds per unit of each term.
        correction: the factor for what depends on a network as a whole.
        held_out: the accuracy on held-out networks.
        macs_alone: the accuracy of the best power law of MACs, fitted to and judged on the same networks.
    """

    format: Literal["scalenet-zoo/latency-model"] = "scalenet-zoo/latency-model"
    version: Annotated[int, Field(ge=1, le=1)] = 1
    settings: Settings
    machine: dict[str, JsonValue]
    yardstick: Milliseconds
    terms: tuple[str, ...]
    milliseconds: tuple[Annotated[float, Field(ge=0, le=LARGEST)], ...]
    correction: Correction
    held_out: Accuracy
    macs_alone: Accuracy

    @model_validator(mode="after")
    def _this_version(self) -> Self:
        if self.terms != (expected := terms_of(self.settings.precision)):
            raise ValueError("terms: found another version's, expected this version's: profile again")
        if (found := len(self.milliseconds)) != len(expected):
            raise ValueError(f"milliseconds: found {found} numbers, expected {len(expected)}, one per term")
        return self

    def predict(self, population: Population) -> Floats:
        """Predict the milliseconds of N base models under M strategies, (N, M).

        Raises:
            InputError: as for `predict_terms`.
        """
        return self.predict_terms(population_terms(population, self.settings.precision))

    def predict_spec(self, spec: ArchSpec) -> float:
        """Predict the milliseconds of one network.

        Raises:
            InputError: as for `predict_terms`.
        """
        return float(self.predict_terms(trace_terms(spec.trace, self.settings.precision)))

    def predict_terms(self, terms: Floats) -> Floats:
        """Predict milliseconds (...) from terms (terms, ...).

        Raises:
            InputError: a prediction is 0 or not finite, so the model's numbers were not fitted.
        """
        with np.errstate(all="ignore"):
            ms = _predict(np.asarray(self.milliseconds), self.correction, terms, kind_slices(self.terms))
        if not np.all((ms > 0) & np.isfinite(ms)):
            raise InputError(
                f"latency model of {self.settings.family} on {self.settings.backend}: found numbers that predict no"
                " valid time, expected those that `profile` fits: profile again"
            )
        return ms


def fit_latency_model(profile: Profile) -> LatencyModel:
    """Fit a model to a profile, and judge it on the held-out networks.

    Raises:
        InputError: the profile is from a version with other terms, or is incomplete.
    """
    if profile.terms != terms_of(profile.settings.precision):
        raise InputError("profile: terms: found another version's, expected this version's: profile again")
    for role, least in (("networks", 4), ("held_out", 2)):
        if (count := sum(measurement.role == role for measurement in profile.measurements)) < least:
            raise InputError(f"profile: measurements: found {count} of {role}, expected {least} or more: profile again")
    terms, ms, macs, roles = _table(profile)
    held_out, networks = roles == "held_out", roles == "networks"
    seen, kinds = ~held_out, kind_slices(profile.terms)
    weights = _fit_additive(terms[:, seen], ms[seen])
    additive = weights @ terms
    features = _features(weights, terms, kinds)
    correction = _fit_correction(features[:, networks], np.log(ms[networks] / additive[networks]))
    slope, offset = np.polyfit(np.log(macs[networks]), np.log(ms[networks]), 1)
    by_macs = np.exp(offset + slope * np.log(macs[held_out]))
    return LatencyModel(
        settings=profile.settings,
        machine=profile.machine,
        yardstick=profile.yardstick,
        terms=profile.terms,
        milliseconds=tuple(map(float, weights)),
        correction=correction,
        held_out=accuracy(_predict(weights, correction, terms[:, held_out], kinds), ms[held_out]),
        macs_alone=accuracy(by_macs, ms[held_out]),
    )


def make_latency_model(
    family: Family | Entries,
    settings: Settings,
    plan: Plan,
    path: Path,
    on_progress: OnProgress = lambda what, done, total: None,
) -> LatencyModel:
    """Profile a family, fit a model, and write it; the measurements go beside it, into `NAME.profile.json`.

    Args:
        family: the family or entries that `settings` name.
        settings: back end, precision, threads and batch.
        plan: the number of measurements.
        path: the model's file.
        on_progress: reports each measurement.

    Raises:
        BackendError: the back end cannot run here.
        OutputError: a file cannot be written.
        InputError, TrainingError: as for `profile.measure_items`.
    """
    model = fit_latency_model(measure_profile(family, settings, plan, path.with_suffix(".profile.json"), on_progress))
    model.save(path)
    return model


def model_path(settings: Settings) -> Path:
    """Return the cached model's path for these settings; it depends on the device and the runtimes' versions, too."""
    here = machine()
    known = [settings.model_dump_json(), *(here[key] for key in ("cpu", "gpu", "driver", "versions"))]
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "latency" / f"{settings.family}-{settings.backend}-{digest[:12]}.json"


def accuracy(predicted: Floats, measured: Floats) -> Accuracy:
    """Compare predictions with measurements, both (networks,); if all are equal, the rank correlation is 0."""
    error = predicted / measured - 1.0
    different = len(set(predicted)) > 1 and len(set(measured)) > 1
    return Accuracy(
        networks=len(error),
        within_10=float(np.mean(np.abs(error) <= 0.10)),
        within_5=float(np.mean(np.abs(error) <= 0.05)),
        rms=float(np.sqrt(np.mean(error**2))),
        worst=float(np.abs(error).max()),
        spearman=float(spearmanr(predicted, measured).statistic) if different else 0.0,
    )


def _table(profile: Profile) -> tuple[Floats, Floats, Floats, NDArray[np.str_]]:
    """Collect the terms (terms, n), milliseconds, MACs and roles (n,) of a profile's measurements."""
    terms = np.array([measurement.terms for measurement in profile.measurements]).T
    ms = np.array(profile.milliseconds)
    macs = np.array([measurement.macs for measurement in profile.measurements], dtype=float)
    return terms, ms, macs, np.array([measurement.role for measurement in profile.measurements])


def _fit_additive(terms: Floats, ms: Floats) -> Floats:
    """Fit non-negative milliseconds per unit of each term, (terms,), for small relative errors.

    This is ridge regression with weights of 0 or more: the penalty is one more row per term.
    """
    scale = terms.mean(axis=1) + (terms.max(axis=1) == 0)
    rows = np.vstack([(terms / scale[:, None] / ms).T, np.sqrt(RIDGE) * np.eye(len(scale))])
    fitted, _ = nnls(rows, np.concatenate([np.ones(len(ms)), np.zeros(len(scale))]))
    weights: Floats = np.where(terms.max(axis=1) > 0, fitted / scale, 0.0)
    return weights


def _predict(weights: Floats, correction: Correction, terms: Floats, kinds: Sequence[slice]) -> Floats:
    additive: Floats = np.tensordot(weights, terms, axes=1)
    return additive * np.exp(_log_correction(correction, _features(weights, terms, kinds)))


def _features(weights: Floats, terms: Floats, kinds: Sequence[slice]) -> Floats:
    """Compute a correction's features, (features, ...): the log of the additive prediction and each kind's share."""
    parts = np.stack([np.tensordot(weights[kind], terms[kind], axes=1) for kind in kinds])
    total = parts.sum(axis=0)
    return np.concatenate([np.log(total)[None], parts / total])


def _fit_correction(features: Floats, error: Floats) -> Correction:
    """Fit a correction that is as strong as cross-validation supports."""
    mean, scale = features.mean(axis=1), features.std(axis=1)
    scale[scale < 1e-3] = np.inf  # kinds that no network has, or of which all have the same share
    points = ((features - mean[:, None]) / scale[:, None]).T
    grid = {"alpha": [0.1, 1.0, 10.0, 100.0], "gamma": [0.01, 0.03, 0.1]}
    folds = KFold(min(8, len(error)), shuffle=True, random_state=0)
    search = GridSearchCV(KernelRidge(kernel="rbf"), grid, scoring="neg_mean_squared_error", cv=folds).fit(
        points, error
    )
    fitted = search.best_estimator_
    return Correction(
        mean=tuple(map(float, mean)),
        scale=tuple(float(value) if np.isfinite(value) else 0.0 for value in scale),
        gamma=float(fitted.gamma),
        points=tuple(tuple(map(float, point)) for point in points),
        weights=tuple(map(float, fitted.dual_coef_)),
    )


def _log_correction(correction: Correction, features: Floats) -> Floats:
    """Compute the logarithm of the correction, (...), from features (features, ...)."""
    scale = np.array(correction.scale)
    shape = features.shape[1:]
    flat = features.reshape(len(scale), -1)
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    x = (flat - np.array(correction.mean)[:, None]) * inverse[:, None]
    points = np.array(correction.points)
    weights, squares = np.array(correction.weights), (points**2).sum(1)[:, None]
    log = np.empty(x.shape[1])
    at_once = max(1, PREDICTED_AT_ONCE // len(points))
    for start in range(0, len(log), at_once):
        part = x[:, start : start + at_once]
        distances = np.maximum(0.0, squares + (part**2).sum(0) - 2.0 * points @ part)
        log[start : start + at_once] = weights @ np.exp(-correction.gamma * distances)
    return log.reshape(shape)
