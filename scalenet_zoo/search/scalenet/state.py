"""What a search has found so far, as JSON: `RUN/search/METHOD.json`.

It is written after every generation and every half-step. It holds no state of random generators: what is drawn is a
function of the seed and the place in the search, and scores are kept on disk, so a search that was killed is run
again from its beginning through the scores that it has.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from scalenet_zoo.arch.spec import Document, Name, Strict
from scalenet_zoo.spaces.scalenet import Scaling

Kernels = tuple[tuple[int, ...], ...]
"""A base model: the kernels of each stage's layers, as many as there are."""
Share = Annotated[float, Field(ge=0, le=1)]


Baseline = Literal["random", "compound", "separate"]
Method = Literal["joint", "random", "compound", "separate"]


class ScoredBase(Strict):
    """A base model under one strategy a stage.

    Attributes:
        kernels: of its layers.
        macs: of the unscaled network.
        fitness: the weighted mean of `scores`.
        scores: accuracy of the scaled network of each stage.
    """

    kernels: Kernels
    macs: int
    fitness: float
    scores: tuple[float, ...]


class Generation(Strict):
    """A generation of base models: fitness of the best, mean of the survivors; networks scored for the first time."""

    best: float
    mean: float
    scored: int


class ScoredScaling(Strict):
    """A strategy, its score (the mean over the base models concerned) and their mean MACs under it."""

    scaling: Scaling
    score: float
    macs: float


class HalfStep(Strict):
    """Half a round of the Markov chain.

    Attributes:
        round: counted from 0; round 0 has no `bases` half. Of the baselines: the stage that was searched, or 0.
        kind: `strategies`: each stage's strategies were ranked; `bases`: base models were evolved.
        scalings: the strategy of each stage above 0, after this half-step.
        ranked: of `strategies`: the admissible strategies of each stage, the best first.
        generations: of `bases`.
        bases: of `bases`: the best, the best first.
    """

    round: Annotated[int, Field(ge=0)]
    kind: Literal["strategies", "bases"]
    scalings: tuple[Scaling, ...]
    ranked: tuple[tuple[ScoredScaling, ...], ...] = ()
    generations: tuple[Generation, ...] = ()
    bases: tuple[ScoredBase, ...] = ()


class Timed(Strict):
    """A network whose latency was predicted, then measured, both in milliseconds."""

    predicted: float
    measured: float


class Measured(Timed):
    """A base model under a strategy, timed."""

    kernels: Kernels
    scaling: Scaling


class LatencyRound(Strict):
    """What was measured after a round of the Markov chain, before the model was fitted anew."""

    round: Annotated[int, Field(ge=0)]
    networks: tuple[Measured, ...]


class Found(Strict):
    """A network that a search ends with.

    Attributes:
        stage: its scaling stage.
        kernels: of its base model.
        scaling: applied to it.
        score: by the supernet; None: not scored (the compound rule may leave the space).
        macs: of the network.
        params: of the network.
        latency_ms: measured; None: not measured.
    """

    stage: int
    kernels: Kernels
    scaling: Scaling
    score: float | None = None
    macs: int
    params: int
    latency_ms: float | None = None


class SearchState(Document):
    """A search, so far or ended.

    Attributes:
        method: how was searched.
        name: of the family.
        space: its name, and `space_hash`.
        settings: of the search, all that it depends on.
        stages: the scaling stages searched, above 0.
        half_steps: done so far; the last may be unfinished while `ended` is false.
        latency_rounds: measurements, if latency is limited.
        evaluations: networks that this search asked a score for, each counted once.
        images: that passed forward to score so many networks.
        seconds: of search, scoring included, over all sittings.
        scoring_seconds: of scoring alone.
        drawn, wasted: base models drawn under the limits, and how many of the draws were thrown away.
        found: the networks of stages 0, 1, ..., once it has ended.
    """

    format: Literal["scalenet-zoo/search"] = "scalenet-zoo/search"
    version: Annotated[int, Field(ge=1, le=1)] = 1
    method: Method
    name: Name
    space: str
    space_hash: str
    settings: dict[str, object]
    stages: tuple[int, ...]
    half_steps: tuple[HalfStep, ...] = ()
    latency_rounds: tuple[LatencyRound, ...] = ()
    evaluations: int = 0
    images: int = 0
    seconds: float = 0.0
    scoring_seconds: float = 0.0
    drawn: int = 0
    wasted: int = 0
    ended: bool = False
    found: tuple[Found, ...] = ()


def first_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first name (nested ones joined by dots) with other values before than now, and both; None: all are equal."""
    then, since = flatten(before), flatten(now)
    for name in {**then, **since}:
        if then.get(name) != since.get(name):
            return name, then.get(name), since.get(name)
    return None


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as one: names joined by dots."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
