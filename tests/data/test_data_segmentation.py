"""Masks: reading them as classes, and augmenting them together with their images."""

import json
import re
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from scalenet_zoo import create_model
from scalenet_zoo.core.bounds import PICTURE_PIXELS, TILED_PICTURE_PIXELS
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.data.examples import IGNORE, Examples, Part
from scalenet_zoo.data.image_files import read_image, turn
from scalenet_zoo.data.loaders import evaluation_loader, seeded, training_loader
from scalenet_zoo.data.preparation import preprocessing
from scalenet_zoo.data.segmentation import Masks, in_tiles, mask_augmentation
from scalenet_zoo.data.sources import open_data
from scalenet_zoo.inference.evaluate import evaluate_network
from scalenet_zoo.training.losses import pixel_loss
from scalenet_zoo.training.recipe import Recipe
from tests.helpers.data_files import COLOURS, INTERFACE, blobs, write_masks
from tests.helpers.shapes import SPECS

SPEC = SPECS["segmentation"].replace(height=60, width=80)
STILL = Recipe(hflip=0.0, resize=(1.0, 1.0))


def masks(root: Path, **kwargs: Any) -> Masks:
    examples = open_data(f"masks:{root}", "segmentation", "val", **kwargs)
    assert isinstance(examples, Masks)
    return examples


def pixels(image: Tensor) -> Tensor:
    """A normalised image (3, h, w) as values from 0 to 255."""
    mean, std = (torch.tensor(getattr(INTERFACE, name))[:, None, None] for name in ("mean", "std"))
    return (image * std + mean) * 255


def test_masks_are_read_as_classes(tmp_path: Path) -> None:
    examples = masks(write_masks(tmp_path), ignore_index=11)
    assert len(examples) == 3
    assert examples.labels.names == ("sky", "road", "car")
    assert examples.labels.colours == tuple(map(tuple, COLOURS[:3].tolist()))
    for index in range(3):
        image, mask = examples.read(index)
        expected = blobs(index, (30, 40))
        assert np.array_equal(np.asarray(image), COLOURS[expected])
        assert np.array_equal(mask, np.where(expected == 3, IGNORE, expected))
        assert mask.dtype == np.uint8
    assert examples.name(1) == str(tmp_path / "images" / "1.png")


def test_ignored_classes_have_no_number(tmp_path: Path) -> None:
    write_masks(tmp_path)
    rows = [
        {"index": i, "name": name, "color": [i, i, i]}
        for i, name in ((0, "other"), (11, "sign"), (2, "car"), (1, "road"))
    ]
    (tmp_path / "classes.json").write_text(json.dumps(rows))
    examples = masks(tmp_path, ignore_index=0)
    assert examples.labels.names == ("road", "car", "sign")
    assert examples.labels.colours == ((1, 1, 1), (2, 2, 2), (11, 11, 11))
    order = np.array([IGNORE, 0, 1, 2])
    assert all(np.array_equal(examples.read(i)[1], order[blobs(i, (30, 40))]) for i in range(3))


def test_without_names_values_are_classes(tmp_path: Path) -> None:
    write_masks(tmp_path)
    (tmp_path / "classes.json").unlink()
    examples = masks(tmp_path, ignore_index=11)
    assert not examples.labels.names
    assert set(np.unique(examples.read(0)[1]).tolist()) == {0, 1, 2, IGNORE}
    assert 11 in np.unique(masks(tmp_path).read(0)[1])


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ("{", "classes.json: is not valid JSON"),
        ("{}", "classes.json: found no list of objects, expected one object per class"),
        ("[]", "classes.json: found no classes that count"),
        ('[{"index": 256, "name": "sky"}]', "classes.json: 0.index: found 256, expected a number up to 255, each once"),
        ('[{"index": 0, "name": "a"}, {"index": 0, "name": "b"}]', "classes.json: 1.index: found 0, expected"),
        ('[{"name": "sky"}]', "classes.json: 0.index: found None"),
        ('[{"index": 0}]', r"classes.json: names.0: found None, expected a valid string"),
        ('[{"index": 0, "name": "sky", "ignore": "no"}]', "classes.json: 0.ignore: found 'no', expected true or false"),
        (
            '[{"index": 0, "name": "a"}, {"index": 1, "name": "a "}]',
            "classes.json: found 2 classes with the name 'a', expected each name once",
        ),
        (
            json.dumps([{"index": i, "name": str(i)} for i in range(256)]),
            "classes.json: found 256 classes that count, expected 1 to 255",
        ),
        (
            '[{"index": 0, "name": "sky", "colour": [1, 2, 300]}]',
            r"classes.json: colours.0.2: found 300, expected less than or equal to 255",
        ),
    ],
)
def test_bad_class_lists_are_named(rows: str, complaint: str, tmp_path: Path) -> None:
    write_masks(tmp_path)
    (tmp_path / "classes.json").write_text(rows)
    with pytest.raises(InputError, match=complaint) as caught:
        masks(tmp_path)
    assert "\n" not in str(caught.value)


def test_bad_masks_are_named(tmp_path: Path) -> None:
    examples = masks(write_masks(tmp_path, count=5))
    path = tmp_path / "masks"
    Image.new("RGB", (40, 30)).save(path / "0.png")
    Image.new("L", (40, 31)).save(path / "1.png")
    Image.new("L", (40, 30), 77).save(path / "2.png")
    (path / "3.png").unlink()
    (path / "4.png").write_text("no picture")
    for index, complaint in enumerate(
        (
            "0.png: found a mask of mode RGB, expected one number of 8 bits per pixel",
            r"1.png: found a mask of \(40, 31\) pixels, expected the image's \(40, 30\)",
            "2.png: found the value 77, expected those of classes.json",
            "3.png: found no such file, expected the mask of .*images.3.png",
            "4.png: cannot be read as a mask",
        )
    ):
        with pytest.raises(InputError, match=f"^{re.escape(str(path))}/{complaint}"):
            examples.read(index)


def test_bad_folders_are_named(tmp_path: Path) -> None:
    write_masks(tmp_path)
    with pytest.raises(InputError, match="found no split test, expected one of train, val"):
        open_data(str(tmp_path), "segmentation", "test")
    (tmp_path / "val.txt").write_text("0\nmissing\n")
    with pytest.raises(
        InputError, match=r"val.txt: found the name missing, expected an image of this name in .*images"
    ):
        masks(tmp_path)
    (tmp_path / "val.txt").write_text("\n")
    with pytest.raises(InputError, match=r"val.txt: found no names"):
        masks(tmp_path)
    (tmp_path / "images").rename(tmp_path / "pictures")
    with pytest.raises(InputError, match=r"images: found no such folder, expected one with images"):
        masks(tmp_path)


def test_where_everything_is_broken_the_first_reason_is_told(tmp_path: Path) -> None:
    examples = masks(write_masks(tmp_path, size=(60, 80)))
    for i in range(3):
        Image.new("RGB", (80, 60)).save(tmp_path / "masks" / f"{i}.png")
    complaint = r"^data: found no image that can be used: .*.png: found a mask of mode RGB, expected .* \(and 2 more\)$"
    with pytest.raises(InputError, match=complaint):
        next(iter(training_loader(examples, SPEC, INTERFACE, STILL, 3, 0)))
    model = create_model(SPEC, num_classes=3)
    with pytest.raises(InputError, match=complaint):
        evaluate_network(model, examples)
    with pytest.raises(
        InputError, match=r"^data: found 3 images that cannot be used, expected at most 2: .*0.png: found a m"
    ):
        evaluate_network(model, examples, broken_limit=2)


def test_images_in_tiles_may_be_larger(tmp_path: Path) -> None:
    examples = masks(write_masks(tmp_path))
    part = in_tiles(Part(examples, 2))
    assert (examples.most_pixels, part.whole.most_pixels) == (PICTURE_PIXELS, TILED_PICTURE_PIXELS)  # type: ignore[attr-defined]
    assert [part.read(i)[1].sum() for i in range(2)] == [examples.read(i)[1].sum() for i in (0, 1)]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("listed", "ignored", "classes"),
    [
        ([(0, None), (255, None)], None, {0: 0, 255: 1}),
        ([(0, None), (255, False)], None, {0: 0, 255: 1}),
        ([(0, None), (1, None), (255, True)], None, {0: 0, 1: 1, 255: IGNORE}),
        ([(0, None), (1, None)], None, {0: 0, 1: 1, 255: IGNORE}),
        ([(0, None), (1, None), (255, None)], 1, {0: 0, 1: IGNORE, 255: 1}),
        ([(0, None), (1, None), (255, None)], 255, {0: 0, 1: 1, 255: IGNORE}),
        (None, None, {0: 0, 1: 1, 254: 254, 255: IGNORE}),
        (None, 0, {0: IGNORE, 1: 1}),
    ],
)
def test_what_classes_json_says_wins_over_what_is_void_by_default(
    listed: list[tuple[int, bool | None]] | None,
    ignored: int | None,
    classes: dict[int, int],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_masks(tmp_path, count=1)
    (tmp_path / "classes.json").unlink()
    if listed:
        rows = [{"index": i, "name": f"v{i}"} | ({} if ignore is None else {"ignore": ignore}) for i, ignore in listed]
        (tmp_path / "classes.json").write_text("\ufeff" + json.dumps(rows), encoding="utf-8")
    values = np.resize(np.array(list(classes), np.uint8), (30, 40))
    Image.fromarray(values).save(tmp_path / "masks" / "0.png")
    _, mask = masks(tmp_path, ignore_index=ignored).read(0)
    assert np.array_equal(mask, np.vectorize(classes.get)(values))
    told = listed is not None and ignored is not None
    assert ("is ignored, because its value" in caplog.text) == told


def test_what_says_two_things_of_a_value_is_refused(tmp_path: Path) -> None:
    write_masks(tmp_path)
    with pytest.raises(
        InputError, match=r"classes.json: 1.ignore: found false for the value 1 \('road'\), and the ignore"
    ):
        masks(tmp_path, ignore_index=1)
    (tmp_path / "classes.json").unlink()
    Image.new("L", (40, 30), 255).save(tmp_path / "masks" / "0.png")
    with pytest.raises(InputError, match="0.png: found the value 255, expected classes below 255"):
        masks(tmp_path, ignore_index=0).read(0)


@pytest.mark.parametrize("listed", [True, False])
def test_one_class_alone_is_nothing_to_learn(listed: bool, tmp_path: Path) -> None:
    write_masks(tmp_path, size=(60, 80))
    rows = [{"index": 0, "name": "ground"}, {"index": 255, "name": "house"}]
    (tmp_path / "classes.json").write_text(json.dumps(rows))
    if not listed:
        (tmp_path / "classes.json").unlink()
    for i in range(3):
        Image.fromarray((255 * (blobs(i, (60, 80)) > 1)).astype(np.uint8)).save(tmp_path / "masks" / f"{i}.png")
    examples = masks(tmp_path)
    if listed:
        (batch,) = training_loader(examples, SPEC, INTERFACE, STILL, 3, 0)
        assert set(batch["target"].unique().tolist()) == {0, 1}
        return
    with pytest.raises(
        InputError, match="found pixels of the class 0 alone in 3 masks of val, expected two classes or"
    ):
        training_loader(examples, SPEC, INTERFACE, STILL, 3, 0)
    assert len(evaluation_loader(examples, preprocessing(SPEC, INTERFACE), SPEC, 3, 0)) == 1


# --- names ----------------------------------------------------------------------------------------


def write_named(root: Path, images: Sequence[str], masks: Sequence[str], names: str) -> Path:
    """The colour of an image and the value of its mask show its place in the list."""
    for folder, files in (("images", images), ("masks", masks)):
        for number, name in enumerate(files):
            path = root / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if Path(name).suffix.lower() in (".png", ".jpg", ".tif"):
                mode, colour = ("RGB", (60 * number,) * 3) if folder == "images" else ("L", number)
                Image.new(mode, (8, 6), colour).save(path)
            else:
                path.write_text("no picture")
    (root / "val.txt").write_bytes(names.encode())
    return root


@pytest.mark.parametrize(
    ("images", "masked", "names", "found"),
    [
        (["a.png", "b.png"], ["a.png", "b.png"], "b\na\n", [1, 0]),
        (["a.png", "b.jpg"], ["a.png", "b.png"], "b.jpg\na.png", [1, 0]),
        (["a.png", "b.png"], ["a.png", "b.png"], "\ufeffa\r\n\r\nb \r\n", [0, 1]),
        (["x/a.png", "y/a.png"], ["x/a.png", "y/a.png"], "y/a\nx/a.png\n", [1, 0]),
        (["x/a.png", "y/a.png"], ["x/a.png", "y/a.png"], "y\\a\n./x/a\n", [1, 0]),
        (["a.png", "b.v2.png"], ["a.PNG", "b.v2.tif"], "b.v2\na", [1, 0]),
        (["a.png", "b.png", "a.xml", "a.txt", "._a.png", "b.json"], ["a.png", "b.png", "a.txt"], "a\nb", [0, 1]),
        (["e\u0301.png"], ["\u00e9.png"], "\u00e9", [0]),
        (["a.png", "b.png"], ["a.png", "b.png"], "a\nb\na.png\n", [0, 1]),
    ],
    ids=["stems", "names", "Windows", "folders", "backslashes", "suffixes", "sidecars", "Unicode", "twice"],
)
def test_lists_name_images_as_people_write_them(
    images: list[str], masked: list[str], names: str, found: list[int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    examples = masks(write_named(tmp_path, images, masked, names))
    rows = [examples.read(index) for index in range(len(examples))]
    assert [round(image.getpixel((0, 0))[0] / 60) for image, _ in rows] == found  # type: ignore[index]
    assert [int(mask[0, 0]) for _, mask in rows] == found
    assert ("val.txt: found a more than once: each is used once" in caplog.text) == (
        found == [0, 1] and "a.png" in names
    )


@pytest.mark.parametrize(
    ("images", "masked", "names", "complaint"),
    [
        (["a.png", "a.jpg"], ["a.png"], "a", r"images: found a.jpg and a.png, expected one image per name"),
        (["a.png"], ["a.png", "a.tif"], "a", r"masks: found a.png and a.tif, expected one mask per name"),
        (
            ["a.png"],
            ["a.jpg"],
            "a",
            r"masks/a.png: found no such file, and no other mask, expected the mask of .*a.png",
        ),
        (["a.png"], ["a.png"], "../images/a", r"val.txt: found the name ../images/a, expected an image of this name"),
        (["a.png"], ["a.png"], "a\nb\nc", r"val.txt: found the name b \(and 1 more\), expected an image of this"),
        (["a.xml"], ["a.png"], "a", r"images: found no image files"),
    ],
    ids=["two images", "two masks", "lossy", "escape", "missing", "sidecars alone"],
)
def test_lists_that_do_not_fit_are_refused(
    images: list[str], masked: list[str], names: str, complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=complaint):
        masks(write_named(tmp_path, images, masked, names))


# --- orientation ----------------------------------------------------------------------------------


def save(array: np.ndarray, path: Path, orientation: int) -> None:
    """A file with the given stored pixels and an EXIF orientation."""
    exif = Image.Exif()
    if orientation > 1:
        exif[0x0112] = orientation
    Image.fromarray(array).save(path, exif=exif)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(
    ("size", "of_image", "of_mask", "stored"),
    [
        *(((30, 40), orientation, orientation, True) for orientation in range(1, 9)),
        *(((30, 40), orientation, 1, True) for orientation in range(5, 9)),
        *(((30, 40), orientation, 1, False) for orientation in range(5, 9)),
        ((30, 40), 1, 6, True),
        ((40, 40), 6, 1, None),
        ((40, 40), 1, 6, None),
        ((30, 40), 3, 1, None),
        ((30, 40), 2, 4, None),
        ((30, 40), 6, 8, None),
    ],
)
def test_masks_lie_over_images_that_are_turned(
    size: tuple[int, int], of_image: int, of_mask: int, stored: bool | None, suffix: str, tmp_path: Path
) -> None:
    """Stored: the mask belongs to the stored pixels, otherwise to the upright image; None: this is ambiguous."""
    write_masks(tmp_path, count=1, size=size)
    truth = blobs(0, size)
    (tmp_path / "images" / "0.png").unlink()
    save(COLOURS[truth], tmp_path / "images" / f"0.{suffix}", of_image)
    seen = np.asarray(turn(Image.fromarray(truth), of_image))
    values = (truth if stored is not False else seen).astype(np.uint8)
    save(np.where(values == 3, 11, values).astype(np.uint8), tmp_path / "masks" / "0.png", of_mask)
    examples = masks(tmp_path)
    if stored is None:
        with pytest.raises(
            InputError, match=f"0.{suffix}: found the EXIF orientation {of_image}, and {of_mask} in the"
        ):
            examples.read(0)
        return
    image, mask = examples.read(0)
    assert np.array_equal(mask, np.where(seen == 3, IGNORE, seen))
    assert np.array_equal(np.asarray(image), COLOURS[seen])
    assert image.size == read_image(examples.name(0)).size  # as `predict` shows it


def test_cityscapes_has_its_19_classes(tmp_path: Path) -> None:
    for kind, suffix, city in (("leftImg8bit", "leftImg8bit", "ulm"), ("gtFine", "gtFine_labelIds", "ulm")):
        folder = tmp_path / kind / "val" / city
        folder.mkdir(parents=True)
        for i in range(2):
            picture = Image.new("RGB", (35, 4), (i, i, i)) if kind == "leftImg8bit" else None
            ids = np.tile(np.array([*range(34), 255], np.uint8), (4, 1))  # 255: a licence plate, whose id is -1
            (picture or Image.fromarray(ids)).save(folder / f"ulm_00000{i}_000019_{suffix}.png")
    examples = open_data(f"cityscapes:{tmp_path}", "segmentation", "validation")
    assert isinstance(examples, Masks)
    assert len(examples.labels.names) == 19
    assert examples.labels.names[::6] == ("road", "traffic light", "rider", "bicycle")
    image, mask = examples.read(1)
    assert image.getpixel((0, 0)) == (1, 1, 1)
    assert set(mask[0].tolist()) == {*range(19), IGNORE}
    assert mask[0, [7, 8, 11, 26, 33]].tolist() == [0, 1, 2, 13, 18]
    assert mask[0, [0, 1, 9, 29, 34]].tolist() == [IGNORE] * 5
    with pytest.raises(InputError, match="cityscapes:.*: cannot be opened: Dataset not found or incomplete"):
        open_data(f"cityscapes:{tmp_path}", "segmentation", "train")


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    return masks(write_masks(tmp_path_factory.mktemp("masks"), size=(90, 100)), ignore_index=11)


@given(seed=st.integers(0, 1000), index=st.integers(0, 2), rotation=st.sampled_from([0.0, 40.0]))
def test_masks_move_with_their_images(examples: Examples, seed: int, index: int, rotation: float) -> None:
    """The colour of a pixel shows its class; they may differ only at edges between classes, which resizing blurs."""
    recipe = STILL.replace({"hflip": 0.5, "resize": (0.5, 2.0), "rotation": rotation, "train_size": (48, 64)})
    augment = mask_augmentation(SPEC, INTERFACE, recipe)
    with seeded(seed):
        image, mask = augment(*examples.read(index))  # type: ignore[arg-type]
    assert image.shape == (3, 48, 64)
    assert mask.shape == (48, 64)
    assert (image.dtype, mask.dtype) == (torch.float32, torch.int64)
    distances = (
        (pixels(image) - torch.tensor(COLOURS.T[..., None, None], dtype=torch.float32).transpose(0, 1)).abs().amax(1)
    )
    void = distances.argmin(0) == 3
    mean = torch.tensor([round(255 * value) for value in INTERFACE.mean])[:, None, None]
    padded = (pixels(image) - mean).abs().amax(0) < 2
    clear = (distances.amin(0) < 8) | padded
    assert clear.float().mean() > 0.6
    seen = torch.where(void | padded, IGNORE, distances.argmin(0))
    assert (seen == mask)[clear].float().mean() > 0.98


def test_without_augmentation_training_shows_what_evaluation_shows(examples: Examples) -> None:
    image, mask = examples.read(0)
    shown, target = mask_augmentation(SPEC, INTERFACE, STILL)(image, mask)  # type: ignore[arg-type]
    assert torch.allclose(shown, preprocessing(SPEC, INTERFACE)(image), atol=1e-6)
    mirrored, turned = mask_augmentation(SPEC, INTERFACE, STILL.replace({"hflip": 1.0}))(image, mask)  # type: ignore[arg-type]
    assert torch.equal(mirrored.flip(2), shown)
    assert torch.equal(turned.flip(1), target)
    nearest = Image.fromarray(mask).resize((80, 60), Image.Resampling.NEAREST)  # type: ignore[arg-type]
    assert np.array_equal(target.numpy(), np.asarray(nearest))


def test_training_for_tiles_shows_images_at_their_own_resolution(examples: Examples) -> None:
    recipe = STILL.replace({"own_resolution": True, "train_size": (48, 64)})
    image, mask = examples.read(0)
    shown, target = mask_augmentation(SPEC, INTERFACE, recipe)(image, mask)  # type: ignore[arg-type]
    original = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
    places = [
        (top, left)
        for top in range(90 - 48 + 1)
        for left in range(100 - 64 + 1)
        if torch.allclose(pixels(shown), original[:, top : top + 48, left : left + 64], atol=1e-3)
        and np.array_equal(target, mask[top : top + 48, left : left + 64])  # type: ignore[index]
    ]
    assert places
    twofold = recipe.replace({"resize": (2.0, 2.0), "train_size": (180, 200)})
    twice, _ = mask_augmentation(SPEC, INTERFACE, twofold)(image, mask)  # type: ignore[arg-type]
    assert torch.allclose(
        pixels(twice),
        torch.from_numpy(np.array(image.resize((200, 180), Image.Resampling.BILINEAR))).permute(2, 0, 1).float(),
        atol=1e-3,
    )


def test_small_images_are_padded_with_void(examples: Examples) -> None:
    image, mask = examples.read(0)
    shown, target = mask_augmentation(SPEC, INTERFACE, STILL.replace({"resize": (0.5, 0.5)}))(image, mask)  # type: ignore[arg-type]
    assert (target != IGNORE).sum() <= 30 * 40
    rows, columns = torch.nonzero(target != IGNORE).unbind(1)
    inside = torch.zeros_like(target, dtype=torch.bool)
    inside[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    outside = torch.nn.functional.max_pool2d(inside[None].float(), 9, 1, 4)[0] == 0
    assert outside.float().mean() > 0.5
    assert shown[:, outside].abs().max() < 0.02  # the mean colour


def test_evaluation_keeps_masks_as_they_are(examples: Examples) -> None:
    for workers in (0, 2):
        (batch,) = evaluation_loader(examples, preprocessing(SPEC, INTERFACE), SPEC, 8, workers)
        assert batch["image"].shape == (3, 3, 60, 80)
        for index, target in enumerate(batch["target"]):
            assert target.dtype == torch.int64
            assert np.array_equal(target.numpy(), examples.read(index)[1])  # type: ignore[arg-type]


def test_masks_without_a_labelled_pixel(tmp_path: Path) -> None:
    """A single void mask does not matter; a split of them is refused before training or evaluation."""
    write_masks(tmp_path, size=(60, 80))
    for i in (0, 1):
        Image.new("L", (80, 60), 11).save(tmp_path / "masks" / f"{i}.png")
    some = masks(tmp_path)
    (batch,) = training_loader(some, SPEC, INTERFACE, STILL.replace({"ohem_threshold": 0.7}), 3, 0)
    void = (batch["target"] == IGNORE).flatten(1).all(1)
    assert void.tolist().count(True) == 2
    logits = torch.zeros(3, 3, 15, 20, requires_grad=True)
    for threshold in (None, 0.7):
        for chosen in (void, ~void):
            loss = pixel_loss(logits[chosen], batch["target"][chosen], threshold, 0.1)
            assert bool(loss.isfinite())
            assert bool(loss > 0) == bool((~chosen).equal(void))
    Image.new("L", (80, 60), 11).save(tmp_path / "masks" / "2.png")
    complaint = r"masks:.*: found no labelled pixel in 3 masks of val, expected some"
    with pytest.raises(InputError, match=complaint):
        training_loader(some, SPEC, INTERFACE, STILL, 3, 0)
    with pytest.raises(InputError, match=complaint):
        evaluation_loader(some, preprocessing(SPEC, INTERFACE), SPEC, 3, 0)
    (tmp_path / "masks" / "1.png").write_bytes(b"")
    with pytest.raises(InputError, match="found no labelled pixel in 2 masks of val"):  # the loader reports broken ones
        training_loader(some, SPEC, INTERFACE, STILL, 3, 0)


def test_training_batches(examples: Examples) -> None:
    (batch,) = training_loader(examples, SPEC, INTERFACE, Recipe(), 3, 0)
    assert batch["image"].shape == (3, 3, 60, 80)
    assert batch["target"].shape == (3, 60, 80)
    assert batch["target"].dtype == torch.int64
    assert batch["broken"] == []


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_masks_of_few_bits_hold_what_was_written(bits: int, tmp_path: Path) -> None:
    """Pillow scales grey values of 2 and 4 bits to 0 to 255."""
    root = write_masks(tmp_path, count=1, size=(8, 8))
    (root / "classes.json").unlink()
    values = np.arange(64, dtype=np.uint8).reshape(8, 8) % min(2**bits, 8)
    rows = b"".join(b"\0" + np.packbits(np.unpackbits(row[:, None], axis=1)[:, -bits:]).tobytes() for row in values)
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 8, 8, bits, 0, 0, 0, 0), b"IDAT": zlib.compress(rows), b"IEND": b""}
    png = b"".join(struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks.items())
    (root / "masks" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + png)
    assert np.array_equal(masks(root).read(0)[1], values)
