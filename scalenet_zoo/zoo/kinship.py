"""Which networks can take over what which others know, as their specs alone tell; nothing here needs torch.

target, source --hindrances--> why the target cannot compute the source's function; nothing, if it can
target         --best_source--> the entry with published weights to start it from
"""

import math
from collections.abc import Iterable, Iterator
from itertools import chain

from scalenet_zoo.arch.spec import ArchSpec, Layer, MBConvNetwork, MultipathNetwork, Stem
from scalenet_zoo.core.errors import UsageError, WeightsError
from scalenet_zoo.zoo.catalog import list_models
from scalenet_zoo.zoo.installed import installed_weights
from scalenet_zoo.zoo.model_folder import HUB_PREFIX, ModelFolder
from scalenet_zoo.zoo.published import published_entry
from scalenet_zoo.zoo.sources import NetworkSource, check_model, is_exported, load_spec

Found = Iterable[tuple[str, str]]
"""What is in the way, and the module where it is."""


def hindrances(target: ArchSpec, origin: ArchSpec) -> tuple[str, ...]:
    """What keeps a network from computing another's function after `inherit`, as far as their specs tell.

    The input size and the classes do not count, nor what batch norm adds to the variance, which `inherit` makes up for.

    Args:
        target: of the network that takes over.
        origin: of the network that gives, of the same type.

    Returns:
        A line a kind of hindrance, with the first place of it; none: the target has all that the source has.
    """
    ours, theirs = target.network, origin.network
    if ours.type == "mbconv" and theirs.type == "mbconv":
        found: Found = _of_mbconv(ours, theirs)
    elif ours.type == "multipath" and theirs.type == "multipath":
        found = _of_multipath(ours, theirs)
    else:
        found = [(f"a network of type {ours.type}, of the source {theirs.type}", "the network")]
    if target.input.channels != origin.input.channels:
        found = chain(found, [("other input channels", "the image")])
    places: dict[str, list[str]] = {}
    for kind, place in found:
        places.setdefault(kind, []).append(place)
    return tuple(
        f"{kind}: {where[0]}" + (f" and {len(where) - 1} more" if len(where) > 1 else "")
        for kind, where in places.items()
    )


def _of_mbconv(ours: MBConvNetwork, theirs: MBConvNetwork) -> Iterator[tuple[str, str]]:
    if ours.activation != theirs.activation:
        yield f"the activation {ours.activation}, of the source {theirs.activation}", "all layers"
    yield from ((kind, "stem") for kind in _of_kernels(ours, theirs, ours.stem, theirs.stem))
    if ours.stem.channels < theirs.stem.channels:
        yield "fewer channels", "stem"
    if len(ours.stages) != len(theirs.stages):
        yield f"{len(ours.stages)} stages, of the source {len(theirs.stages)}", "the network"
    before, their_before = ours.stem.channels, theirs.stem.channels
    for s, (stage, their_stage) in enumerate(zip(ours.stages, theirs.stages, strict=False)):
        if len(stage) < len(their_stage):
            yield "fewer layers", f"stages.{s}"
        for i, layer in enumerate(stage):
            name = f"stages.{s}.{i}"
            if i < len(their_stage):
                other = their_stage[i]
                yield from ((kind, name) for kind in _of_layers(ours, theirs, layer, other, before, their_before))
                their_before = other.channels
            elif not _has_shortcut(layer, before):
                yield "a new layer without a shortcut", name
            before = layer.channels
        their_before = their_stage[-1].channels
    if ours.head.channels < theirs.head.channels:
        yield "fewer channels", "head"


def _of_layers(
    ours: MBConvNetwork, theirs: MBConvNetwork, layer: Layer, other: Layer, before: int, their_before: int
) -> Iterator[str]:
    """Of a layer and the source's, with so many channels before each of them."""
    yield from _of_kernels(ours, theirs, layer, other)
    if _has_shortcut(layer, before) != _has_shortcut(other, their_before):
        yield "a shortcut in one of both"
    if layer.expands(before) != other.expands(their_before):
        yield "an expansion in one of both"
    if bool(layer.squeeze) != bool(other.squeeze):
        yield "squeeze-and-excite in one of both"
    elif layer.squeeze and ours.gate != theirs.gate:
        yield f"the gate {ours.gate}, of the source {theirs.gate}"
    if layer.channels < other.channels or layer.hidden < other.hidden or 0 < layer.squeeze < other.squeeze:
        yield "fewer channels"


def _of_kernels(ours: MBConvNetwork, theirs: MBConvNetwork, layer: Stem | Layer, other: Stem | Layer) -> Iterator[str]:
    if layer.stride != other.stride:
        yield "another stride"
    if layer.kernel < other.kernel:
        yield "smaller kernels"
    # At stride 1 both paddings are the same. At stride 2, "same" depends on whether an image's size is odd; the larger
    # of two kernels begins earlier by half their difference, but one of one pixel never begins before the image.
    wide = max(layer.kernel, other.kernel) > 1 and other.stride == 2
    if ours.padding != theirs.padding and wide:
        yield f"the padding {ours.padding}, of the source {theirs.padding}"
    elif ours.padding == "same" and wide and min(layer.kernel, other.kernel) == 1:
        yield "a kernel of one pixel that grows at stride 2 with the padding same"


def _has_shortcut(layer: Layer, before: int) -> bool:
    return layer.stride == 1 and layer.channels == before


def _of_multipath(ours: MultipathNetwork, theirs: MultipathNetwork) -> Iterator[tuple[str, str]]:
    if ours.head != theirs.head:
        yield f"the head {ours.head}, of the source {theirs.head}", "the network"
    if ours.width < theirs.width:
        yield "fewer channels", "all branches"
    for stage in (2, 3, 4):
        modules = [module for module in ours.modules if len(module.depth) == stage]
        others = [module for module in theirs.modules if len(module.depth) == stage]
        if len(modules) < len(others):
            yield "fewer modules", f"stage{stage}"
        for i, (module, other) in enumerate(zip(modules, others, strict=False)):
            if any(a < b for a, b in zip(module.depth, other.depth, strict=True)):
                yield "fewer blocks", f"stage{stage}.{i}"
            if any(a < b for a, b in zip(_bits(module.fusion), _bits(other.fusion), strict=True)):
                yield "fewer paths", f"stage{stage}.{i}"


def _bits(fusion: tuple[tuple[tuple[int, ...], ...], ...]) -> Iterator[int]:
    return (bit for steps in fusion for row in steps for bit in row)


def best_source(target: ArchSpec, installed: bool = False) -> str:
    """The entry of the zoo whose published weights a network had best start from.

    The rule, which looks at specs alone:

    1. If the target can be grown out of entries (`hindrances` finds none), it is the largest of them, by parameters.
    2. Else it is the nearest, by the ratios of multiply-adds and of parameters, of those made of the same parts
       (activation, gate, squeeze-and-excite, padding; or head), or if there are none, of the most of them.

    Of equal ones, one whose weights an installed package has comes first. Nothing is fetched.

    Args:
        target: the spec of the network, of any input size and classes.
        installed: look among those alone that are made of the same parts and whose weights an installed package has.

    Raises:
        WeightsError: no published weights are of its task and type.
    """
    plain = target.replace(classes=1)
    known = [load_spec(name) for name in list_models(task=target.task, pretrained=True)]
    known = [spec for spec in known if _kind(spec) == _kind(target)]
    if installed:
        known = [spec for spec in known if _parts(spec) == _parts(target) and installed_weights(spec)]
    if not known:
        kind = f"{target.network.type} network for {target.task}"
        raise WeightsError(f"{target.name}: found no published weights of any {kind} to start from, expected some")
    costs = {spec.name: spec.replace(None, 1, *_image(plain)).cost for spec in known}

    def likeness(spec: ArchSpec) -> tuple[int, float, bool]:
        shared = sum(a == b for a, b in zip(_parts(spec), _parts(target), strict=True))
        ratios = [getattr(costs[spec.name], of) / getattr(plain.cost, of) for of in ("macs", "params")]
        return shared, -math.hypot(*map(math.log, ratios)), installed_weights(spec) is not None

    if grown := [spec for spec in known if not hindrances(target, spec.replace(channels=target.input.channels))]:
        return max(grown, key=lambda spec: (costs[spec.name].params, installed_weights(spec) is not None)).name
    return max(known, key=likeness).name


def _image(spec: ArchSpec) -> tuple[int, int, int]:
    return spec.input.channels, spec.input.height, spec.input.width


def _kind(spec: ArchSpec) -> tuple[str, str, bool]:
    return spec.task, spec.network.type, spec.bottom_up


def _parts(spec: ArchSpec) -> tuple[object, ...]:
    """What a network is made of, but for how much of it."""
    network = spec.network
    if network.type == "multipath":
        return (network.head,)
    squeezes = any(layer.squeeze for stage in network.stages for layer in stage)
    is_smooth = network.activation in ("swish", "hard_swish")
    return network.activation, is_smooth, squeezes, squeezes and network.gate, network.padding


def check_inheritance(source: NetworkSource, target: ArchSpec | None = None) -> None:
    """See that a source has weights, and is of the target's kind, before torch is imported.

    Of repositories of the Hub only the name's form is looked at.

    Args:
        source: what `create_model` makes a network of.
        target: the spec of the network that takes them; None: not known yet.

    Raises:
        UsageError: it is an exported file.
        ModelNotFoundError, SpecError: there is no such entry, file or folder, or it cannot be read.
        WeightsError: it has no weights, or is of another task or type.
    """
    if is_exported(source):
        raise UsageError(f"`inherit`: found the exported file {source}, expected an entry, a folder or hf-hub:org/name")
    opened = check_model(source)
    if not isinstance(opened, ArchSpec | ModelFolder):
        assert str(source).startswith(HUB_PREFIX)
        return
    origin = opened if isinstance(opened, ArchSpec) else opened.spec
    if isinstance(opened, ArchSpec) and published_entry(origin) is None:
        raise WeightsError(
            f"inherit: found {origin.name}, which has no published weights, expected an entry that"
            " `scalenet-zoo list --pretrained` shows, or a folder or hf-hub:org/name with weights of its own"
        )
    if target is not None:
        check_kind(target, origin)


def check_kind(target: ArchSpec, origin: ArchSpec) -> None:
    """See that a network may take over what another knows.

    Raises:
        WeightsError: they are of different tasks or types.
    """
    if (target.task, target.network.type) != (origin.task, origin.network.type):
        raise WeightsError(
            f"{target.name}: found the source {origin.name}, a {origin.network.type} network for {origin.task},"
            f" expected a {target.network.type} network for {target.task}"
        )
