"""Copy the weights of one network into another architecture of its type, larger or smaller in each dimension.

    source --channel_groups--> modules, groups --+
                                                 +--maps--> the target's tensors --both are run--> Inherited
    target --channel_groups--> modules, groups --+

Growth preserves the function (Net2Net, Chen et al., ICLR 2016, but with zeros instead of duplicated channels, so that
no symmetry must be broken): the weights from new inputs to old outputs are zero, new outputs keep their initial
weights, and a new layer adds nothing to its shortcut at first. A smaller network keeps the most important channels (the
same ones in all layers that must agree), the middle of kernels, and the first layers of a stage.
"""

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from scalenet_zoo.arch.labels import imagenet_labels, match_labels
from scalenet_zoo.arch.spec import ArchSpec, spec_of, unwrapped
from scalenet_zoo.networks.batch_norm import reestimate_batch_norm
from scalenet_zoo.zoo.channel_groups import (
    CLASSES,
    IMAGE,
    TRANSPOSED,
    TWICE,
    ChannelGroup,
    ChannelGroups,
    channel_groups,
    importance,
)
from scalenet_zoo.zoo.interface import Interface
from scalenet_zoo.zoo.kinship import check_kind, hindrances

IMAGES, IMAGE_SIZE = 2, (65, 96)
"""Number of images for the comparison of two networks, and their height and width: odd and even at most strides."""
TOLERANCE = 1e-5
"""Functions count as equal up to this difference between a layer's outputs, as a share of its largest output."""
_TENSORS = ("weight", "bias", "running_mean", "running_var")
_Maps = Mapping[ChannelGroup, Tensor]
"""For each of the target's groups, the source's channel for each channel; -1: a new channel."""


@dataclass(frozen=True)
class Inherited:
    """What a network inherited from another.

    Attributes:
        exact: whether both networks compute the same function, up to rounding, for all classes that both have; checked
            by running both on the same images.
        difference: the largest difference between the outputs of a layer that both have, as a share of its largest
            output; None: the outputs are not comparable.
        taken: share of the network's parameters that come from the source.
        used: share of the source's parameters that were copied.
        hindrances: why the function is not the same, one line per reason; empty: nothing prevents it.
        source: the name of the source, or of its architecture.
    """

    exact: bool
    difference: float | None
    taken: float
    used: float
    hindrances: tuple[str, ...]
    source: str

    def __str__(self) -> str:
        """Return one line: `tf_efficientnet_lite0 (exact: outputs equal to 3e-07; 57% of the parameters)`."""
        if self.exact:
            kept = f"exact: outputs equal to {self.difference:.0e}" if self.difference else "exact: outputs equal"
        else:
            kept = f"not exact: {'; '.join(self.hindrances)}"
        return f"{self.source} ({kept}; {self.taken:.0%} of the parameters)"


def inherit_network(
    model: nn.Module,
    source: nn.Module,
    name: str,
    images: Tensor | Iterable[Tensor] | None = None,
    sort_channels: bool = False,
) -> Inherited:
    """Copy the weights of another network of the same type into a network: `inherit.inherit` for an opened source.

    Args:
        model: one of our networks, changed in place, with its `spec` and `pretrained_cfg`.
        source: one of our networks; it is not changed.
        name: the source's name, for the record.
        images: one or several batches (n, channels, height, width) to re-estimate the statistics of batch norm on.
        sort_channels: whether the source's channels are sorted by falling importance; False: they keep their order.

    Returns:
        What the network inherited, and whether its function is the source's.

    Raises:
        WeightsError: the source is of another type or task.
    """
    ours, theirs = unwrapped(model), unwrapped(source)
    target, origin = spec_of(ours), spec_of(theirs)
    check_kind(target, origin)
    found = list(hindrances(target, origin))
    classes = _class_map(ours, theirs)
    if not torch.equal(classes, torch.arange(origin.classes)):
        found.append(f"different classes: the source has {int((classes >= 0).sum())} of {target.classes}")
    state = {key: value.detach().float().cpu() for key, value in theirs.state_dict().items()}
    groups, their_groups = channel_groups(target), channel_groups(origin)
    maps = _maps(groups, their_groups, state, classes, sort_channels)
    taken = _fill(ours, groups, their_groups, state, maps, _eps(target), _eps(origin))
    _describe(ours, theirs)
    difference = _difference(ours, theirs, groups, their_groups, maps)
    exact = difference is not None and difference <= TOLERANCE
    if not found and not exact:
        found.append("the outputs differ by more than rounding")
    if images is not None and not exact:
        place = next(ours.parameters())
        batches = [images] if isinstance(images, Tensor) else images
        reestimate_batch_norm(ours, (batch.to(place) for batch in batches))
    count, their_count = (sum(p.numel() for p in network.parameters()) for network in (ours, theirs))
    result = Inherited(exact, difference, taken / count, taken / their_count, tuple(found), name)
    ours.spec = _with_record(target, result)  # type: ignore[assignment]
    return result


def _with_record(spec: ArchSpec, result: Inherited) -> ArchSpec:
    """Return the spec with a record in its provenance of what the network inherited."""
    record: dict[str, Any] = asdict(result) | {"hindrances": list(result.hindrances)}
    finite = result.difference is not None and math.isfinite(result.difference)
    record |= {
        "difference": float(f"{result.difference:.2g}") if finite else None,
        "taken": round(result.taken, 4),
        "used": round(result.used, 4),
    }
    details = {**spec.provenance.details, "inherited": record}
    return spec.model_copy(update={"provenance": spec.provenance.model_copy(update={"details": details})})


def _describe(model: nn.Module, source: nn.Module) -> None:
    """Let images be prepared for a network as for the source; keep its own labels if it has some."""
    spec, interface = spec_of(model), Interface.of_network(source)
    labels = Interface.of_network(model).labels
    if labels.names or spec.classes != spec_of(source).classes:
        interface = interface.model_copy(update={"labels": labels})
    their_cfg = getattr(source, "pretrained_cfg", None) or {}
    about = {key: their_cfg[key] for key in ("license",) if key in their_cfg}
    model.pretrained_cfg = model.default_cfg = interface.to_timm(spec, about)  # type: ignore[assignment]


def _class_map(model: nn.Module, source: nn.Module) -> Tensor:
    """Return the source's class for each class; -1: the source does not have it.

    Classes are matched by name if both networks have labels; a source with 1,000 classes and no labels has those of
    ImageNet. Otherwise classes are matched by number if both networks have the same number of classes.
    """
    spec, origin = spec_of(model), spec_of(source)
    ours, theirs = (Interface.of_network(network).labels for network in (model, source))
    if not theirs.names and (origin.task, origin.classes) == ("classification", 1000):
        theirs = imagenet_labels()
    if ours.names and theirs.names:
        return torch.tensor([-1 if place is None else place for place in match_labels(theirs, ours)])
    return torch.arange(spec.classes) if spec.classes == origin.classes else torch.full((spec.classes,), -1)


def _maps(
    groups: ChannelGroups,
    theirs: ChannelGroups,
    state: Mapping[str, Tensor],
    classes: Tensor,
    sort_channels: bool,
) -> _Maps:
    pairs: dict[ChannelGroup, ChannelGroup] = {}
    for name, slot in groups.slots.items():
        if other := theirs.slots.get(name):
            pairs.setdefault(slot.out, other.out)
            for group, their_group in zip(slot.inputs, other.inputs, strict=False):
                pairs.setdefault(group, their_group)
    maps: dict[ChannelGroup, Tensor] = {}
    for group, size in groups.sizes.items():
        if group not in pairs:
            maps[group] = torch.full((size,), -1)
        elif sort_channels:
            order = importance(theirs, pairs[group], state).argsort(descending=True, stable=True)[:size]
            maps[group] = F.pad(order, (0, size - len(order)), value=-1)
        elif size >= (known := theirs.sizes[pairs[group]]):
            maps[group] = torch.arange(size).where(torch.arange(size) < known, -1)
        else:
            kept = importance(theirs, pairs[group], state).topk(size).indices
            maps[group] = kept.sort().values
    maps[CLASSES] = classes
    if TWICE in groups.sizes:
        maps[TWICE] = torch.cat([classes, (classes + theirs.sizes[CLASSES]).where(classes >= 0, -1)])
    return maps


def _fill(
    model: nn.Module,
    groups: ChannelGroups,
    theirs: ChannelGroups,
    state: Mapping[str, Tensor],
    maps: _Maps,
    eps: float,
    their_eps: float,
) -> int:
    """Copy the source's tensors into a network; return the number of parameters that were copied."""
    own = model.state_dict(keep_vars=True)
    taken = 0
    for name, slot in groups.slots.items():
        tensors = {tensor: own[f"{name}.{tensor}"] for tensor in _TENSORS if f"{name}.{tensor}" in own}
        if name not in theirs.slots:
            if slot.closes and "running_mean" in tensors:  # adds nothing until it is trained
                nn.init.zeros_(tensors["weight"])
                nn.init.zeros_(tensors["bias"])
            continue
        joined = zip(slot.inputs, theirs.slots[name].inputs, strict=False)
        columns = [(maps[group], theirs.sizes[other]) for group, other in joined if group != IMAGE]
        for tensor, value in tensors.items():
            old = state.get(f"{name}.{tensor}")
            if old is None:
                continue
            if tensor == "weight" and "running_var" in tensors and eps != their_eps:
                variance = state[f"{name}.running_var"]
                old = old * ((variance + eps) / (variance + their_eps)).sqrt()
            new = value.detach().float().cpu().clone()
            axes = (0, 1) if name in TRANSPOSED else (0, 0)
            copied = _put(new.transpose(*axes), old.transpose(*axes), maps[slot.out], _joined(columns))
            with torch.no_grad():
                value.copy_(new)
            taken += copied if isinstance(value, nn.Parameter) else 0
    return taken


def _eps(spec: ArchSpec) -> float:
    """Return the constant that batch norm adds to the variance."""
    return spec.network.norm_eps if spec.network.type == "mbconv" else 0.0


def _joined(columns: Sequence[tuple[Tensor, int]]) -> Tensor | None:
    """Join the maps of a layer's input groups into one; None: each output reads one input only, or the image."""
    if not columns:
        return None
    starts = accumulate((size for _, size in columns), initial=0)
    return torch.cat([(part + start).where(part >= 0, -1) for (part, _), start in zip(columns, starts, strict=False)])


def _put(new: Tensor, old: Tensor, rows: Tensor, columns: Tensor | None) -> int:
    """Copy the source's values to their places in the maps, with zeros from new inputs to old outputs.

    Returns:
        The number of copied values.
    """
    rows = rows.where(rows < len(old), -1)
    known = rows >= 0
    part = old[rows[known]]
    if new.ndim == 1:
        new[known] = part
        return part.numel()
    part = _fit_kernel(part, new.shape[2:])
    if columns is None:
        new[known] = part if part.shape[1] == new.shape[1] else adapt_input_conv(new.shape[1], part, part.shape[1])
        copied = min(part.shape[1], new.shape[1])
    else:
        columns = columns.where(columns < old.shape[1], -1)
        read = columns >= 0
        wide = torch.zeros_like(new[known])
        wide[:, read] = part[:, columns[read]]
        new[known] = wide
        copied = int(read.sum())
    return len(part) * copied * math.prod(min(sizes) for sizes in zip(old.shape[2:], new.shape[2:], strict=True))


def _fit_kernel(weight: Tensor, size: Sequence[int]) -> Tensor:
    """Cut the middle out of larger kernels, or put zeros around smaller ones."""
    if not size:
        return weight
    margin = (size[0] - weight.shape[2]) // 2  # if negative, the kernel is cut
    return F.pad(weight, [margin] * 4)


def _difference(
    model: nn.Module, source: nn.Module, groups: ChannelGroups, theirs: ChannelGroups, maps: _Maps
) -> float | None:
    """Return the largest difference between two networks' outputs for the same images, for channels that both have.

    All batch norms and linear layers are compared, each relative to its largest output. The last layer would not be
    enough: before training, a network's outputs hardly depend on the image.

    Returns:
        The difference, as a share of the layer's largest output; None: the networks have different input channels, or
        the outputs are not comparable.
    """
    channels = groups.sizes[IMAGE]
    if channels != theirs.sizes[IMAGE]:
        return None
    images = torch.randn(IMAGES, channels, *IMAGE_SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    compared = {
        name: maps[slot.out]
        for name, slot in groups.slots.items()
        if name in theirs.slots and f"{name.removesuffix('conv')}norm" not in groups.slots
    }
    expected: dict[str, Tensor] = {}
    differences = []

    def keep(name: str, output: Tensor) -> None:
        expected[name] = output.clone()  # the activation overwrites the output

    def compare(name: str, output: Tensor) -> None:
        other = expected.pop(name)
        kept = compared[name].where(compared[name] < other.shape[1], -1)
        output, other = output[:, kept >= 0], other[:, kept[kept >= 0]]
        if output.shape != other.shape:
            differences.append(math.inf)
        elif output.numel():
            differences.append(float((output - other).abs().max() / other.abs().max().clamp_min(1e-12)))

    _watch(source, images, compared, keep)
    _watch(model, images, compared, compare)
    return max(differences) if differences and not any(map(math.isnan, differences)) else None


def _watch(network: nn.Module, images: Tensor, names: Iterable[str], look: Callable[[str, Tensor], None]) -> None:
    """Run a copy of a network in evaluation mode and double precision, and pass the outputs of modules to `look`."""
    network = copy.deepcopy(network).cpu().double().eval()
    for name in names:
        network.get_submodule(name).register_forward_hook(lambda module, inputs, output, name=name: look(name, output))
    with torch.inference_mode():
        network(images)
