"""How networks are scored, searched and timed: sections of a configuration, apart from what uses them.

So a configuration is read, and what is wrong in it told, before torch is imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from scalenet_zoo.arch.spec import Strict, Task
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.latency.plan import Plan
from scalenet_zoo.spaces.scalenas import Probability

if TYPE_CHECKING:
    from scalenet_zoo.arch.constraints import Floats

Whole = Annotated[int, Field(ge=1)]


class SharedSettings(Strict):
    """How networks are scored, whichever they are.

    Attributes:
        bn_images: training images that batch-norm statistics are estimated from, spread evenly over their split.
        val_images: validation images, spread evenly; null: all.
        batch_size: images at once, about; batches that statistics are estimated from are of one size, as far as can be.
        amp: the type that networks compute in where that is safe; no: float32.
    """

    bn_images: Annotated[int, Field(ge=2)] = 2000
    val_images: Annotated[int, Field(ge=2)] | None = None
    batch_size: Annotated[int, Field(ge=4)] = 128
    amp: Literal["no", "bf16", "fp16"] = "no"


class ScoringSettings(SharedSettings):
    """How networks are scored.

    Attributes:
        paths: both coupled ones, or the left one alone.
    """

    paths: Literal["both", "single"] = "both"


Metric = Literal["miou", "ap", "pck"]
METRICS: Mapping[Task, tuple[Metric, ...]] = {"segmentation": ("miou",), "pose": ("ap", "pck")}
"""What networks of a task may be judged by; the first if nothing is said."""


class MultipathScoring(SharedSettings):
    """How multipath networks are scored.

    Attributes:
        metric: `miou` of segmentation, `ap` or `pck` of pose; null: the first that the task has.
    """

    bn_images: Annotated[int, Field(ge=2)] = 500
    batch_size: Annotated[int, Field(ge=4)] = 16
    metric: Metric | None = None

    def metric_of(self, task: Task) -> Metric:
        """What networks of a task are judged by.

        Raises:
            InputError: the task has no such figure.
        """
        known = METRICS[task]
        if self.metric is not None and self.metric not in known:
            raise InputError(f"scoring.metric: found {self.metric}, expected {' or '.join(known)} for {task}")
        return self.metric or known[0]


class MCEASettings(Strict):
    """How is searched; the defaults are the paper's.

    Attributes:
        population: base models of a generation.
        generations: of a round.
        rounds: of the Markov chain, after round 0.
        keep: base models that a round hands to the next.
        first_bases: random base models that round 0 ranks strategies with.
        weights: of the stages above 0 in a base model's fitness; None: equal.
        strategies_at_most: more admissible strategies of a stage than this are evolved, scoring this many.
        seed: of all that is random.
    """

    population: Annotated[int, Field(ge=2)] = 64
    generations: Whole = 40
    rounds: Whole = 8
    keep: Whole = 50
    first_bases: Whole = 20
    weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    strategies_at_most: Annotated[int, Field(ge=4)] = 200
    seed: Annotated[int, Field(ge=0)] = 0

    def shares(self, stages: Sequence[int]) -> Floats:
        """What share of the fitness each stage has.

        Raises:
            InputError: the weights are not one a stage, or all 0.
        """
        weights = np.ones(len(stages)) if self.weights is None else np.asarray(self.weights, dtype=np.float64)
        if len(weights) != len(stages) or weights.sum() == 0:
            raise InputError(
                f"weights: found {weights.tolist()}, expected one for each of the stages"
                f" {', '.join(map(str, stages))}, not all 0"
            )
        shares: Floats = weights / weights.sum()
        return shares


class TopologySettings(Strict):
    """How is searched; the defaults are the paper's, but for `mutation`.

    Attributes:
        first: networks drawn before evolution begins.
        evaluations: networks scored in all.
        parents: of a generation, which has as many offspring; the population of ageing evolution.
        crossover: the probability that a module comes from another parent.
        mutation: the probability that a path is flipped. The paper says 0.5, after which nothing of a parent's paths is
            left; 0.2 is what its authors' released script does.
        tournament: networks among which ageing evolution chooses a parent.
        seed: of all that is random.
    """

    first: Annotated[int, Field(ge=1)] = 1000
    evaluations: Annotated[int, Field(ge=1)] = 2000
    parents: Annotated[int, Field(ge=2)] = 100
    crossover: Probability = 0.25
    mutation: Probability = 0.2
    tournament: Annotated[int, Field(ge=1)] = 25
    seed: Annotated[int, Field(ge=0)] = 0


class LatencySettings(Strict):
    """How latency is modelled and measured, where it is limited.

    Attributes:
        profile: how much of the space is measured before the search.
        measured: networks that are measured after a round; of ScaleNet's search, of each limited stage.
        batch: images at once.
        precision: of the networks.
    """

    profile: Plan = Plan(layers=40, networks=40, held_out=12)
    measured: Annotated[int, Field(ge=1)] = 4
    batch: Annotated[int, Field(ge=1)] = 1
    precision: Literal["fp32", "fp16"] = "fp32"


class MultipathLatencySettings(LatencySettings):
    """How latency is modelled and measured, where it is limited.

    Attributes:
        every: generations between measurements; one is as many networks as evolution has parents.
    """

    every: Annotated[int, Field(ge=1)] = 2
