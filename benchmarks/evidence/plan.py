"""The plan of the CIFAR-10 studies, plan.yaml: which networks and supernets are trained, scored and compared."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, JsonValue

from benchmarks.networks import draw_networks
from scalenet_zoo import ArchSpec
from scalenet_zoo.core.documents import Strict, spec_errors
from scalenet_zoo.core.files import read_yaml
from scalenet_zoo.search.scalenet.config import ScaleNetScoring
from scalenet_zoo.search.scalenet.limits import Bounds, Limits
from scalenet_zoo.spaces.candidates import Candidate
from scalenet_zoo.spaces.scalenet import Space
from scalenet_zoo.supernet.scalenet.settings import ScaleNetSettings
from scalenet_zoo.training.recipe import Recipe

PLAN = Path(__file__).with_suffix(".yaml")
CLASSES = 10


class SupernetVariant(Strict):
    """One supernet of the studies, and how it is trained.

    Attributes:
        name: its name, GROUP-SEED. The supernets of a group differ only in their seed.
        seed: the seed of its training.
        sampler: the sampler, as in `ScaleNetSettings`.
        recipe: recipe values that differ from those of `Plan.supernet`.
        shared_kernels: whether the kernels of a layer share weights (`supernets.SharedKernels`).
        average: the decay of the running mean of its weights, 0 to 1; None keeps no mean.
    """

    name: str
    seed: int = 0
    sampler: Literal["hierarchical", "uniform", "sandwich"] = "hierarchical"
    recipe: dict[str, JsonValue] = Field(default={})
    shared_kernels: bool = False
    average: float | None = None


class Study(Strict):
    """What the studies compare, and how often.

    Attributes:
        supernets: the supernets, the most important first. The first one's scores choose networks to train alone.
        at_once: the largest number of supernets that train at the same time.
        drawn: number of networks drawn at random per stage; as many more are chosen by their scores.
        pool: number of networks per stage that are scored, and from which those are chosen.
        seeds: the seeds of stand-alone trainings.
        longer_epochs: epochs of one more, longer training of each network, with the first seed.
        bn_images: number of images for batch-norm statistics in the variant that uses more of them.
        searches: the names of the supernets that all methods search.
        added: more such names, whose number was chosen once the first searches had results.
        search: the settings of the joint search.
        evaluations: number of networks that each other search scores.
    """

    supernets: tuple[SupernetVariant, ...]
    drawn: int
    at_once: int
    pool: int
    seeds: tuple[int, ...]
    longer_epochs: int
    bn_images: int
    searches: tuple[str, ...]
    added: tuple[str, ...] = ()
    search: dict[str, JsonValue]
    evaluations: int

    @property
    def searched(self) -> tuple[str, ...]:
        """The names of all supernets that all methods search."""
        return self.searches + self.added


class Plan(Strict):
    """The content of plan.yaml.

    Attributes:
        space: the space of networks, in the format of the package's spaces.
        limits: the limits on MACs, one per stage.
        supernet: recipe values of supernets that differ from the package's.
        alone: recipe values of networks trained alone.
        scoring: how supernets score networks.
        study: what is compared.
    """

    space: dict[str, JsonValue]
    limits: Limits
    supernet: dict[str, JsonValue]
    alone: dict[str, JsonValue]
    scoring: ScaleNetScoring
    study: Study

    @classmethod
    def load(cls, path: Path = PLAN, **changes: Any) -> "Plan":
        """Load a plan; `changes` replace whole top-level fields.

        Raises:
            SpecError: if a field is missing, unknown or out of range.
        """
        with spec_errors(str(path)):
            return cls.model_validate_json(json.dumps({**read_yaml(path), **changes}))

    def on(self, device: str) -> "Plan":
        """The plan with the settings that a device, cpu or cuda, needs.

        On a CPU, networks train alone in fp32, because bf16 is slower there. On a GPU, supernets keep channels first,
        because channels last is slower there.
        """
        if device == "cpu":
            return self.model_copy(update={"alone": {**self.alone, "amp": "no"}})
        return self.model_copy(update={"supernet": {**self.supernet, "channels_last": False}})

    @cached_property
    def opened(self) -> Space:
        """The space of networks."""
        return Space.from_values(self.space, "space")

    @cached_property
    def bounds(self) -> Bounds:
        """The limits on the networks of the space."""
        return Bounds(self.opened, CLASSES, self.limits)

    def recipe(self, **changes: JsonValue) -> Recipe:
        """The recipe of networks trained alone, with changed values."""
        return Recipe().replace({**self.alone, **changes}, "alone")

    def settings(self, **changes: JsonValue) -> ScaleNetSettings:
        """The settings of supernets; `changes` are fields of `ScaleNetSettings`, or values of its recipe."""
        recipe = {**self.supernet, **changes.pop("recipe", {})}  # type: ignore[dict-item]
        return ScaleNetSettings.model_validate_json(json.dumps({**changes, "recipe": recipe}))

    def settings_of(self, variant: SupernetVariant) -> ScaleNetSettings:
        """The settings of one supernet."""
        return self.settings(sampler=variant.sampler, recipe={**variant.recipe, "seed": variant.seed})

    def networks_per_step(self, variant: SupernetVariant) -> int:
        """Number of networks that one step of a supernet trains."""
        return len(self.settings_of(variant).make_sampler(self.opened).sample(np.random.default_rng(0)))

    def shortened(self, share: float) -> "Plan":
        """The plan with this share of each supernet's epochs, at least 2."""
        variants = []
        for variant in self.study.supernets:
            epochs = max(2, int(share * self.settings_of(variant).make_recipe().epochs))
            variants.append(variant.model_copy(update={"recipe": {**variant.recipe, "epochs": epochs}}))
        return self.model_copy(update={"study": self.study.model_copy(update={"supernets": tuple(variants)})})

    def spec(self, key: str) -> ArchSpec:
        """The spec of the network with this key."""
        candidate = Candidate.from_key(self.opened, key)
        return self.opened.spec(candidate.kernels, candidate.scaling, CLASSES)

    def draw(self, stage: int, count: int, seed: int) -> list[str]:
        """Draw different networks of a stage, each within its limit, and return their keys."""
        rng = np.random.default_rng([seed, stage])
        return [network.key for network in draw_networks(self.bounds, stage, count, rng)]
