"""Networks with made-up but telling weights, for comparisons."""

import torch
from torch import nn

from scalenet_zoo import create_model
from scalenet_zoo.arch.spec import FUSION_STEPS, ArchSpec, Module, MultipathNetwork


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every tensor random values that keep activations near unit size, batch-norm statistics included."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.0),
                (module.bias, -0.2, 0.2),
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 1.5),
            ):
                assert tensor is not None
                tensor.data.uniform_(low, high, generator=generator)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            fan_in = module.weight[0].numel()
            if isinstance(module, nn.ConvTranspose2d):  # weights by inputs; each output reads so many
                fan_in = module.weight[:, 0].numel() // 4
            module.weight.data.normal_(0.0, fan_in**-0.5, generator=generator)
            if module.bias is not None:
                module.bias.data.normal_(0.0, 0.1, generator=generator)
    return model


def small(name: str) -> ArchSpec:
    """A zoo entry's spec for small images: 64 x 96 pixels."""
    from scalenet_zoo import load_spec

    return load_spec(name).replace(height=64, width=96)


def shallow(name: str, every: int = 3) -> ArchSpec:
    """As `small`, but with one layer in every third stage, or one narrow block per branch: quickly exported."""
    spec = small(name)
    network = spec.network
    if isinstance(network, MultipathNetwork):
        modules = []
        for n in (2, 3, 4):
            fusion = tuple((tuple(int(i == j) for j in range(n)), *[(0,) * n] * (FUSION_STEPS - 1)) for i in range(n))
            modules.append(Module(depth=(1,) * n, fusion=fusion))
        network = network.model_copy(update={"width": 4, "modules": tuple(modules)})
    else:
        network = network.model_copy(update={"stages": tuple(stage[:1] for stage in network.stages[::every])})
    return ArchSpec.create(name, spec.task, spec.input, spec.classes, network, spec.provenance)


def random_model(spec: ArchSpec | str, **kwargs: object) -> nn.Module:
    """A network in evaluation mode with random weights and statistics."""
    return randomise(create_model(spec, **kwargs)).eval()  # type: ignore[arg-type]
