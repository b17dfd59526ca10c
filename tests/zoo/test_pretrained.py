"""Published weights: the mapping from timm's names, and fetching them through a real Hub client."""

import logging
from typing import Any

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save

from scalenet_zoo import create_model, load_spec
from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.errors import WeightsError
from scalenet_zoo.zoo.pretrained import from_timm
from scalenet_zoo.zoo.published import published_entries
from tests.helpers.hub_server import Hub
from tests.helpers.pretrained import publish, timm_model

EFFICIENTNETS = [f"efficientnet_b{i}" for i in range(5)]
HRNETS = [
    name if "w18" in name else pytest.param(name, marks=pytest.mark.slow)  # the others are wider
    for name in published_entries()
    if name.startswith("hrnet")
]


@pytest.mark.parametrize("name", EFFICIENTNETS)
def test_efficientnet_computes_what_timms_does(name: str) -> None:
    theirs, ours = timm_model(name), create_model(name).eval()
    state = from_timm(theirs.state_dict(), ours)
    assert len(state) == len(theirs.state_dict())  # every tensor of timm's has a place
    ours.load_state_dict(state)
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)
        torch.testing.assert_close(ours.forward_features(x), theirs.forward_features(x), rtol=0, atol=0)  # type: ignore[operator]


def branches(model: Any, x: torch.Tensor) -> list[torch.Tensor]:
    """The four branches of a timm HRNet, before its classification head."""
    x = model.act1(model.bn1(model.conv1(x)))
    x = model.act2(model.bn2(model.conv2(x)))
    ys: list[torch.Tensor] = model.stages(x)
    return ys


@pytest.mark.parametrize("name", HRNETS)
def test_hrnet_branches_compute_what_timms_do(name: str) -> None:
    theirs = timm_model(name)
    ours: Any = create_model(name).eval()
    head_before = {
        key: value.clone() for key, value in ours.state_dict().items() if key.startswith(("head", "classifier"))
    }
    ours.load_state_dict({**ours.state_dict(), **from_timm(theirs.state_dict(), ours)})
    x = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        expected, found = branches(theirs, x), ours.forward_features(x)
    # Pose networks end in the first branch: the last fusion into the others is not theirs.
    for y, z in zip(found, expected[: 1 if name.endswith("_pose") else 4], strict=False):
        torch.testing.assert_close(y, z, rtol=1e-4, atol=1e-4 * float(z.abs().max()))
    after = ours.state_dict()
    assert all(torch.equal(after[key], value) for key, value in head_before.items())


def test_missing_tensors_are_named() -> None:
    state = timm_model("efficientnet_b0").state_dict()
    del state["blocks.1.0.bn3.weight"]
    with pytest.raises(
        WeightsError, match=r"blocks.1.0.bn3.weight: found no such tensor .* for our stages.1.0.project"
    ):
        from_timm(state, create_model("efficientnet_b0"))


@pytest.mark.parametrize("name", ["scalenet_s0", "efficientnet_b7", "scalenas_s1"])
def test_entries_without_published_weights_say_so(name: str) -> None:
    with pytest.raises(WeightsError, match=rf"{name}: found no published weights.*weights=FILE "):
        create_model(name, pretrained=True)


# --- through the Hub's client, against a server on this machine -----------------------------------


def test_pretrained_weights_come_from_the_hub(hub: Hub) -> None:
    theirs = publish(hub, "efficientnet_b0")
    ours = create_model("efficientnet_b0", pretrained=True).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))
    asked = len(hub.requests)
    create_model("efficientnet_b0", pretrained=True)
    assert all(request.startswith("HEAD") for request in hub.asked()[asked:])  # the cache has the rest


def test_weights_belong_to_architectures_not_to_names(hub: Hub) -> None:
    theirs: Any = publish(hub, "efficientnet_b0")
    spec = load_spec("efficientnet_b0")
    ours: Any = create_model(spec.replace(name="my_own"), pretrained=True)
    assert torch.equal(ours.stem.conv.weight, theirs.conv_stem.weight)
    other = spec.network.model_copy(update={"activation": "relu"})
    impostor = ArchSpec.create("efficientnet_b0", spec.task, spec.input, 1000, other, spec.provenance)
    with pytest.raises(WeightsError, match="efficientnet_b0: found no published weights, expected the architecture of"):
        create_model(impostor, pretrained=True)


def test_published_tensors_of_another_shape_are_refused(hub: Hub) -> None:
    theirs: Any = publish(hub, "efficientnet_b0")
    (repository,) = hub.repositories
    state = dict(theirs.state_dict())
    state["blocks.1.0.bn3.weight"] = torch.zeros(7)
    hub.publish(repository, {"model.safetensors": save(state)})
    with pytest.raises(WeightsError, match=r"blocks.1.0.bn3.weight \(our stages.*\): found \(7,\), expected \(24,\)"):
        create_model("efficientnet_b0", pretrained=True)


def test_other_classes_and_channels_keep_the_rest(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    theirs: Any = publish(hub, "efficientnet_b0")
    with caplog.at_level(logging.WARNING):
        ours: Any = create_model("efficientnet_b0", pretrained=True, num_classes=4, in_chans=1).eval()
    assert "do not cover classifier, which starts untrained" in caplog.text
    expected = theirs.conv_stem.weight.sum(1, keepdim=True)
    torch.testing.assert_close(ours.stem.conv.weight, expected)
    grey = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours.forward_features(grey), theirs.forward_features(grey.expand(-1, 3, -1, -1)))


def test_hrnet_backbones_come_without_a_head(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    publish(hub, "hrnet_w18_pose")
    with caplog.at_level(logging.WARNING):
        create_model("hrnet_w18_pose", pretrained=True, features_only=True)
    assert "do not cover classifier, which starts untrained" in caplog.text


def test_a_hub_without_the_repository_is_one_line(hub: Hub) -> None:
    with pytest.raises(WeightsError) as caught:
        create_model("efficientnet_b0", pretrained=True)
    assert str(caught.value).startswith("timm/efficientnet_b0.ra4_e3600_r224_in1k: cannot fetch model.safetensors")
    assert "\n" not in str(caught.value)


def test_a_hub_that_cannot_be_reached_is_one_line(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="cannot fetch model.safetensors .* not in the cache, and offline mode"):
        create_model("efficientnet_b0", pretrained=True)
    assert hub.requests == []


@pytest.mark.parametrize("error", [OSError(), ValueError("two\nlines")])
def test_any_failure_of_the_client_is_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Raises in the client's place what its libraries may raise."""
    from scalenet_zoo.zoo import hub

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(hub, "hf_hub_download", fail)
    with pytest.raises(WeightsError) as caught:
        create_model("efficientnet_b0", pretrained=True)
    assert str(caught.value).endswith(("OSError", "two lines"))


def test_preprocessing_is_that_of_the_published_weights() -> None:
    cfg: Any = create_model("efficientnet_b0").pretrained_cfg
    theirs = timm.get_pretrained_cfg("efficientnet_b0.ra4_e3600_r224_in1k")
    assert cfg["hf_hub_id"] == theirs.hf_hub_id
    assert (tuple(cfg["mean"]), tuple(cfg["std"])) == (tuple(theirs.mean), tuple(theirs.std))
    assert (cfg["crop_pct"], cfg["interpolation"]) == (theirs.crop_pct, theirs.interpolation)
    assert cfg["input_size"] == (3, load_spec("efficientnet_b0").input.height, 224)
