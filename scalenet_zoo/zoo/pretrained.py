"""Published weights for our networks: timm's, under our names for the same tensors.

EfficientNet B0 to B4 come whole. HRNet's weights are of ImageNet classifiers, so a segmentation or
pose network gets all but its head. Nothing is computed: every tensor is taken over as it is.
"""

import re
from collections.abc import Mapping

from timm import get_pretrained_cfg
from torch import Tensor, nn

from scalenet_zoo.arch.spec import spec_of
from scalenet_zoo.core.errors import WeightsError
from scalenet_zoo.networks import MBConvNet
from scalenet_zoo.zoo.catalog import PUBLISHED, published_weights
from scalenet_zoo.zoo.hub import fetch_weights
from scalenet_zoo.zoo.weights import adopt_weights, read_weights

# Paths of our modules, and of timm's that hold the same tensors; the first that matches counts.
_EFFICIENTNET = {
    r"stem\.conv": "conv_stem",
    r"stem\.norm": "bn1",
    # The first stage has no expansion: timm's depthwise-separable layers, whose names differ.
    r"stages\.0\.(\d+)\.depthwise\.conv": r"blocks.0.\1.conv_dw",
    r"stages\.0\.(\d+)\.depthwise\.norm": r"blocks.0.\1.bn1",
    r"stages\.0\.(\d+)\.project\.conv": r"blocks.0.\1.conv_pw",
    r"stages\.0\.(\d+)\.project\.norm": r"blocks.0.\1.bn2",
    r"stages\.(\d)\.(\d+)\.expand\.conv": r"blocks.\1.\2.conv_pw",
    r"stages\.(\d)\.(\d+)\.expand\.norm": r"blocks.\1.\2.bn1",
    r"stages\.(\d)\.(\d+)\.depthwise\.conv": r"blocks.\1.\2.conv_dw",
    r"stages\.(\d)\.(\d+)\.depthwise\.norm": r"blocks.\1.\2.bn2",
    r"stages\.(\d)\.(\d+)\.squeeze\.(reduce|expand)": r"blocks.\1.\2.se.conv_\3",
    r"stages\.(\d)\.(\d+)\.project\.conv": r"blocks.\1.\2.conv_pwl",
    r"stages\.(\d)\.(\d+)\.project\.norm": r"blocks.\1.\2.bn3",
    r"head\.conv": "conv_head",
    r"head\.norm": "bn2",
    r"classifier": "classifier",
}
_UP = "|".join(f"{origin}_to_{to}" for to in range(4) for origin in range(to + 1, 4))
_HRNET = {
    r"stem\.0\.conv": "conv1",
    r"stem\.0\.norm": "bn1",
    r"stem\.1\.conv": "conv2",
    r"stem\.1\.norm": "bn2",
    r"stage1\.(\d)\.conv(\d)\.conv": r"layer1.\1.conv\2",
    r"stage1\.(\d)\.conv(\d)\.norm": r"layer1.\1.bn\2",
    r"stage1\.(\d)\.shortcut\.conv": r"layer1.\1.downsample.0",
    r"stage1\.(\d)\.shortcut\.norm": r"layer1.\1.downsample.1",
    r"transition2\.0\.conv": "transition1.0.0",
    r"transition2\.0\.norm": "transition1.0.1",
    r"transition2\.1\.conv": "transition1.1.0.0",
    r"transition2\.1\.norm": "transition1.1.0.1",
    r"transition3\.conv": "transition2.2.0.0",
    r"transition3\.norm": "transition2.2.0.1",
    r"transition4\.conv": "transition3.3.0.0",
    r"transition4\.norm": "transition3.3.0.1",
    r"stage(\d)\.(\d)\.blocks\.(\d)\.(\d)\.conv(\d)\.conv": r"stage\1.\2.branches.\3.\4.conv\5",
    r"stage(\d)\.(\d)\.blocks\.(\d)\.(\d)\.conv(\d)\.norm": r"stage\1.\2.branches.\3.\4.bn\5",
    rf"stage(\d)\.(\d)\.paths\.3\.(?=(?:{_UP})\.)(\d)_to_(\d)\.convs\.0\.conv": r"stage\1.\2.fuse_layers.\4.\3.0",
    rf"stage(\d)\.(\d)\.paths\.3\.(?=(?:{_UP})\.)(\d)_to_(\d)\.convs\.0\.norm": r"stage\1.\2.fuse_layers.\4.\3.1",
    r"stage(\d)\.(\d)\.paths\.3\.(\d)_to_(\d)\.convs\.(\d)\.conv": r"stage\1.\2.fuse_layers.\4.\3.\5.0",
    r"stage(\d)\.(\d)\.paths\.3\.(\d)_to_(\d)\.convs\.(\d)\.norm": r"stage\1.\2.fuse_layers.\4.\3.\5.1",
}


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
    rules = _EFFICIENTNET if isinstance(model, MBConvNet) else _HRNET
    renamed = {}
    for key in model.state_dict():
        module, _, tensor = key.rpartition(".")
        matches = ((re.fullmatch(ours, module), theirs) for ours, theirs in rules.items())
        source = next((f"{match.expand(theirs)}.{tensor}" for match, theirs in matches if match), None)
        if source is None:
            continue
        if source not in state:
            raise WeightsError(f"{source}: found no such tensor in timm's weights, expected it for our {key}")
        renamed[key] = state[source]
    return renamed


def load_pretrained(model: nn.Module) -> None:
    """Fetch the published weights of a network's architecture from the Hub and load them.

    Other input channels adapt the first convolution (repeated or summed, as timm does); another class
    count, and the head of a multipath network, keep their initial weights, which is logged.

    Raises:
        WeightsError: the architecture has no published weights, or they cannot be fetched or do not fit.
    """
    spec = spec_of(model)
    theirs = published_weights(spec)
    if theirs is None:
        raise WeightsError(
            f"{spec.name}: found no published weights, expected the architecture of one of {', '.join(PUBLISHED)};"
            " load your own with weights=FILE.safetensors (--weights on the command line)"
        )
    path = fetch_weights(get_pretrained_cfg(theirs).hf_hub_id)
    adopt_weights(model, from_timm(read_weights(path)[0], model), str(path), head=False)
