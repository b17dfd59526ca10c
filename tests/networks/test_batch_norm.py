"""Re-estimated batch-norm statistics, and folded batch norms."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from scalenet_zoo import create_model
from scalenet_zoo.networks.batch_norm import fold_batch_norm, reestimate_batch_norm
from tests.helpers.networks import randomise
from tests.helpers.shapes import SPECS


def batches(count: int, size: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [3 * torch.randn(size, 3, 32, 32, generator=generator) + 1 for _ in range(count)]


def network_of() -> nn.Module:
    return randomise(create_model(SPECS["classification"]))


def norms_of(network: nn.Module) -> dict[str, nn.BatchNorm2d]:
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}


@pytest.mark.parametrize("count", [1, 3])
def test_statistics_are_those_computed_directly(count: int) -> None:
    network = network_of()
    seen: dict[str, list[Tensor]] = {}
    hooks = [
        norm.register_forward_pre_hook(lambda _, args, name=name: seen.setdefault(name, []).append(args[0].clone()))
        for name, norm in norms_of(network).items()
    ]
    reestimate_batch_norm(network, batches(count))
    for hook in hooks:
        hook.remove()
    norms = norms_of(network)
    assert len(norms) == 10
    for name, norm in norms.items():
        assert norm.running_mean is not None
        assert norm.running_var is not None
        means = torch.stack([x.double().mean((0, 2, 3)) for x in seen[name]])
        variances = torch.stack([x.double().var((0, 2, 3), correction=1) for x in seen[name]])
        assert len(means) == count
        torch.testing.assert_close(norm.running_mean.double(), means.mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.running_var.double(), variances.mean(0), rtol=1e-4, atol=1e-5)


def test_estimated_twice_is_estimated_once() -> None:
    network = network_of()
    reestimate_batch_norm(network, batches(2))
    first = {name: value.clone() for name, value in network.state_dict().items()}
    reestimate_batch_norm(network, batches(2))
    for name, value in network.state_dict().items():
        assert torch.equal(value, first[name]), name


def test_weights_modes_and_momenta_stay() -> None:
    network = network_of().train()
    weights = {name: value.clone() for name, value in network.named_parameters()}
    norms = list(norms_of(network).values())
    network.get_submodule("stages.1").eval()
    norms[0].momentum, norms[1].momentum = 0.3, None
    norms[2].eval()
    modes = {name: module.training for name, module in network.named_modules()}
    assert set(modes.values()) == {True, False}
    reestimate_batch_norm(network, batches(1))
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert [norm.momentum for norm in norms[:3]] == [0.3, None, 0.1]
    assert all(torch.equal(value, weights[name]) for name, value in network.named_parameters())
    assert all(value.grad is None for value in network.parameters())


def test_modes_and_momenta_stay_when_an_exception_passes() -> None:
    def broken() -> Iterator[Tensor]:
        yield batches(1)[0]
        raise KeyboardInterrupt

    network = network_of().train()
    with pytest.raises(KeyboardInterrupt):
        reestimate_batch_norm(network, broken())
    assert all(module.training for module in network.modules())
    assert {norm.momentum for norm in norms_of(network).values()} == {0.1}


def test_dropout_is_off_meanwhile() -> None:
    torch.manual_seed(0)
    dropped, whole = (nn.Sequential(nn.Dropout(rate), nn.BatchNorm2d(3)).train() for rate in (0.5, 0.0))
    for network in (dropped, whole):
        reestimate_batch_norm(network, batches(1))
    assert torch.equal(dropped.state_dict()["1.running_var"], whole.state_dict()["1.running_var"])


def test_a_network_without_batch_norm_is_left_alone() -> None:
    class Refuses(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("was run")

    network = Refuses(3, 3, 1)
    reestimate_batch_norm(network, batches(1))
    untracked = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), Refuses(3, 3, 1))
    reestimate_batch_norm(untracked, batches(1))
    assert untracked.training


def test_folded_batch_norm_computes_the_same() -> None:
    network, images = network_of().eval(), batches(1)[0]
    with torch.no_grad():
        expected = network(images)
        fold_batch_norm(network)
        torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-5)
    assert not norms_of(network)
