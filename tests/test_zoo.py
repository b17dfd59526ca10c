"""The zoo's entries, how they are found, and their names in timm."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from scalenet_zoo import ArchSpec, create_model, list_models, load_spec
from scalenet_zoo.errors import BudgetError, ModelNotFoundError, SpecError, WeightsError
from scalenet_zoo.scaling import expand
from scalenet_zoo.weights import load_weights, read_weights, save_weights
from scalenet_zoo.zoo import TIMM_NAMES, find_networks, latency_name, load_family, spec_for
from tests.networks import random_model, small

CLASSIFIERS = [f"scalenet_s{i}" for i in range(6)] + [f"efficientnet_b{i}" for i in range(8)]
SEGMENTERS = [f"scalenas_s{i}" for i in range(1, 5)] + [f"hrnet_w{w}" for w in (18, 32, 48)]
POSE = [f"scalenas_p{i}" for i in range(1, 5)] + [f"hrnet_w{w}_pose" for w in (18, 32, 48)]
BOTTOM_UP = ["higherhrnet_w32", "higherhrnet_w48", "higherscalenas_p1", "higherscalenas_p4"]


def test_the_zoo_is_complete() -> None:
    assert list_models() == sorted(CLASSIFIERS + SEGMENTERS + POSE + BOTTOM_UP)
    assert list_models(task="classification") == sorted(CLASSIFIERS)
    assert list_models("scalenas_*", task="pose") == sorted(POSE[:4])
    assert list_models(pretrained=True) == sorted(TIMM_NAMES)
    assert list_models("nothing_*") == []


@pytest.mark.parametrize("name", list_models())
def test_entries_say_where_they_come_from(name: str) -> None:
    provenance = load_spec(name).provenance
    assert provenance.source
    assert provenance.method
    assert provenance.paper
    assert provenance.license in ("Apache-2.0", "MIT")
    assert all(result.origin != "measured" for result in provenance.results)  # nothing here was measured by us


@pytest.mark.parametrize("family", ["scalenet", "efficientnet"])
def test_entries_are_what_their_family_expands_to(family: str) -> None:
    for spec in expand(load_family(family)):
        assert spec == load_spec(spec.name)


@pytest.mark.parametrize("name", list_models("*hrnet_*"))
def test_hrnet_is_depth_four_with_fusion_after_the_fourth_step(name: str) -> None:
    network = load_spec(name).network
    assert network.type == "multipath"
    assert [len(module.depth) for module in network.modules] == [2, 3, 3, 3, 3, 4, 4, 4]
    for i, module in enumerate(network.modules):
        assert set(module.depth) == {4}
        for to, steps in enumerate(module.fusion):
            needed = not (network.task == "pose" and i == 7 and to > 0)  # pose reads the first branch alone
            for step, row in enumerate(steps):
                complete = step == 3 and needed
                assert row == tuple(int(step < 4 and (complete or origin == to)) for origin in range(len(steps[0])))


@pytest.mark.parametrize("name", ["hrnet_w32", "hrnet_w48", "scalenas_p1", "scalenas_p4"])
def test_bottom_up_entries_differ_in_their_head_alone(name: str) -> None:
    below = load_spec(f"{name}_pose" if name.startswith("hrnet") else name)
    spec = load_spec(f"higher{name}")
    assert (spec.task, spec.bottom_up, below.bottom_up) == ("pose", True, False)
    assert spec.network == below.network.model_copy(update={"head": "bottom_up"})
    assert spec.hash != below.hash


def test_budgets_of_dense_tasks_hold_for_the_size_of_the_image() -> None:
    spec = spec_for(flops="20G", task="segmentation", img_size=(256, 512))
    assert (spec.name, spec.input.height, spec.input.width) == ("scalenas_s1", 256, 512)
    assert 17e9 < spec.cost.macs < 20e9
    assert spec_for(flops="3G", task="pose", img_size=128).name == "scalenas_p2"
    with pytest.raises(BudgetError, match=r"macs: found 20G, expected 147.5G to .* at the images they are for; --size"):
        spec_for(flops="20G", task="segmentation")
    with pytest.raises(
        BudgetError, match=r"macs: found 1G, expected 2.304G to \S+ for the zoo's segmentation networks$"
    ):
        spec_for(flops="1G", task="segmentation", img_size=(128, 256))
    with pytest.raises(SpecError, match="height: found 0, expected greater than"):
        spec_for(flops="20G", task="segmentation", img_size=0)
    with pytest.raises(BudgetError, match="img_size: found 64, expected none: the budget decides on a classifier's"):
        spec_for(flops="600M", img_size=64)


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(ModelNotFoundError, match=r"scalenet_s9: found no such entry .* did you mean scalenet_s5"):
        load_spec("scalenet_s9")
    with pytest.raises(ModelNotFoundError, match=r"xyzzy: found no such entry .* `scalenet-zoo list` shows the names"):
        create_model("xyzzy")
    with pytest.raises(ModelNotFoundError, match="scalenet.family: found no such entry"):
        load_spec("scalenet.family")
    with pytest.raises(ModelNotFoundError, match="mobilenet: found no such family, expected scalenet or efficientnet"):
        load_family("mobilenet")


# --- weights of one's own -------------------------------------------------------------------------


def test_weights_round_trip_with_their_spec(tmp_path: Path) -> None:
    model = random_model("scalenet_s0", num_classes=3)
    path = tmp_path / "weights.safetensors"
    save_weights(model, path)
    again = create_model("scalenet_s0", num_classes=3, weights=path).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(x), model(x))
    saved = json.loads(read_weights(path)[1]["scalenet_zoo.spec"])
    assert ArchSpec.from_dict(saved, source="metadata") == model.spec
    contents = set()
    for _ in range(5):
        save_weights(model, path)
        contents.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(contents) == 1


def test_weights_can_be_read_by_others(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        save_weights(create_model("scalenet_s0"), tmp_path / "weights.safetensors")
    finally:
        os.umask(mask)
    assert (tmp_path / "weights.safetensors").stat().st_mode & 0o777 == 0o644


def test_weights_of_a_part_are_not_saved_as_the_whole(tmp_path: Path) -> None:
    part = create_model("scalenet_s0", features_only=True)
    with pytest.raises(TypeError, match="found FeatureGetterNet, expected a whole network of create_model"):
        save_weights(part, tmp_path / "weights.safetensors")


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(create_model("scalenet_s0"), path)
    with pytest.raises(WeightsError, match="found weights of the architecture scalenet_s0, expected scalenet_s1"):
        create_model("scalenet_s1", weights=path)
    with pytest.raises(WeightsError, match=r"classifier.bias: found \(1000,\), expected \(7,\) for scalenet_s0"):
        create_model("scalenet_s0", num_classes=7, weights=path)

    from safetensors.torch import save_file

    save_file({"classifier.bias": torch.zeros(1000), "other": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=r"classifier.weight: found no such tensor, expected \(1000, 1280\)"):
        load_weights(create_model("scalenet_s0"), path)
    save_file({"classifier.bias": torch.zeros(1000)}, path, {"scalenet_zoo.spec": "no JSON"})
    with pytest.raises(WeightsError, match=r"weights.safetensors: found metadata that are not valid: Expecting value"):
        load_weights(create_model("scalenet_s0"), path)
    path.write_bytes(b"\x80\x02}q\x00.")  # a pickle
    with pytest.raises(WeightsError, match="weights.safetensors: expected a safetensors file"):
        create_model("scalenet_s0", weights=path)
    with pytest.raises(WeightsError, match="missing.safetensors: expected a safetensors file"):
        create_model("scalenet_s0", weights=tmp_path / "missing.safetensors")


# --- timm -----------------------------------------------------------------------------------------


def test_timm_knows_every_entry_and_keeps_its_own() -> None:
    for name in list_models():
        ours = name if name in timm.list_models(module="_timm") else f"zoo_{name}"
        assert timm.is_model(ours)
    assert type(timm.create_model("efficientnet_b0")).__module__ == "timm.models.efficientnet"
    assert set(timm.list_models("zoo_*", pretrained=True)) == {
        *(f"zoo_efficientnet_b{i}" for i in range(5)),
        *(f"zoo_hrnet_w{w}" for w in (18, 32, 48)),
    }
    assert set(timm.list_models("higher*")) == set(BOTTOM_UP)


def test_timm_create_model_makes_our_networks() -> None:
    model: Any = timm.create_model("scalenet_s0", num_classes=5, in_chans=1, drop_rate=0.1)
    assert model.spec.hash == load_spec("scalenet_s0").hash
    assert model.eval()(torch.zeros(1, 1, 64, 64)).shape == (1, 5)
    assert timm.data.resolve_data_config(model=model)["input_size"] == (1, 224, 224)
    features = timm.create_model("scalenas_p1", features_only=True, out_indices=(1, 2))
    assert features.feature_info.channels() == [32, 64]
    ours: Any = timm.create_model("zoo_efficientnet_b0")
    assert ours.spec.name == "efficientnet_b0"
    with pytest.raises(TypeError, match="scalenet_s0: cache_dir is not supported"):
        timm.create_model("scalenet_s0", cache_dir="/tmp/elsewhere")
    with pytest.raises(WeightsError, match="scalenet_s0: found no published weights"):
        timm.create_model("scalenet_s0", pretrained=True)


@pytest.mark.parametrize(
    "imports",
    [
        "import scalenet_zoo, timm",
        "import timm, scalenet_zoo",
        "import scalenet_zoo.zoo, timm.models",
        "import scalenet_zoo",
    ],
)
def test_names_are_registered_whichever_is_imported_first(imports: str) -> None:
    program = f"{imports}; import timm; print(timm.is_model('scalenet_s0'), timm.is_model('zoo_efficientnet_b0'))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", "True"]


def test_importing_the_package_imports_neither_torch_nor_timm() -> None:
    program = (
        "import sys, scalenet_zoo, scalenet_zoo.cli; print([m for m in ('torch', 'timm', 'numpy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_listing_and_costing_need_no_torch() -> None:
    program = "import sys; from scalenet_zoo.zoo import spec_for, list_models; list_models(); spec_for('600M');"
    program += "print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_the_package_has_no_other_attributes() -> None:
    import scalenet_zoo

    with pytest.raises(AttributeError, match="has no attribute 'creat_model'"):
        scalenet_zoo.creat_model  # noqa: B018


def test_small_keeps_the_architecture() -> None:
    assert small("scalenas_p1").hash == load_spec("scalenas_p1").hash


def test_a_family_of_ones_own_has_latency_models_of_its_own(tmp_path: Path) -> None:
    ours = load_family("scalenet")
    assert latency_name(ours) == "scalenet"
    other = ours.model_copy(update={"strategies": ours.strategies[:2]})
    other.save(tmp_path / "other.json")
    found = find_networks("classification", str(tmp_path / "other.json"))
    assert found == other
    assert latency_name(other).startswith("scalenet-")
    assert latency_name(other.model_copy(update={"name": "x" * 100})) != latency_name(other)
    assert len(latency_name(other.model_copy(update={"name": "x" * 100}))) <= 100
