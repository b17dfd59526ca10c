"""The interface, which is the same wherever a network is stored, and timm's dict."""

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from scalenet_zoo import create_model, load_spec
from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.arch.spec import ArchSpec, Task
from scalenet_zoo.core.errors import SpecError
from scalenet_zoo.export.inference import file_inference
from scalenet_zoo.export.metadata import Metadata, OnnxOptions
from scalenet_zoo.export.onnx import metadata_of
from scalenet_zoo.inference.prepare import prepare_inference
from scalenet_zoo.zoo.interface import Interface, Interpolation
from scalenet_zoo.zoo.model_folder import read_folder, save_model
from tests.helpers.networks import random_model
from tests.helpers.shapes import SPECS

JOINTS = Labels(names=("left", "right", "void"), flip_pairs=((0, 1),), skeleton=((0, 2),), sigmas=(0.1, 0.2, 0.3))


@st.composite
def interfaces(draw: st.DrawFn, spec: ArchSpec) -> Interface:
    """A possible interface of a network."""
    dense = spec.task != "classification"
    counts = {3, min(3, spec.input.channels)}
    means, deviations = (
        st.one_of([st.tuples(*[value] * count) for count in counts])
        for value in (st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
    )
    name, pair = st.text(min_size=1, max_size=9), st.tuples(*[st.integers(0, spec.classes - 1)] * 2)
    labels = st.builds(
        Labels,
        names=_each(name, spec),
        ids=st.just(()) | _each(name, spec),
        colours=st.just(()) | _each(st.tuples(*[st.integers(0, 255)] * 3), spec),
        flip_pairs=st.lists(pair, max_size=3).map(tuple),
        skeleton=st.lists(pair, max_size=3).map(tuple),
        sigmas=st.just(()) | _each(st.floats(1e-6, 10), spec),
    )
    return Interface(
        crop_pct=1.0 if dense else draw(st.floats(1e-6, 1)),
        interpolation="bilinear" if dense else draw(st.sampled_from(get_args(Interpolation))),
        mean=draw(means),
        std=draw(deviations),
        labels=draw(st.just(Labels()) | labels),
    )


def _each(value: st.SearchStrategy[Any], spec: ArchSpec) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(*[value] * spec.classes)


@settings(max_examples=60)
@given(st.data(), st.sampled_from(sorted(SPECS)), st.integers(1, 4))
def test_to_timm_and_of_timm_are_inverse(data: st.DataObject, task: Task, channels: int) -> None:
    spec = SPECS[task].replace(channels=channels)
    interface = data.draw(interfaces(spec))
    cfg = interface.to_timm(spec)
    assert Interface.of_timm(cfg, spec) == interface
    assert Interface.of_timm(json.loads(json.dumps(cfg)), spec) == interface  # as in files
    assert Interface.of_timm(cfg, spec).to_timm(spec) == cfg
    also = {"hf_hub_id": "timm/x", "labels": {"names": ["stale"]}, "crop_pct": 7}
    whole = interface.to_timm(spec, also)
    assert whole == {"hf_hub_id": "timm/x", **cfg}
    assert Interface.of_timm(whole, spec) == interface


@pytest.mark.parametrize("task", sorted(SPECS))
def test_a_network_its_folder_and_its_file_say_the_same(task: Task, tmp_path: Path) -> None:
    spec = SPECS[task]
    model: Any = random_model(spec)
    own = Interface(crop_pct=0.9, interpolation="nearest", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), labels=JOINTS)
    model.pretrained_cfg |= own.to_timm(spec)
    expected = Interface.of_network(model)
    assert expected == (
        own if task == "classification" else own.model_copy(update={"crop_pct": 1.0, "interpolation": "bilinear"})
    )
    (tmp_path / "folder").mkdir()
    save_model(model, tmp_path / "folder")
    file = Metadata.parse(metadata_of(model, OnnxOptions()).entries(), "a.onnx")
    again: Any = create_model(tmp_path / "folder")
    found = {
        "network": prepare_inference(model).interface,
        "wrapped": Interface.of_network(nn.DataParallel(model)),
        "folder": read_folder(tmp_path / "folder").interface,
        "network of the folder": Interface.of_network(again),
        "timm's name for it": Interface.of_timm(again.default_cfg, spec),
        "file": file.interface,
        "file, to predict with": file_inference(file, np.asarray).interface,
    }
    assert found == dict.fromkeys(found, expected)


@pytest.mark.parametrize("name", ["scalenet_s0", "efficientnet_b1", "hrnet_w18", "scalenas_p1"])
def test_networks_of_the_zoo_say_what_timm_or_imagenet_has(name: str) -> None:
    spec = load_spec(name)
    with torch.device("meta"):
        model: Any = create_model(name)
    expected = Interface.of(spec)
    assert Interface.of_network(model) == expected
    del model.pretrained_cfg
    assert Interface.of_network(model) == expected


def test_labels_that_a_new_classifier_leaves_behind_are_none(tmp_path: Path) -> None:
    model: Any = random_model(SPECS["pose"])
    model.pretrained_cfg["labels"] = JOINTS.to_cfg()
    assert Interface.of_network(model).labels == JOINTS
    model.reset_classifier(5)
    assert Interface.of_network(model).labels == prepare_inference(model).labels == Labels()
    save_model(model, tmp_path)
    assert read_folder(tmp_path).interface.labels == Labels()
    assert "labels" not in Interface(labels=JOINTS).to_timm(model.spec)


def test_one_mean_is_that_of_all_channels_of_a_network_with_more(tmp_path: Path) -> None:
    grey: Any = random_model(SPECS["classification"].replace(channels=1))
    grey.pretrained_cfg |= {"mean": [0.25], "std": [0.5]}
    save_model(grey, tmp_path)
    found = Interface.of_network(create_model(tmp_path, in_chans=3))
    assert (found.mean, found.std) == ((0.25,) * 3, (0.5,) * 3)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"crop_pct": 2}, "crop_pct: found 2.*, expected less than or equal to 1"),
        ({"crop_pct": "0.9"}, "crop_pct: found '0.9', expected a valid number"),
        ({"crop_pct": float("nan")}, "crop_pct: found nan, expected a finite number"),
        ({"interpolation": None}, "interpolation: found None, expected"),
        ({"interpolation": "random"}, "interpolation: found 'random', expected 'nearest', 'bilinear'"),
        ({"mean": 0.5}, "mean: found 0.5, expected a valid array"),
        ({"mean": [0.5, 0.5]}, "mean: found 2 numbers, expected 3"),
        ({"std": [0.5]}, "std: found 1 numbers, expected 3"),
        ({"std": [0.5, 0.5, 0]}, "std.2: found 0, expected greater than 0"),
        ({"labels": ["a", "b", "c"]}, r"labels: found \['a', 'b', 'c'\], expected a valid dictionary"),
        ({"labels": {"names": ["a", "", "c"]}}, "labels: names.1: found '', expected at least 1 character"),
        ({"labels": {"names": ["a"], "classes": 1}}, "labels: classes: found 1, expected no such field"),
    ],
)
def test_a_wrong_value_of_a_dict_is_one_line_that_names_the_field(wrong: dict[str, Any], complaint: str) -> None:
    model: Any = random_model(SPECS["classification"])
    model.pretrained_cfg |= wrong
    for use in (Interface.of_network, prepare_inference, lambda model: save_model(model, Path("nowhere"))):
        with pytest.raises(SpecError, match=f"^tiny: pretrained_cfg: {complaint}") as caught:
            use(model)
        assert "\n" not in str(caught.value)
