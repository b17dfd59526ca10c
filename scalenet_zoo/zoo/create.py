"""Build networks from specs, with or without weights."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalenet_zoo.arch.provenance import public_source
from scalenet_zoo.arch.spec import ArchSpec, spec_of
from scalenet_zoo.core.errors import SpecError, UsageError
from scalenet_zoo.core.file_kinds import user_path
from scalenet_zoo.core.memory import FLOAT_BYTES, check_memory
from scalenet_zoo.core.quantities import format_count
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.zoo.catalog import height_and_width
from scalenet_zoo.zoo.interface import pretrained_cfg
from scalenet_zoo.zoo.kinship import check_inheritance, check_kind
from scalenet_zoo.zoo.model_folder import ModelFolder
from scalenet_zoo.zoo.sources import NetworkSource, open_source

if TYPE_CHECKING:
    from torch import nn

    from scalenet_zoo.zoo.weights import Weights

_logger = logging.getLogger(__name__)


def create_model(
    source: NetworkSource,
    pretrained: bool = False,
    num_classes: int | None = None,
    in_chans: int | None = None,
    img_size: int | Sequence[int] | None = None,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    weights: str | Path | None = None,
    revision: str | None = None,
    inherit: "NetworkSource | nn.Module | None" = None,
    **kwargs: Any,  # noqa: ANN401 - the network's own
) -> "nn.Module":
    """Build a network with timm's model interface, and the attributes `spec` and `pretrained_cfg`.

    Args:
        source: a name of the zoo, maybe with the tag of published weights (`efficientnet_b0.ra_in1k`), a spec, or a
            spec's file; or, with its weights, `hf-hub:org/name`, `local-dir:path`, or a folder of `train` or `pull`.
        pretrained: load published weights, from the Hugging Face Hub or from an installed package; folders and
            repositories have their own.
        num_classes: number of classes or joints; 0: no classifier; None: the spec's.
        in_chans: channels of the image; None: the spec's.
        img_size: height and width in pixels that the cost is stated for; None: the spec's.
        features_only: return a network whose output is the list of features at several strides.
        out_indices: the features to return, in this order, -1 for the last; a single number n: the last n; None: all.
        weights: a file with weights for this network, in safetensors or from torch.save (.pth), with our names, timm's,
            torchvision's, efficientnet_pytorch's or those of the official HRNets. If the file has another number of
            classes, the classifier starts untrained; for other input channels the first convolution is adapted.
        revision: a branch, tag or commit of `hf-hub:org/name`.
        inherit: another network, or a source of one with weights; the network starts from its weights, see
            `inherit.inherit`. A notice says whether the function is the same, and otherwise why not.
        **kwargs: `drop_rate`, `drop_path_rate`, `global_pool`.

    Raises:
        ModelNotFoundError: no entry, file or folder has this name.
        SpecError: a file, a changed size or `out_indices` is not valid.
        WeightsError: weights are not published, are not available, or do not fit.
        UsageError: `inherit` is given together with weights, or is an exported file.
        BackendError: the network, or the one that it inherits from, does not fit into memory.
    """
    from timm.models._features import FeatureGetterNet

    from scalenet_zoo.networks import network_of
    from scalenet_zoo.networks.layers import take_indices

    if out_indices is not None and not features_only:
        raise SpecError(f"out_indices: found {quoted(out_indices)}, expected none without features_only")
    for name in ("drop_rate", "drop_path_rate"):
        rate = kwargs.get(name, 0.0)
        if not isinstance(rate, int | float) or not 0 <= rate <= 1:
            raise SpecError(f"{name}: found {quoted(rate)}, expected a number from 0 to 1")
    opened = open_source(source, revision, with_weights=weights is None)
    spec = opened.spec if isinstance(opened, ModelFolder) else opened
    height, width = height_and_width(img_size)
    if any(change is not None for change in (num_classes, in_chans, height)):
        adapt = opened.adapted if isinstance(opened, ModelFolder) else opened.replace
        spec = adapt(classes=num_classes, channels=in_chans, height=height, width=width)
    if inherit is not None:
        if pretrained or weights is not None or isinstance(opened, ModelFolder):
            raise UsageError("`inherit`: found weights to load as well, expected a network without weights of its own")
        if isinstance(inherit, NetworkSource):
            check_inheritance(inherit, spec)
    trained = _trained(opened, spec, weights, pretrained)
    check_network_memory(spec)
    model: nn.Module = network_of(spec, **kwargs)
    if trained is not None:
        trained.load_into(model)
    cfg = opened.interface.to_timm(spec) if isinstance(opened, ModelFolder) else pretrained_cfg(spec)
    if trained is not None and trained.cfg is not None:
        cfg = dict(trained.cfg)
    model.pretrained_cfg = model.default_cfg = cfg  # type: ignore[assignment]
    if inherit is not None:
        from scalenet_zoo.zoo.inheritance import inherit_network

        _logger.warning("%s: weights from %s", spec.name, inherit_network(model, *source_network(inherit, spec)))
    if features_only:
        whole, described = spec_of(model), model.pretrained_cfg  # of the network before layers are removed
        indices = take_indices(len(model.feature_info), out_indices)  # type: ignore[arg-type]
        model = FeatureGetterNet(model, out_indices=indices)
        model.spec = whole  # type: ignore[assignment]
        model.pretrained_cfg = model.default_cfg = described
    return model


def source_network(source: "NetworkSource | nn.Module", target: ArchSpec) -> "tuple[nn.Module, str]":
    """Return the network with weights that another inherits from, and its name for the record.

    Args:
        source: the network itself, or what `create_model` builds one from.
        target: the spec of the network that inherits.

    Raises:
        ZooError: as for `inherit.inherit`.
    """
    if not isinstance(source, NetworkSource):
        check_kind(target, spec_of(source))
        return source, spec_of(source).name
    check_inheritance(source, target)
    network = create_seeded(source, pretrained=True)
    return network, public_source(source) if isinstance(source, str) else spec_of(network).name


@contextmanager
def with_seed(seed: int) -> Iterator[None]:
    """Seed torch's random numbers in a `with` block, and restore the random state afterwards."""
    import torch

    with torch.random.fork_rng(_gpu_in_use()):
        torch.manual_seed(seed)
        yield


def _gpu_in_use() -> tuple[int, ...]:
    """Return the GPU whose random state is worth keeping; none if this process does not use one, or not yet."""
    import torch

    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return (torch.cuda.current_device(),) if in_use else ()


def create_seeded(
    source: NetworkSource,
    seed: int = 0,
    **kwargs: Any,  # noqa: ANN401 - as `create_model`
) -> "nn.Module":
    """Call `create_model`, with initial weights that depend on the seed only.

    Raises:
        ZooError: as for `create_model`.
    """
    with with_seed(seed):
        return create_model(source, **kwargs)


def _trained(
    opened: ArchSpec | ModelFolder, spec: ArchSpec, weights: str | Path | None, pretrained: bool
) -> "Weights | None":
    """Open the weights for a network and check them before it is built; None: there are none."""
    if weights is not None:
        from scalenet_zoo.zoo.weights import Weights

        return Weights.open(user_path(weights), spec)
    if isinstance(opened, ModelFolder):
        return opened.open_weights(spec)
    if pretrained:
        from scalenet_zoo.zoo.pretrained import open_pretrained

        return open_pretrained(spec)
    return None


def check_network_memory(spec: ArchSpec) -> None:
    """Refuse to build a network that does not fit into this machine's memory; for other devices torch checks this.

    Raises:
        BackendError: it does not fit; the message names its size.
    """
    import torch

    if torch.get_default_device().type == "cpu":
        count = format_count(spec.cost.params)
        check_memory(FLOAT_BYTES * spec.cost.params, f"{spec.name}: a network of {count} parameters")
