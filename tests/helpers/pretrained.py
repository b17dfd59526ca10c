"""Weights as timm publishes them, made up."""

from typing import Any

import timm
from safetensors.torch import save
from torch import nn

from scalenet_zoo.zoo.catalog import PUBLISHED
from tests.helpers.hub_server import Hub
from tests.helpers.networks import randomise


def timm_model(name: str, **kwargs: Any) -> Any:
    return randomise(timm.create_model(PUBLISHED[name], **kwargs)).eval()


def publish(hub: Hub, name: str) -> nn.Module:
    """Serve a random timm model's weights as those that timm publishes."""
    model: nn.Module = timm_model(name)
    repository = timm.get_pretrained_cfg(PUBLISHED[name]).hf_hub_id
    hub.publish(repository, {"model.safetensors": save(dict(model.state_dict()))})
    return model
