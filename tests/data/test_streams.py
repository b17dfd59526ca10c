"""Streams: webdatasets and Hugging Face's iterable data sets."""

import gc
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from scalenet_zoo.core.errors import InputError
from scalenet_zoo.data.broken import LoadingError
from scalenet_zoo.data.loaders import evaluation_loader, training_loader
from scalenet_zoo.data.preparation import preprocessing
from scalenet_zoo.data.sources import open_data
from scalenet_zoo.data.streams import Stream
from scalenet_zoo.inference.evaluate import evaluate_network
from scalenet_zoo.training.recipe import Recipe
from tests.helpers.data_files import (
    INTERFACE,
    picture,
    png,
    write_shards,
)
from tests.helpers.networks import random_model
from tests.helpers.shapes import SPECS


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    pytest.importorskip("webdataset")
    return write_shards(tmp_path)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset's, where an epoch ends within a file
@pytest.mark.parametrize("workers", [0, 2])
def test_webdatasets_stream(shards: Path, workers: int) -> None:
    spec = SPECS["classification"]
    val = open_data(f"wds:{shards}", "classification", "val")
    assert isinstance(val, Stream)
    batches = list(evaluation_loader(val, preprocessing(spec, INTERFACE), spec, 4, workers))
    seen = torch.cat([batch["image"] for batch in batches])
    prepared = preprocessing(spec, INTERFACE)
    expected = torch.stack([prepared(picture(10 * shard + i)) for shard in range(2) for i in range(6)])
    assert sorted(map(float, seen.mean((1, 2, 3)))) == pytest.approx(sorted(map(float, expected.mean((1, 2, 3)))))
    assert sorted(torch.cat([batch["target"] for batch in batches]).tolist()) == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]

    train = open_data(f"wds:{shards}", "classification", "train")
    loader = training_loader(train, spec, INTERFACE, Recipe(), 3, workers)
    loader.dataset.set_epoch(1)  # type: ignore[attr-defined]
    batches = list(loader)
    assert len(batches) == len(loader) == 4
    assert all(batch["image"].shape == (3, 3, 32, 32) and not batch["broken"] for batch in batches)
    del loader
    gc.collect()


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_streams_keep_the_rules_of_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Classes are matched by name, other formats are read, pictures are turned, and skipped images are reported."""
    webdataset = pytest.importorskip("webdataset")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned
    turned, deep = io.BytesIO(), io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(turned, "JPEG", exif=exif)
    Image.new("I;16", (32, 32)).save(deep, "PNG")
    gradient = png(Image.linear_gradient("L"))
    images = [("jpeg", turned.getvalue(), 0), ("png", gradient, 1), ("bmp", b"junk", 1), ("png", deep.getvalue(), 0)]
    with webdataset.TarWriter(str(tmp_path / "val-0.tar")) as writer:
        for i, (kind, content, target) in enumerate(images):
            writer.write({"__key__": str(i), kind: content, "cls": str(target).encode()})
    split = {"name": "val", "num_samples": 4, "filenames": ["val-0.tar"], "shard_lengths": [4]}
    info: dict[str, Any] = {"splits": {"val": split}, "class_names": ["flat", "steep"]}

    def opened() -> Any:
        (tmp_path / "_info.json").write_text(json.dumps(info))
        return open_data(f"wds:{tmp_path}", "classification", "val")

    network: Any = random_model(SPECS["classification"], num_classes=3)
    network.pretrained_cfg["labels"] = {"names": ["steep", "other", "flat"]}

    def forward(images: Tensor) -> Tensor:
        """Steep pictures grow brighter from top to bottom, flat ones from left to right."""
        down, across = (images.mean(1).std(axis).mean(1) for axis in (1, 2))
        return torch.stack([down, torch.zeros(len(images)), across], dim=1)

    network.forward = forward
    found = evaluate_network(network, opened(), workers=0)
    assert (found.images, found.metrics["top1"]) == (2, 1.0)
    assert ["found pixels of mode I;16" in broken for broken in found.broken] == [True]
    assert "found 2 of the 4 images in its description: the others cannot be read" in caplog.text
    with pytest.raises(InputError, match="found 2 of the 4 images .*, expected at most 1 to be missing or broken"):
        evaluate_network(network, opened(), workers=0, broken_limit=1)
    for classes, names in (({"0": "steep", "1": "flat"}, ("steep", "flat")), ({"flat": 0, "a": 1}, ("flat", "a"))):
        info["class_names"] = classes
        assert opened().labels.names == names
    info["class_names"] = [1, 2]
    with pytest.raises(InputError, match=r"classes: found \[1, 2\] in _info.json, expected one name per number"):
        opened()
    del info["class_names"]
    spec = SPECS["classification"].replace(classes=1)
    for loader in (
        training_loader(opened(), spec, INTERFACE, Recipe(), 2, 0),
        evaluation_loader(opened(), preprocessing(spec, INTERFACE), spec, 2, 0),
    ):
        with pytest.raises(
            LoadingError, match="image 1 of its process: found the class 1, expected a number from 0 to 0$"
        ):
            list(loader)


BAD_DESCRIPTIONS: dict[str, tuple[Any, str]] = {
    "no object": ([], r"_info.json: splits: found \[\], expected splits by name"),
    "no splits": ({"splits": [1]}, r"_info.json: splits: found \[1\], expected splits by name"),
    "no fields": ({"splits": {"val": 3}}, "_info.json: splits.val: found 3, expected fields with values"),
    "a text for a number": (
        {"num_samples": "12"},
        "_info.json: splits.val: num_samples: found '12', expected a valid in",
    ),
    "a number for a name": (
        {"filenames": [3]},
        "_info.json: splits.val: filenames.0: found 3, expected a valid string",
    ),
    "no files": ({"filenames": []}, r"_info.json: splits.val: filenames: found \[\], expected at least 1 item"),
    "another file": ({"filenames": ["val-7.tar"]}, "val-7.tar: found no such file, expected a part of wds:"),
    "a name for no number": ({"class_names": "cat"}, "classes: found 'cat' in _info.json, expected one name per"),
    "one name for two": (
        {"class_names": {"a": 0, "b": 0}},
        r"classes: found \['b', None\] in _info.json, expected one name",
    ),
}


@pytest.mark.parametrize(("change", "complaint"), BAD_DESCRIPTIONS.values(), ids=BAD_DESCRIPTIONS)
def test_descriptions_of_webdatasets_are_checked(change: Any, complaint: str, tmp_path: Path) -> None:
    info: Any = json.loads((write_shards(tmp_path) / "_info.json").read_text())
    if isinstance(change, dict):
        whole = {key: change[key] for key in ("splits", "class_names") if key in change}
        info["splits"]["val"].update({} if whole else change)
        info.update(whole)
    (tmp_path / "_info.json").write_text(json.dumps(info if isinstance(change, dict) else change))
    with pytest.raises(InputError, match=complaint):
        open_data(f"wds:{tmp_path}", "classification", "val")


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset's, where an epoch ends within a file
def test_bad_webdatasets_are_named(shards: Path) -> None:
    path = shards / "_info.json"
    info = json.loads(path.read_text())
    assert open_data(f"wds:{shards}", "classification", "validation").split == "val"
    with pytest.raises(InputError, match="found no split test, expected one of train, val"):
        open_data(f"wds:{shards}", "classification", "test")
    with pytest.raises(InputError, match="found a limit, expected none"):
        open_data(f"wds:{shards}", "classification", "val", limit=2)
    path.write_text(json.dumps({**info, "class_names": ["cat", "dog"]}))
    network: Any = random_model(SPECS["classification"])
    network.pretrained_cfg["labels"] = {"names": ["cat", "dog", "eel"]}
    with pytest.raises(LoadingError, match="image 2 of its process: found the class 2, expected a number from 0 to 1"):
        evaluate_network(network, open_data(f"wds:{shards}", "classification", "val"))
    gc.collect()
    del info["splits"]["train"]["shard_lengths"]
    path.write_text(json.dumps(info))
    with pytest.raises(InputError, match=r"_info.json: splits.train: shard_lengths: is missing"):
        open_data(f"wds:{shards}", "classification", "train")
    path.unlink()
    with pytest.raises(InputError, match="found no _info.json, expected one that describes the splits"):
        open_data(f"wds:{shards}", "classification", "val")
    with pytest.raises(InputError, match=r"found no folder .*, expected one with tar files and _info.json"):
        open_data(f"wds:{shards}/nothing", "classification", "val")


def test_hugging_face_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    table = datasets.Dataset.from_dict({"image": [png(picture(i)) for i in range(8)], "label": [0, 1] * 4})
    (tmp_path / "animals").mkdir()
    table.to_parquet(tmp_path / "animals" / "train.parquet")
    with pytest.raises(InputError, match="hfids:.*: found no number of images for the split train in its desc"):
        open_data(f"hfids:{tmp_path / 'animals'}", "classification", "train")
    label = {"name": "label", "dtype": {"class_label": {"names": {"0": "cat", "1": "dog"}}}}
    info = {
        "features": [{"name": "image", "dtype": "image"}, label],
        "splits": [{"name": "train", "num_examples": 8, "num_bytes": 1}],
    }
    (tmp_path / "animals" / "README.md").write_text(f"---\n{yaml.safe_dump({'dataset_info': info})}---\n")
    stream = open_data(f"hfids:{tmp_path / 'animals'}", "classification", "train")
    assert stream.labels.names == ("cat", "dog")
    spec = SPECS["classification"]
    for loader in (
        training_loader(stream, spec, INTERFACE, Recipe(), 4, 0),
        evaluation_loader(stream, preprocessing(spec, INTERFACE), spec, 4, 0),
    ):
        targets = torch.cat([batch["target"] for batch in loader])
        assert sorted(targets.tolist()) == [0] * 4 + [1] * 4


def test_packages_that_are_not_here_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalenet_zoo.data.libraries.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"wds:/x: found no package webdataset, .* pip install 'scalenet-zoo\[data\]'"):
        open_data("wds:/x", "classification", "val")
