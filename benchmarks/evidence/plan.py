"""What is trained, scored and compared: plan.yaml."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, JsonValue

from scalenet_zoo import ArchSpec
from scalenet_zoo.arch.spec import Strict, spec_errors
from scalenet_zoo.core.files import read_yaml
from scalenet_zoo.search.scalenet.config import ScaleNetScoring
from scalenet_zoo.search.scalenet.limits import Bounds, Limits
from scalenet_zoo.search.scalenet.sampling import FeasibleSampler
from scalenet_zoo.spaces.candidates import Candidate
from scalenet_zoo.spaces.scalenet import Space
from scalenet_zoo.supernet.scalenet.settings import ScaleNetSettings
from scalenet_zoo.training.recipe import Recipe

PLAN = Path(__file__).with_suffix(".yaml")
CLASSES = 10


class Way(Strict):
    """A supernet of the run, and how it is trained.

    Attributes:
        name: of it; those of one group differ in their seed alone: GROUP-SEED.
        seed: of its training.
        sampler: as in `ScaleNetSettings`.
        recipe: values that differ from the plan's for supernets.
        shared_kernels: whether the kernels of a layer share weights (`supernets.SharedKernels`).
        average: what share of a mean of the weights remains in a step; None: there is none.
    """

    name: str
    seed: int = 0
    sampler: Literal["hierarchical", "uniform", "sandwich"] = "hierarchical"
    recipe: dict[str, JsonValue] = Field(default={})
    shared_kernels: bool = False
    average: float | None = None


class Study(Strict):
    """What is compared, and how many of it.

    Attributes:
        supernets: in order of worth; networks are chosen by the scores of the first.
        at_once: supernets that are trained at the same time, at most.
        drawn: networks of each stage that are drawn at random, and as many that are chosen by their scores.
        pool: networks of each stage that are scored to choose from.
        seeds: of trainings alone.
        longer_epochs: of one more training of each network, with the first seed.
        bn_images: images for statistics, where they are from more of them.
        searches: names of supernets that are searched with, each by all methods.
        search: settings of the joint search.
        evaluations: networks that other searches score.
    """

    supernets: tuple[Way, ...]
    drawn: int
    at_once: int
    pool: int
    seeds: tuple[int, ...]
    longer_epochs: int
    bn_images: int
    searches: tuple[str, ...]
    search: dict[str, JsonValue]
    evaluations: int


class Plan(Strict):
    """The whole plan.

    Attributes:
        space: of the networks.
        limits: on their MACs, at every stage.
        supernet: values of the supernets' recipe that differ from the package's.
        alone: values of the recipe of networks trained alone.
        scoring: how networks are scored by a supernet.
        study: what the run compares.
    """

    space: dict[str, JsonValue]
    limits: Limits
    supernet: dict[str, JsonValue]
    alone: dict[str, JsonValue]
    scoring: ScaleNetScoring
    study: Study

    @classmethod
    def load(cls, path: Path = PLAN, **changes: Any) -> "Plan":
        """The plan of a file, with other values for whole fields.

        Raises:
            SpecError: a field is missing, unknown or out of range.
        """
        with spec_errors(str(path)):
            return cls.model_validate_json(json.dumps({**read_yaml(path), **changes}))

    def on(self, device: str) -> "Plan":
        """The plan as a device runs it.

        On a CPU, networks train alone in fp32, which is faster there than bf16. On a GPU, supernets have channels
        first, as the package's do.
        """
        if device == "cpu":
            return self.model_copy(update={"alone": {**self.alone, "amp": "no"}})
        return self.model_copy(update={"supernet": {**self.supernet, "channels_last": False}})

    @cached_property
    def opened(self) -> Space:
        """The space."""
        return Space.from_values(self.space, "space")

    @cached_property
    def bounds(self) -> Bounds:
        """The limits, for networks of the space."""
        return Bounds(self.opened, CLASSES, self.limits)

    def recipe(self, **changes: JsonValue) -> Recipe:
        """How networks are trained alone."""
        return Recipe().replace({**self.alone, **changes}, "alone")

    def settings(self, **changes: JsonValue) -> ScaleNetSettings:
        """How supernets are trained, with other fields than the package's."""
        recipe = {**self.supernet, **changes.pop("recipe", {})}  # type: ignore[dict-item]
        return ScaleNetSettings.model_validate_json(json.dumps({**changes, "recipe": recipe}))

    def settings_of(self, way: Way) -> ScaleNetSettings:
        """How a supernet is trained."""
        return self.settings(sampler=way.sampler, recipe={**way.recipe, "seed": way.seed})

    def networks_of(self, way: Way) -> int:
        """Networks that a step of a supernet's training works on."""
        return len(self.settings_of(way).make_sampler(self.opened).sample(np.random.default_rng(0)))

    def shortened(self, share: float) -> "Plan":
        """The plan with supernets of fewer epochs: this share of their number each, 2 at least."""
        ways = []
        for way in self.study.supernets:
            epochs = max(2, int(share * self.settings_of(way).make_recipe().epochs))
            ways.append(way.model_copy(update={"recipe": {**way.recipe, "epochs": epochs}}))
        return self.model_copy(update={"study": self.study.model_copy(update={"supernets": tuple(ways)})})

    def spec(self, key: str) -> ArchSpec:
        """The network of a key."""
        candidate = Candidate.from_key(self.opened, key)
        return self.opened.spec(candidate.kernels, candidate.scaling, CLASSES)

    def draw(self, stage: int, count: int, seed: int) -> list[str]:
        """Keys of different networks of a stage: base models within the limits, each under an admissible strategy."""
        rng, sampler = np.random.default_rng([seed, stage]), FeasibleSampler(self.bounds)
        drawn: dict[str, None] = {}
        while len(drawn) < count:
            (base,) = sampler.draw(rng, 1)
            if admissible := self.bounds.admissible(stage, base[None]):
                drawn[Candidate(base, admissible[rng.integers(len(admissible))]).key] = None
        return list(drawn)
