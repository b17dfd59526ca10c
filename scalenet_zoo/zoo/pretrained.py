"""Published weights for our networks: timm's on the Hub, or a file that an installed package brings.

EfficientNet and its like come whole. HRNet's weights are of ImageNet classifiers, so a segmentation or pose network
gets all but its head. Nothing is computed: every tensor is taken over as it is.
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
    """Take a timm EfficientNet's or HRNet's tensors over into our network.

    Args:
        state: the state dict of a timm model.
        model: our network of the same architecture.

    Returns:
        What `model` can load: of an EfficientNet everything, of a multipath network all but its head.

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
            raise WeightsError(f"{source}: found no such tensor in timm's weights, expected it for our {key}")
        renamed[key] = state[source]
    return renamed


def open_pretrained(spec: ArchSpec, tag: str | None = None) -> Weights:
    """Find the published weights of an architecture, and look at them, before a network is built.

    They are fetched from the Hub, or found in its cache. Where an installed package has some, its file is
    taken instead, which is logged, unless a tag asks for others.

    Args:
        spec: of the network that they are for; NAME.TAG as its name asks for a tag, too.
        tag: which of them; None: as `published.published_weights` says.

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
    """Find the published weights of a network's architecture, and load them.

    Other input channels adapt the first convolution (repeated or summed, as timm does); another class count, and the
    head of a multipath network, keep their initial weights, which is logged.

    Args:
        model: one of ours.
        tag: which of them; None: as `open_pretrained` says.

    Raises:
        WeightsError: as `open_pretrained`.
    """
    open_pretrained(spec_of(model), tag).load_into(model)
