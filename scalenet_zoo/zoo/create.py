"""Networks made of specs, with or without weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.errors import SpecError
from scalenet_zoo.core.file_kinds import user_path
from scalenet_zoo.core.memory import FLOAT_BYTES, check_memory
from scalenet_zoo.core.quantities import format_count
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.zoo.catalog import height_and_width
from scalenet_zoo.zoo.interface import pretrained_cfg
from scalenet_zoo.zoo.model_folder import ModelFolder
from scalenet_zoo.zoo.sources import NetworkSource, open_source

if TYPE_CHECKING:
    from torch import nn

    from scalenet_zoo.zoo.weights import Weights


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
    **kwargs: Any,  # noqa: ANN401 - the network's own
) -> "nn.Module":
    """Build a network; it has `.spec` and `.pretrained_cfg`, and timm's model interface.

    Args:
        source: a name of the zoo, a spec, or a spec's file; or, with its weights, `hf-hub:org/name`, `local-dir:path`,
            or a folder of `train` or `pull`.
        pretrained: load published weights from the Hugging Face Hub; folders and repositories have their own.
        num_classes: classes or joints; 0: no classifier; None: the spec's.
        in_chans: channels of the image; None: the spec's.
        img_size: height and width in pixels that the cost is stated for; None: the spec's.
        features_only: return a network whose output is the list of features at several strides.
        out_indices: which of them, in which order, -1 the last; a number: the last so many; None: all.
        weights: a safetensors file with weights for this network, or for the same with another class count or other
            input channels: the classifier then starts untrained, the first convolution is adapted.
        revision: a branch, tag or commit of `hf-hub:org/name`.
        **kwargs: `drop_rate`, `drop_path_rate`, `global_pool`.

    Raises:
        ModelNotFoundError: no entry, file or folder has this name.
        SpecError: a file, a changed size or `out_indices` is not valid.
        WeightsError: weights are not published, cannot be had, or do not fit.
        BackendError: the network does not fit into memory.
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
    trained = _trained(opened, spec, weights)
    check_network_memory(spec)
    model: nn.Module = network_of(spec, **kwargs)
    if trained is not None:
        trained.load_into(model)
    elif pretrained:
        from scalenet_zoo.zoo.pretrained import load_pretrained

        load_pretrained(model)
    if features_only:
        model = FeatureGetterNet(model, out_indices=take_indices(len(model.feature_info), out_indices))  # type: ignore[arg-type]
    model.spec = spec  # type: ignore[assignment]
    cfg = opened.interface.to_timm(spec) if isinstance(opened, ModelFolder) else pretrained_cfg(spec)
    model.pretrained_cfg = model.default_cfg = cfg  # type: ignore[assignment]
    return model


@contextmanager
def with_seed(seed: int) -> Iterator[None]:
    """Let torch's random numbers be a function of the seed; afterwards its random state is as before."""
    import torch

    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        yield


def create_seeded(
    source: NetworkSource,
    seed: int = 0,
    **kwargs: Any,  # noqa: ANN401 - as `create_model`
) -> "nn.Module":
    """`create_model` with initial weights that are a function of the seed."""
    with with_seed(seed):
        return create_model(source, **kwargs)


def _trained(opened: ArchSpec | ModelFolder, spec: ArchSpec, weights: str | Path | None) -> "Weights | None":
    """The weights for a network, checked before it is built; None: there are none, or published ones."""
    if weights is not None:
        from scalenet_zoo.zoo.weights import Weights

        return Weights.open(user_path(weights), spec)
    return opened.open_weights(spec) if isinstance(opened, ModelFolder) else None


def check_network_memory(spec: ArchSpec) -> None:
    """Refuse to build a network that is larger than this machine's memory; on other devices torch does.

    Raises:
        BackendError: it does not fit; the message has its size.
    """
    import torch

    if torch.get_default_device().type == "cpu":
        count = format_count(spec.cost.params)
        check_memory(FLOAT_BYTES * spec.cost.params, f"{spec.name}: a network of {count} parameters")
