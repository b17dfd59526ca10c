"""Weights as timm publishes them, made up."""

from collections.abc import Iterable
from typing import Any

import pytest
import timm
from safetensors.torch import save
from torch import nn

from scalenet_zoo.zoo.published import PublishedWeights, published_entries
from tests.helpers.hub_server import Hub
from tests.helpers.networks import randomise

TIMMS = (
    *(f"efficientnet_b{i}_pruned" for i in (1, 2, 3)),
    *(f"tf_efficientnet_b{i}" for i in range(9)),
    *("efficientnet_lite0", *(f"tf_efficientnet_lite{i}" for i in range(5))),
    *(f"mobilenetv2_{kind}" for kind in ("050", "100", "110d", "120d", "140")),
    *("mnasnet_small", "mnasnet_100", "semnasnet_075", "semnasnet_100", "spnasnet_100", "fbnetc_100"),
    *(f"tinynet_{letter}" for letter in "abcde"),
)
"""Entries that were read from timm's modules."""
ONE_OF_EACH = ("fbnetc_100", "mnasnet_small", "semnasnet_075", "tf_efficientnet_lite0", "tinynet_e", "mobilenetv2_050")
"""Small ones: with padding of each kind, with and without squeeze-and-excite, of every activation and odd layer."""


def mostly_slow(names: Iterable[str]) -> list[Any]:
    """Parameters of a test that is slow for all but one of each kind."""
    return [name if name in ONE_OF_EACH else pytest.param(name, marks=pytest.mark.slow) for name in names]


def published(name: str) -> PublishedWeights:
    """Weights of NAME.TAG, or the default ones of NAME."""
    name, _, tag = name.partition(".")
    entry = published_entries()[name]
    weights = entry.find(tag) if tag else entry.default
    assert weights is not None
    return weights


def timm_model(name: str, **kwargs: Any) -> Any:
    return randomise(timm.create_model(published(name).timm, **kwargs)).eval()


def publish(hub: Hub, name: str, seed: int = 0) -> nn.Module:
    """Serve a random timm model's weights as those that timm publishes."""
    model: nn.Module = randomise(timm.create_model(published(name).timm), seed).eval()
    hub.publish(published(name).repository, {"model.safetensors": save(dict(model.state_dict()))})
    return model
