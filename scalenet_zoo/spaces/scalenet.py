"""Search spaces of base models and scaling strategies (ScaleNet, ECCV 2022, section 3), as YAML files.

    name: scalenet
    stem: {channels: 32, kernel: 3, stride: 2}
    stages:
      - {channels: 16, stride: 1, expand: 1, depths: [1], kernels: [3, 5, 7]}
      - {channels: 32, stride: 2, expand: 6, depths: [1, 2, 3, 4], kernels: [3, 5, 7]}
    scaling:
      - {stage: 0, depth: [1.0], width: [1.0], resolution: [224]}
      - {stage: 1, depth: [1.04, 1.08], width: [1.04, 1.08], resolution: [224, 240, 256]}

A base model is an integer array of its kernels, (stages, layers), with 0 where a stage has no such layer; `Population`
takes it in this form. A genome holds the same as a vector of choices: for each stage, the index of its depth in
`depths`, then for each layer the index of its kernel in `kernels`, with 0 where there is no such layer.
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
    Stride,
)
from scalenet_zoo.core.bounds import LAYERS, STRATEGIES
from scalenet_zoo.core.documents import Strict
from scalenet_zoo.core.errors import InputError, SpecError
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.spaces.space_file import SpaceFile

if TYPE_CHECKING:
    from scalenet_zoo.arch.rounding import Integers
    from scalenet_zoo.arch.spec import ArchSpec, MBConvNetwork


Number = TypeVar("Number", int, float)


@dataclass(frozen=True, order=True)
class Scaling:
    """A scaling strategy: how a base model is scaled at a scaling stage.

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
        """Convert to the form that a family file holds."""
        return Strategy(
            name=name, stage=float(self.stage), depth=self.depth, width=self.width, resolution=self.resolution
        )


class Stage(Strict):
    """The choices for a stage of the base model.

    Attributes:
        channels: channels of all its layers.
        stride: stride of its first layer.
        expand: hidden channels per input channel of a layer.
        depths: the numbers of layers that it may have.
        kernels: the kernels that each layer may have.
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
    """The multipliers and resolutions that a scaling stage may combine."""

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
    """A search space of base models and scaling strategies.

    Attributes:
        stem, head, activation, gate, padding, norm_eps, squeeze: the same for every network, as in a family file.
        stages: the choices for each stage of the base model.
        scaling: the choices for each scaling stage; the first is stage 0, the base model itself.
        divisor: channels are multiples of it; 1: channels are rounded up, as in the paper.
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
        """Check that the largest network is valid; then all others are."""
        if (layers := sum(self.positions(stage) for stage in range(len(self.stages)))) > LAYERS:
            raise ValueError(
                f"found {layers:,} layers in the largest network (depth multiplier {self.deepest:g}),"
                f" expected at most {LAYERS:,}"
            )
        try:
            self.largest_spec(classes=1)
        except SpecError as error:
            raise ValueError(f"found that the largest network is not valid: {error}") from None
        return self

    @property
    def resolution(self) -> int:
        """The base model's resolution, in pixels."""
        return self.scaling[0].resolution[0]

    @property
    def longest(self) -> int:
        """The most layers that a stage of a base model may have."""
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
        """All resolutions, in rising order."""
        return tuple(sorted({resolution for stage in self.scaling for resolution in stage.resolution}))

    def positions(self, stage: int) -> int:
        """The most layers that a stage may have in a scaled network."""
        most = max(self.stages[stage].depths)
        return int(scale_depth(most, self.deepest)) if self.stages[stage].scales_depth else most

    def scalings(self, stage: int) -> list[Scaling]:
        """List all strategies of a scaling stage.

        Raises:
            InputError: the space has no such stage.
        """
        for each in self.scaling:
            if each.stage == stage:
                return [Scaling(stage, *values) for values in product(each.depth, each.width, each.resolution)]
        raise InputError(
            f"stage: found {stage}, expected one of {', '.join(str(each.stage) for each in self.scaling)},"
            f" the stages of the space {self.name}"
        )

    @property
    def unscaled(self) -> Scaling:
        """The strategy of stage 0, which leaves the base model as it is."""
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
        """The largest depth, width and resolution of all stages, combined."""
        return Scaling(self.scaling[-1].stage, self.deepest, self.widest, self.resolutions[-1])

    def largest_spec(self, classes: int, in_channels: int = 3) -> ArchSpec:
        """Make the largest base model under the largest multipliers; every network of the space is a part of it.

        Raises:
            SpecError: the network exceeds the bounds of a spec.
        """
        return self.spec(self.largest, self.largest_scaling, classes, self.name, in_channels)

    def sample(self, rng: np.random.Generator, count: int) -> Integers:
        """Draw base models, (count, stages, layers): for each stage a depth, then kernels, all uniformly."""
        kernels = np.zeros((count, len(self.stages), self.longest), dtype=np.int64)
        for s, stage in enumerate(self.stages):
            layers = rng.choice(stage.depths, count)
            choices = rng.choice(stage.kernels, (count, self.longest))
            kernels[:, s] = np.where(np.arange(self.longest) < layers[:, None], choices, 0)
        return kernels

    @cached_property
    def gene_options(self) -> tuple[int, ...]:
        """The number of values that each gene of a genome may take, in order."""
        return tuple(
            options
            for stage in self.stages
            for options in (len(stage.depths), *[len(stage.kernels)] * max(stage.depths))
        )

    def encode(self, kernels: Integers) -> Integers:
        """Encode base models (n, stages, layers) as genomes (n, genes)."""
        columns = []
        for s, stage in enumerate(self.stages):
            layers = np.count_nonzero(kernels[:, s], axis=1)
            columns.append(np.searchsorted(stage.depths, layers))
            chosen = kernels[:, s, : max(stage.depths)]
            columns.extend(np.where(chosen > 0, np.searchsorted(stage.kernels, chosen), 0).T)
        return np.stack(columns, axis=1)

    def decode(self, genomes: Integers) -> Integers:
        """Decode genomes (n, genes) to base models (n, stages, layers); genes of absent layers do not matter."""
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
        """Make a base model (stages, layers) from lists of the kernels of each stage's layers."""
        array = np.zeros((len(self.stages), self.longest), dtype=np.int64)
        for row, chosen in zip(array, kernels, strict=True):
            row[: len(chosen)] = chosen
        return array

    def base_model(self, kernels: Integers) -> FamilyBase:
        """Convert a base model (stages, layers) to the form that a family file holds."""
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
        """Scale a base model (stages, layers) to the network part of a spec."""
        return scale_network(
            self.base_model(kernels), scaling.depth, scaling.width, self.divisor, self.scales_head, self.scales_stem
        )

    def family(
        self, kernels: Integers, scalings: Sequence[Scaling], classes: int, name: str, provenance: Provenance
    ) -> Family:
        """Make a family of a base model (stages, layers) and one strategy per stage; its networks are NAME_s0, ..."""
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
        """Scale a base model (stages, layers) to a spec.

        Raises:
            SpecError: the network exceeds the bounds of a spec.
        """
        family = self.family(kernels, [scaling], classes, name, Provenance(source=f"the space {self.name}"))
        return apply_strategy(family, scaling.to_strategy(name), in_channels=in_channels)

    def population(
        self, bases: Integers, scalings: Sequence[Scaling], classes: int, in_channels: int = 3
    ) -> Population:
        """Combine N base models (N, stages, layers) with M strategies, to compute their costs."""
        family = self.family(bases[0], [self.unscaled], classes, self.name, Provenance(source=""))
        depth, width, resolution = np.array([(s.depth, s.width, s.resolution) for s in scalings]).T
        return Population(family, bases, depth, width, resolution, in_channels=in_channels)


def _check_rising(values: tuple[Number, ...]) -> tuple[Number, ...]:
    if any(after <= before for before, after in pairwise(values)):
        raise ValueError(f"found {quoted(list(values))}, expected rising numbers")
    return values
