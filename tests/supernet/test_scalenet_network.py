"""The super-supernet: what is active is the stand-alone network, and nothing else is touched."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import nn
from torch.nn import functional as F  # noqa: N812

from scalenet_zoo.arch.spec import ArchSpec, Head, Layer, MBConvNetwork
from scalenet_zoo.core.errors import BackendError, InputError
from scalenet_zoo.networks.layers import MBConv
from scalenet_zoo.spaces.scalenas import MultipathSpace
from scalenet_zoo.spaces.scalenet import Space
from scalenet_zoo.supernet.gradients import Gradients
from scalenet_zoo.supernet.scalenas.network import ScaleNASSupernet
from scalenet_zoo.supernet.scalenet.elastic import Side
from scalenet_zoo.supernet.scalenet.network import ScaleNetSupernet
from scalenet_zoo.supernet.scalenet.optimiser import WindowSGD
from scalenet_zoo.supernet.scalenet.samplers import HierarchicalSampler, SandwichSampler, UniformSampler
from tests.helpers.spaces import TINY, draw, telling_supernet

SUPERNET = telling_supernet()
sides = st.sampled_from(["left", "right"])


def network_of(spec: ArchSpec) -> MBConvNetwork:
    assert spec.network.type == "mbconv"
    return spec.network


def images(spec: ArchSpec, count: int = 3) -> torch.Tensor:
    shape = (count, spec.input.channels, spec.input.height, spec.input.width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


# --- extract = active -----------------------------------------------------------------------------


@settings(max_examples=20)
@given(st.integers(0, 10_000), sides, st.booleans())
def test_extracted_computes_what_active_does(seed: int, side: Side, training: bool) -> None:
    spec = draw(seed)
    supernet = telling_supernet(seed % 7) if training else SUPERNET
    supernet.train(training)
    alone = supernet.extract(spec, side)
    assert alone.spec == spec
    assert sum(p.numel() for p in alone.parameters()) == spec.cost.params
    supernet.activate(network_of(spec), side)
    with torch.no_grad():
        ours, theirs = supernet(images(spec)), alone(images(spec))
    assert alone.training == training
    assert ours.abs().max() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    for (name, a), b in zip(supernet.active.state_dict().items(), alone.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6, msg=name)  # statistics, too, after a training step


def test_sides_differ_and_meet_in_the_widest_network() -> None:
    spec, widest = draw(3), TINY.largest_spec(3)
    SUPERNET.eval()

    def both(spec: ArchSpec) -> list[torch.Tensor]:
        with torch.no_grad():
            return [SUPERNET.extract(spec, side)(images(spec)) for side in ("left", "right")]

    left, right = both(spec)
    assert (left - right).abs().max() > 1e-3
    left, right = both(widest)
    assert torch.equal(left, right)


def test_supernets_larger_than_memory_are_refused_before_they_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    space = Space.load("small")
    with torch.device("meta"):
        bytes_needed = 4 * sum(p.numel() for p in ScaleNetSupernet(space, 10).parameters())
    monkeypatch.setattr("scalenet_zoo.core.memory.available_memory", lambda: 0.9 * bytes_needed)
    message = r"^small: a supernet of 1\.021M parameters: found that it takes 0\.0 GB of memory, expected at most"
    with pytest.raises(BackendError, match=message):
        ScaleNetSupernet(space, 10)
    pose = MultipathSpace.load("scalenas_pose")
    with pytest.raises(
        BackendError, match="^scalenas_pose: a supernet of 47.61M parameters: found that it takes 0.2 GB"
    ):
        ScaleNASSupernet(pose, 17)


def test_the_space_of_the_paper_has_a_supernet() -> None:
    space = Space.load("scalenet")
    with torch.device("meta"):
        supernet = ScaleNetSupernet(space, 1000)
    assert [len(list(positions.children())) for positions in supernet.stages] == [2, 7, 7, 7, 7, 7, 2]  # ceil(1.64 n)
    widths = [math.ceil(c * 1.64 - 1e-9) for c in (16, 32, 40, 80, 96, 192, 320)]
    for positions, width in zip(supernet.stages, widths, strict=True):
        for position in positions:  # type: ignore[attr-defined]
            assert list(position) == ["3", "5", "7"]
            for layer in position.values():
                assert isinstance(layer, MBConv)
                assert layer.project.conv.out_channels == width
    assert supernet.head.conv.out_channels == 1280


def test_extract_leaves_what_is_active_alone() -> None:
    one, other = draw(1), draw(2)
    SUPERNET.eval()
    SUPERNET.activate(network_of(one), "right")
    with torch.no_grad():
        before = SUPERNET(images(one))
        alone = SUPERNET.extract(other, "left")
        assert torch.equal(SUPERNET(images(one)), before)
        for parameter in alone.parameters():
            parameter.fill_(7.0)
        assert torch.equal(SUPERNET(images(one)), before)


# --- windows --------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(st.integers(0, 10_000), sides)
def test_windows_are_views_of_the_wide_weights(seed: int, side: Side) -> None:
    SUPERNET.activate(network_of(draw(seed)), side)
    storages = {p.untyped_storage().data_ptr() for p in SUPERNET.parameters()}
    assert all(window.view.untyped_storage().data_ptr() in storages for window in SUPERNET.windows)
    named = dict(SUPERNET.active.named_parameters())
    assert len(SUPERNET.windows) == len(named)


@settings(max_examples=8)
@given(st.integers(0, 10_000), sides)
def test_a_step_touches_only_active_weights_and_is_the_step_of_the_network_alone(seed: int, side: Side) -> None:
    spec, supernet = draw(seed), telling_supernet(seed % 7).train()
    optimizer = WindowSGD(supernet, lr=0.1, momentum=0.9, weight_decay=0.01)
    alone = supernet.extract(spec, side)
    decayed = [p for p in alone.parameters() if p.ndim > 1]
    rest = [p for p in alone.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}]
    reference = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    before = {name: parameter.detach().clone() for name, parameter in supernet.named_parameters()}
    x, y = images(spec, 4), torch.tensor([0, 1, 2, 1])
    for _ in range(2):  # the second one has momentum
        supernet.activate(network_of(spec), side)
        F.cross_entropy(supernet(x), y).backward()  # type: ignore[no-untyped-call]
        gradients = Gradients()
        gradients.add(supernet.windows)
        assert all(window.view.grad is None for window in supernet.windows)  # the memory is the optimiser's to free
        optimizer.update(gradients)
        reference.zero_grad()
        F.cross_entropy(alone(x), y).backward()  # type: ignore[no-untyped-call]
        reference.step()
    for window, parameter in zip(supernet.windows, alone.parameters(), strict=True):
        torch.testing.assert_close(window.full[window.index], parameter, rtol=0, atol=1e-6)
    inside = {window.full: window.index for window in supernet.windows}
    for name, parameter in supernet.named_parameters():
        touched = torch.zeros_like(parameter, dtype=torch.bool)
        if parameter in inside:
            touched[inside[parameter]] = True
            assert parameter.ndim == 1 or not torch.equal(parameter[touched], before[name][touched])  # they decay
        assert torch.equal(parameter[~touched], before[name][~touched]), name
        assert parameter.grad is None
        momentum = optimizer.state[parameter].get("momentum_buffer") if parameter in optimizer.state else None
        assert momentum is None or not momentum[~touched].any()


def test_gradients_of_several_networks_add_up_in_the_largest_window() -> None:
    wide = nn.Parameter(torch.zeros(6, 4))
    for corner in ((slice(0, 2), slice(0, 3)), (slice(4, 6), slice(1, 4))):
        whole = tuple(slice(0, size) for size in wide.shape)
        gradients = Gradients()
        gradients._add(wide, corner, torch.ones(2, 3))
        gradients._add(wide, whole, torch.full((6, 4), 2.0))
        gradients._add(wide, corner, torch.ones(2, 3))
        index, total = gradients.parts[wide]
        expected = torch.full((6, 4), 2.0)
        expected[corner] += 2.0
        assert index == whole
        assert torch.equal(total, expected)


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_mixed_precision_and_channels_last_hold(memory_format: torch.memory_format) -> None:
    spec = draw(5)
    supernet = telling_supernet().to(memory_format=memory_format).train()
    supernet.activate(network_of(spec), "right")
    x = images(spec).contiguous(memory_format=memory_format)
    seen = []
    supernet.active.get_submodule("stages.1.0.project.conv").register_forward_hook(
        lambda m, inputs, output: seen.append(output)
    )
    with torch.autocast("cpu", torch.bfloat16):
        supernet(x).float().sum().backward()
    (output,) = seen
    assert output.dtype == torch.bfloat16
    assert output.is_contiguous(memory_format=memory_format)
    assert all(window.view.grad is not None and window.view.grad.dtype == torch.float32 for window in supernet.windows)


# --- networks outside of the space ----------------------------------------------------------------


def changed(layer: dict[str, int] | None = None, **fields: object) -> MBConvNetwork:
    network = network_of(draw(0))
    if layer:
        first: Layer = network.stages[1][0].model_copy(update=layer)
        fields["stages"] = (network.stages[0], (first, *network.stages[1][1:]), *network.stages[2:])
    return network.model_copy(update=fields)


@pytest.mark.parametrize(
    ("network", "complaint"),
    [
        (changed({"kernel": 9}), r"stages.1.0.kernel: found 9, expected one of 3, 5, 7"),
        (changed({"channels": 13}), r"stages.1.0.channels: found 13, expected at most 12"),
        (changed({"stride": 1}), r"stages.1.0.stride: found 1, expected 2"),
        (changed(head=Head(channels=25)), r"head.channels: found 25, expected at most 24"),
        (changed(stages=network_of(draw(0)).stages[:2]), r"network: found 2 stages, expected 3"),
        (
            changed(stages=(network_of(draw(0)).stages[0][:1] * 3, *network_of(draw(0)).stages[1:])),
            r"stages.0: found 3 layers, expected at most 2",
        ),
    ],
)
def test_a_network_of_another_space_is_refused(network: MBConvNetwork, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        SUPERNET.activate(network)


def test_a_spec_for_other_classes_is_refused() -> None:
    with pytest.raises(InputError, match="found 5 classes and 3 channels, expected 3 and 3, as in the supernet"):
        SUPERNET.extract(draw(0, classes=5))


# --- samplers -------------------------------------------------------------------------------------

DRAWS = 4000


def p_value(found: Sequence[object], expected: Mapping[Any, float]) -> float:
    assert set(found) <= set(expected)
    counts = [found.count(value) for value in expected]
    return float(chisquare(counts, [DRAWS * share for share in expected.values()]).pvalue)


@pytest.mark.parametrize("probabilities", [None, (1.0, 1.0, 2.0)])
def test_hierarchical_sampling_is_as_defined(probabilities: tuple[float, ...] | None) -> None:
    sampler, rng = HierarchicalSampler(TINY, probabilities), np.random.default_rng(0)
    drawn = [network for _ in range(DRAWS) for network in sampler.sample(rng)]
    shares = np.array(probabilities or (1, 2, 3))  # by the depth multipliers
    shares = shares / shares.sum()
    expected: dict[object, float] = {}
    for stage, share in zip(TINY.scaling, shares, strict=True):
        scalings = TINY.scalings(stage.stage)
        expected |= dict.fromkeys(scalings, float(share) / len(scalings))
    assert p_value([each.scaling for each in drawn], expected) > 1e-3
    assert p_value([int(np.count_nonzero(each.kernels[2])) for each in drawn], dict.fromkeys((1, 2, 3), 1 / 3)) > 1e-3
    assert p_value([int(each.kernels[1, 0]) for each in drawn], dict.fromkeys((3, 5, 7), 1 / 3)) > 1e-3


def test_the_paper_s_stages_come_1_4_5_7() -> None:
    np.testing.assert_allclose(HierarchicalSampler(Space.load("scalenet")).shares * 17, [1, 4, 5, 7])


def test_uniform_sampling_is_over_the_flat_product_and_starves_the_ends() -> None:
    rng = np.random.default_rng(0)
    drawn = [network.scaling for _ in range(DRAWS) for network in UniformSampler(TINY).sample(rng)]
    depths = dict.fromkeys((1.0, 1.1, 1.7, 2.0), 1 / 6) | {1.4: 2 / 6}
    assert p_value([each.depth for each in drawn], depths) > 1e-3
    widths = dict.fromkeys((1.0, 1.1, 1.2, 1.5), 1 / 6) | {1.3: 2 / 6}
    assert p_value([each.width for each in drawn], widths) > 1e-3
    pixels = {24: 2 / 5, 32: 2 / 5, 40: 1 / 5}
    assert p_value([each.resolution for each in drawn], pixels) > 1e-3
    base = TINY.unscaled
    found = [(s.depth, s.width, s.resolution) for s in drawn].count((base.depth, base.width, base.resolution))
    assert abs(found / DRAWS - 1 / 36 * 2 / 5) < 0.01  # the hierarchical sampler: 1 / 6


def test_the_sandwich_has_both_ends() -> None:
    largest, smallest, *between = SandwichSampler(TINY, HierarchicalSampler(TINY)).sample(np.random.default_rng(0))
    assert TINY.spec(largest.kernels, largest.scaling, 3, "tiny") == TINY.largest_spec(3)
    assert smallest.scaling == TINY.unscaled
    assert [int(np.count_nonzero(row)) for row in smallest.kernels] == [1, 1, 1]
    assert len(between) == 2


@pytest.mark.parametrize("probabilities", [(1.0, 1.0), (0.0, 0.0, 0.0), (1.0, -1.0, 1.0)])
def test_stage_probabilities_are_checked(probabilities: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="stage_probabilities: found .*, expected 3 numbers"):
        HierarchicalSampler(TINY, probabilities)
