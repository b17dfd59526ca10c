"""Networks: timm's interface, and what a reference says they compute."""

import copy
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from scalenet_zoo import create_model, list_models, load_spec
from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.errors import SpecError
from scalenet_zoo.networks import MBConvNet, MultipathNet
from scalenet_zoo.networks.layers import upsample
from tests.helpers.networks import random_model, shallow, small
from tests.helpers.pretrained import TIMMS, mostly_slow
from tests.helpers.random_specs import HEADS, mbconv_specs, multipath_specs
from tests.helpers.shapes import SPECS

SMALL = ["scalenet_s0", "efficientnet_b0", "scalenas_s1", "hrnet_w18_pose", "higherscalenas_p1"]


def image(spec: ArchSpec, batch: int = 1) -> Tensor:
    return torch.randn(batch, spec.input.channels, spec.input.height, spec.input.width)


# --- what they compute: a second implementation, straight from the spec ---------------------------


def reference_mbconv(spec: ArchSpec, state: dict[str, Tensor], x: Tensor) -> Tensor:
    network = spec.network
    assert network.type == "mbconv"
    act: Any = {"relu": F.relu, "relu6": F.relu6, "swish": F.silu, "hard_swish": F.hardswish}[network.activation]
    gate: Any = {"sigmoid": torch.sigmoid, "hard_sigmoid": F.hardsigmoid}[network.gate]

    def conv(name: str, x: Tensor, stride: int = 1, depthwise: bool = False) -> Tensor:
        weight = state[f"{name}.conv.weight"]
        kernel = weight.shape[-1]
        if network.padding == "same":  # TensorFlow: as much as ceil(size / stride) requires, the odd pixel at the end
            pads = [max(0, (math.ceil(size / stride) - 1) * stride + kernel - size) for size in x.shape[:1:-1]]
            x = F.pad(x, [side for pad in pads for side in (pad // 2, pad - pad // 2)])
        padding = 0 if network.padding == "same" else kernel // 2
        x = F.conv2d(x, weight, None, stride, padding, 1, len(weight) if depthwise else 1)
        mean, var, scale, bias = (state[f"{name}.norm.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, scale, bias, eps=network.norm_eps)

    x = act(conv("stem", x, network.stem.stride))
    for s, stage in enumerate(network.stages):
        for i, layer in enumerate(stage):
            name, y = f"stages.{s}.{i}", x
            if layer.hidden != x.shape[1] or layer.expand:
                y = act(conv(f"{name}.expand", y))
            y = act(conv(f"{name}.depthwise", y, layer.stride, depthwise=True))
            if layer.squeeze:
                g = y.mean((2, 3), keepdim=True)
                g = act(F.conv2d(g, state[f"{name}.squeeze.reduce.weight"], state[f"{name}.squeeze.reduce.bias"]))
                g = F.conv2d(g, state[f"{name}.squeeze.expand.weight"], state[f"{name}.squeeze.expand.bias"])
                y = y * gate(g)
            y = conv(f"{name}.project", y)
            x = y + x if y.shape == x.shape and layer.stride == 1 else y
    x = act(conv("head", x)).mean((2, 3))
    return F.linear(x, state["classifier.weight"], state["classifier.bias"]) if spec.classes else x


@settings(max_examples=15)
@given(mbconv_specs())
def test_mbconv_computes_what_the_spec_says(spec: ArchSpec) -> None:
    model = random_model(spec)
    x = image(spec, 2)
    with torch.no_grad():
        torch.testing.assert_close(model(x), reference_mbconv(spec, model.state_dict(), x), rtol=1e-4, atol=1e-5)


def reference_multipath(spec: ArchSpec, model: MultipathNet, x: Tensor) -> Tensor:
    """The definition in METHODS: one step after another, every branch, every mask bit."""
    network = spec.network
    assert network.type == "multipath"
    x = model.stage1(model.stem(x))
    xs = [model.transition2[0](x), model.transition2[1](x)]
    stages: Any = {2: model.stage2, 3: model.stage3, 4: model.stage4}
    position = {2: 0, 3: 0, 4: 0}
    for module in network.modules:
        branches = len(module.depth)
        if branches > len(xs):
            xs.append((model.transition3 if branches == 3 else model.transition4)(xs[-1]))
        built = stages[branches][position[branches]]
        position[branches] += 1
        for t in range(5):
            xs = [built.blocks[k][t](x) if t < module.depth[k] else x for k, x in enumerate(xs)]
            ys = []
            for j in range(branches):
                total = xs[j]
                for k in range(branches):
                    if k != j and module.fusion[j][t][k]:
                        sent = built.paths[t][f"{k}_to_{j}"].convs(xs[k])
                        total = total + F.interpolate(sent, size=xs[j].shape[-2:], mode="nearest")
                ys.append(torch.relu(total))
            xs = ys
    y = xs[0]
    if network.head == "segmentation":
        up = [F.interpolate(x, size=y.shape[-2:], mode="bilinear", align_corners=False) for x in xs]
        y = model.head(torch.cat(up, 1))
    if network.head == "bottom_up" and spec.classes:
        head: Any = model.classifier
        coarse = head.coarse(y)
        joined = torch.cat([y, coarse], 1)
        y = F.relu(head.upscale.norm(F.conv_transpose2d(joined, head.upscale.conv.weight, None, 2, 1)))
        for block in head.blocks:
            y = F.relu(y + block.conv2(block.conv1(y)))
        return torch.cat([head.fine(y), coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)], 1)
    out: Tensor = model.classifier(y)
    return out


@settings(max_examples=8)
@given(multipath_specs(HEADS))
def test_multipath_computes_what_the_masks_say(spec: ArchSpec) -> None:
    model = random_model(spec)
    assert isinstance(model, MultipathNet)
    x = image(spec, 2)
    with torch.no_grad():
        torch.testing.assert_close(model(x), reference_multipath(spec, model, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("size", [(8, 12), (7, 11), (16, 24), (4, 6)])
def test_upsample_by_factor_equals_upsample_to_size(mode: Any, size: tuple[int, int]) -> None:
    x = torch.randn(1, 2, 4, 6)
    corners = None if mode == "nearest" else False
    expected = F.interpolate(x, size=size, mode=mode, align_corners=corners)
    torch.testing.assert_close(upsample(x, torch.Size(size), mode), expected)


# --- timm's interface -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*(name for name in list_models() if name not in TIMMS), *mostly_slow(TIMMS)])
def test_every_entry_has_the_shapes_of_its_task(name: str) -> None:
    spec = load_spec(name)
    with torch.device("meta"):
        model: Any = create_model(name)
        x = torch.zeros(2, 3, spec.input.height, spec.input.width)
        features = model.eval().forward_features(x)
        before, y = (model.forward_head(features, pre_logits=pre_logits) for pre_logits in (True, False))
    if spec.task == "classification":
        assert y.shape == (2, spec.classes)
        assert before.shape == (2, model.num_features)
    else:
        size = -(-spec.input.height // 4), -(-spec.input.width // 4)
        if spec.bottom_up:
            assert y.shape == (2, 3 * spec.classes, 2 * size[0], 2 * size[1])
        else:
            assert y.shape == (2, spec.classes, *size)
        assert before.shape == (2, model.num_features, *size)
        assert [f.shape[1] for f in features] == [spec.network.width * 2**i for i in range(4)]  # type: ignore[union-attr]


@pytest.mark.parametrize("name", SMALL)
def test_forward_is_head_of_features(name: str) -> None:
    model: Any = random_model(shallow(name))
    x = image(model.spec)
    with torch.no_grad():
        torch.testing.assert_close(model.forward_head(model.forward_features(x)), model(x))


@pytest.mark.parametrize("name", SMALL)
def test_features_only_gives_the_listed_channels_and_strides(name: str) -> None:
    model: Any = create_model(shallow(name, 1), features_only=True).eval()
    x = image(model.spec)
    features = model(x)
    assert model.feature_info.reduction() == [2, 4, 8, 16, 32]
    assert [f.shape[1] for f in features] == model.feature_info.channels()
    assert [f.shape[-1] for f in features] == [96 // 2**i for i in range(1, 6)]

    chosen: Any = create_model(shallow(name, 1), features_only=True, out_indices=(1, -1)).eval()
    kept = chosen.state_dict().keys()
    chosen.load_state_dict({key: value for key, value in model.state_dict().items() if key in kept})
    ours = chosen(x)
    assert len(ours) == 2
    torch.testing.assert_close(ours[0], features[1])
    torch.testing.assert_close(ours[1], features[4])


WANTED = [(2, 1), (-1, 0), (2, 2, -3), [2], 2, np.int64(3), np.array([2, 0]), range(1, 3), None]


@pytest.mark.parametrize("spec", SPECS.values(), ids=lambda spec: spec.task)
@pytest.mark.parametrize("wanted", WANTED, ids=repr)
def test_features_come_in_the_order_asked_for(spec: ArchSpec, wanted: Any) -> None:
    whole: Any = random_model(spec.replace(height=64, width=64))
    x = image(whole.spec)
    every = whole.forward_intermediates(x, intermediates_only=True)
    there = range(len(every))
    asked = there[-int(wanted) :] if isinstance(wanted, int | np.integer) else there if wanted is None else wanted
    indices = [there[i] for i in asked]
    chosen: Any = create_model(whole.spec, features_only=True, out_indices=wanted).eval()
    kept = chosen.model.state_dict().keys()
    chosen.model.load_state_dict({key: value for key, value in whole.state_dict().items() if key in kept})
    with torch.no_grad():
        found = chosen(x)
        direct = whole.forward_intermediates(x, indices=indices, stop_early=True, intermediates_only=True)
    assert len(found) == len(direct) == len(indices)
    for i, feature, same in zip(indices, found, direct, strict=True):
        assert torch.equal(feature, every[i])
        assert torch.equal(same, every[i])
    assert chosen.feature_info.channels() == [feature.shape[1] for feature in found]
    assert chosen.feature_info.reduction() == [64 // feature.shape[2] for feature in found]


@pytest.mark.parametrize("make", [create_model, timm.create_model], ids=["ours", "timm"])
@pytest.mark.parametrize("name", ["scalenet_s0", "hrnet_w18_pose"])
@pytest.mark.parametrize("wanted", [(), (5,), (0, -6), 0, 6, "12", 1.5, (1.0,), (None,)], ids=repr)
def test_features_that_do_not_exist_are_refused(make: Any, name: str, wanted: Any) -> None:
    with (
        torch.device("meta"),
        pytest.raises(SpecError, match="^out_indices: found .*, expected numbers from -5 to 4, or"),
    ):
        make(name, features_only=True, out_indices=wanted)


def test_out_indices_require_features_only() -> None:
    with pytest.raises(SpecError, match=r"out_indices: found \(1,\), expected none without features_only"):
        create_model("scalenet_s0", out_indices=(1,))


def test_features_only_of_a_shallow_network_gives_all_there_are() -> None:
    spec = load_spec("scalenet_s0")
    network: Any = spec.network
    shallow = network.model_copy(update={"stages": network.stages[:2]})
    model: Any = create_model(
        ArchSpec.create("shallow", spec.task, spec.input, 5, shallow, spec.provenance), features_only=True
    )
    assert model.feature_info.reduction() == [2, 4]
    assert [f.shape[-1] for f in model(torch.zeros(2, 3, 32, 32))] == [16, 8]


def test_features_only_drops_what_features_do_not_need() -> None:
    whole, early = create_model("scalenet_s0"), create_model("scalenet_s0", features_only=True, out_indices=(0, 1))
    assert sum(p.numel() for p in early.parameters()) < 0.01 * sum(p.numel() for p in whole.parameters())


@pytest.mark.parametrize("name", SMALL)
def test_intermediates_come_with_the_final_features(name: str) -> None:
    model: Any = random_model(shallow(name))
    x = image(model.spec)
    with torch.no_grad():
        final, features = model.forward_intermediates(x)
        torch.testing.assert_close(final, model.forward_features(x))
        last = model.forward_intermediates(x, indices=1, intermediates_only=True)
        early = model.forward_intermediates(x, indices=[0, 1], stop_early=True, intermediates_only=True)
    torch.testing.assert_close(last, features[-1:])
    torch.testing.assert_close(early, features[:2])
    with pytest.raises(ValueError, match="NHWC"):
        model.forward_intermediates(x, output_fmt="NHWC")


@pytest.mark.parametrize("name", SMALL)
def test_reset_classifier_changes_the_network_and_its_spec(name: str) -> None:
    model: Any = create_model(shallow(name)).eval()
    x = image(model.spec)
    model.reset_classifier(7)
    assert model.num_classes == model.spec.classes == 7
    assert model(x).shape[1] == (21 if model.spec.bottom_up else 7)
    assert sum(p.numel() for p in model.parameters()) == model.spec.cost.params
    model.reset_classifier(0)
    assert isinstance(model.get_classifier(), nn.Identity)
    assert model(x).shape[1] == model.num_features
    assert sum(p.numel() for p in model.parameters()) == model.spec.cost.params
    with pytest.raises(ValueError, match="global_pool"):
        model.reset_classifier(7, "max")


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("coarse", [False, True])
def test_group_matcher_covers_every_parameter(name: str, coarse: bool) -> None:
    from timm.models import group_parameters

    model: Any = create_model(shallow(name))
    groups = group_parameters(model, model.group_matcher(coarse))
    grouped = {parameter for members in groups.values() for parameter in members}
    assert grouped == {parameter for parameter, _ in model.named_parameters()}
    of = {parameter: group for group, members in groups.items() for parameter in members}
    stages = ["transition2", "stage2", "transition3", "stage3", "transition4", "stage4"]
    in_order = ["stem", "stage1", *stages] if "stage1.0.conv1.conv.weight" in of else ["stem", "stages.0", "stages.1"]
    spans = []
    for part in [*in_order, "classifier"]:
        members = [group for parameter, group in of.items() if parameter.startswith(f"{part}.")]
        spans.append((min(members), max(members)))
    for (_, before), (after, _) in pairwise(spans):
        assert before < after or (coarse and before == after)


@pytest.mark.parametrize("name", SMALL)
def test_checkpointing_changes_neither_output_nor_gradients(name: str) -> None:
    plain: Any = random_model(shallow(name)).train()
    thrifty: Any = copy.deepcopy(plain)
    thrifty.set_grad_checkpointing()
    x = image(plain.spec, 2)
    outputs = []
    for model in (plain, thrifty):
        y = model(x)
        y.square().mean().backward()
        outputs.append(y.detach())
    torch.testing.assert_close(*outputs)
    for ours, theirs in zip(plain.parameters(), thrifty.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("option", ["drop_rate", "drop_path_rate"])
def test_dropout_and_drop_path_act_in_training_alone(name: str, option: str) -> None:
    spec = small(name) if name.startswith(("scalenet", "efficientnet")) else shallow(name)
    plain = random_model(spec)
    options: Any = {option: 0.5}
    model = create_model(spec, **options)
    model.load_state_dict(plain.state_dict())
    x = image(spec, 8)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), plain(x))
        for module in model.modules():  # let only the option's randomness act
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.0
        model.train()
        assert not torch.equal(model(x), model(x))


def test_unpooled_features_are_timms_way_of_extraction() -> None:
    model: Any = timm.create_model("scalenet_s0", num_classes=0, global_pool="")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), model.forward_features(x))
        model.reset_classifier(0, "avg")
        torch.testing.assert_close(model(x), model.forward_features(x).mean((2, 3)))
        assert timm.create_model("hrnet_w18_pose", num_classes=0, global_pool="").eval()(x).shape == (1, 18, 16, 16)
    for name, pool in (("scalenet_s0", ""), ("scalenet_s0", "max"), ("hrnet_w18_pose", "avg")):
        with pytest.raises(ValueError, match=f"global_pool: found '{pool}', expected"):
            timm.create_model(name, global_pool=pool)


def test_drop_path_grows_with_depth() -> None:
    from timm.layers import DropPath

    model = create_model("scalenet_s0", drop_path_rate=0.4)
    rates = [module.drop_prob for module in model.modules() if isinstance(module, DropPath)]
    assert rates == sorted(rates)
    assert 0.0 < rates[0] < rates[-1] < 0.4


def test_weights_start_as_the_papers_trainers_start_them() -> None:
    mobile: Any = create_model("scalenet_s0")  # normal, variance 2 / fan-out; the classifier uniform
    assert mobile.stages[2][0].depthwise.conv.weight.std().item() == pytest.approx((2 / 49) ** 0.5, rel=0.05)
    assert mobile.head.conv.weight.std().item() == pytest.approx((2 / 1280) ** 0.5, rel=0.05)
    assert mobile.classifier.weight.abs().max().item() == pytest.approx(1000**-0.5, rel=0.01)
    assert not mobile.classifier.bias.any()

    pose = create_model("hrnet_w18_pose")
    convolutions = [module for module in pose.modules() if isinstance(module, nn.Conv2d)]
    assert torch.cat([c.weight.flatten() for c in convolutions]).std().item() == pytest.approx(0.001, rel=0.01)
    assert all(bool((c.bias == 0).all()) for c in convolutions if c.bias is not None)


def test_a_stem_without_stride_and_a_stage_of_two_strides() -> None:
    spec = load_spec("scalenet_s0")
    network = spec.network
    assert network.type == "mbconv"
    stride_two = network.stages[1][0].model_copy(update={"channels": 32, "hidden": 192})
    odd = network.model_copy(
        update={
            "stem": network.stem.model_copy(update={"stride": 1}),
            "stages": (network.stages[0], (network.stages[1][0], stride_two), *network.stages[2:]),
        }
    )
    changed = ArchSpec.create("odd", spec.task, spec.input, 5, odd, spec.provenance).replace(height=32, width=32)
    model: Any = create_model(changed, features_only=True).eval()
    features = model(image(changed))
    assert model.feature_info.reduction() == [1, 4, 8, 16, 32]
    assert [32 // f.shape[-1] for f in features] == [1, 4, 8, 16, 32]


def test_create_model_changes_classes_channels_and_size() -> None:
    model: Any = create_model("scalenet_s0", num_classes=10, in_chans=1, img_size=(32, 48)).eval()
    assert model(torch.zeros(1, 1, 32, 48)).shape == (1, 10)
    assert (model.spec.classes, model.spec.input.channels) == (10, 1)
    assert model.pretrained_cfg["input_size"] == (1, 32, 48)
    assert model.spec.hash == load_spec("scalenet_s0").hash
    with pytest.raises(SpecError, match="height: found 0"):
        create_model("scalenet_s0", img_size=0)
    with pytest.raises(TypeError, match="drop_rat"):
        create_model("scalenet_s0", drop_rat=0.1)


def test_a_network_refuses_a_spec_of_another_type() -> None:
    with pytest.raises(TypeError, match="expected 'mbconv'"):
        MBConvNet(load_spec("hrnet_w18"))
    with pytest.raises(TypeError, match="expected 'multipath'"):
        MultipathNet(load_spec("scalenet_s0"))
