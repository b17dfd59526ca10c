"""Data sets of classification, and what all loaders have in common."""

import gc
import gzip
import io
import json
import pickle
import random
import tarfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image
from timm.data import create_transform
from torch import Tensor

from scalenet_zoo.arch.labels import Labels, match_names
from scalenet_zoo.arch.spec import ArchSpec, Task
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.data.broken import BrokenImages, LoadingError
from scalenet_zoo.data.examples import Examples
from scalenet_zoo.data.image_files import image_files, read_image, sample_photographs
from scalenet_zoo.data.loaders import TrainingSet, evaluation_loader, seeded, training_loader
from scalenet_zoo.data.preparation import preprocessing
from scalenet_zoo.data.sources import open_data
from scalenet_zoo.data.streams import Stream
from scalenet_zoo.inference.evaluate import evaluate_network
from scalenet_zoo.training.recipe import Recipe
from tests.helpers.data_files import (
    INTERFACE,
    picture,
    pixels,
    png,
    spoil,
    write_coco,
    write_image_folder,
    write_masks,
    write_shards,
    write_tar,
)
from tests.helpers.networks import random_model
from tests.helpers.shapes import SPECS

STRONG = Recipe(
    hflip=0.5, color_jitter=0.4, aa="rand-m9-mstd0.5", reprob=0.5, rotation=30.0, scale=(0.3, 1.0), broken_limit=3
)
FILES: dict[Task, Callable[[Path], Path]] = {
    "classification": write_image_folder,
    "segmentation": write_masks,
    "pose": write_coco,
}


def examples_of(task: Task, root: Path, split: str = "val", **kwargs: Any) -> Examples:
    found = open_data(str(FILES[task](root)), task, split, **kwargs)
    assert not isinstance(found, Stream)
    return found


def spec_of(examples: Examples, **kwargs: Any) -> ArchSpec:
    return SPECS[examples.task].replace(classes=len(examples.labels.names), **kwargs)


def tensors(batch: Any) -> list[Tensor]:
    """The tensors of a batch."""
    if isinstance(batch, dict):
        return [tensor for value in batch.values() for tensor in tensors(value)]
    return [batch] if isinstance(batch, Tensor) else []


def test_digits_are_divided_once_and_for_all() -> None:
    train, val = (open_data("digits", "classification", split) for split in ("train", "validation"))
    assert not isinstance(train, Stream)
    assert not isinstance(val, Stream)
    assert (len(train), len(val)) == (1437, 360)
    assert (train.split, val.split) == ("train", "val")
    assert val.labels.names == tuple("0123456789")
    counts = np.bincount([val.read(i)[1] for i in range(len(val))])  # type: ignore[arg-type]
    assert counts.min() >= 34
    assert not {image for image, _ in pixels(train)} & {image for image, _ in pixels(val)}
    image, _ = val.read(0)
    assert (image.size, image.mode) == ((8, 8), "RGB")
    again = open_data("digits", "classification", "val")
    assert not isinstance(again, Stream)
    assert pixels(again) == pixels(val)
    with pytest.raises(InputError, match="digits: found no split test, expected one of train, val$"):
        open_data("digits", "classification", "test")


def test_classes_are_those_of_training_even_if_a_split_lacks_one(tmp_path: Path) -> None:
    examples = examples_of("classification", tmp_path)
    assert examples.labels.names == ("cat", "dog", "eel")
    assert len(examples) == 8
    assert [target for _, target in pixels(examples)] == [0] * 4 + [1] * 4
    assert examples.name(5) == str(tmp_path / "val" / "dog" / "1.png")
    (tmp_path / "val" / "bat").mkdir()
    picture(0).save(tmp_path / "val" / "bat" / "0.png")
    with pytest.raises(InputError, match="val: found the class bat, expected those of .*train"):
        open_data(f"imagefolder:{tmp_path}", "classification", "val")
    with pytest.raises(InputError, match="found no split test, expected one of train, val$"):
        open_data(f"imagefolder:{tmp_path}", "classification", "test")
    (tmp_path / "test").mkdir()
    with pytest.raises(InputError, match="test: found no images, expected some in one folder per class"):
        open_data(f"imagefolder:{tmp_path}", "classification", "test")


def test_synsets_of_imagenet_become_words(tmp_path: Path) -> None:
    write_image_folder(tmp_path, ("n01440764", "n02102040", "n03888257"))
    assert open_data(str(tmp_path), "classification", "val").labels == Labels(
        names=("tench", "English springer", "parachute"), ids=("n01440764", "n02102040", "n03888257")
    )


@pytest.mark.parametrize(
    ("theirs", "numbers"),
    [
        (["dog", "cat"], [1, 0]),
        ([" DOG ", "Cat"], [1, 0]),
        (["cat", "Cat"], [0, None]),  # two classes; the network has one of them
        (["Polish", "polish"], [2, 3]),
        (["POLISH"], [None]),  # it may be either of two classes
        (["Cafe\u0301", "ant"], [4, None]),
    ],
)
def test_names_that_are_the_same(theirs: list[str], numbers: list[int | None]) -> None:
    assert match_names(["cat", "dog", "Polish", "polish", "Caf\u00e9"], theirs) == numbers


def tar_of_splits_with_its_name(folder: Path, root: Path) -> str:
    return str(write_tar(root / "all.tar", folder, "all/"))


def tar_for_each_split_with_its_name(folder: Path, root: Path) -> str:
    for split in ("train", "val"):
        write_tar(root / f"{split}.tar", folder / split, f"{split}/")
    return str(root)


def tar_of_splits(folder: Path, root: Path) -> str:
    return str(write_tar(root / "all.tar", folder, "pictures/"))


def tar_for_each_split(folder: Path, root: Path) -> str:
    for split in ("train", "val"):
        write_tar(root / f"{split}.tar", folder / split)
    return str(root)


def tar_for_each_class(folder: Path, root: Path) -> str:
    for path in folder.glob("*/*"):
        write_tar(root / path.parent.name / f"{path.name}.tar", path)
    return str(root)


def tar_of_tars(folder: Path, root: Path) -> str:
    tar_for_each_class(folder, root / "tars")
    return str(write_tar(root / "all.tar", root / "tars"))


@pytest.mark.parametrize("pack", [tar_of_splits, tar_for_each_split, tar_for_each_class, tar_of_tars])
@pytest.mark.parametrize("workers", [0, 2])
def test_tar_files_hold_what_folders_hold(pack: Any, workers: int, tmp_path: Path) -> None:
    folder = write_image_folder(tmp_path / "folder", ("cat", "dog"))
    tars = pack(folder, tmp_path / "packed")
    unpacked, packed = (open_data(f"imagefolder:{source}", "classification", "train") for source in (folder, tars))
    assert packed.labels == unpacked.labels
    assert not isinstance(packed, Stream)
    assert not isinstance(unpacked, Stream)
    assert sorted(pixels(packed)) == sorted(pixels(unpacked))
    spec = spec_of(packed)
    for loader in (
        training_loader(packed, spec, INTERFACE, Recipe(), 4, workers),
        evaluation_loader(packed, preprocessing(spec, INTERFACE), spec, 4, workers),
    ):
        assert [batch["broken"] for batch in loader] == [[], []]


def as_folder(folder: Path, root: Path) -> str:
    return str(folder)


PACKS = [as_folder, tar_of_splits, tar_for_each_split, tar_for_each_split_with_its_name]


@pytest.mark.parametrize("pack", [*PACKS, tar_for_each_class, tar_of_tars, tar_of_splits_with_its_name])
def test_numbers_are_those_of_the_training_split_in_every_container(pack: Any, tmp_path: Path) -> None:
    folder = write_image_folder(tmp_path / "folder", ("cat10", "cat9", "dog", "eel"), count=1)
    for path in (folder / "val" / "cat10").iterdir():
        path.unlink()
    (folder / "val" / "cat10").rmdir()
    examples = open_data(f"imagefolder:{pack(folder, tmp_path / 'packed')}", "classification", "val")
    assert not isinstance(examples, Stream)
    assert examples.labels.names == ("cat9", "cat10", "dog", "eel")
    assert sorted(target for _, target in pixels(examples)) == [0, 2]
    (folder / "val" / "ape").mkdir()
    picture(0).save(folder / "val" / "ape" / "0.png")
    with pytest.raises(InputError, match=r"val(\.tar)?: found the class ape, expected those of .*train"):
        open_data(f"imagefolder:{pack(folder, tmp_path / 'again')}", "classification", "val")


@pytest.mark.parametrize("pack", PACKS)
def test_what_is_an_image_and_what_a_class(pack: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = {
        "cat": ["a.PNG", "b.webp", "c.bmp", "d.tif", "e.tiff", "f.gif", "g.ppm", "h.jpeg", "i.jpg"],
        "dog": ["2020/x.png", "2020/deep/y.png", "z.png"],
        ".ipynb_checkpoints": ["x.png"],
        "__MACOSX": ["x.png"],
        "empty": [],
    }
    folder = tmp_path / "folder"
    for name, files in images.items():
        (folder / "train" / name).mkdir(parents=True)
        for file in files:
            path = folder / "train" / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(0).save(path)
    for junk in ("._a.png", "notes.txt", "Thumbs.db", ".x.png"):
        (folder / "train" / "cat" / junk).write_bytes(b"junk")
    examples = open_data(f"imagefolder:{pack(folder, tmp_path / 'packed')}", "classification", "train")
    assert not isinstance(examples, Stream)
    assert examples.labels.names == ("cat", "dog")
    assert [target for _, target in pixels(examples)] == [0] * 9 + [1] * 3
    assert "found images in nested folders (dog/2020): the outer folders are the classes" in caplog.text
    assert list(image_files(folder / "train" / "cat")) == [folder / "train" / "cat" / name for name in images["cat"]]


@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        (["cat/a.png", "b.png"], "found b.png outside of any class folder, expected one folder per class"),
        (["all/cat/a.png", "all/dog/a.png"], r"found one folder all with folders in it \(all/cat\), expected one per"),
        (["Caf\u00e9/a.png", "Cafe\u0301/a.png", "dog/a.png"], "both 'Cafe\u0301' and 'Caf\u00e9', expected one"),
        (["c\udcff/a.png", "dog/a.png"], r"found the folder 'c\\udcff', expected a name in UTF-8"),
        ([f"{'x' * 220}/a.png", "dog/a.png"], "names.*: .*200"),
        (["cat/a.txt"], "found no (images|split train), expected"),
    ],
    ids=["stray", "one folder", "one name twice", "not UTF-8", "long", "none"],
)  # fmt: skip
def test_folders_that_cannot_be_classes(pack: Any, files: list[str], complaint: str, tmp_path: Path) -> None:
    for file in files:
        path = tmp_path / "folder" / "train" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(picture(0)))
    with pytest.raises(InputError, match=complaint) as caught:
        open_data(f"imagefolder:{pack(tmp_path / 'folder', tmp_path / 'packed')}", "classification", "train")
    assert str(caught.value).isprintable()


def test_tar_files_in_a_split(tmp_path: Path) -> None:
    """A tar file with images is a class, numbered tar files are parts of one data set, all others are refused."""
    folder = write_image_folder(tmp_path / "folder", ("cat", "dog"), count=2)

    def opened(name: str, **tars: str) -> tuple[tuple[str, ...], list[int]]:
        for tar, inside in tars.items():
            write_tar(
                tmp_path / name / "train" / f"{tar}.tar", folder / "train" / inside.split(":")[0], inside.split(":")[1]
            )
        examples = open_data(f"imagefolder:{tmp_path / name}", "classification", "train")
        assert not isinstance(examples, Stream)
        return examples.labels.names, [target for _, target in pixels(examples)]

    assert opened("classes", cat="cat:", dog="dog:./") == (("cat", "dog"), [0, 0, 1, 1])
    assert opened("named", cat="cat:cat/", dog="dog:dog/") == (("cat", "dog"), [0, 0, 1, 1])
    assert opened("mixed", cat="cat:", dog="dog:dog/") == (("cat", "dog"), [0, 0, 1, 1])
    assert opened("parts", part0="cat:cat/", part1="dog:dog/") == (("cat", "dog"), [0, 0, 1, 1])
    with pytest.raises(InputError, match=r"found only the folder 2020 in cat.tar, expected images directly in"):
        opened("unclear", cat="cat:2020/", dog="dog:2020/")
    (tmp_path / "classes" / "train" / "cat").mkdir()
    picture(0).save(tmp_path / "classes" / "train" / "cat" / "0.png")
    with pytest.raises(InputError, match=r"train: found both 'cat' and 'cat.tar', expected one folder per class"):
        opened("classes")


def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    folder = write_image_folder(tmp_path / "folder", ("cat", "dog"), count=2)
    (folder / "train" / "cat" / "loop").symlink_to(folder / "train")
    (folder / "train" / "eel").symlink_to(folder / "val" / "cat")
    (folder / "train" / "dog" / "2.png").symlink_to(folder / "train" / "dog" / "1.png")
    (folder / "train" / "dog" / "3.png").symlink_to("nowhere.png")
    examples = open_data(f"imagefolder:{folder}", "classification", "train")
    assert not isinstance(examples, Stream)
    assert examples.labels.names == ("cat", "dog", "eel")
    assert [int(target) for target in examples.targets] == [0, 0, 1, 1, 1, 1, 2, 2]  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="dog/3.png: found no such file"):
        examples.read(5)


def test_links_in_tar_files_are_what_they_link_to(tmp_path: Path) -> None:
    folder = write_image_folder(tmp_path / "folder", ("cat", "dog"), count=1)
    (folder / "train" / "dog" / "1.png").hardlink_to(folder / "train" / "dog" / "0.png")
    (folder / "train" / "dog" / "2.png").symlink_to("0.png")
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        tar.add(folder, "all")
    unpacked, packed = (
        open_data(f"imagefolder:{source}", "classification", "train") for source in (folder, tmp_path / "all.tar")
    )
    assert not isinstance(packed, Stream)
    assert not isinstance(unpacked, Stream)
    assert len(packed) == 4
    assert pixels(packed) == pixels(unpacked)


def test_folders_without_splits_are_told_what_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image_folder(tmp_path / "home" / "pets", ("cat", "dog"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert open_data("imagefolder:~/pets", "classification", "val").labels.names == ("cat", "dog")
    assert open_data("~/pets", "classification", "val").labels.names == ("cat", "dog")
    look = "found cat, dog, which look like classes, expected train and val with class folders in them"
    source = f"imagefolder:{tmp_path}/home/pets"
    with pytest.raises(InputError, match=f"^{source}/train: {look}: use {source}$"):
        open_data(f"{source}/train", "classification", "train")
    (tmp_path / "home" / "pets" / "train").rename(tmp_path / "home" / "loose")
    with pytest.raises(InputError, match=f"{look}$"):
        open_data("~/loose", "classification", "val")


def test_one_class_alone_teaches_nothing(tmp_path: Path) -> None:
    write_image_folder(tmp_path, ("cat", "dog"))
    for path in (tmp_path / "train" / "dog").iterdir():
        path.unlink()
    (tmp_path / "val" / "cat").rename(tmp_path / "val" / "bat")
    for split, name in (("train", "cat"), ("val", "bat")):
        if split == "val":
            (tmp_path / "train").rename(tmp_path / "other")
        examples = open_data(str(tmp_path), "classification", split)
        with pytest.raises(InputError, match=f"split {split}: found images of the class '{name}' alone, expected two"):
            training_loader(examples, SPECS["classification"], INTERFACE, Recipe(), 2, 0)
    digits = open_data("digits", "classification", "train", limit=1)
    with pytest.raises(InputError, match="found images of the class '[0-9]' alone"):
        training_loader(digits, SPECS["classification"].replace(classes=10), INTERFACE, Recipe(), 1, 0)


def test_bad_tar_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.tar").write_text("no tar file")
    with pytest.raises(InputError, match=r"text.tar: cannot be read as a tar file with images"):
        open_data(f"imagefolder:{tmp_path / 'text.tar'}", "classification", "val")
    folder = write_image_folder(tmp_path / "folder")
    spoil(folder / "val" / "cat" / "0.png")
    examples = open_data(f"imagefolder:{tar_of_splits(folder, tmp_path)}", "classification", "val")
    assert not isinstance(examples, Stream)
    with pytest.raises(InputError, match=r"all.tar:pictures/val/cat/0.png: cannot be read as an image: [^<\n]+$"):
        examples.read(0)
    with pytest.raises(InputError, match=r"all.tar: found no split test, expected one of .*pictures.*train, val$"):
        open_data(examples.source, "classification", "test")


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


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 24 20\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset's
@pytest.mark.parametrize("kind", ["wds", "torch:image_folder"])
def test_no_library_runs_postscript(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow detects PostScript by content, not by name, and would run Ghostscript."""
    import webdataset

    ran: list[Any] = []
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", "gs")
    monkeypatch.setattr(EpsImagePlugin.subprocess, "check_call", lambda *_, **__: ran.append(1))  # type: ignore[attr-defined]
    contents = {"cat": POSTSCRIPT, "dog": png(picture(1)), "eel": png(picture(2))}
    with webdataset.TarWriter(str(tmp_path / "val-0.tar")) as tar:
        for number, (name, content) in enumerate(contents.items()):
            tar.write({"__key__": name, "png": content, "cls": str(number).encode()})
            (tmp_path / "val" / name).mkdir(parents=True)
            (tmp_path / "val" / name / "0.png").write_bytes(content)
    split = {"name": "val", "num_samples": 3, "filenames": ["val-0.tar"], "shard_lengths": [3]}
    (tmp_path / "_info.json").write_text(json.dumps({"splits": {"val": split}}))
    found = evaluate_network(
        random_model(SPECS["classification"]), open_data(f"{kind}:{tmp_path}", "classification", "val")
    )
    assert (found.images, ran, EpsImagePlugin.gs_binary) == (2, [], "gs")
    gc.collect()


def test_hugging_face_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    table = datasets.Dataset.from_dict(
        {"img": [png(picture(i)) for i in range(4)], "kind": [0, 1, 1, 0], "id": [*"abcd"]}
    )
    table = table.cast_column("img", datasets.Image()).cast_column("kind", datasets.ClassLabel(names=["cat", "dog"]))
    (tmp_path / "animals").mkdir()
    table.to_parquet(tmp_path / "animals" / "validation.parquet")
    examples = open_data(f"hfds:{tmp_path / 'animals'}", "classification", "val")
    assert not isinstance(examples, Stream)
    assert examples.labels.names == ("cat", "dog")
    assert pixels(examples) == [(picture(i).tobytes(), kind) for i, kind in enumerate((0, 1, 1, 0))]
    with pytest.raises(InputError, match="found no split train, expected one of validation"):
        open_data(f"hfds:{tmp_path / 'animals'}", "classification", "train")
    (tmp_path / "numbers").mkdir()
    datasets.Dataset.from_dict({"number": [1]}).to_parquet(tmp_path / "numbers" / "train.parquet")
    with pytest.raises(InputError, match=r"found 0 columns of images in \['number'\], expected one"):
        open_data(f"hfds:{tmp_path / 'numbers'}", "classification", "train")
    with pytest.raises(InputError, match="nowhere: cannot be loaded: [^\n]+$"):
        open_data(f"hfds:{tmp_path / 'nowhere'}", "classification", "train")


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


def test_data_sets_of_torchvision(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28)).astype(np.uint8)
    for name in ("train", "t10k"):  # the format: zeros, type, dimensions, sizes, values
        for kind, values in (("images-idx3", images), ("labels-idx1", np.arange(5, dtype=np.uint8))):
            header = np.array([0x0800 + values.ndim, *values.shape], ">u4").tobytes()
            (raw / f"{name}-{kind}-ubyte").write_bytes(header + values.tobytes())
            (raw / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + values.tobytes()))
    examples = open_data(f"torch:mnist:{tmp_path}", "classification", "val")
    assert not isinstance(examples, Stream)
    assert examples.labels.names[:2] == ("0 - zero", "1 - one")
    assert [target for _, target in pixels(examples)] == [0, 1, 2, 3, 4]
    image, _ = examples.read(2)
    assert np.array_equal(np.asarray(image), np.repeat(images[2][..., None], 3, axis=2))
    for source, complaint in (
        (f"torch:mnist:{tmp_path / 'nowhere'}", "cannot be opened: Dataset not found"),
        (f"torch:nothing:{tmp_path}", "cannot be opened: Unknown torchvision dataset nothing"),
    ):
        with pytest.raises(InputError, match=f"{source}: {complaint}"):
            open_data(source, "classification", "val")


@pytest.mark.parametrize(
    ("source", "task", "kwargs", "complaint"),
    [
        (
            "nowhere",
            "classification",
            {},
            "nowhere: found no such data for classification, expected a folder or digits or",
        ),
        ("digits:8", "classification", {}, "found no such data"),
        ("imagefolder:", "classification", {}, "found no such data"),
        ("torch:mnist", "classification", {}, "found no such data"),
        ("digits", "pose", {}, "digits: found no such data for pose, expected a folder or coco:PATH"),
        ("imagefolder:nowhere", "classification", {}, "nowhere: cannot be read as a folder: No such file"),
        ("digits", "classification", {"limit": 0}, "limit: found 0, expected a number of images, 1 or more"),
        ("digits", "classification", {"joints": Path("joints.yaml")}, "joints.yaml: found a file about joints"),
        (
            "masks:nowhere",
            "segmentation",
            {"ignore_index": 256},
            "ignore index: found 256, expected a number from 0 to",
        ),
        ("masks:nowhere", "segmentation", {}, "found no lists of names"),
        ("cityscapes:nowhere", "segmentation", {}, "cannot be opened: Dataset not found or incomplete"),
        ("coco:nowhere", "pose", {}, "found no split val, expected one of train, val, test: it is empty"),
    ],
)
def test_sources_that_cannot_be(source: str, task: Task, kwargs: Any, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        open_data(source, task, "val", **kwargs)
    assert "\n" not in str(caught.value)


def test_a_limit_takes_examples_of_every_class(tmp_path: Path) -> None:
    examples = examples_of("classification", tmp_path, "train", limit=3)
    assert [target for _, target in pixels(examples)] == [0, 1, 2]
    assert examples.name(2) == str(tmp_path / "train" / "eel" / "0.png")
    assert (examples.task, examples.split, examples.labels.names[2]) == ("classification", "train", "eel")
    many = open_data(str(tmp_path), "classification", "train", limit=1000)
    assert not isinstance(many, Stream)
    assert len(many) == 12


@given(seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 1000), index=st.integers(0, 2**40))
def test_randomness_is_a_function_of_seed_epoch_and_index(seed: int, epoch: int, index: int) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    with seeded(1, 2, 3):
        before = draw()
    with seeded(1, 2, 3):
        with seeded(seed, epoch, index):
            first = draw()
        assert draw() == before  # the outer random state is unchanged
        with seeded(seed, epoch, index):
            assert draw() == first
        for other in ((seed + 1, epoch, index), (seed, epoch + 1, index), (seed, epoch, index + 1)):
            with seeded(*other):
                assert draw() != first


@pytest.mark.parametrize("task", ["classification", "segmentation", "pose"])
def test_pictures_do_not_depend_on_workers(task: Task, tmp_path: Path) -> None:
    examples = examples_of(task, tmp_path)
    spec = spec_of(examples)

    def epochs(workers: int, recipe: Recipe = STRONG) -> Iterator[list[list[bytes]]]:
        loader = training_loader(examples, spec, INTERFACE, recipe, 1, workers)
        for epoch in (0, 1):
            loader.dataset.set_epoch(epoch)  # type: ignore[attr-defined]
            batches = list(loader)
            assert [list(batch) for batch in batches] == [["image", "target", "broken"]] * len(examples)
            yield sorted([tensor.numpy().tobytes() for tensor in tensors(batch)] for batch in batches)

    first, second = epochs(0)
    assert list(epochs(1)) == list(epochs(2)) == [first, second]
    assert first != second
    assert next(epochs(0, STRONG.replace({"seed": 1}))) != first


@pytest.mark.parametrize("task", ["classification", "segmentation", "pose"])
def test_workers_may_be_started_anew(task: Task, tmp_path: Path) -> None:
    """Without fork (Windows, macOS) the parts of a loader are pickled for its workers."""
    examples = examples_of(task, tmp_path)
    spec = spec_of(examples)
    for loader in (
        training_loader(examples, spec, INTERFACE, STRONG, 1, 0),
        evaluation_loader(examples, preprocessing(spec, INTERFACE), spec, 1, 0),
    ):
        dataset, collate = pickle.loads(pickle.dumps((loader.dataset, loader.collate_fn)))
        one, other = loader.collate_fn([loader.dataset[0]]), collate([dataset[0]])
        assert len(tensors(one)) in (1, 2, 3)
        assert all(map(torch.equal, tensors(one), tensors(other)))


def test_classifiers_see_what_timm_shows(tmp_path: Path) -> None:
    examples = examples_of("classification", tmp_path)
    spec = spec_of(examples)
    loader = training_loader(examples, spec, INTERFACE, STRONG, 4, 0)
    loader.dataset.set_epoch(7)  # type: ignore[attr-defined]
    transform = create_transform(
        (3, 32, 32),
        is_training=True,
        scale=STRONG.scale,
        ratio=STRONG.ratio,
        color_jitter=STRONG.color_jitter,
        auto_augment=STRONG.aa,
        re_prob=STRONG.reprob,
        re_mode="pixel",
        interpolation="bilinear",
        mean=INTERFACE.mean,
        std=INTERFACE.std,
    )
    for index in range(4):
        with seeded(STRONG.seed, 7, index):
            expected = transform(examples.read(index)[0])
        assert torch.equal(loader.dataset[index][0], expected)


@pytest.mark.parametrize("task", ["classification", "segmentation", "pose"])
def test_training_may_use_another_size_and_grey_networks(task: Task, tmp_path: Path) -> None:
    examples = examples_of(task, tmp_path)
    spec = spec_of(examples, channels=1)
    batch = next(iter(training_loader(examples, spec, INTERFACE, STRONG.replace({"train_size": (64, 96)}), 2, 0)))
    assert batch["image"].shape == (2, 1, 64, 96)
    assert abs(float(batch["image"].mean())) < 3
    shapes = [tuple(tensor.shape) for tensor in tensors(batch["target"])]
    assert (
        shapes
        == {
            "classification": [(2,)],
            "segmentation": [(2, 64, 96)],
            "pose": [(2, 4, 16, 24), (2, 4)],
        }[task]
    )
    whole = next(iter(evaluation_loader(examples, preprocessing(spec, INTERFACE), spec, 2, 0)))
    assert whole["image"].shape == (2, 1, spec.input.height, spec.input.width)


def test_plain_augmentation_shows_a_classifier_the_image_itself(tmp_path: Path) -> None:
    examples = examples_of("classification", tmp_path)
    spec = spec_of(examples)
    plain = Recipe(hflip=0.0, scale=(1.0, 1.0), ratio=(1.2, 1.2))  # the pictures' own shape
    for channels in (1, 3):
        seen = spec.replace(channels=channels)
        loader = training_loader(examples, seen, INTERFACE, plain, 8, 0)
        squash = preprocessing(seen, INTERFACE)
        image = loader.dataset[0][0]
        expected = squash(examples.read(0)[0].resize((32, 32), Image.Resampling.BILINEAR))
        assert torch.allclose(image, expected, atol=0.03)


@pytest.mark.parametrize("world", [1, 2, 5])
def test_processes_share_images_without_overlap(world: int) -> None:
    examples = open_data("digits", "classification", "val", limit=23)
    assert not isinstance(examples, Stream)
    spec = spec_of(examples)
    shares = []
    for rank in range(world):
        loader = evaluation_loader(examples, np.array, spec, 3, 0, rank, world)
        batches = list(loader)
        assert all(batch["image"].dtype == torch.uint8 for batch in batches)
        shares.append(torch.cat([batch["target"] for batch in batches]).tolist())
    everything = [examples.read(i)[1] for i in range(23)]
    assert shares == [everything[rank::world] for rank in range(world)]


@pytest.mark.parametrize("task", ["classification", "segmentation", "pose"])
@pytest.mark.parametrize("workers", [0, 2])
def test_broken_images_are_named_and_replaced_or_left_out(task: Task, workers: int, tmp_path: Path) -> None:
    examples = examples_of(task, tmp_path)
    spec = spec_of(examples)
    spoil(examples.name(1))
    broken = BrokenImages(10)
    loader = training_loader(examples, spec, INTERFACE, STRONG, 1, workers)
    for _ in range(2):
        for batch in loader:
            assert len(batch["image"]) == 1
            broken.add(batch["broken"])
    files = {examples.name(i) for i in range(len(examples)) if examples.name(i) == examples.name(1)}
    assert len(broken) == 1  # each file once
    assert broken.names[0].startswith(f"{files.pop()}: cannot be read as an image: ")
    dataset = loader.dataset
    assert isinstance(dataset, TrainingSet)
    assert [len(dataset[i][2]) > 0 for i in range(len(examples))].count(True) in (1, 2)  # two persons are in one file

    batches = list(evaluation_loader(examples, preprocessing(spec, INTERFACE), spec, 1, workers))
    lost = [len(batch["image"]) == 0 for batch in batches]
    assert lost == [bool(batch["broken"]) for batch in batches]
    assert 1 <= sum(lost) <= 2
    assert all(len(batch["target"]) == len(batch["image"]) for batch in batches)
    whole = list(evaluation_loader(examples, preprocessing(spec, INTERFACE), spec, len(examples), workers))
    assert len(whole[0]["image"]) == len(whole[0]["target"]) == len(examples) - sum(lost)


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_broken_images_are_an_error_of_one_line(workers: int, tmp_path: Path) -> None:
    examples = examples_of("classification", tmp_path)
    for i in range(len(examples)):
        spoil(examples.name(i))
    loader = training_loader(examples, spec_of(examples), INTERFACE, STRONG, 1, workers)
    with pytest.raises(
        LoadingError, match=r"^data: found 4 images that cannot be used, expected at most 3: .*png: .* \(and 3 more\)$"
    ):
        next(iter(loader))
    broken = BrokenImages(1)
    broken.add(["a.jpg: is no image"])
    broken.add(["a.jpg: is no image"])
    with pytest.raises(
        InputError, match=r"^data: found 2 images that .*, expected at most 1: a.jpg: is no image \(and 1 more\)$"
    ):
        broken.add(["b.jpg: is missing"])


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.TAR", "a.zip", "a.txt"])
def test_files_that_are_no_tar_files_are_told_apart(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x" * 2000)
    with pytest.raises(
        InputError, match=rf"{name}: found a file, expected a folder, or an uncompressed tar file \(.tar\)"
    ):
        open_data(f"imagefolder:{tmp_path / name}", "classification", "val")


def test_images_without_folders_are_told_what_to_make(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "a.png")
    with pytest.raises(
        InputError, match=r"found images outside of class folders, expected class folders in .*/train and /val"
    ):
        open_data(f"imagefolder:{tmp_path}", "classification", "val")


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_classes_that_the_network_lacks_are_named(task: Task, tmp_path: Path) -> None:
    examples = examples_of(task, tmp_path)
    spec = SPECS[task].replace(classes=1)
    for loader in (
        training_loader(examples, spec, INTERFACE, STRONG, len(examples), 0),
        evaluation_loader(examples, preprocessing(spec, INTERFACE), spec, len(examples), 0),
    ):
        with pytest.raises(LoadingError, match="^[^\n]*png: found the class [12], expected a number from 0 to 0$"):
            list(loader)


def test_less_than_a_batch_is_an_error() -> None:
    examples = open_data("digits", "classification", "val", limit=3)
    with pytest.raises(InputError, match="digits: found 3 images of val, expected at least a batch of 4"):
        training_loader(examples, SPECS["classification"], INTERFACE, Recipe(), 4, 0)


@cache
def small_photograph(format_: str) -> bytes:
    file = io.BytesIO()
    read_image(sample_photographs()[1]).resize((20, 16)).save(file, format_)
    return file.getvalue()


@given(
    place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), format_=st.sampled_from(["PNG", "JPEG", "WEBP"])
)
def test_damaged_images_are_read_or_refused(place: float, byte: int, format_: str, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.getbasetemp() / f"damaged.{format_}"
    content = bytearray(small_photograph(format_))
    content[int(place * len(content))] = byte
    path.write_bytes(content)
    try:
        assert read_image(path).mode == "RGB"
    except InputError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017
