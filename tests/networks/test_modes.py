"""The modes of a network's modules stay as they were, whatever runs the network in between."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from scalenet_zoo import evaluate, export_model, predict
from scalenet_zoo.networks.modes import evaluation_mode
from scalenet_zoo.training.doubts import is_blind
from tests.helpers.networks import random_model
from tests.helpers.shapes import SPECS, Shapes


def with_frozen_norms() -> nn.Module:
    """A network in training, whose batch norms are frozen."""
    network = random_model(SPECS["classification"]).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return network


def modes(network: nn.Module) -> dict[str, bool]:
    return {name: module.training for name, module in network.named_modules()}


def test_all_modules_are_in_evaluation_mode_in_between_and_come_back_even_after_an_error() -> None:
    network = with_frozen_norms()
    before = modes(network)

    def stopped() -> None:
        with evaluation_mode(network):
            assert not any(modes(network).values())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert modes(network) == before
    with evaluation_mode("a.onnx"), evaluation_mode(None):  # what is no network has no modes
        pass


@pytest.mark.parametrize(
    "run",
    [
        lambda network, folder: evaluate(network, Shapes("classification", 4), workers=0),
        lambda network, folder: predict(network),
        lambda network, folder: is_blind(network, Shapes("classification", 4)),
        lambda network, folder: export_model(network, folder / "a.xml", "openvino"),
    ],
    ids=["evaluate", "predict", "is_blind", "export_model"],
)
def test_frozen_batch_norms_stay_frozen(run: Callable[[nn.Module, Path], object], tmp_path: Path) -> None:
    network = with_frozen_norms()
    before = modes(network)
    assert set(before.values()) == {True, False}
    run(network, tmp_path)
    assert modes(network) == before
    network(torch.zeros(2, 3, 32, 32)).sum().backward()
