"""The multipath supernet: what is active is the stand-alone network, and nothing else is touched."""

from functools import cache
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from scalenet_zoo import load_spec
from scalenet_zoo.arch.spec import FUSION_STEPS, ArchSpec, Input, Module, MultipathNetwork, Provenance
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.networks import MultipathNet
from scalenet_zoo.networks.batch_norm import reestimate_batch_norm
from scalenet_zoo.spaces.scalenas import MultipathSpace
from scalenet_zoo.supernet.gradients import Gradients
from scalenet_zoo.supernet.scalenas.network import ScaleNASSupernet
from scalenet_zoo.supernet.scalenet.optimiser import WindowSGD
from tests.helpers.networks import random_model, randomise, small
from tests.helpers.random_specs import multipath_specs

Head = Literal["segmentation", "pose"]
HEADS: tuple[Head, ...] = ("segmentation", "pose")
WIDTH, CLASSES = 3, 4
IMAGE = Input(height=64, width=96)


def space_of(head: Head, width: int = WIDTH, modules: tuple[int, ...] = (2, 2, 2)) -> MultipathSpace:
    return MultipathSpace(name="tests", width=width, head=head, modules=modules, input=IMAGE, depths=(1, 2, 3, 4, 5))


def new_supernet(head: Head, seed: int = 0) -> ScaleNASSupernet:
    """One with random weights and statistics everywhere."""
    supernet = ScaleNASSupernet(space_of(head), CLASSES)
    randomise(supernet, seed)
    return supernet


@cache
def shared_supernet(head: Head) -> ScaleNASSupernet:
    return new_supernet(head)


def network_of(spec: ArchSpec) -> MultipathNetwork:
    assert spec.network.type == "multipath"
    return spec.network


def fitting(spec: ArchSpec) -> ArchSpec:
    """The same masks for the tests' supernets."""
    network = network_of(spec).model_copy(update={"width": WIDTH})
    image = spec.input.model_copy(update={"channels": 3})
    return ArchSpec.create(spec.name, spec.task, image, CLASSES, network, spec.provenance)


def spec_with(head: Head, depths: tuple[int, ...] = (2, 3, 4), width: int = WIDTH, modules: int = 1) -> ArchSpec:
    """Branches of different depth in every module, joined in a ring."""
    masks = []
    for branches in (2, 3, 4):
        depth = tuple(depths[branch % len(depths)] for branch in range(branches))
        fusion = tuple(
            tuple(
                tuple(int(t < depth[to] and origin in (to, (to + 1) % branches)) for origin in range(branches))
                for t in range(FUSION_STEPS)
            )
            for to in range(branches)
        )
        masks += [Module(depth=depth, fusion=fusion)] * modules
    network = MultipathNetwork(width=width, head=head, modules=tuple(masks))
    return ArchSpec.create("ring", head, IMAGE, CLASSES, network, Provenance(source="a test"))


def images(spec: ArchSpec, count: int = 3) -> Tensor:
    shape = (count, spec.input.channels, spec.input.height, spec.input.width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


# --- extract = active -----------------------------------------------------------------------------


@settings(max_examples=15)
@given(multipath_specs().map(fitting), st.booleans())
def test_extracted_computes_what_active_does(spec: ArchSpec, training: bool) -> None:
    supernet = shared_supernet(network_of(spec).head).train(training)
    alone = supernet.extract(spec)
    assert alone.spec == spec
    assert sum(p.numel() for p in alone.parameters()) == spec.cost.params
    supernet.activate(network_of(spec))
    with torch.no_grad():
        ours, theirs = supernet(images(spec)), alone(images(spec))
    assert alone.training == supernet.active.training == training
    assert ours.abs().max() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    tensors = alone.state_dict()
    assert list(supernet.active.state_dict()) == list(tensors)
    for name, tensor in supernet.active.state_dict().items():
        torch.testing.assert_close(tensor, tensors[name], msg=name)  # statistics, too, after a training step


@pytest.mark.parametrize("head", HEADS)
def test_the_largest_network_is_active_at_first(head: Head) -> None:
    supernet = new_supernet(head).eval()
    spec = supernet.largest.spec
    assert spec.network == supernet.space.network(supernet.space.largest)
    assert len(supernet.windows) == len(list(supernet.parameters()))
    with torch.no_grad():
        torch.testing.assert_close(supernet(images(spec)), supernet.extract(spec)(images(spec)))


def test_extract_leaves_what_is_active_alone() -> None:
    one, other = spec_with("pose"), spec_with("pose", (5, 1), modules=2)
    supernet = shared_supernet("pose").eval()
    supernet.activate(network_of(one))
    with torch.no_grad():
        before = supernet(images(one))
        alone = supernet.extract(other)
        assert torch.equal(supernet(images(one)), before)
        for parameter in alone.parameters():
            parameter.fill_(7.0)
        assert torch.equal(supernet(images(one)), before)


@cache
def abstract_supernet(width: int, head: Head) -> ScaleNASSupernet:
    with torch.device("meta"):
        return ScaleNASSupernet(space_of(head, width, (1, 4, 3)), CLASSES)


@pytest.mark.parametrize("name", [f"scalenas_{task}{i}" for task in "sp" for i in (1, 2, 3, 4)])
def test_published_networks_run_in_a_supernet_of_their_width(name: str) -> None:
    spec = load_spec(name).replace(classes=CLASSES)
    network = network_of(spec)
    supernet = abstract_supernet(network.width, network.head)
    supernet.activate(network)
    assert sum(window.full.numel() for window in supernet.windows) == spec.cost.params
    assert supernet(torch.empty(1, 3, 64, 96, device="meta")).shape == (1, CLASSES, 16, 24)


# --- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
def test_a_step_touches_only_active_weights_and_is_the_step_of_the_network_alone(head: Head) -> None:
    spec, supernet = spec_with(head), new_supernet(head).train()
    optimizer = WindowSGD(supernet, lr=0.1, momentum=0.9, weight_decay=0.01)
    alone = supernet.extract(spec)
    decayed = [p for p in alone.parameters() if p.ndim > 1]
    rest = [p for p in alone.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}]
    reference = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    supernet.activate(network_of(spec))
    for seed in (0, 1):  # the second step has momentum
        x = images(spec) + seed
        target = torch.rand(3, CLASSES, 16, 24, generator=torch.Generator().manual_seed(seed))
        F.mse_loss(supernet(x), target).backward()  # type: ignore[no-untyped-call]
        gradients = Gradients()
        gradients.add(supernet.windows)
        assert all(parameter.grad is None for parameter in supernet.parameters())
        optimizer.update(gradients)
        reference.zero_grad()
        F.mse_loss(alone(x), target).backward()  # type: ignore[no-untyped-call]
        reference.step()
    after, expected = supernet.state_dict(), alone.state_dict()
    assert len(expected) < len(after)
    for name, tensor in before.items():
        own = name.removeprefix("largest.")
        if own in expected:
            torch.testing.assert_close(after[name], expected[own], rtol=1e-4, atol=1e-6, msg=name)
        else:
            assert torch.equal(after[name], tensor), name
    fed = [p for name, p in alone.named_parameters() if p.grad is not None]
    assert len(gradients.parts) == len(optimizer.state) == len(fed)
    assert not torch.equal(after["largest.stem.0.conv.weight"], before["largest.stem.0.conv.weight"])


def test_weights_have_the_names_of_the_largest_network_whatever_runs() -> None:
    supernet = new_supernet("pose")
    names = list(supernet.state_dict())
    supernet.activate(network_of(spec_with("pose")))
    assert list(supernet.state_dict()) == names == [f"largest.{name}" for name in supernet.largest.state_dict()]
    supernet.double()
    assert supernet(images(spec_with("pose")).double()).dtype == torch.float64


def test_reestimated_batch_norm_in_an_extract_leaves_the_supernet_alone() -> None:
    spec, supernet = spec_with("segmentation", (3, 1)), new_supernet("segmentation").eval()
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    alone, x = supernet.extract(spec), images(spec, 8)
    reestimate_batch_norm(alone, [x])
    for name, tensor in supernet.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    for module in supernet.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # statistics of the last batch, then
    supernet.activate(network_of(spec))
    with torch.no_grad():
        supernet.train()(x)
    tensors = supernet.active.state_dict()
    for name, tensor in alone.state_dict().items():
        torch.testing.assert_close(tensor, tensors[name], msg=name)


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_mixed_precision_and_channels_last_hold(memory_format: torch.memory_format) -> None:
    spec = spec_with("segmentation")
    supernet = new_supernet("segmentation").to(memory_format=memory_format).train()
    supernet.activate(network_of(spec))
    x = images(spec).contiguous(memory_format=memory_format)
    seen = []
    hooked = supernet.active.get_submodule("stage3.0.blocks.2.3.conv2.conv")
    hook = hooked.register_forward_hook(lambda m, inputs, output: seen.append(output))
    with torch.autocast("cpu", torch.bfloat16):
        supernet(x).float().sum().backward()
    hook.remove()
    (output,) = seen
    assert output.dtype == torch.bfloat16
    assert output.is_contiguous(memory_format=memory_format)
    assert all(w.view.grad is None or w.view.grad.dtype == torch.float32 for w in supernet.windows)
    weight = supernet.extract(spec).state_dict()["stage2.0.blocks.0.0.conv1.conv.weight"]
    assert weight.is_contiguous(memory_format=memory_format)


# --- initial weights ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hrnet_w18", "hrnet_w18_pose"])
def test_the_supernet_inherits_an_hrnet(name: str) -> None:
    hrnet = random_model(small(name))
    assert isinstance(hrnet, MultipathNet)
    network = network_of(hrnet.spec)
    assert network.head != "bottom_up"
    supernet = ScaleNASSupernet(space_of(network.head, network.width, (1, 4, 3)), hrnet.num_classes).eval()
    before = {name: tensor.clone() for name, tensor in supernet.largest.state_dict().items()}
    supernet.inherit(hrnet)
    supernet.activate(network)
    with torch.no_grad():
        torch.testing.assert_close(supernet(images(hrnet.spec)), hrnet(images(hrnet.spec)), rtol=1e-5, atol=1e-5)
    inherited = hrnet.state_dict()
    for key, tensor in supernet.largest.state_dict().items():
        assert torch.equal(tensor, inherited[key] if key in inherited else before[key]), key
        assert key not in inherited or tensor.data_ptr() != inherited[key].data_ptr()


# --- networks outside of the space ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        (spec_with("pose", width=4), "width: found 4, expected 3, as in the supernet"),
        (spec_with("segmentation"), "head: found segmentation, expected pose, as in the supernet"),
        (spec_with("pose", modules=3), "modules: found 3 with 2 branches, expected at most 2"),
    ],
)
def test_a_network_outside_of_the_space_is_refused(spec: ArchSpec, complaint: str) -> None:
    supernet = shared_supernet("pose")
    with pytest.raises(InputError, match=complaint):
        supernet.activate(network_of(spec))
    with pytest.raises(InputError, match=complaint):
        supernet.extract(spec)
    with pytest.raises(InputError, match=complaint):
        supernet.inherit(MultipathNet(spec))


def test_a_deeper_network_is_refused() -> None:
    space = space_of("pose").model_copy(update={"depths": (2, 3)})
    with torch.device("meta"):
        supernet = ScaleNASSupernet(space, CLASSES)
    with pytest.raises(InputError, match=r"modules.1.depth: found \[2, 3, 4\], expected at most 3"):
        supernet.activate(network_of(spec_with("pose")))


@pytest.mark.parametrize("spec", [spec_with("pose").replace(classes=5), spec_with("pose").replace(channels=1)])
def test_a_network_for_other_images_or_classes_is_refused(spec: ArchSpec) -> None:
    supernet = shared_supernet("pose")
    with pytest.raises(InputError, match="ring: found . classes and . channels, expected 4 and 3, as in the supernet"):
        supernet.extract(spec)
    with pytest.raises(InputError, match="ring: found"):
        supernet.inherit(MultipathNet(spec))


def test_a_classifier_is_refused() -> None:
    with pytest.raises(InputError, match="scalenet_s0: found"):
        shared_supernet("pose").extract(load_spec("scalenet_s0"))
