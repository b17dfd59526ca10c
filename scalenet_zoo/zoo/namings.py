"""Names that other libraries give the tensors of our networks: one table per naming.

    tensors by the other library's names --Naming.renamed--> tensors by our names

Tensors are copied unchanged. A table gives, for each of our modules, the other library's module with the same tensors.
`Weights.open` finds out which naming a file has.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from scalenet_zoo.arch.spec import ArchSpec, Module
from scalenet_zoo.arch.trace import BOTTLENECKS, UPSCALED_BLOCKS

_T = TypeVar("_T")
_COUNTER = "num_batches_tracked"
"""The tensor in which a batch norm counts its batches; files of torch before 0.4.1 do not have it."""
Kind = Literal["classification", "segmentation", "pose", "bottom_up"]


@dataclass(frozen=True)
class Naming:
    """The names that one library, ours or another, gives tensors.

    Attributes:
        whose: the library or network in messages, as in "weights of ...".
        kinds: the kinds of our networks that can use its weights.
        signs: tensors that together identify a file of this naming.
        modules: a function from a spec to our modules and theirs; None: the names are the same.
        beside: a function from a spec to patterns for the whole names of tensors that such files have and our networks
            do not need.
        head: whether the weights cover the head of a network for a dense task.
        doubt: a function from a spec to the reason why its outputs differ from those of the other library's network;
            None: they do not differ.
    """

    whose: str
    kinds: tuple[Kind, ...]
    signs: tuple[str, ...]
    modules: Callable[[ArchSpec], dict[str, str]] | None = field(default=None, repr=False)
    beside: Callable[[ArchSpec], tuple[str, ...]] = field(default=lambda spec: (), repr=False)
    head: bool = True
    doubt: Callable[[ArchSpec], str | None] = field(default=lambda spec: None, repr=False)

    def renamed(self, state: Mapping[str, _T], spec: ArchSpec, zero: _T) -> dict[str, _T]:
        """Return tensors by our names; tensors without a name of ours are left out.

        Args:
            state: tensors, or anything else, by the names of this naming.
            spec: the spec of our network.
            zero: the value of the batch norms' counters, if the file has no such counters.
        """
        if self.modules is None:
            return dict(state)
        modules = self.modules(spec)
        ours = {theirs: own for own, theirs in modules.items()}
        split = ((*key.rpartition(".")[::2], value) for key, value in state.items())
        renamed = {f"{ours[module]}.{tensor}": value for module, tensor, value in split if module in ours}
        if not any(key.endswith(_COUNTER) for key in state):
            norms = (own for own, theirs in modules.items() if own.endswith("norm") and f"{theirs}.weight" in state)
            renamed |= {f"{norm}.{_COUNTER}": zero for norm in norms}
        return renamed

    def strangers(self, names: Iterable[str], spec: ArchSpec) -> list[str]:
        """Return the names of tensors in a file that our network does not need and that this naming does not expect."""
        if self.modules is None:
            return []
        theirs = set(self.modules(spec).values())
        beside = [re.compile(pattern) for pattern in self.beside(spec)]
        return [
            name
            for name in names
            if name.rpartition(".")[0] not in theirs and not any(pattern.fullmatch(name) for pattern in beside)
        ]

    def their_name(self, key: str, spec: ArchSpec) -> str | None:
        """Return their name of our tensor; None: they do not have it, or this naming is ours."""
        module, _, tensor = key.rpartition(".")
        theirs = self.modules(spec).get(module) if self.modules else None
        return f"{theirs}.{tensor}" if theirs else None

    def signed(self, names: Mapping[str, object]) -> bool:
        """Return whether a file with tensors of these names has all signs of this naming."""
        return all(sign in names for sign in self.signs)


# --- networks of type mbconv ----------------------------------------------------------------------


@dataclass(frozen=True)
class _MBConvNames:
    """A table for networks of type mbconv, from our modules to theirs.

    Names in braces stand for numbers: `stage` and `index` (of the layer in its stage) count from 0; `next_stage` counts
    from 1; `number` is the layer's place in the whole network, from 0; `stages` is the number of stages, and `last` is
    one more; `expand`, `depthwise`, `squeeze` and `project` are the places of these parts among the parts that the
    layer has.

    Attributes:
        ends: the modules before and after the layers.
        layer: their name of a layer.
        parts: the parts of a layer with an expansion convolution.
        plain: the parts of a layer without one; None: the same as `parts`.
    """

    ends: Mapping[str, str]
    layer: str
    parts: Mapping[str, str]
    plain: Mapping[str, str] | None = None

    def __call__(self, spec: ArchSpec) -> dict[str, str]:
        return dict(self._modules(spec))

    def _modules(self, spec: ArchSpec) -> Iterator[tuple[str, str]]:
        network = spec.network
        if network.type != "mbconv":
            return
        for ours, theirs in self.ends.items():
            yield ours, theirs.format(stages=len(network.stages), last=len(network.stages) + 1)
        channels, number = network.stem.channels, 0
        for s, stage in enumerate(network.stages):
            for i, layer in enumerate(stage):
                expands = layer.expands(channels)
                parts = self.parts if expands or self.plain is None else self.plain
                there = [
                    part
                    for part, is_there in (
                        ("expand", expands),
                        ("depthwise", True),
                        ("squeeze", layer.squeeze > 0),
                        ("project", True),
                    )
                    if is_there
                ]
                places = {part: place for place, part in enumerate(there)}
                base = self.layer.format(stage=s, next_stage=s + 1, index=i, number=number)
                for ours, theirs in parts.items():
                    if ours.partition(".")[0] in places:
                        yield f"stages.{s}.{i}.{ours}", f"{base}.{theirs.format(**places)}"
                channels, number = layer.channels, number + 1


_TIMM_MBCONV = _MBConvNames(
    ends={
        "stem.conv": "conv_stem",
        "stem.norm": "bn1",
        "head.conv": "conv_head",
        "head.norm": "bn2",
        "classifier": "classifier",
    },
    layer="blocks.{stage}.{index}",
    parts={
        "expand.conv": "conv_pw",
        "expand.norm": "bn1",
        "depthwise.conv": "conv_dw",
        "depthwise.norm": "bn2",
        "squeeze.reduce": "se.conv_reduce",
        "squeeze.expand": "se.conv_expand",
        "project.conv": "conv_pwl",
        "project.norm": "bn3",
    },
    plain={  # timm's depthwise-separable layers
        "depthwise.conv": "conv_dw",
        "depthwise.norm": "bn1",
        "squeeze.reduce": "se.conv_reduce",
        "squeeze.expand": "se.conv_expand",
        "project.conv": "conv_pw",
        "project.norm": "bn2",
    },
)
_EFFICIENTNET_PYTORCH = _MBConvNames(
    ends={
        "stem.conv": "_conv_stem",
        "stem.norm": "_bn0",
        "head.conv": "_conv_head",
        "head.norm": "_bn1",
        "classifier": "_fc",
    },
    layer="_blocks.{number}",
    parts={
        "expand.conv": "_expand_conv",
        "expand.norm": "_bn0",
        "depthwise.conv": "_depthwise_conv",
        "depthwise.norm": "_bn1",
        "squeeze.reduce": "_se_reduce",
        "squeeze.expand": "_se_expand",
        "project.conv": "_project_conv",
        "project.norm": "_bn2",
    },
)
_TORCHVISION = _MBConvNames(
    ends={
        "stem.conv": "features.0.0",
        "stem.norm": "features.0.1",
        "head.conv": "features.{last}.0",
        "head.norm": "features.{last}.1",
        "classifier": "classifier.1",
    },
    layer="features.{next_stage}.{index}.block",
    parts={
        "expand.conv": "{expand}.0",
        "expand.norm": "{expand}.1",
        "depthwise.conv": "{depthwise}.0",
        "depthwise.norm": "{depthwise}.1",
        "squeeze.reduce": "{squeeze}.fc1",
        "squeeze.expand": "{squeeze}.fc2",
        "project.conv": "{project}.0",
        "project.norm": "{project}.1",
    },
)


def _not_tensorflows(spec: ArchSpec) -> str | None:
    network = spec.network
    if network.type != "mbconv" or (network.padding, network.norm_eps) == ("same", 1e-3):
        return None
    return (
        f"whose networks have padding same and norm_eps 0.001, while {spec.name} has {network.padding} and"
        f" {network.norm_eps:g}"
    )


def _not_torchvisions(spec: ArchSpec) -> str | None:
    network = spec.network
    if network.type != "mbconv" or network.padding == "symmetric":
        return None
    return f"whose networks have padding symmetric, while {spec.name} has {network.padding}"


# --- networks of type multipath -------------------------------------------------------------------


def _trunk(spec: ArchSpec) -> Iterator[tuple[str, str]]:
    """Yield HRNet's names of the parts of all its networks: stem, stages, transitions.

    In HRNet a module's fusion follows the last block of its deepest branch.
    """
    network = spec.network
    if network.type != "multipath":
        return
    for i in (0, 1):
        yield from _pair(f"stem.{i}", f"conv{i + 1}", f"bn{i + 1}")
    for b in range(BOTTLENECKS):
        for c in (1, 2, 3):
            yield from _pair(f"stage1.{b}.conv{c}", f"layer1.{b}.conv{c}", f"layer1.{b}.bn{c}")
    yield from _sequence("stage1.0.shortcut", "layer1.0.downsample")
    yield from _sequence("transition2.0", "transition1.0")
    yield from _sequence("transition2.1", "transition1.1.0")
    yield from _sequence("transition3", "transition2.2.0")
    yield from _sequence("transition4", "transition3.3.0")
    counts: dict[int, int] = {}
    for module in network.modules:
        branches = len(module.depth)
        place = f"stage{branches}.{counts.setdefault(branches, 0)}"
        counts[branches] += 1
        for branch, depth in enumerate(module.depth):
            for block in range(depth):
                theirs = f"{place}.branches.{branch}.{block}"
                yield from _block(f"{place}.blocks.{branch}.{block}", theirs)
        yield from _fusion(place, module)


def _fusion(place: str, module: Module) -> Iterator[tuple[str, str]]:
    step = max(module.depth) - 1
    for to, steps in enumerate(module.fusion):
        for origin, fed in enumerate(steps[step]):
            if fed and origin != to:
                ours, theirs = f"{place}.paths.{step}.{origin}_to_{to}.convs", f"{place}.fuse_layers.{to}.{origin}"
                if origin > to:
                    yield from _sequence(f"{ours}.0", theirs)
                else:
                    for i in range(to - origin):
                        yield from _sequence(f"{ours}.{i}", f"{theirs}.{i}")


def _pair(ours: str, conv: str, norm: str) -> Iterator[tuple[str, str]]:
    yield f"{ours}.conv", conv
    yield f"{ours}.norm", norm


def _sequence(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    yield from _pair(ours, f"{theirs}.0", f"{theirs}.1")


def _block(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    for c in (1, 2):
        yield from _pair(f"{ours}.conv{c}", f"{theirs}.conv{c}", f"{theirs}.bn{c}")


_SEGMENTATION_HEAD = {"head.conv": "last_layer.0", "head.norm": "last_layer.1", "classifier": "last_layer.3"}
_POSE_HEAD = {"classifier": "final_layer"}
_BOTTOM_UP_HEAD = {
    "classifier.coarse": "final_layers.0",
    "classifier.fine": "final_layers.1",
    "classifier.upscale.conv": "deconv_layers.0.0.0",
    "classifier.upscale.norm": "deconv_layers.0.0.1",
    **{
        ours: theirs
        for block in range(UPSCALED_BLOCKS)
        for ours, theirs in _block(f"classifier.blocks.{block}", f"deconv_layers.0.{block + 1}.0")
    },
}


def _hrnet(head: Mapping[str, str]) -> Callable[[ArchSpec], dict[str, str]]:
    return lambda spec: {**dict(_trunk(spec)), **head}


def _of_classifiers(spec: ArchSpec) -> tuple[str, ...]:
    """Return patterns of the tensors that HRNet's classifiers have and its networks for dense tasks do not."""
    network = spec.network
    heads = (r"(incre_modules|downsamp_modules|classifier)\..*", r"final_layer\.[01]\..*")
    if network.type != "multipath" or network.head == "segmentation":
        return heads
    last = sum(len(module.depth) == 4 for module in network.modules) - 1
    return (*heads, rf"stage4\.{last}\.fuse_layers\.[123]\..*")  # poses are read from the first branch only


# --- all of them ----------------------------------------------------------------------------------

_DENSE: tuple[Kind, ...] = ("segmentation", "pose", "bottom_up")
OURS = (
    Naming("ours for classification", ("classification",), ("stages.0.0.depthwise.conv.weight",)),
    Naming("ours for segmentation", ("segmentation",), ("stage1.0.conv1.conv.weight", "head.conv.weight")),
    Naming(
        "ours for poses of several people", ("bottom_up",), ("stage1.0.conv1.conv.weight", "classifier.fine.weight")
    ),
    Naming("ours for pose", ("pose",), ("stage1.0.conv1.conv.weight", "classifier.weight")),
)
TIMM = (
    Naming(
        "timm's EfficientNet or the like", ("classification",), ("conv_stem.weight", "conv_head.weight"), _TIMM_MBCONV
    ),
    Naming(
        "an HRNet for classification",
        _DENSE,
        ("layer1.0.conv1.weight", "incre_modules.0.0.conv1.weight"),
        _hrnet({}),
        beside=_of_classifiers,
        head=False,
    ),
)
NAMINGS = (
    *OURS,
    *TIMM,
    Naming(
        "efficientnet_pytorch",
        ("classification",),
        ("_conv_stem.weight", "_conv_head.weight"),
        _EFFICIENTNET_PYTORCH,
        doubt=_not_tensorflows,
    ),
    Naming(
        "torchvision's EfficientNet",
        ("classification",),
        ("features.0.0.weight", "features.1.0.block.0.0.weight"),
        _TORCHVISION,
        doubt=_not_torchvisions,
    ),
    Naming(
        "the official HRNet for segmentation",
        ("segmentation",),
        ("layer1.0.conv1.weight", "last_layer.3.weight"),
        _hrnet(_SEGMENTATION_HEAD),
        beside=lambda spec: (r"loss\..*",),
        doubt=lambda spec: "which upsamples branches bilinearly when it fuses them, while ours repeats pixels",
    ),
    Naming(
        "the official HRNet for pose",
        ("pose",),
        ("layer1.0.conv1.weight", "final_layer.weight"),
        _hrnet(_POSE_HEAD),
    ),
    Naming(
        "the official HigherHRNet for poses of several people",
        ("bottom_up",),
        ("layer1.0.conv1.weight", "final_layers.1.weight"),
        _hrnet(_BOTTOM_UP_HEAD),
    ),
)
"""All namings, in the order in which `Weights.open` tries them."""


def kind_of_network(spec: ArchSpec) -> Kind:
    """Return the kind of a network: its task, with top-down and bottom-up pose estimation as two kinds."""
    return "bottom_up" if spec.bottom_up else spec.task


def namings_for(spec: ArchSpec) -> tuple[Naming, ...]:
    """Return the namings that a file for a network may have, ours first."""
    return tuple(naming for naming in NAMINGS if kind_of_network(spec) in naming.kinds)


def naming_of_other_task(names: Mapping[str, object], spec: ArchSpec) -> Naming | None:
    """Return the naming whose signs show that a file is for a network of another task; None: no signs are found."""
    own = namings_for(spec)
    if any(naming.signed(names) for naming in own):
        return None
    return next((naming for naming in NAMINGS if naming not in own and naming.signed(names)), None)
