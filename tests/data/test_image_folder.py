"""Images in folders and tar files, with a folder per class."""

import io
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalenet_zoo.arch.labels import Labels, match_names
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.data.image_files import image_files, read_image, sample_photographs
from scalenet_zoo.data.loaders import evaluation_loader, training_loader
from scalenet_zoo.data.preparation import preprocessing
from scalenet_zoo.data.sources import open_data
from scalenet_zoo.data.streams import Stream
from scalenet_zoo.training.recipe import Recipe
from tests.helpers.data_files import (
    INTERFACE,
    examples_of,
    fitting_spec,
    picture,
    pixels,
    png,
    spoil,
    write_image_folder,
    write_tar,
)
from tests.helpers.shapes import SPECS


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
    spec = fitting_spec(packed)
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
