"""Images, and the decoding of predictions about them."""

import io
import json
import math
import os
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from scalenet_zoo import create_model, load_spec
from scalenet_zoo.arch.spec import Task
from scalenet_zoo.core.bounds import TILED_PICTURE_PIXELS
from scalenet_zoo.core.errors import InputError, WeightsError
from scalenet_zoo.data.crops import PADDING, crop_person
from scalenet_zoo.data.image_files import image_files, read_image, read_oriented, sample_photographs, turn, unturn
from scalenet_zoo.data.preparation import normalisation, preprocessing
from scalenet_zoo.export.inputs import file_transform
from scalenet_zoo.export.metadata import Metadata, OnnxOptions
from scalenet_zoo.inference.predict import describe_output, row_text
from scalenet_zoo.zoo.interface import Interface
from scalenet_zoo.zoo.model_folder import save_model
from tests.helpers.shapes import SPECS


def test_photographs_are_real_and_differ() -> None:
    first, second = (np.asarray(read_image(path)) for path in sample_photographs())
    assert first.shape == second.shape == (427, 640, 3)
    assert first.std() > 30
    assert second.std() > 30
    assert np.abs(first.astype(int) - second.astype(int)).mean() > 30


@pytest.mark.parametrize("name", ["scalenet_s0", "efficientnet_b0", "efficientnet_b2"])
def test_classifiers_see_what_timm_shows_them(name: str) -> None:
    model: Any = create_model(name)
    spec, cfg = model.spec, model.pretrained_cfg
    picture = read_image(sample_photographs()[0])
    theirs = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=cfg))(picture)
    torch.testing.assert_close(preprocessing(spec, Interface.of_network(model))(picture), theirs, rtol=1e-5, atol=1e-5)


def test_dense_networks_see_the_whole_picture() -> None:
    spec = load_spec("hrnet_w18_pose")
    tensor = preprocessing(spec, Interface.of(spec))(Image.new("RGB", (640, 427), (255, 0, 0)))
    assert tensor.shape == (3, 256, 192)
    assert tensor[0].min() == tensor[0].max()
    assert tensor[0, 0, 0].item() == pytest.approx((1 - 0.485) / 0.229)


def test_grey_networks_see_grey() -> None:
    spec = load_spec("scalenet_s0").replace(channels=1, height=32, width=32)
    picture = read_image(sample_photographs()[0])
    tensor = preprocessing(spec, Interface.of(spec))(picture)
    assert tensor.shape == (1, 32, 32)
    with pytest.raises(InputError, match="takes 4 channels, expected 1 or 3"):
        preprocessing(spec.replace(channels=4), Interface.of(spec))


TURNED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
    9: lambda a: a,  # no orientation
}
"""The upright image for a file with each EXIF orientation."""


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", TURNED)
def test_photographs_are_turned_as_the_camera_was_held(tmp_path: Path, suffix: str, orientation: int) -> None:
    stored = np.kron(np.random.default_rng(0).integers(0, 256, (2, 3, 1)), np.ones((16, 16, 3))).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"jpg": {"quality": 100}, "webp": {"lossless": True}}.get(suffix, {})
    Image.fromarray(stored).save(tmp_path / f"turned.{suffix}", exif=exif, **options)  # type: ignore[arg-type]
    image, found = read_oriented(tmp_path / f"turned.{suffix}")
    assert found == (orientation if orientation < 9 else 1)
    seen = TURNED[orientation](stored)
    assert image.size == seen.shape[1::-1]
    assert np.abs(np.asarray(image).astype(int) - seen).max() <= 3
    assert np.array_equal(np.asarray(turn(Image.fromarray(stored), found)), seen)
    assert np.array_equal(np.asarray(unturn(Image.fromarray(np.ascontiguousarray(seen)), found)), stored)


@pytest.mark.parametrize(
    "content",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"%PDF-1.4",
        b"\xd7\xcd\xc6\x9a\0",
        b"SIMPLE  =  T",
    ],
    ids=["EPS", "PDF", "WMF", "FITS"],
)
def test_only_pictures_in_their_own_right_are_read(tmp_path: Path, content: bytes) -> None:
    """A file that another program (Ghostscript) would have to draw is refused, whatever its name."""
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=r"a.png: cannot be read as an image: its format is unknown"):
        read_image(tmp_path / "a.png")


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    for path, complaint in (
        (tmp_path / "a.png", "a.png: is not a regular file, expected one"),
        ("/dev/zero", "/dev/zero: is not a regular file, expected one"),
        (tmp_path / ("x" * 300 + ".png"), "x.png: cannot be read: File name too long"),
    ):
        with pytest.raises(InputError, match=complaint):
            read_image(path)


def large_png(width: int, height: int) -> io.BytesIO:
    """A file with a header that states the size, and nothing else."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return io.BytesIO(start + struct.pack(">I", 9) + b"IDAT" + bytes(9))


def test_pictures_have_so_many_pixels_more_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        InputError, match=r"a: found 20000 x 10000 = 200,000,000 pixels, expected at most 178,956,970, or 1,073,741,824"
    ):
        read_image(large_png(20000, 10000), "a")
    with pytest.raises(InputError, match=r"found 40000 x 30000 = 1,200,000,000 pixels, expected at most [\d,]*$"):
        read_image(large_png(40000, 30000), "a", TILED_PICTURE_PIXELS)
    monkeypatch.setattr("scalenet_zoo.data.image_files.available_memory", lambda: 10**9)
    with pytest.raises(InputError, match=r"200,000,000 pixels, which need 3.2 GB of memory in tiles, expected at"):
        read_image(large_png(20000, 10000), "a", TILED_PICTURE_PIXELS)


@pytest.mark.filterwarnings("error")
def test_pillows_own_limit_stays_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow warns above this number, and refuses twice as many
    with ThreadPoolExecutor(4) as pool:
        assert {image.size for image in pool.map(read_image, [tmp_path / "a.png"] * 40)} == {(40, 30)}
    with pytest.raises(InputError, match="cannot be read as an image: broken data"):
        read_image(large_png(9, 9), "a")
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_images_of_folders_by_their_names(tmp_path: Path) -> None:
    shown = ["a.png", "B.JPG", "far/c.webp", "far/d.bmp", "e.tif"]
    hidden = [".f.png", "._a.png", ".ipynb_checkpoints/a.png", "__MACOSX/a.png", "g.xml", "h.eps", "png", "far/.png"]
    for name in (*shown, *hidden):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / "i.png")
    (tmp_path / "far" / "back").symlink_to(tmp_path)
    (tmp_path / "j.png").mkdir()
    assert image_files(tmp_path) == sorted(tmp_path / name for name in shown)


@pytest.mark.parametrize("task", SPECS)
def test_images_are_prepared_as_the_saved_configuration_says(tmp_path: Path, task: Task) -> None:
    """Readers of a model folder's JSON need only NumPy and Pillow."""
    spec = SPECS[task].replace(height=48, width=48)
    model = create_model(spec)
    save_model(model, tmp_path)
    cfg = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]
    picture = read_image(sample_photographs()[0])
    how = Image.Resampling[cfg["interpolation"].upper()]
    _, height, width = cfg["input_size"]
    if task == "classification":
        share = height / cfg["crop_pct"]
        scale = math.floor(share) / min(picture.size)
        resized = picture.resize((int(picture.width * scale), int(picture.height * scale)), how)
        left, top = round((resized.width - width) / 2), round((resized.height - height) / 2)
        shown = resized.crop((left, top, left + width, top + height))
    else:
        assert cfg["crop_pct"] == 1
        shown = picture.resize((width, height), how)
    expected = (np.asarray(shown) / 255 - cfg["mean"]) / cfg["std"]
    found = preprocessing(spec, Interface.of_network(model))(picture)
    np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), expected, atol=1e-5)
    options = OnnxOptions(preprocess=True)
    bytes_shown = file_transform(Metadata(spec, Interface.of_timm(cfg, spec), options))(picture)
    np.testing.assert_array_equal(bytes_shown, np.asarray(shown))


def test_crops_of_persons_are_bilinear_as_configurations_say() -> None:
    picture = read_image(sample_photographs()[0]).crop((0, 0, 32, 32))
    side = 2 * 32 * PADDING  # each pixel becomes 2 x 2
    crop, _ = crop_person(picture, (0, 0, 32, 32), (round(side), round(side)))
    margin = round((side - 64) / 2)
    inner = np.asarray(crop)[margin + 2 : margin + 62, margin + 2 : margin + 62].astype(int)
    expected = np.asarray(picture.resize((64, 64), Image.Resampling.BILINEAR))[2:62, 2:62]
    assert np.abs(inner - expected).max() <= 2


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_pixels_of_more_than_8_bits_are_refused(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "deep.tif")
    with pytest.raises(InputError, match=f"deep.tif: found pixels of mode {mode}, expected 8 bits per channel"):
        read_image(tmp_path / "deep.tif")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_pixels_of_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "picture.png")
    assert read_image(tmp_path / "picture.png").mode == "RGB"


def test_bad_images_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    whole = sample_photographs()[0].read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    for name, complaint in (
        ("missing.jpg", "found no such file"),
        ("text.jpg", "cannot be read"),
        ("half.jpg", "truncated"),
    ):
        with pytest.raises(InputError, match=complaint) as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="is a directory, expected a file"):
        read_image(tmp_path)


def test_classes_are_ranked_with_their_names() -> None:
    logits = np.zeros(1000, np.float32)
    logits[[281, 7]] = 5.0, 4.0
    rows = describe_output(load_spec("scalenet_s0"), logits, top=2)
    assert [(row["class"], row["name"]) for row in rows] == [(281, "tabby"), (7, "cock")]
    assert rows[0]["probability"] == pytest.approx(np.exp(5) / (np.exp(5) + np.exp(4) + 998))
    assert row_text(rows[1]).startswith("class 7, cock, probability 0.0")
    unnamed = describe_output(load_spec("scalenet_s0").replace(classes=10), np.arange(10.0), top=1)
    assert unnamed == [{"class": 9, "probability": pytest.approx(np.exp(9) / np.exp(np.arange(10)).sum())}]


def test_features_and_broken_outputs() -> None:
    spec = load_spec("scalenet_s0")
    assert describe_output(spec.replace(classes=0), np.ones(1280)) == [
        {"features": 1280, "mean": 1.0, "deviation": 0.0}
    ]
    with pytest.raises(WeightsError, match="scalenet_s0: found outputs that are not finite"):
        describe_output(spec, np.full(1000, np.nan))


def test_segmentations_are_areas() -> None:
    logits = np.zeros((19, 4, 4), np.float32)
    logits[3, :, :3] = logits[5, :, 3] = 1.0
    rows = describe_output(load_spec("scalenas_s1"), logits)
    assert rows == [{"class": 3, "share": 0.75}, {"class": 5, "share": 0.25}]


def test_joints_are_peaks_moved_by_a_quarter_pixel() -> None:
    heatmaps = np.zeros((2, 8, 6), np.float32)
    heatmaps[0, 4, 3], heatmaps[0, 4, 4], heatmaps[0, 3, 3] = 1.0, 0.5, 0.2
    heatmaps[1, 0, 0] = 0.7  # at the border, where a neighbour is missing
    first, second = describe_output(load_spec("hrnet_w18_pose").replace(classes=2), heatmaps)
    assert first == {"joint": 0, "x": pytest.approx(3.75 / 6), "y": pytest.approx(4.25 / 8), "score": 1.0}
    assert second == {"joint": 1, "x": pytest.approx(0.5 / 6), "y": pytest.approx(0.5 / 8), "score": pytest.approx(0.7)}


@pytest.mark.parametrize("mean", [(0.2,), (0.1, 0.2, 0.3)])
def test_grey_networks_see_the_mean_that_their_configuration_states(mean: tuple[float, ...]) -> None:
    spec = SPECS["classification"].replace(channels=1)
    (found,), (deviation,) = normalisation(spec, Interface(mean=mean, std=(0.5,) * len(mean)))
    assert (found, deviation) == pytest.approx((0.2, 0.5))
