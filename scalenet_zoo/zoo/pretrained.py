"""Published weights for our networks: timm's weights on the Hub, or a file in an installed package.

EfficientNets and similar networks get all their weights. HRNet's weights come from ImageNet classifiers, so a
segmentation or pose network gets all weights except those of its head. Tensors are copied unchanged.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from scalenet_zoo.arch.spec import ArchSpec, spec_of
from scalenet_zoo.core.errors import WeightsError
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.networks import MBConvNet
from scalenet_zoo.zoo.hub import fetch_weights
from scalenet_zoo.zoo.installed import installed_weights, pretrained_interface
from scalenet_zoo.zoo.namings import TIMM
from scalenet_zoo.zoo.published import published_entry, published_weights
from scalenet_zoo.zoo.weights import Weights

_logger = logging.getLogger(__name__)


def from_timm(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename the tensors of a timm EfficientNet or HRNet for our network.

    Args:
        state: the state dict of a timm model.
        model: our network of the same architecture.

    Returns:
        Tensors by our names, for `model.load_state_dict`: all of them for an EfficientNet, all except those of the head
            for a multipath network.

    Raises:
        WeightsError: a tensor is missing from `state`.
    """
    naming, spec = TIMM[0 if isinstance(model, MBConvNet) else 1], spec_of(model)
    renamed = {}
    for key in model.state_dict():
        source = naming.their_name(key, spec)
        if source is None:
            continue
        if source not in state:
            raise WeightsError(f"{source}: found no such tensor in timm's weights, expected one for our {key}")
        renamed[key] = state[source]
    return renamed


def open_pretrained(spec: ArchSpec, tag: str | None = None) -> Weights:
    """Find and check the published weights of an architecture, before a network is built.

    The weights come from the Hub or its cache. If an installed package has weights for the architecture, its file is
    used instead, unless a tag selects other weights; the log says so.

    Args:
        spec: the spec of the network; a name of the form NAME.TAG also selects a tag.
        tag: which weights; None: the choice of `published.published_weights`.

    Raises:
        WeightsError: the architecture has no published weights, or they cannot be fetched or do not fit.
    """
    weights, entry = published_weights(spec, tag), published_entry(spec)
    if entry is None:
        raise WeightsError(
            f"{spec.name}: found no published weights, expected the architecture of an entry that"
            " `scalenet-zoo list --pretrained` shows; load your own with weights=FILE (--weights on the command line)"
        )
    if weights is None:
        raise WeightsError(f"{spec.name}: tag: found {quoted(tag)}, expected one of {', '.join(entry.tags)}")
    if file := installed_weights(spec, tag):
        _logger.warning("%s: the weights are those of an installed package: %s", spec.name, file)
        cfg = pretrained_interface(spec).to_timm(spec, {"file": str(file)})
        return replace(Weights.open(file, spec), cfg=cfg)
    return Weights.open(fetch_weights(weights.repository), spec, safetensors=True)


def load_pretrained(model: nn.Module, tag: str | None = None) -> None:
    """Load the published weights of a network's architecture.

    For another number of input channels the weights of the first convolution are repeated or summed, as in timm. A
    classifier with another number of classes and the head of a multipath network keep their initial weights. Both are
    logged.

    Args:
        model: one of our networks, changed in place.
        tag: which weights; None: as for `open_pretrained`.

    Raises:
        WeightsError: as for `open_pretrained`.
    """
    open_pretrained(spec_of(model), tag).load_into(model)
