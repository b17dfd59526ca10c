"""ArchSpec, version 1: one architecture, written out layer by layer, as JSON.

    file --read_json--> dict --ArchSpec--> spec --create_model--> network
                                  |
                every field, and the stated cost, checked

Building a network from a spec takes no search code and no arithmetic. `spec.hash` names the architecture: it covers
the `network` part only, so neither the class count nor the input size changes it.
"""

import hashlib
import json
import operator
from collections.abc import Mapping
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    FailFast,
    Field,
    JsonValue,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from scalenet_zoo.arch.trace import Trace, trace
from scalenet_zoo.core.bounds import LAYERS
from scalenet_zoo.core.documents import Document, Strict, spec_errors
from scalenet_zoo.core.errors import SpecError
from scalenet_zoo.core.quoting import quoted

_T = TypeVar("_T")

WRAPPERS = ("_orig_mod", "module")
"""The attributes under which torch.compile (`_orig_mod`), DataParallel and moving averages (`module`) hold the network
that they wrap. None of our modules has such a name."""
NORM_EPS = 1e-5
"""What batch norm adds to the variance unless a spec gives another value: torch's default."""
FUSION_STEPS = 5
"""Steps in a multipath module's arrays, used or not; the largest depth of a branch."""


def _odd(kernel: int) -> int:
    if kernel % 2 == 0:
        raise ValueError("expected an odd number")
    return kernel


Task = Literal["classification", "segmentation", "pose"]
DenseHead = Literal["segmentation", "pose", "bottom_up"]
Activation = Literal["relu", "relu6", "swish", "hard_swish"]
Gate = Literal["sigmoid", "hard_sigmoid"]
Padding = Annotated[
    Literal["symmetric", "same"],
    Field(
        exclude_if=lambda padding: padding == "symmetric",
        description="Zero padding of a convolution. symmetric: half a kernel on each side; same: as in TensorFlow, so"
        " that the output has ceil(pixels / stride) pixels, with the odd one on the right and at the bottom.",
    ),
]
NormEps = Annotated[
    float,
    Field(
        gt=0.0,
        le=1.0,
        exclude_if=lambda eps: eps == NORM_EPS,
        description="What batch norm adds to the variance.",
    ),
]
Channels = Annotated[int, Field(ge=1, le=65_536)]
Kernel = Annotated[int, Field(ge=1, le=31, json_schema_extra={"not": {"multipleOf": 2}}), AfterValidator(_odd)]
Stride = Annotated[int, Field(ge=1, le=2)]
Pixels = Annotated[int, Field(ge=1, le=65_536)]
Classes = Annotated[int, Field(ge=0, le=1_000_000)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=100)]
Bit = Annotated[int, Field(ge=0, le=1)]


Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Input(Strict):
    """The image that a network takes; `cost` holds for this size."""

    channels: Channels = 3
    height: Pixels
    width: Pixels


class Stem(Strict):
    """A convolution, batch norm and activation."""

    channels: Channels
    kernel: Kernel
    stride: Stride


class Layer(Strict):
    """An inverted-residual (MBConv) layer; see `networks/mbconv.py` for what it computes."""

    kernel: Kernel
    stride: Stride
    hidden: Annotated[
        Channels,
        Field(description="Expanded channels. If they equal the input channels, there is no expansion convolution."),
    ]
    squeeze: Annotated[
        int, Field(ge=0, le=65_536, description="Squeeze-and-excite channels; 0: no squeeze-and-excite.")
    ]
    channels: Channels
    expand: Annotated[
        bool,
        Field(
            exclude_if=lambda expand: not expand,
            description="Whether there is an expansion convolution although the hidden channels equal the input's.",
        ),
    ] = False

    def expands(self, in_channels: int) -> bool:
        """Tell whether the layer has an expansion convolution for an input of `in_channels`."""
        return self.expand or self.hidden != in_channels


class Head(Strict):
    """The 1x1 convolution before pooling."""

    channels: Channels


class MBConvNetwork(Strict):
    """A chain of MBConv layers in stages: a classifier."""

    type: Literal["mbconv"] = "mbconv"
    stem: Stem
    stages: Annotated[
        tuple[Annotated[tuple[Layer, ...], Field(min_length=1, max_length=256), FailFast()], ...],
        Field(min_length=1, max_length=32),
        FailFast(),  # thousands of invalid layers would give thousands of complaints of 1 KB each
    ]
    head: Head
    activation: Activation
    gate: Gate
    padding: Padding = "symmetric"
    norm_eps: NormEps = NORM_EPS

    @field_validator("stages")
    @classmethod
    def _bounded(cls, stages: tuple[tuple[Layer, ...], ...]) -> tuple[tuple[Layer, ...], ...]:
        if (layers := sum(map(len, stages))) > LAYERS:
            raise ValueError(f"found {layers:,} layers, expected at most {LAYERS:,}")
        return stages

    @property
    def task(self) -> Task:
        """The task that the network is for."""
        return "classification"


class Module(Strict):
    """A multipath module: the blocks on each branch, and which branches feed which after each step."""

    depth: Annotated[
        tuple[Annotated[int, Field(ge=1, le=FUSION_STEPS)], ...],
        Field(min_length=2, max_length=4, description="Residual blocks of each branch."),
    ]
    fusion: Annotated[
        tuple[tuple[tuple[Bit, ...], ...], ...],
        Field(description="fusion[to][step][from]: 1 where to = from, 0 at steps past the depth of branch `to`."),
    ]

    @field_validator("fusion")
    @classmethod
    def _rectangular(cls, fusion: tuple[tuple[tuple[int, ...], ...], ...]) -> tuple[tuple[tuple[int, ...], ...], ...]:
        branches = len(fusion)
        if any(len(steps) != FUSION_STEPS or any(len(row) != branches for row in steps) for steps in fusion):
            raise ValueError(f"expected [to][step][from] of shape {branches} x {FUSION_STEPS} x {branches}")
        return fusion

    @model_validator(mode="after")
    def _canonical(self) -> Self:
        if len(self.fusion) != len(self.depth):
            raise ValueError(f"fusion: found {len(self.fusion)} branches, expected {len(self.depth)}, as in depth")
        for to, (depth, steps) in enumerate(zip(self.depth, self.fusion, strict=True)):
            for step, row in enumerate(steps):
                if step < depth and not row[to]:
                    raise ValueError(f"fusion[{to}][{step}][{to}]: found 0, expected 1 (a branch always keeps itself)")
                if step >= depth and any(row):
                    raise ValueError(f"fusion[{to}][{step}]: found {list(row)}, expected zeros past the depth {depth}")
        return self


class MultipathNetwork(Strict):
    """Parallel branches at strides 4, 8, 16 and 32 that feed one another, for segmentation or pose."""

    type: Literal["multipath"] = "multipath"
    width: Annotated[int, Field(ge=1, le=8_192, description="Channels of the highest-resolution branch.")]
    head: Annotated[
        DenseHead,
        Field(
            description="pose: joints of the one person in a crop; bottom_up: joints of all people in a picture, told"
            " apart by tags."
        ),
    ]
    modules: Annotated[tuple[Module, ...], Field(min_length=3, max_length=64), FailFast()]

    @property
    def task(self) -> Task:
        """The task that the network is for."""
        return "pose" if self.head == "bottom_up" else self.head

    @field_validator("modules")
    @classmethod
    def _staged(cls, modules: tuple[Module, ...]) -> tuple[Module, ...]:
        branches = [len(module.depth) for module in modules]
        if (
            branches[0] != 2
            or branches[-1] != 4
            or any(after - before not in (0, 1) for before, after in pairwise(branches))
        ):
            raise ValueError(f"found modules of {branches} branches, expected 2, then 3, then 4")
        return modules


class Cost(Strict):
    """The cost of a network at its input size: multiply-adds of convolutions and linear layers, and parameters."""

    macs: Annotated[int, Field(ge=0, le=10**15)]
    params: Annotated[int, Field(ge=0, le=10**10)]


class Result(Strict):
    """A figure for a network, and who reported it."""

    metric: str
    value: float
    data: str
    origin: Annotated[str, Field(description="paper, measured, or the name of whoever reported it.")]


class Provenance(Strict):
    """Where an architecture comes from."""

    source: str
    method: str | None = None
    paper: str | None = None
    license: str | None = None
    results: Annotated[tuple[Result, ...], FailFast()] = ()
    details: dict[str, JsonValue] = Field(default={})


class ArchSpec(Document):
    """An architecture for a task, with its input size, class count, cost and provenance."""

    format: Literal["scalenet-zoo/arch"] = "scalenet-zoo/arch"
    version: Annotated[int, Field(ge=1, le=1)] = 1
    name: Name
    task: Task
    input: Input
    classes: Annotated[Classes, Field(description="Classes, or joints of a pose network; 0: no classifier.")]
    network: Annotated[MBConvNetwork | MultipathNetwork, Field(discriminator="type")]
    cost: Cost
    provenance: Provenance

    @classmethod
    def create(
        cls,
        name: str,
        task: Task,
        input: Input,  # noqa: A002 - the field's name
        classes: int,
        network: MBConvNetwork | MultipathNetwork,
        provenance: Provenance,
    ) -> Self:
        """Make a spec and compute its cost.

        Raises:
            pydantic.ValidationError: a value is out of range; `spec_errors` turns it into a `SpecError`.
        """
        return cls._costed(
            trace(network, input, classes),
            name=name,
            task=task,
            input=input,
            classes=classes,
            network=network,
            provenance=provenance,
        )

    @classmethod
    def _costed(cls, costs: Trace, **fields: object) -> Self:
        """Make the spec of a network that has been traced."""
        cost = Cost(macs=costs.macs, params=costs.params)
        return cls.model_validate({**fields, "cost": cost}, context=costs)

    def replace(
        self,
        name: str | None = None,
        classes: int | None = None,
        channels: int | None = None,
        height: int | None = None,
        width: int | None = None,
    ) -> Self:
        """The same network for another number of classes, input channels or input pixels, with its cost recomputed.

        Raises:
            SpecError: a value is out of range.
        """
        given = {"classes": classes, "channels": channels, "height": height, "width": width}
        changes = {name: self._whole(name, value) for name, value in given.items() if value is not None}
        classes = changes.pop("classes", self.classes)
        with spec_errors(self.name):
            image = Input(**{**self.input.model_dump(), **changes})
            is_traced = (image, classes) == (self.input, self.classes)
            return self._costed(
                self.trace if is_traced else trace(self.network, image, classes),
                name=self.name if name is None else name,
                task=self.task,
                input=image,
                classes=classes,
                network=self.network,
                provenance=self.provenance,
            )

    def _whole(self, name: str, value: object) -> int:
        """Convert one of Python's or NumPy's whole numbers."""
        try:
            if isinstance(value, bool):
                raise TypeError
            return operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            raise SpecError(f"{self.name}: {name}: found {quoted(value)}, expected a whole number") from None

    @property
    def first_conv(self) -> Literal["stem.conv", "stem.0.conv"]:
        """The path of the convolution that reads the image."""
        return "stem.conv" if self.network.type == "mbconv" else "stem.0.conv"

    @property
    def bottom_up(self) -> bool:
        """Whether the network finds several people in a whole picture."""
        return self.network.type == "multipath" and self.network.head == "bottom_up"

    @cached_property
    def trace(self) -> Trace:
        """The operations that the network executes, with their cost; see `trace.py`."""
        return trace(self.network, self.input, self.classes)

    @cached_property
    def hash(self) -> str:
        """The sha256 of the network part in canonical JSON (sorted keys, no spaces)."""
        canonical = json.dumps(self.network.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @model_validator(mode="after")
    def _task_fits_network(self) -> Self:
        if self.task != (solves := self.network.task):
            raise ValueError(f"task: found {self.task!r}, expected {solves!r}, the task of this network")
        return self

    @model_validator(mode="after")
    def _honest_cost(self, info: ValidationInfo) -> Self:
        if isinstance(info.context, Trace):  # of a network that `create` has just traced
            self.__dict__["trace"] = info.context
        for field, true in (("macs", self.trace.macs), ("params", self.trace.params)):
            stated: int = getattr(self.cost, field)
            if stated != true:
                raise ValueError(f"cost.{field}: found {stated}, expected {true}, the cost of this network")
        return self


def unwrapped(model: _T) -> _T:
    """Remove what torch.compile, DataParallel, timm's moving averages and the like wrap around a network.

    A model without such a wrapper is returned as it is. So is a wrapper from another library, since it may compute
    something else.
    """
    of_library = type(model).__module__.partition(".")[0] in ("torch", "timm", "accelerate")
    modules: Mapping[str, Any] = dict(getattr(model, "_modules", {}).items()) if of_library else {}
    inner = next((modules[name] for name in WRAPPERS if modules.get(name) is not None), None)
    return model if inner is None else unwrapped(inner)


def spec_of(model: object) -> ArchSpec:
    """Look up the spec that one of our networks was built from, whatever wraps the network.

    Raises:
        TypeError: the network is not one of ours.
    """
    network = unwrapped(model)
    spec = getattr(network, "spec", None)
    if not isinstance(spec, ArchSpec) or not hasattr(network, "forward_head"):  # features_only gives only a part
        raise TypeError(f"model: found {type(network).__name__}, expected a whole network from create_model")
    return spec
