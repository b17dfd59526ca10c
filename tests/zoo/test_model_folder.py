"""Model folders: written folders can be read; damaged, hostile and unknown ones are refused."""

import hashlib
import json
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from scalenet_zoo import create_model, load_spec
from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.arch.spec import ArchSpec, Provenance, Result
from scalenet_zoo.core.errors import ModelNotFoundError, SpecError, WeightsError, ZooError
from scalenet_zoo.zoo.model_folder import CONFIG, SPEC, WEIGHTS, read_folder, save_model
from tests.helpers.model_folders import HOSTILE, LABELS, TIMMS, network, put, same_outputs
from tests.helpers.networks import random_model
from tests.helpers.random_specs import specs
from tests.helpers.shapes import SPECS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The model folder of a tiny classifier."""
    path = tmp_path / "tiny"
    path.mkdir()
    save_model(network(SPECS["classification"]), path)
    return path


# --- what is written can be read ------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS.values(), ids=lambda spec: spec.task)
def test_a_folder_gives_the_network_back(spec: ArchSpec, tmp_path: Path) -> None:
    ours = network(spec)
    save_model(ours, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {CONFIG, SPEC, WEIGHTS}
    assert load_spec(f"local-dir:{tmp_path}") == spec
    for source in (f"local-dir:{tmp_path}", str(tmp_path), tmp_path):
        found: Any = create_model(source)
        assert same_outputs(ours, found)
        assert Labels.of(found.pretrained_cfg) == LABELS
        kept = {key: found.pretrained_cfg[key] for key in ("mean", "std", "interpolation", "crop_pct", "input_size")}
        is_classifier = (
            spec.task == "classification"
        )  # dense networks see the whole picture, resized bilinearly, whatever the dict says
        assert kept == {
            "mean": (0.1, 0.2, 0.3),
            "std": (0.4, 0.5, 0.6),
            "interpolation": "nearest" if is_classifier else "bilinear",
            "crop_pct": 0.9 if is_classifier else 1.0,
            "input_size": (3, spec.input.height, spec.input.width),
        }


@pytest.mark.parametrize("spec", SPECS.values(), ids=lambda spec: spec.task)
def test_timm_builds_it(spec: ArchSpec, tmp_path: Path) -> None:
    ours = network(spec)
    save_model(ours, tmp_path)
    theirs: Any = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert same_outputs(ours, theirs)
    assert timm.data.resolve_data_config(model=theirs)["mean"] == (0.1, 0.2, 0.3)
    assert not same_outputs(ours, timm.create_model(f"local-dir:{tmp_path}"))  # not pretrained: timm's default
    adapted = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=7, in_chans=1)
    assert adapted.eval()(torch.randn(1, 1, 64, 64)).shape[1] == 7
    # The first call of timm's own scripts. It checks the fields of pretrained_cfg.
    told = timm.models.resolve_model_input_args(f"local-dir:{tmp_path}")["pretrained_cfg"]
    assert (told["num_classes"], told["label_names"]) == (3, list(LABELS.names))


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(specs, st.data())
def test_any_spec_makes_a_folder(tmp_path: Path, spec: ArchSpec, data: st.DataObject) -> None:
    model: Any = random_model(spec)
    text = st.text(min_size=1, max_size=20)
    names = tuple(data.draw(st.lists(text, min_size=spec.classes, max_size=spec.classes)))
    model.pretrained_cfg["labels"] = Labels(names=names).to_cfg()
    save_model(model, tmp_path)
    folder = read_folder(tmp_path)
    assert folder.spec == spec
    assert folder.interface.labels.names == names
    found = create_model(tmp_path).state_dict()
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[key], value) for key, value in model.state_dict().items())


def test_the_same_network_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    save_model(create_model(folder), again)
    for name in (CONFIG, SPEC, WEIGHTS):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_other_weights_for_the_same_network(tmp_path: Path) -> None:
    model = network(SPECS["classification"])
    average = {key: value + 1 for key, value in model.state_dict().items()}
    save_model(model, tmp_path, average)
    found = create_model(tmp_path).state_dict()
    assert all(torch.equal(found[key], value) for key, value in average.items())


def test_a_run_stands_for_its_best_network(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    folder.rename(run / "best")
    assert same_outputs(create_model(run), create_model(run / "best"))
    with pytest.raises(ModelNotFoundError, match=rf"{tmp_path}: found no config.json in it, expected a folder that"):
        create_model(tmp_path)
    with pytest.raises(ModelNotFoundError, match="found no such folder"):
        create_model(f"local-dir:{tmp_path}/none")
    with pytest.raises(ModelNotFoundError, match=r"found the revision v1, expected one for hf-hub:org/name only"):
        create_model(run, revision="v1")


def test_names_of_the_zoo_come_first(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder.rename("scalenet_s0")
    assert load_spec("scalenet_s0").classes == 1000
    assert load_spec("local-dir:scalenet_s0").name == "tiny"


# --- another use of the weights -------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS.values(), ids=lambda spec: spec.task)
def test_other_classes_and_channels(spec: ArchSpec, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ours: Any = network(spec)
    save_model(ours, tmp_path)
    with caplog.at_level(logging.WARNING):
        found: Any = create_model(tmp_path, num_classes=7, in_chans=1).eval()
    assert f"{spec.name}: the weights of {tmp_path / WEIGHTS} do not cover classifier, which starts" in caplog.text
    assert (found.spec.classes, found.spec.input.channels) == (7, 1)
    assert "labels" not in found.pretrained_cfg
    grey = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        seen, expected = found.forward_features(grey), ours.forward_features(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-4)
    caplog.clear()
    features: Any = create_model(tmp_path, num_classes=0, features_only=True).eval()
    assert caplog.text == ""  # nothing starts untrained
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(features(x)[0], create_model(tmp_path, features_only=True).eval()(x)[0])


def test_figures_and_training_belong_to_the_weights(tmp_path: Path) -> None:
    measured = Result(metric="top1", value=0.9, data="digits val", origin="measured")
    quoted = Result(metric="top1", value=0.8, data="ImageNet", origin="paper")
    provenance = Provenance(source="a test", results=(measured, quoted), details={"training": {"data": "digits"}})
    spec = SPECS["classification"].model_copy(update={"provenance": provenance})
    save_model(network(spec), tmp_path)
    assert load_spec(tmp_path).provenance == provenance
    same: Any = create_model(tmp_path, num_classes=3, img_size=48)
    assert same.spec.provenance == provenance
    other: Any = create_model(tmp_path, num_classes=4)
    assert other.spec.provenance.results == (quoted,)
    assert other.spec.provenance.details == {"pretraining": {"data": "digits"}}


def test_labels_that_no_longer_fit_are_left_out(tmp_path: Path) -> None:
    model: Any = network(SPECS["classification"])
    model.reset_classifier(5)
    save_model(model, tmp_path)
    assert read_folder(tmp_path).interface.labels == Labels()


def test_weights_may_come_from_elsewhere(folder: Path, tmp_path: Path) -> None:
    other = random_model(SPECS["classification"])
    from scalenet_zoo.zoo.weights import save_weights

    save_weights(other, tmp_path / "other.safetensors")
    assert same_outputs(create_model(folder, weights=tmp_path / "other.safetensors"), other)


@pytest.mark.parametrize("spec", SPECS.values(), ids=lambda spec: spec.task)
def test_what_stands_in_a_folder_is_what_is_done(spec: ArchSpec, tmp_path: Path) -> None:
    save_model(random_model(spec), tmp_path)
    expected = ("bicubic", 0.875) if spec.task == "classification" else ("bilinear", 1.0)
    stated = json.loads((tmp_path / CONFIG).read_text())["pretrained_cfg"]
    assert (stated["interpolation"], stated["crop_pct"]) == expected
    rewrite(tmp_path, put("pretrained_cfg", "interpolation", value="bicubic"))  # as older versions wrote it
    assert read_folder(tmp_path).interface.interpolation == expected[0]
    found: Any = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert timm.data.resolve_data_config(model=found)["interpolation"] == expected[0]


def test_what_a_folder_cannot_hold_is_refused(tmp_path: Path) -> None:
    model: Any = network(SPECS["classification"])
    model.pretrained_cfg["crop_pct"] = 2.0
    with pytest.raises(SpecError, match=r"tiny: pretrained_cfg: crop_pct: found 2.0, expected less than or equal to 1"):
        save_model(model, tmp_path)
    model.pretrained_cfg |= {"crop_pct": 1.0, "labels": {"names": ["a"], "skeleton": [[0, 9]]}}
    with pytest.raises(SpecError, match=r"tiny: pretrained_cfg: labels: skeleton: found \[0, 9\], expected numbers"):
        save_model(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- damaged and hostile folders ------------------------------------------------------------------


def refused(folder: Path, kind: type[ZooError], message: str) -> None:
    """Neither we nor timm build the network; the error is one line."""
    with pytest.raises(kind, match=message) as caught:
        create_model(folder)
    assert "\n" not in str(caught.value)
    with pytest.raises(TIMMS):
        timm.create_model(f"local-dir:{folder}", pretrained=True)


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / CONFIG
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(("change", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_configs(folder: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    rewrite(folder, change)
    refused(folder, SpecError, f"{folder / CONFIG}: .*{message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "is nested too deeply|is not valid JSON"),
        ('{"a": ' * 50_000 + "1" + "}" * 50_000, "is nested too deeply"),
        ('{"num_classes": 1, "num_classes": 2}', "found the key 'num_classes' twice"),
        ('{"num_classes": NaN}', "found NaN, expected a finite number"),
        ('{"num_classes": 1' + "0" * 5000 + "}", "found an integer of 5,001 digits"),
        ("\x80\x04", "is not valid JSON"),
        ("[]", "expected an object|valid dictionary"),
        (" " * (9 * 2**20), "found 9,437,184 bytes, expected at most"),
    ],
    ids=["lists", "objects", "keys", "nan", "digits", "pickle", "type", "size"],
)
def test_files_that_are_no_config(folder: Path, text: str, message: str) -> None:
    (folder / CONFIG).write_text(text)
    refused(folder, SpecError, rf"{folder / CONFIG}: .*({message})")


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_pickles_are_never_read(folder: Path, tmp_path: Path) -> None:
    sign = tmp_path / "unpickled"
    content = pickle.dumps(Payload(sign))
    pickle.loads(content)  # it does what it is for
    sign.unlink()
    for name in ("pytorch_model.bin", "model.pth"):
        (folder / name).write_bytes(content)
    (folder / WEIGHTS).unlink()
    refused(folder, WeightsError, f"{folder}: found no model.safetensors, expected one: pickled weights are never read")
    (folder / WEIGHTS).write_bytes(content)
    rewrite(folder, put("scalenet_zoo", "weights", "bytes", value=len(content)))
    rewrite(folder, put("scalenet_zoo", "weights", "sha256", value=hashlib.sha256(content).hexdigest()))
    refused(folder, WeightsError, f"{folder / WEIGHTS}: found what looks like a pickle")
    assert not sign.exists()


def replace_weights(folder: Path, content: bytes) -> None:
    """Put other weights into a folder, with a config.json that says so."""
    (folder / WEIGHTS).write_bytes(content)
    rewrite(folder, put("scalenet_zoo", "weights", "bytes", value=len(content)))
    rewrite(folder, put("scalenet_zoo", "weights", "sha256", value=hashlib.sha256(content).hexdigest()))


def test_damaged_weights(folder: Path) -> None:
    path = folder / WEIGHTS
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    refused(folder, WeightsError, rf"{path}: found {len(whole) - 1:,} bytes, expected {len(whole):,}, as config.json")
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused(folder, WeightsError, rf"{path}: found the sha256 \w+\.\.\., expected \w+\.\.\., as config.json says")
    replace_weights(folder, whole[:-100])
    refused(folder, WeightsError, f"{path}: expected a safetensors file: .*")


def test_weights_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    changed = SPECS["classification"].network.model_copy(update={"activation": "relu"})
    spec = SPECS["classification"]
    save_model(random_model(ArchSpec.create("other", spec.task, spec.input, 3, changed, spec.provenance)), other)
    replace_weights(folder, (other / WEIGHTS).read_bytes())  # the same tensors of another architecture
    refused(folder, WeightsError, f"{folder / WEIGHTS}: found weights of the architecture other, expected tiny")
    state = dict(random_model(spec).state_dict())
    state["classifier.weight"] = torch.zeros(4, 32)
    replace_weights(folder, save(state))
    refused(folder, WeightsError, r"classifier.weight: found \(4, 32\), expected \(3, 32\) for tiny")
    del state["classifier.weight"]
    replace_weights(folder, save(state))
    refused(folder, WeightsError, r"classifier.weight: found no such tensor, expected \(3, 32\) for tiny")


def test_spec_and_config_belong_together(folder: Path) -> None:
    SPECS["segmentation"].save(folder / SPEC)
    refused(folder, SpecError, rf"{folder / CONFIG}: scalenet_zoo.spec_hash: found \w+, expected \w+, as spec.json has")
    (folder / SPEC).unlink()
    refused(folder, SpecError, f"{folder / SPEC}: cannot be read: No such file")
