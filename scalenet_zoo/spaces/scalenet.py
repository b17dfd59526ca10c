"""Search spaces of base models and scaling strategies (ScaleNet, ECCV 2022, section 3), as YAML files.

    name: scalenet
    stem: {channels: 32, kernel: 3, stride: 2}
    stages:
      - {channels: 16, stride: 1, expand: 1, depths: [1], kernels: [3, 5, 7]}
      - {channels: 32, stride: 2, expand: 6, depths: [1, 2, 3, 4], kernels: [3, 5, 7]}
    scaling:
      - {stage: 0, depth: [1.0], width: [1.0], resolution: [224]}
      - {stage: 1, depth: [1.04, 1.08], width: [1.04, 1.08], resolution: [224, 240, 256]}

A base model is an integer array of its kernels, (stages, layers), 0 where a stage has no such layer: what
`Population` takes. A genome is the same as a vector of choices: for each stage the place of its depth among
`depths`, then for each layer the place of its kernel among `kernels`, 0 where there is no such layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from typing import TYPE_CHECKING, Annotated, ClassVar, Self, TypeVar

import numpy as np
from pydantic import Field, field_validator, model_validator

from scalenet_zoo.arch.family import BaseStage, Family, FamilyBase, Multiplier, Squeeze, Strategy
from scalenet_zoo.arch.population import Population
from scalenet_zoo.arch.rounding import scale_depth
from scalenet_zoo.arch.scaling import apply_strategy, scale_network
from scalenet_zoo.arch.spec import (
    NORM_EPS,
    Activation,
    Channels,
    Gate,
    Head,
    Kernel,
    NormEps,
    Padding,
    Pixels,
    Provenance,
    Stem,
    Strict,
    Stride,
)
from scalenet_zoo.core.bounds import LAYERS, STRATEGIES
from scalenet_zoo.core.errors import InputError, SpecError
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.spaces.space_file import SpaceFile

if TYPE_CHECKING:
    from scalenet_zoo.arch.rounding import Integers
    from scalenet_zoo.arch.spec import ArchSpec, MBConvNetwork


Number = TypeVar("Number", int, float)


@dataclass(frozen=True, order=True)
class Scaling:
    """A scaling strategy: what a base model becomes at a scaling stage.

    Attributes:
        stage: s; the network should cost 2^s times the base model.
        depth: multiplier of layers.
        width: multiplier of channels.
        resolution: pixels of the square input.
    """

    stage: int
    depth: float
    width: float
    resolution: int

    def to_strategy(self, name: str) -> Strategy:
        """The same for a family file."""
        return Strategy(
            name=name, stage=float(self.stage), depth=self.depth, width=self.width, resolution=self.resolution
        )


class Stage(Strict):
    """What a stage of the base model may be.

    Attributes:
        channels: of all its layers.
        stride: of its first layer.
        expand: hidden channels per input channel of a layer.
        depths: how many layers it may have.
        kernels: that each layer chooses from.
        scales_depth: whether depth applies to it.
    """

    channels: Channels
    stride: Stride
    expand: Annotated[int, Field(ge=1, le=64)]
    depths: Annotated[tuple[Annotated[int, Field(ge=1, le=64)], ...], Field(min_length=1)]
    kernels: Annotated[tuple[Kernel, ...], Field(min_length=1)]
    scales_depth: Annotated[bool, Field(exclude_if=bool)] = True

    @field_validator("depths", "kernels")
    @classmethod
    def _rising(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        return _check_rising(values)


class ScalingStage(Strict):
    """The multipliers and resolutions of a scaling stage."""

    stage: Annotated[int, Field(ge=0, le=20)]
    depth: Annotated[tuple[Multiplier, ...], Field(min_length=1)]
    width: Annotated[tuple[Multiplier, ...], Field(min_length=1)]
    resolution: Annotated[tuple[Pixels, ...], Field(min_length=1)]

    @field_validator("depth", "width", "resolution")
    @classmethod
    def _rising(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        return _check_rising(values)

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if (strategies := len(self.depth) * len(self.width) * len(self.resolution)) > STRATEGIES:
            raise ValueError(
                f"found {strategies:,} strategies (depth times width times resolution), expected at most {STRATEGIES:,}"
            )
        return self


class Space(SpaceFile):
    """Base models and scaling strategies to choose from.

    Attributes:
        stem, head, activation, gate, padding, norm_eps, squeeze: of every network, as in a family file.
        stages: of the base model.
        scaling: the first is stage 0, the base model itself; each later one is larger.
        divisor: channels are multiples of it; 1: rounded up, as in the paper.
        scales_head: whether width applies to the head as well.
        scales_stem: whether width applies to the stem.
    """

    packaged: ClassVar[str] = "scalenet"
    stem: Stem
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=32)]
    head: Head
    activation: Activation = "hard_swish"
    gate: Gate = "hard_sigmoid"
    padding: Padding = "symmetric"
    norm_eps: NormEps = NORM_EPS
    squeeze: Squeeze = "expanded"
    divisor: Annotated[int, Field(ge=1, le=1024)] = 1
    scales_head: bool = False
    scales_stem: Annotated[bool, Field(exclude_if=bool)] = True
    scaling: Annotated[tuple[ScalingStage, ...], Field(min_length=1, max_length=21)]

    @field_validator("scaling")
    @classmethod
    def _from_the_base_up(cls, scaling: tuple[ScalingStage, ...]) -> tuple[ScalingStage, ...]:
        first = scaling[0]
        if first.stage != 0 or first.depth != (1.0,) or first.width != (1.0,) or len(first.resolution) != 1:
            raise ValueError("expected stage 0 first, with depth [1.0], width [1.0] and one resolution")
        if any(after.stage <= before.stage for before, after in pairwise(scaling)):
            raise ValueError(f"found {quoted([each.stage for each in scaling])}, expected rising stages")
        return scaling

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        """The largest network is one that can be: so are all others."""
        if (layers := sum(self.positions(stage) for stage in range(len(self.stages)))) > LAYERS:
            raise ValueError(
                f"found {layers:,} layers, all stages' largest depths times the depth {self.deepest:g},"
                f" expected at most {LAYERS:,}"
            )
        try:
            self.largest_spec(classes=1)
        except SpecError as error:
            raise ValueError(f"found that the largest network cannot be: {error}") from None
        return self

    @property
    def resolution(self) -> int:
        """Pixels of the base model's input."""
        return self.scaling[0].resolution[0]

    @property
    def longest(self) -> int:
        """Layers that a stage of a base model has at most."""
        return max(max(stage.depths) for stage in self.stages)

    @property
    def widest(self) -> float:
        """The largest width multiplier."""
        return max(max(stage.width) for stage in self.scaling)

    @property
    def deepest(self) -> float:
        """The largest depth multiplier."""
        return max(max(stage.depth) for stage in self.scaling)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """All resolutions, from the smallest."""
        return tuple(sorted({resolution for stage in self.scaling for resolution in stage.resolution}))

    def positions(self, stage: int) -> int:
        """Layers that a stage has at most in a scaled network."""
        most = max(self.stages[stage].depths)
        return int(scale_depth(most, self.deepest)) if self.stages[stage].scales_depth else most

    def scalings(self, stage: int) -> list[Scaling]:
        """All strategies of a scaling stage.

        Raises:
            InputError: the space has no such stage.
        """
        for each in self.scaling:
            if each.stage == stage:
                return [Scaling(stage, *values) for values in product(each.depth, each.width, each.resolution)]
        raise InputError(
            f"stage: found {stage}, expected one of {', '.join(str(each.stage) for each in self.scaling)},"
            f" which the space {self.name} has"
        )

    @property
    def unscaled(self) -> Scaling:
        """The base model as it is."""
        return self.scalings(0)[0]

    @property
    def smallest(self) -> Integers:
        """The base model with the fewest layers and the smallest kernels, (stages, layers)."""
        return self._extreme(0)

    @property
    def largest(self) -> Integers:
        """The base model with the most layers and the largest kernels, (stages, layers)."""
        return self._extreme(-1)

    def _extreme(self, end: int) -> Integers:
        kernels = np.zeros((len(self.stages), self.longest), dtype=np.int64)
        for s, stage in enumerate(self.stages):
            kernels[s, : stage.depths[end]] = stage.kernels[end]
        return kernels

    @property
    def largest_scaling(self) -> Scaling:
        """The largest multipliers and resolution of all stages, together."""
        return Scaling(self.scaling[-1].stage, self.deepest, self.widest, self.resolutions[-1])

    def largest_spec(self, classes: int, in_channels: int = 3) -> ArchSpec:
        """The largest base model under the largest multipliers: every network of the space is a part of it."""
        return self.spec(self.largest, self.largest_scaling, classes, self.name, in_channels)

    def sample(self, rng: np.random.Generator, count: int) -> Integers:
        """Base models, (count, stages, layers): the depths, then the kernels of each stage uniformly."""
        kernels = np.zeros((count, len(self.stages), self.longest), dtype=np.int64)
        for s, stage in enumerate(self.stages):
            layers = rng.choice(stage.depths, count)
            choices = rng.choice(stage.kernels, (count, self.longest))
            kernels[:, s] = np.where(np.arange(self.longest) < layers[:, None], choices, 0)
        return kernels

    @cached_property
    def gene_options(self) -> tuple[int, ...]:
        """How many values each gene of a genome may take, in order."""
        return tuple(
            options
            for stage in self.stages
            for options in (len(stage.depths), *[len(stage.kernels)] * max(stage.depths))
        )

    def encode(self, kernels: Integers) -> Integers:
        """Base models (n, stages, layers) as genomes (n, genes)."""
        columns = []
        for s, stage in enumerate(self.stages):
            layers = np.count_nonzero(kernels[:, s], axis=1)
            columns.append(np.searchsorted(stage.depths, layers))
            chosen = kernels[:, s, : max(stage.depths)]
            columns.extend(np.where(chosen > 0, np.searchsorted(stage.kernels, chosen), 0).T)
        return np.stack(columns, axis=1)

    def decode(self, genomes: Integers) -> Integers:
        """Genomes (n, genes) as base models (n, stages, layers); genes of layers that are not there do not matter."""
        kernels = np.zeros((len(genomes), len(self.stages), self.longest), dtype=np.int64)
        at = 0
        for s, stage in enumerate(self.stages):
            most = max(stage.depths)
            layers = np.asarray(stage.depths)[genomes[:, at]]
            chosen = np.asarray(stage.kernels)[genomes[:, at + 1 : at + 1 + most]]
            kernels[:, s, :most] = np.where(np.arange(most) < layers[:, None], chosen, 0)
            at += 1 + most
        return kernels

    def to_array(self, kernels: Sequence[Sequence[int]]) -> Integers:
        """A base model (stages, layers) from the kernels of each stage's layers, as many as there are."""
        array = np.zeros((len(self.stages), self.longest), dtype=np.int64)
        for row, chosen in zip(array, kernels, strict=True):
            row[: len(chosen)] = chosen
        return array

    def base_model(self, kernels: Integers) -> FamilyBase:
        """A base model (stages, layers), for a family file."""
        stages = (
            BaseStage(
                channels=stage.channels,
                stride=stage.stride,
                expand=stage.expand,
                kernels=tuple(int(kernel) for kernel in row if kernel),
                scales_depth=stage.scales_depth,
            )
            for stage, row in zip(self.stages, kernels, strict=True)
        )
        return FamilyBase(
            stem=self.stem,
            stages=tuple(stages),
            head=self.head,
            activation=self.activation,
            gate=self.gate,
            padding=self.padding,
            norm_eps=self.norm_eps,
            squeeze=self.squeeze,
            resolution=self.resolution,
        )

    def network(self, kernels: Integers, scaling: Scaling) -> MBConvNetwork:
        """A base model (stages, layers), scaled."""
        return scale_network(
            self.base_model(kernels), scaling.depth, scaling.width, self.divisor, self.scales_head, self.scales_stem
        )

    def family(
        self, kernels: Integers, scalings: Sequence[Scaling], classes: int, name: str, provenance: Provenance
    ) -> Family:
        """A base model (stages, layers) with a strategy a stage, as a family; its networks are called NAME_s0, ..."""
        return Family(
            name=name,
            classes=classes,
            base=self.base_model(kernels),
            divisor=self.divisor,
            scales_head=self.scales_head,
            scales_stem=self.scales_stem,
            strategies=tuple(scaling.to_strategy(f"{name}_s{scaling.stage}") for scaling in scalings),
            provenance=provenance,
        )

    def spec(
        self, kernels: Integers, scaling: Scaling, classes: int, name: str = "candidate", in_channels: int = 3
    ) -> ArchSpec:
        """A base model (stages, layers), scaled, as a spec."""
        family = self.family(kernels, [scaling], classes, name, Provenance(source=f"the space {self.name}"))
        return apply_strategy(family, scaling.to_strategy(name), in_channels=in_channels)

    def population(
        self, bases: Integers, scalings: Sequence[Scaling], classes: int, in_channels: int = 3
    ) -> Population:
        """N base models (N, stages, layers) under M strategies, to be costed."""
        family = self.family(bases[0], [self.unscaled], classes, self.name, Provenance(source=""))
        depth, width, resolution = np.array([(s.depth, s.width, s.resolution) for s in scalings]).T
        return Population(family, bases, depth, width, resolution, in_channels=in_channels)


def _check_rising(values: tuple[Number, ...]) -> tuple[Number, ...]:
    if any(after <= before for before, after in pairwise(values)):
        raise ValueError(f"found {quoted(list(values))}, expected rising numbers")
    return values
