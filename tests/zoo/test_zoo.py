"""The zoo's entries, how they are found, and their names in timm."""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel

from scalenet_zoo import ArchSpec, create_model, list_models, load_spec
from scalenet_zoo.arch.scaling import expand
from scalenet_zoo.arch.spec import Head, Layer, Task, unwrapped
from scalenet_zoo.budgets import spec_for
from scalenet_zoo.core.errors import BackendError, BudgetError, InputError, ModelNotFoundError, SpecError, WeightsError
from scalenet_zoo.data.forms import check_source
from scalenet_zoo.inference.prepare import prepare_inference
from scalenet_zoo.zoo import catalog
from scalenet_zoo.zoo.catalog import FAMILIES, find_networks, latency_name, load_family
from scalenet_zoo.zoo.interface import Interface, pretrained_cfg
from scalenet_zoo.zoo.model_folder import save_model
from scalenet_zoo.zoo.published import is_of_weights, published_entries
from scalenet_zoo.zoo.sources import check_model, has_weights
from scalenet_zoo.zoo.weights import load_weights, save_weights
from scalenet_zoo.zoo.weights_files import read_weights
from tests.helpers.networks import random_model, small
from tests.helpers.pretrained import TIMMS
from tests.helpers.shapes import SPECS

CLASSIFIERS = [f"scalenet_s{i}" for i in range(6)] + [f"efficientnet_b{i}" for i in range(8)] + [*TIMMS]
SEGMENTERS = [f"scalenas_s{i}" for i in range(1, 5)] + [f"hrnet_w{w}" for w in (18, 32, 48)]
POSE = [f"scalenas_p{i}" for i in range(1, 5)] + [f"hrnet_w{w}_pose" for w in (18, 32, 48)]
BOTTOM_UP_SPEC = ArchSpec.create(
    "tiny_bottom_up",
    "pose",
    SPECS["pose"].input,
    3,
    SPECS["pose"].network.model_copy(update={"head": "bottom_up"}),
    SPECS["pose"].provenance,
)
BOTTOM_UP = ["higherhrnet_w32", "higherhrnet_w48", "higherscalenas_p1", "higherscalenas_p4"]
PUBLISHED = [
    *(f"efficientnet_b{i}" for i in range(6)),
    *TIMMS,
    *(f"hrnet_w{w}{suffix}" for w in (18, 32, 48) for suffix in ("", "_pose")),
    *("higherhrnet_w32", "higherhrnet_w48"),
]


def test_the_zoo_is_complete() -> None:
    assert list_models() == sorted(CLASSIFIERS + SEGMENTERS + POSE + BOTTOM_UP)
    assert list_models(task="classification") == sorted(CLASSIFIERS)
    assert list_models("scalenas_*", task="pose") == sorted(POSE[:4])
    assert list_models(pretrained=True) == sorted(PUBLISHED)
    assert list_models("nothing_*") == []


def test_names_are_told_without_reading_specs(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(catalog, "_entry", read.append)
    assert list_models(pretrained=True) == sorted(PUBLISHED)
    assert has_weights("hf-hub:org/name")
    assert not has_weights("scalenet_s0")
    assert not read
    assert catalog.find_entry("scalenet.family") is catalog.find_entry("nothere") is None
    monkeypatch.undo()
    assert load_spec("scalenet_s0") is load_spec("scalenet_s0")  # a file is read once


def test_what_was_checked_is_not_read_again(tmp_path: Path) -> None:
    spec, file, folder = SPECS["pose"], tmp_path / "tiny.json", tmp_path / "folder"
    spec.save(file)
    folder.mkdir()
    save_model(create_model(spec), folder)
    opened = [check_model(str(file)), check_model(folder)]
    file.unlink()
    shutil.rmtree(folder)
    assert [load_spec(each).network for each in opened] == [spec.network] * 2
    assert check_model("hf-hub:org/name") == "hf-hub:org/name"


@pytest.mark.parametrize("name", list_models())
def test_entries_say_where_they_come_from(name: str) -> None:
    provenance = load_spec(name).provenance
    assert provenance.source
    assert provenance.method
    assert provenance.paper
    assert provenance.license in ("Apache-2.0", "MIT")
    assert all(result.origin != "measured" for result in provenance.results)  # nothing here was measured by us


@pytest.mark.parametrize("family", FAMILIES["classification"])
def test_entries_are_what_their_family_expands_to(family: str) -> None:
    for spec in expand(load_family(family)):
        entry = load_spec(spec.name)
        assert spec.model_copy(update={"provenance": entry.provenance}) == entry
        own = [result for result in entry.provenance.results if not is_of_weights(result)]
        assert own == list(spec.provenance.results)


@pytest.mark.parametrize("name", list_models("*hrnet_*"))
def test_hrnet_is_depth_four_with_fusion_after_the_fourth_step(name: str) -> None:
    network = load_spec(name).network
    assert network.type == "multipath"
    assert [len(module.depth) for module in network.modules] == [2, 3, 3, 3, 3, 4, 4, 4]
    for i, module in enumerate(network.modules):
        assert set(module.depth) == {4}
        for to, steps in enumerate(module.fusion):
            needed = not (network.task == "pose" and i == 7 and to > 0)  # pose reads the first branch only
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
    with pytest.raises(BudgetError, match=r"macs: found 20G, expected 147.5G to .* at their own image sizes; --size"):
        spec_for(flops="20G", task="segmentation")
    with pytest.raises(
        BudgetError, match=r"macs: found 1G, expected 2.304G to \S+ for the zoo's segmentation networks$"
    ):
        spec_for(flops="1G", task="segmentation", img_size=(128, 256))
    with pytest.raises(SpecError, match="height: found 0, expected greater than"):
        spec_for(flops="20G", task="segmentation", img_size=0)
    with pytest.raises(
        BudgetError, match="img_size: found 64, expected none: the budget sets a classifier's image size"
    ):
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


def test_weights_say_how_images_are_prepared(tmp_path: Path) -> None:
    model: Any = create_model("scalenet_s0", num_classes=3)
    stated = {
        "mean": (0.5, 0.4, 0.3),
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "labels": {"names": ["a", "b", "c"]},
    }
    model.pretrained_cfg |= stated
    path = tmp_path / "weights.safetensors"
    save_weights(model, path)
    again: Any = create_model("scalenet_s0", num_classes=3, weights=path)
    assert all(again.pretrained_cfg[name] == stated[name] for name in ("mean", "crop_pct", "interpolation"))
    assert again.pretrained_cfg["labels"]["names"] == ["a", "b", "c"]
    other: Any = create_model("scalenet_s0", num_classes=5, weights=path)  # only the classifier is new
    assert other.pretrained_cfg["mean"] == (0.5, 0.4, 0.3)
    assert "labels" not in other.pretrained_cfg
    tensors, metadata = read_weights(path)
    del metadata["scalenet_zoo.interface"]  # as 0.1 wrote it
    save_file(tensors, path, metadata)
    old: Any = create_model("scalenet_s0", num_classes=3, weights=path)
    assert old.pretrained_cfg["crop_pct"] == 0.875
    save_file(tensors, path, {**metadata, "scalenet_zoo.interface": '{"crop_pct": 2}'})
    with pytest.raises(WeightsError, match=r"weights.safetensors: scalenet_zoo.interface: crop_pct: found 2, expected"):
        create_model("scalenet_s0", num_classes=3, weights=path)


def test_weights_can_be_read_by_others(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        save_weights(create_model("scalenet_s0"), tmp_path / "weights.safetensors")
    finally:
        os.umask(mask)
    assert (tmp_path / "weights.safetensors").stat().st_mode & 0o777 == 0o644


def test_weights_of_a_part_are_not_saved_as_the_whole(tmp_path: Path) -> None:
    part = create_model("scalenet_s0", features_only=True)
    with pytest.raises(TypeError, match="found FeatureGetterNet, expected a whole network from create_model"):
        save_weights(part, tmp_path / "weights.safetensors")


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(create_model("scalenet_s0"), path)
    with pytest.raises(WeightsError, match="found weights of the architecture scalenet_s0, expected scalenet_s1"):
        create_model("scalenet_s1", weights=path)
    save_file({"classifier.bias": torch.zeros(1000), "other": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=r"classifier.weight: found no such tensor, expected \(1000, 1280\)"):
        load_weights(create_model("scalenet_s0"), path)
    save_file({"classifier.bias": torch.zeros(1000)}, path, {"scalenet_zoo.spec": "no JSON"})
    with pytest.raises(
        WeightsError, match=r"weights.safetensors: found metadata that are not valid: spec: is not valid JSON"
    ):
        load_weights(create_model("scalenet_s0"), path)
    path.write_bytes(b"\x80\x02}q\x00.")  # a pickle
    with pytest.raises(WeightsError, match="weights.safetensors: expected a file of torch.save"):
        create_model("scalenet_s0", weights=path)
    with pytest.raises(WeightsError, match="missing.safetensors: expected a file of weights"):
        create_model("scalenet_s0", weights=tmp_path / "missing.safetensors")


# --- timm -----------------------------------------------------------------------------------------


def test_timm_knows_every_entry_and_keeps_its_own() -> None:
    for name in list_models():
        ours = name if name in timm.list_models(module="timm_registry") else f"zoo_{name}"
        assert timm.is_model(ours)
    assert type(timm.create_model("efficientnet_b0")).__module__ == "timm.models.efficientnet"
    assert set(timm.list_models("zoo_*", pretrained=True)) == {
        f"zoo_{name}.{tag}"
        for name, entry in published_entries().items()
        if timm.is_model(f"zoo_{name}")
        for tag in entry.tags
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


@pytest.mark.slow
def test_names_are_registered_whichever_is_imported_first() -> None:
    """Each order runs in a process of its own, forked after the slow imports of torch and torchvision."""
    program = """
import os, torch, torchvision
for imports in (
    "import scalenet_zoo, timm",
    "import timm, scalenet_zoo",
    "import scalenet_zoo.zoo.catalog, timm.models",
    "import scalenet_zoo",
):
    if os.fork() == 0:
        exec(f"{imports}; import timm")
        print(imports, timm.is_model("scalenet_s0"), timm.is_model("zoo_efficientnet_b0"), flush=True)
        os._exit(0)
    os.wait()
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert [line.split()[-2:] for line in result.stdout.splitlines()] == [["True", "True"]] * 4


def test_importing_the_package_imports_neither_torch_nor_timm() -> None:
    program = (
        "import sys, scalenet_zoo, scalenet_zoo.cli; print([m for m in ('torch', 'timm', 'numpy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_listing_and_costing_need_no_torch() -> None:
    program = "import sys; from scalenet_zoo.budgets import spec_for; from scalenet_zoo.zoo.catalog import list_models;"
    program += "from scalenet_zoo.zoo.sources import open_interface; open_interface('efficientnet_b0.ra_in1k');"
    program += "list_models(pretrained=True); spec_for('600M'); print('torch' in sys.modules)"
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


# --- networks in wrappers, and files of them ------------------------------------------------------


def part_compiled(model: Any) -> nn.Module:
    """A network with one compiled part, as in regional compilation."""
    part = "stages" if hasattr(model, "stages") else "stage4"
    setattr(model, part, torch.compile(getattr(model, part)))
    return model  # type: ignore[no-any-return]


WRAPPERS: dict[str, Any] = {
    "compiled": torch.compile,
    "data parallel": nn.DataParallel,
    "timm's average": ModelEmaV3,
    "torch's average": AveragedModel,
    "an average of compiled": lambda model: ModelEmaV3(torch.compile(model)),
    "compiled parts": part_compiled,
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_wrapped_networks_are_taken_as_the_network(wrap: Any, task: Task, tmp_path: Path) -> None:
    ours: Any = random_model(SPECS[task])
    state = {key: value.clone() for key, value in ours.state_dict().items()}
    wrapped = wrap(ours)
    save_weights(wrapped, tmp_path / "saved.safetensors")
    assert prepare_inference(wrapped).interface == Interface.of_network(ours)
    assert read_weights(tmp_path / "saved.safetensors")[0].keys() == state.keys()
    save_weights(ours, tmp_path / "state.safetensors", wrapped.state_dict())
    save_file(wrapped.state_dict(), tmp_path / "theirs.safetensors")  # as another tool would write it
    (tmp_path / "folder").mkdir()
    save_model(wrapped, tmp_path / "folder")
    files = [tmp_path / f"{name}.safetensors" for name in ("saved", "state", "theirs")]
    for found in (*(create_model(SPECS[task], weights=file) for file in files), create_model(tmp_path / "folder")):
        there = found.state_dict()
        assert all(torch.equal(there[key], value) for key, value in state.items())
    other = wrap(random_model(SPECS[task]))
    with torch.no_grad():
        other_network: Any = unwrapped(other)
        other_network.classifier.bias.zero_()
    load_weights(other, tmp_path / "saved.safetensors")
    assert torch.equal(other_network.classifier.bias, state["classifier.bias"])


def test_wrappers_of_ones_own_are_not_the_network(tmp_path: Path) -> None:
    class Doubled(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * self.module(x)  # type: ignore[no-any-return]

    with pytest.raises(TypeError, match="found Doubled, expected a whole network from create_model"):
        save_weights(Doubled(create_model(SPECS["classification"])), tmp_path / "w.safetensors")


def test_networks_that_were_changed_are_not_saved(tmp_path: Path) -> None:
    model: Any = create_model(SPECS["classification"])
    prune.l1_unstructured(model.classifier, "weight", 0.5)  # type: ignore[no-untyped-call]
    with pytest.raises(
        WeightsError, match=r"w.safetensors: classifier.weight: found no such tensor, expected \(3, 32\)"
    ):
        save_weights(model, tmp_path / "w.safetensors")
    for value in (torch.qint8, torch.zeros(3, device="meta")):  # from a quantised and from a meta network
        with pytest.raises(WeightsError, match=r"w.safetensors: classifier.bias: found .*, expected a tensor with val"):
            save_weights(model, tmp_path / "w.safetensors", {"classifier.bias": value})  # type: ignore[dict-item]
    twice = {"module.stem.conv.weight": torch.zeros(1), "stem.conv.weight": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"weights: found stem.conv.weight twice, with and without a wrapper's name"):
        save_weights(model, tmp_path / "w.safetensors", twice)
    assert list(tmp_path.iterdir()) == []


# --- weights of another use -----------------------------------------------------------------------


@pytest.mark.parametrize("stated", [True, False], ids=["with its spec", "tensors alone"])
@pytest.mark.parametrize("spec", [*SPECS.values(), BOTTOM_UP_SPEC], ids=lambda spec: spec.name)
def test_weights_for_other_classes_and_channels(
    spec: ArchSpec, stated: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours: Any = random_model(spec)
    path = tmp_path / "weights.safetensors"
    save_weights(ours, path)
    if not stated:
        save_file(ours.state_dict(), path)
    with caplog.at_level(logging.WARNING):
        found: Any = create_model(spec, num_classes=7, in_chans=1, weights=path).eval()
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        f"{spec.name}: the weights of {path} are for 3 input channels: the first convolution is adapted to 1",
        f"{spec.name}: the weights of {path} do not cover {untrained(found)}, which starts untrained",
    ]
    grey = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        seen, expected = found.forward_features(grey), ours.forward_features(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-4)
    caplog.clear()
    bare: Any = create_model(spec, num_classes=0, weights=path)
    assert torch.equal(
        bare.stem.state_dict()[next(iter(bare.stem.state_dict()))], next(iter(ours.state_dict().values()))
    )
    assert caplog.text == ""
    save_weights(bare, path)
    create_model(spec, weights=path)
    assert "do not cover" in caplog.text


def untrained(model: Any) -> str:
    modules = sorted({f"classifier.{key}".rpartition(".")[0] for key in model.classifier.state_dict()})
    return ", ".join(modules)


BAD_TENSORS: dict[str, tuple[str, Any, str]] = {
    "integers": (
        "stem.norm.bias",
        torch.zeros(8, dtype=torch.int32),
        "found integers, expected floating-point numbers",
    ),
    "bytes": ("stem.norm.bias", torch.zeros(8, dtype=torch.float8_e5m2), "found type F8_E5M2, expected floating-point"),
    "truths": ("stem.norm.bias", torch.zeros(8, dtype=torch.bool), "found type BOOL, expected floating-point numbers"),
    "a fraction": (
        "stem.norm.num_batches_tracked",
        torch.tensor(1.5),
        "found floating-point numbers, expected integers",
    ),
    "no number": ("stem.norm.bias", torch.full((8,), float("nan")), "found 8 infinite or NaN values"),
    "too large": ("stem.norm.bias", torch.full((8,), 1e300, dtype=torch.float64), "found 8 infinite or NaN values"),
    "another shape": ("stem.norm.bias", torch.zeros(9), r"found \(9,\), expected \(8,\) for tiny"),
    "another rank": ("classifier.bias", torch.zeros(3, 1), r"found \(3, 1\), expected \(3,\) for tiny"),
    "no channels": ("stem.conv.weight", torch.zeros(8, 0, 3, 3), r"found \(8, 0, 3, 3\), expected \(8, 3, 3, 3\)"),
    "one more": ("stem.extra", torch.zeros(1), r"found \(1,\), expected no such tensor for tiny"),
}


@pytest.mark.parametrize(("key", "value", "message"), BAD_TENSORS.values(), ids=BAD_TENSORS)
def test_tensors_that_are_no_weights(key: str, value: torch.Tensor, message: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({**random_model(SPECS["classification"]).state_dict(), key: value}, path)
    with pytest.raises(WeightsError, match=f"^{path}: {key}: {message}"):
        create_model(SPECS["classification"], weights=path)


def test_weights_in_half_precision_are_taken(tmp_path: Path) -> None:
    ours = random_model(SPECS["classification"])
    halves = {key: value.half() if value.is_floating_point() else value for key, value in ours.state_dict().items()}
    save_file(halves, tmp_path / "weights.safetensors")
    found = create_model(SPECS["classification"], weights=tmp_path / "weights.safetensors").state_dict()
    assert all(torch.equal(found[key], value.to(found[key].dtype)) for key, value in halves.items())
    assert {value.dtype for value in found.values()} == {torch.float32, torch.int64}


# --- before anything is built ---------------------------------------------------------------------


def wide() -> ArchSpec:
    """A spec of a few hundred bytes whose network takes 6.5 GB."""
    spec = SPECS["classification"]
    stages = ((Layer(kernel=3, stride=1, hidden=20_000, squeeze=20_000, channels=20_000),),)
    network: Any = spec.network
    large = network.model_copy(update={"stages": stages, "head": Head(channels=20_000)})
    return ArchSpec.create("wide", spec.task, spec.input, 3, large, spec.provenance)


def test_weights_are_looked_at_before_the_network_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = wide()
    assert spec.cost.params > 1.6e9
    save_file({"classifier.bias": torch.zeros(3)}, tmp_path / "weights.safetensors")
    monkeypatch.setattr("scalenet_zoo.core.memory.available_memory", lambda: 10**12)
    with pytest.raises(WeightsError, match=r"classifier.weight: found no such tensor, expected \(3, 20000\) for wide"):
        create_model(spec, weights=tmp_path / "weights.safetensors")
    monkeypatch.setattr("scalenet_zoo.core.memory.available_memory", lambda: 2_500_000_000)
    with pytest.raises(
        BackendError,
        match=r"wide: a network of \S+ parameters: found that it takes 6.\d GB of memory, expected at most the 2.5 GB",
    ):
        create_model(spec)
    assert timm.create_model("scalenet_s0")  # this fits


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of another system")
def test_the_limit_of_the_process_counts() -> None:
    program = "from scalenet_zoo.core.memory import available_memory; print(available_memory())"
    command = f"ulimit -v 3000000; exec '{sys.executable}' -c '{program}'"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert 1e9 < int(result.stdout) < 3_000_000 * 1024


def test_layers_are_bounded() -> None:
    network: Any = SPECS["classification"].network
    layer = network.stages[-1][0]
    stages = [[layer.model_dump()] * 205] * 5
    data = SPECS["classification"].model_dump(mode="json")
    data["network"]["stages"] = stages
    with pytest.raises(SpecError, match=r"network.stages: found 1,025 layers, expected at most 1,024"):
        ArchSpec.from_dict(data, source="file")


def write(path: Path, kind: str) -> None:
    """A file that is not a spec."""
    match kind:
        case "safetensors":
            save_file({"a": torch.zeros(1)}, path)
        case "pickle":
            torch.save({"a": torch.zeros(1)}, path)
        case "old pickle":
            torch.save({"a": torch.zeros(1)}, path, _use_new_zipfile_serialization=False)
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "header":
            path.write_bytes((90_000_000).to_bytes(8, "little") + b"{" + b" " * 100)
        case _:
            path.write_bytes(CONTENTS[kind])


CONTENTS = {
    "onnx": b"\x08\x0a\x12\x07pytorch",
    "yaml": b"epochs: 1\n",
    "engine": b"ftrt" * 9,
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "page": b"<!DOCTYPE html><html></html>",
}


NO_NETWORKS = {
    "x.onnx": ("onnx", "is an ONNX file, expected a spec .* `predict --model`"),
    "x": ("onnx", "is an ONNX file, expected a spec .* `predict --model`"),
    "x.engine": ("engine", "is an engine, expected a spec .* `predict --model`"),
    "x.safetensors": ("safetensors", r"is a safetensors file, .*weights=FILE \(--weights\)"),
    "weights": ("safetensors", r"is a safetensors file, .*weights=FILE \(--weights\)"),
    "x.PTH": ("pickle", r"looks like a file of torch.save, .*weights=FILE \(--weights\)"),
    "checkpoint": ("old pickle", r"looks like a file of torch.save, .*weights=FILE \(--weights\)"),
    "recipe.yaml": ("yaml", "is YAML, .*`train --recipe`"),
    "spec.json": ("pointer", "is a pointer of Git LFS to the file, not the file"),
    "page.json": ("page", "is a web page, maybe one of a failed download"),
    "pipe.json": ("pipe", "is not a regular file"),
    "pipe": ("pipe", "is not a regular file"),
}


@pytest.mark.parametrize(("name", "kind", "message"), [(name, *row) for name, row in NO_NETWORKS.items()])
def test_files_that_are_no_network_are_told_apart(name: str, kind: str, message: str, tmp_path: Path) -> None:
    write(tmp_path / name, kind)
    for read in (create_model, load_spec):
        with pytest.raises(SpecError, match=f"^{tmp_path / name}: {message}"):
            read(tmp_path / name)
    with pytest.raises(ModelNotFoundError, match="found no such entry in the zoo and no such file"):
        load_spec(f"{tmp_path}/nothere.onnx")


NO_WEIGHTS = {
    "x.onnx": ("onnx", "is an ONNX file"),
    "pointer.safetensors": ("pointer", "is a pointer of Git LFS to the file, not the file"),
    "page.safetensors": ("page", "is a web page, maybe one of a failed download"),
    "pipe": ("pipe", "is not a regular file"),
    "folder": ("folder", "is a directory"),
    "large.safetensors": ("header", "found a header of 90,000,000 bytes, expected at most 33,554,432"),
}


@pytest.mark.parametrize(("name", "kind", "message"), [(name, *row) for name, row in NO_WEIGHTS.items()])
def test_files_that_are_no_weights_are_told_apart(name: str, kind: str, message: str, tmp_path: Path) -> None:
    write(tmp_path / name, kind)
    expected = "expected a (safetensors file|file of weights)"
    with pytest.raises(WeightsError, match=f"^{tmp_path / name}: {expected}: {message}"):
        create_model(SPECS["classification"], weights=tmp_path / name)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (0, "found 0 bytes, expected more"),
        (100, "found 100 bytes, expected more"),
        (-1, "its tensors do not end where"),
    ],
)
def test_weights_that_were_cut_off(size: int, message: str, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(create_model(SPECS["classification"]), path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(WeightsError, match=f"^{path}: .*{message}"):
        create_model(SPECS["classification"], weights=path)


BAD_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"num_classes": 2.5}, "classes: found 2.5, expected a whole number"),
    ({"num_classes": "3"}, "classes: found '3', expected a whole number"),
    ({"in_chans": True}, "channels: found True, expected a whole number"),
    ({"img_size": "64"}, "height: found '64', expected a whole number"),
    ({"img_size": (32,)}, r"img_size: found \(32,\), expected a number of pixels, or height and width"),
    ({"img_size": (32, 32, 3)}, r"img_size: found \(32, 32, 3\), expected a number of pixels, or height and width"),
    ({"drop_rate": 2.0}, "drop_rate: found 2.0, expected a number from 0 to 1"),
    ({"drop_path_rate": -0.1}, "drop_path_rate: found -0.1, expected a number from 0 to 1"),
    ({"drop_path_rate": "x"}, "drop_path_rate: found 'x', expected a number from 0 to 1"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_ARGUMENTS)
def test_arguments_that_no_network_has(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        create_model(SPECS["classification"], **arguments)


def test_numbers_of_numpy_are_taken() -> None:
    numbers: dict[str, Any] = {"num_classes": np.int64(5), "img_size": np.array([64, 32])}
    model: Any = create_model(SPECS["classification"], **numbers)
    assert (model.spec.classes, model.spec.input.height, model.spec.input.width) == (5, 64, 32)


@pytest.mark.parametrize("name", ["x" * 300, f"{'x' * 300}/y"])
def test_names_that_are_too_long_for_a_file(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="found no such entry in the zoo and no such file"):
        create_model(name)
    with pytest.raises(InputError, match="found no such data, expected a folder or"):
        check_source(name)
    with pytest.raises(InputError, match="found nothing at x+.*, expected a folder with data"):
        check_source(f"imagefolder:{name}")


def test_homes_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    ours = random_model(SPECS["classification"])
    (tmp_path / "run").mkdir()
    save_model(ours, tmp_path / "run")
    SPECS["classification"].save(tmp_path / "tiny.json")
    save_weights(ours, tmp_path / "w.safetensors")
    load_family("scalenet").save(tmp_path / "own.json")
    for found in (
        create_model("local-dir:~/run"),
        create_model("~/run"),
        create_model(Path("~/run")),
        create_model("~/tiny.json", weights="~/w.safetensors"),
    ):
        state = found.state_dict()
        assert all(torch.equal(state[key], value) for key, value in ours.state_dict().items())
    assert load_family("~/own.json") == load_family("scalenet")
    with pytest.raises(ModelNotFoundError, match="~nobody-of-this-name/x: found no such entry"):
        load_spec("~nobody-of-this-name/x")


@pytest.mark.parametrize("name", ["scalenas_s1", "hrnet_w18", "hrnet_w18_pose", "higherhrnet_w32", "scalenas_p1"])
def test_dense_networks_see_all_of_a_picture_bilinear(name: str) -> None:
    cfg = pretrained_cfg(load_spec(name))
    assert (cfg["interpolation"], cfg["crop_pct"]) == ("bilinear", 1.0)
