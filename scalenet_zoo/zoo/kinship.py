"""Decide from specs alone which networks can inherit from which others. Nothing here needs torch.

target, source --hindrances--> why the target cannot compute the source's function; empty if it can
target         --best_source--> the entry whose published weights the target should start from
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
"""Pairs of a hindrance and the module where it occurs."""


def hindrances(target: ArchSpec, origin: ArchSpec) -> tuple[str, ...]:
    """List what prevents a network from computing another's function after `inherit`, as far as their specs show.

    Three differences do not matter: the input size, the classes, and the constant that batch norm adds to the variance,
    for which `inherit` compensates.

    Args:
        target: the spec of the network that inherits.
        origin: the spec of the source.

    Returns:
        One line per kind of hindrance, with the first module where it occurs; empty: the target has everything that the
        source has.
    """
    ours, theirs = target.network, origin.network
    if ours.type == "mbconv" and theirs.type == "mbconv":
        found: Found = _of_mbconv(ours, theirs)
    elif ours.type == "multipath" and theirs.type == "multipath":
        found = _of_multipath(ours, theirs)
    else:
        found = [(f"type {ours.type} instead of the source's {theirs.type}", "the network")]
    if target.input.channels != origin.input.channels:
        found = chain(found, [("a different number of input channels", "the image")])
    places: dict[str, list[str]] = {}
    for kind, place in found:
        places.setdefault(kind, []).append(place)
    return tuple(
        f"{kind}: {where[0]}" + (f" and {len(where) - 1} more" if len(where) > 1 else "")
        for kind, where in places.items()
    )


def _of_mbconv(ours: MBConvNetwork, theirs: MBConvNetwork) -> Iterator[tuple[str, str]]:
    if ours.activation != theirs.activation:
        yield f"activation {ours.activation} instead of the source's {theirs.activation}", "all layers"
    yield from ((kind, "stem") for kind in _of_kernels(ours, theirs, ours.stem, theirs.stem))
    if ours.stem.channels < theirs.stem.channels:
        yield "fewer channels", "stem"
    if len(ours.stages) != len(theirs.stages):
        yield f"{len(ours.stages)} stages instead of the source's {len(theirs.stages)}", "the network"
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
    """Yield the hindrances in a layer; `before` and `their_before` are the channels of the inputs of both layers."""
    yield from _of_kernels(ours, theirs, layer, other)
    if _has_shortcut(layer, before) != _has_shortcut(other, their_before):
        yield "a shortcut in only one of the networks"
    if layer.expands(before) != other.expands(their_before):
        yield "an expansion in only one of the networks"
    if bool(layer.squeeze) != bool(other.squeeze):
        yield "squeeze-and-excite in only one of the networks"
    elif layer.squeeze and ours.gate != theirs.gate:
        yield f"gate {ours.gate} instead of the source's {theirs.gate}"
    if layer.channels < other.channels or layer.hidden < other.hidden or 0 < layer.squeeze < other.squeeze:
        yield "fewer channels"


def _of_kernels(ours: MBConvNetwork, theirs: MBConvNetwork, layer: Stem | Layer, other: Stem | Layer) -> Iterator[str]:
    if layer.stride != other.stride:
        yield "a different stride"
    if layer.kernel < other.kernel:
        yield "smaller kernels"
    # At stride 1 both paddings are equal. At stride 2, "same" depends on whether the image's size is odd. The larger of
    # two kernels begins earlier by half their difference, but a kernel of one pixel never begins before the image.
    wide = max(layer.kernel, other.kernel) > 1 and other.stride == 2
    if ours.padding != theirs.padding and wide:
        yield f"padding {ours.padding} instead of the source's {theirs.padding}"
    elif ours.padding == "same" and wide and min(layer.kernel, other.kernel) == 1:
        yield "a kernel of one pixel that grows at stride 2 with padding same"


def _has_shortcut(layer: Layer, before: int) -> bool:
    return layer.stride == 1 and layer.channels == before


def _of_multipath(ours: MultipathNetwork, theirs: MultipathNetwork) -> Iterator[tuple[str, str]]:
    if ours.head != theirs.head:
        yield f"head {ours.head} instead of the source's {theirs.head}", "the network"
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
    """Return the entry of the zoo whose published weights are the best start for a network.

    The rule uses specs only:

    1. If entries can grow into the target (`hindrances` is empty), choose the one with the most parameters.
    2. Otherwise choose among the entries that share the most parts with the target (activation, gate,
       squeeze-and-excite, padding; for multipath networks the head) the one that is nearest by the ratios of
       multiply-adds and parameters.

    Among equal entries, those whose weights come with an installed package are preferred. Nothing is fetched.

    Args:
        target: the spec of the network, of any input size and number of classes.
        installed: consider only entries with the same parts whose weights come with an installed package.

    Returns:
        The name of the entry.

    Raises:
        WeightsError: no published weights are for a network of its task and type.
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
    """Return the kinds of parts that a network consists of, without their sizes."""
    network = spec.network
    if network.type == "multipath":
        return (network.head,)
    squeezes = any(layer.squeeze for stage in network.stages for layer in stage)
    is_smooth = network.activation in ("swish", "hard_swish")
    return network.activation, is_smooth, squeezes, squeezes and network.gate, network.padding


def check_inheritance(source: NetworkSource, target: ArchSpec | None = None) -> None:
    """Check that a source has weights and is of the target's kind, before torch is imported.

    For a repository of the Hub only the form of its name is checked.

    Args:
        source: what `create_model` builds a network from.
        target: the spec of the network that inherits; None: not known yet.

    Raises:
        UsageError: the source is an exported file.
        ModelNotFoundError, SpecError: there is no such entry, file or folder, or it cannot be read.
        WeightsError: the source has no weights, or is of another task or type.
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
    """Check that a network may inherit from another.

    Args:
        target: the spec of the network that inherits.
        origin: the spec of the source.

    Raises:
        WeightsError: they are of different tasks or types.
    """
    if (target.task, target.network.type) != (origin.task, origin.network.type):
        raise WeightsError(
            f"{target.name}: found the source {origin.name}, a {origin.network.type} network for {origin.task},"
            f" expected a {target.network.type} network for {target.task}"
        )
