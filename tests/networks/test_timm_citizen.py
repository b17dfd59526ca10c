"""What timm's own tests require of a network: `default_cfg`, TorchScript, torch.fx, every way to extract features."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import Conv2dSame, create_feature_extractor
from timm.models import PretrainedCfg
from timm.models._features import FeatureHookNet
from torch import Tensor, nn

from scalenet_zoo import create_model, list_models, load_spec
from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.errors import SpecError
from scalenet_zoo.networks.multipath import MultipathModule
from scalenet_zoo.zoo.create import with_seed
from scalenet_zoo.zoo.model_folder import save_model
from scalenet_zoo.zoo.timm_registry import FEATURE_CLASSES
from tests.helpers.networks import random_model, shallow
from tests.helpers.random_specs import mbconv_specs, multipath_specs

NETWORKS = ["scalenet_s0", "tf_efficientnet_lite0", "scalenas_s1", "hrnet_w18_pose", "higherscalenas_p1"]
DEPRECATED = pytest.mark.filterwarnings(
    "ignore:`torch.jit.script` is:FutureWarning", "ignore:.*torch.jit.script:DeprecationWarning"
)
SIZES = [(64, 96), (75, 101)]  # where branches differ by a factor of two, and where they do not


def image(height: int, width: int, channels: int = 3) -> Tensor:
    return torch.randn(2, channels, height, width)


def in_timm(name: str) -> str:
    return f"zoo_{name}" if timm.is_model(f"zoo_{name}") else name


def scripted(model: nn.Module) -> nn.Module:
    found: nn.Module = torch.jit.script(model)
    return found


# --- default_cfg ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_default_cfg_has_all_that_timms_networks_have(name: str) -> None:
    with torch.device("meta"):
        models: list[Any] = [create_model(shallow(name)), timm.create_model(in_timm(name))]
    for model in models:
        assert PretrainedCfg().to_dict().keys() <= model.default_cfg.keys()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("layer", "other"), [("classifier", {"num_classes": 7}), ("first_conv", {"in_chans": 1})])
def test_default_cfg_names_the_layers_that_other_classes_and_images_change(name: str, layer: str, other: Any) -> None:
    """Timm leaves out the former where weights are for other classes, and adapts the latter to other channels."""
    with torch.device("meta"):
        model: Any = create_model(shallow(name))
        changed = create_model(shallow(name), **other).state_dict()
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    named = model.default_cfg[layer]
    differing = {key.rpartition(".")[0] for key, tensor in changed.items() if tensor.shape != shapes[key]}
    assert differing == set(named if isinstance(named, tuple) else [named])


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(64, 96), (75, 101), (225, 33)])
def test_pool_size_is_that_of_the_features_before_the_mean(name: str, size: tuple[int, int]) -> None:
    with torch.device("meta"):
        model: Any = create_model(shallow(name), img_size=size)
        features = model.forward_features(image(*size))
    dense = model.spec.task != "classification"
    assert model.default_cfg["pool_size"] == (None if dense else tuple(features.shape[-2:]))


def test_pool_sizes_are_timms() -> None:
    compared = 0
    for name in list_models(task="classification", pretrained=True):
        for tagged in timm.list_models(in_timm(name), include_tags=True):
            ours, theirs = timm.get_pretrained_cfg(tagged), timm.get_pretrained_cfg(tagged.removeprefix("zoo_"))
            if ours.input_size == theirs.input_size:
                assert ours.pool_size == theirs.pool_size, tagged
                compared += 1
    assert compared > 30


def test_timm_prepares_the_whole_picture_for_dense_networks() -> None:
    models: dict[str, Any] = {name: create_model(shallow(name)) for name in NETWORKS}
    assert {name: model.default_cfg["crop_mode"] for name, model in models.items()} == dict(
        zip(NETWORKS, ["center", "center", "squash", "border", "border"], strict=True)
    )


def test_a_folder_names_the_classifier_of_every_network(tmp_path: Path) -> None:
    """Earlier versions read nothing else; the spec beside it lists the layers."""
    model: Any = create_model(shallow("higherscalenas_p1"))
    save_model(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]["classifier"] == "classifier"
    again: Any = create_model(f"local-dir:{tmp_path}")
    assert again.default_cfg["classifier"] == model.default_cfg["classifier"] != "classifier"


# --- TorchScript, torch.fx ------------------------------------------------------------------------


@DEPRECATED
@pytest.mark.parametrize("name", NETWORKS)
def test_a_scripted_network_computes_the_same(name: str) -> None:
    model = random_model(shallow(name))
    assert name != "tf_efficientnet_lite0" or any(isinstance(module, Conv2dSame) for module in model.modules())
    script = scripted(model)
    with torch.no_grad():
        for size in SIZES * 2:  # the second time TorchScript has optimised
            x = image(*size)
            assert torch.equal(script(x), model(x))


@DEPRECATED
@settings(max_examples=2)
@given(st.one_of(mbconv_specs(), multipath_specs()))
def test_any_network_is_scripted(spec: ArchSpec) -> None:
    model = random_model(spec)
    x = image(spec.input.height, spec.input.width, spec.input.channels)
    with torch.no_grad():
        torch.testing.assert_close(scripted(model)(x), model(x), rtol=0, atol=0)


@DEPRECATED
@pytest.mark.parametrize("name", ["scalenet_s0", "scalenas_s1"])
def test_a_scripted_network_is_trained(name: str) -> None:
    model: Any = random_model(shallow(name), drop_rate=0.5, drop_path_rate=0.5).train()
    model.set_grad_checkpointing()  # TorchScript does not support it, so nothing is recomputed
    script = scripted(model)
    x = image(64, 96)
    outputs, gradients = [], []
    for network in (script, model):
        torch.manual_seed(0)
        y = network(x)
        outputs.append(y.detach())
        gradients.append(torch.autograd.grad(y.square().mean(), list(model.parameters())))
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_traced_by_timms_tools(name: str) -> None:
    model = random_model(shallow(name))
    graph = create_feature_extractor(model, {"stem": "stem", "classifier": "y"})
    with torch.no_grad():
        for size in SIZES:
            x = image(*size)
            found = graph(x)
            assert torch.equal(found["y"], model(x))
            assert torch.equal(found["stem"], model.stem(x))  # type: ignore[operator]


# --- features -------------------------------------------------------------------------------------


def features_of(name: str, **kwargs: Any) -> Any:
    with with_seed(0):
        return timm.create_model(name, features_only=True, **kwargs).eval()


@pytest.mark.parametrize("name", ["scalenet_s0", "hrnet_w18_pose"])
@pytest.mark.parametrize("how", [*FEATURE_CLASSES, FeatureHookNet])
def test_features_are_the_same_whichever_class_of_timms_takes_them(name: str, how: Any) -> None:
    if name == "hrnet_w18_pose" and how != "getter":
        with (
            torch.device("meta"),
            pytest.raises(SpecError, match=r"^feature_cls: found Feature\w+, expected getter: no"),
        ):
            features_of(name, feature_cls=how)
        return
    x = image(64, 96)
    found = features_of(name, feature_cls=how, out_indices=(1, -1), num_classes=5)
    expected = features_of(name, out_indices=(1, -1), num_classes=5)
    with torch.no_grad():
        features, same = found(x), expected(x)
    for feature, other in zip(features.values() if how == "dict" else features, same, strict=True):
        assert torch.equal(feature, other)
    assert found.feature_info.channels() == [feature.shape[1] for feature in same]
    assert found.spec == load_spec(name).replace(classes=5)
    assert found.pretrained_cfg["num_classes"] == found.default_cfg["num_classes"] == 5


def test_feature_cfg_says_more_about_the_class() -> None:
    x = image(64, 96)
    graph = features_of("scalenet_s0", feature_cfg={"feature_cls": "fx", "out_indices": (1, 2), "return_dict": True})
    hooks = features_of("scalenet_s0", feature_cls="hook", feature_cfg={"feature_cls": "fx"}, out_indices=2)
    whole = features_of("scalenet_s0", feature_cls="getter", feature_cfg={"prune": False}, out_indices=(0,))
    with torch.no_grad():
        assert [feature.shape[-1] for feature in graph(x).values()] == [24, 12]
        assert [feature.shape[-1] for feature in hooks(x)] == [6, 3]
        assert [feature.shape[-1] for feature in whole(x)] == [48]
    assert isinstance(hooks, FeatureHookNet)
    assert sum(p.numel() for p in whole.parameters()) == load_spec("scalenet_s0").cost.params


def test_features_of_a_folder_are_taken_in_any_way(tmp_path: Path) -> None:
    model: Any = random_model(shallow("scalenet_s0"))
    save_model(model, tmp_path)
    found: Any = timm.create_model(
        f"local-dir:{tmp_path}", pretrained=True, features_only=True, feature_cls="hook"
    ).eval()
    x = image(64, 96)
    with torch.no_grad():
        torch.testing.assert_close(found(x), model.forward_intermediates(x, intermediates_only=True), rtol=0, atol=0)


@DEPRECATED
def test_features_of_torch_fx_are_scripted() -> None:
    features = features_of("scalenet_s0", feature_cls="fx")
    x = image(64, 96)
    with torch.no_grad():
        torch.testing.assert_close(scripted(features)(x), features(x), rtol=0, atol=0)


@pytest.mark.parametrize("how", ["lost", 5, nn.Identity])
def test_no_such_class_for_features(how: Any) -> None:
    with pytest.raises(SpecError, match="^feature_cls: found .*, expected one of getter, hook, list, dict, fx$"):
        timm.create_model("scalenet_s0", features_only=True, feature_cls=how)


# --- checkpoints in the backward pass -------------------------------------------------------------


@pytest.mark.parametrize("name", ["scalenet_s0", "scalenas_s1"])
def test_layers_run_again_in_the_backward_pass(name: str) -> None:
    model: Any = random_model(shallow(name)).train()
    layer = "stages.2.0" if name == "scalenet_s0" else "stage3.0.blocks.1.0"
    runs: list[int] = []
    model.get_submodule(layer).register_forward_pre_hook(lambda *_: runs.append(1))
    for enable, expected in ((True, 2), (False, 1)):
        runs.clear()
        model.set_grad_checkpointing(enable)
        model(image(64, 96)).square().mean().backward()
        assert len(runs) == expected


def test_a_part_of_a_module_saves_memory_as_the_whole_does() -> None:
    network: Any = shallow("scalenas_s1").network
    mask = network.modules[0]
    module = MultipathModule.create(mask, [4, 8])
    module.grad_checkpointing = True
    assert module.part(mask).grad_checkpointing
