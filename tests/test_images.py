"""Images and what predictions say about them."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from scalenet_zoo import create_model, load_spec
from scalenet_zoo.errors import InputError, WeightsError
from scalenet_zoo.images import preprocessing, read_image, sample_photographs
from scalenet_zoo.predict import describe, row_text
from scalenet_zoo.zoo import pretrained_cfg


def test_photographs_are_real_and_differ() -> None:
    first, second = (np.asarray(read_image(path)) for path in sample_photographs())
    assert first.shape == second.shape == (427, 640, 3)
    assert first.std() > 30
    assert second.std() > 30
    assert np.abs(first.astype(int) - second.astype(int)).mean() > 30


@pytest.mark.parametrize("name", ["scalenet_s0", "efficientnet_b0", "efficientnet_b2"])
def test_classifiers_see_what_timm_shows_them(name: str) -> None:
    spec, cfg = load_spec(name), create_model(name).pretrained_cfg
    picture = read_image(sample_photographs()[0])
    theirs = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=cfg))(picture)
    torch.testing.assert_close(preprocessing(spec, cfg)(picture), theirs, rtol=1e-5, atol=1e-5)  # type: ignore[arg-type]


def test_dense_networks_see_the_whole_picture() -> None:
    spec = load_spec("hrnet_w18_pose")
    tensor = preprocessing(spec, pretrained_cfg(spec))(Image.new("RGB", (640, 427), (255, 0, 0)))
    assert tensor.shape == (3, 256, 192)
    assert tensor[0].min() == tensor[0].max()
    assert tensor[0, 0, 0].item() == pytest.approx((1 - 0.485) / 0.229)


def test_grey_networks_see_grey() -> None:
    spec = load_spec("scalenet_s0").replace(channels=1, height=32, width=32)
    picture = read_image(sample_photographs()[0])
    tensor = preprocessing(spec, pretrained_cfg(spec))(picture)
    assert tensor.shape == (1, 32, 32)
    with pytest.raises(InputError, match="takes 4 channels, expected 1 or 3"):
        preprocessing(spec.replace(channels=4), pretrained_cfg(spec))


def test_photographs_are_turned_as_the_camera_was_held(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees to view
    Image.new("RGB", (20, 10)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").size == (10, 20)


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_pixels_of_more_than_8_bits_are_refused(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "deep.tif")
    with pytest.raises(InputError, match=f"deep.tif: found pixels of mode {mode}, expected 8 bits a channel"):
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
    with pytest.raises(InputError, match="cannot be read as an image"):
        read_image(tmp_path)


def test_classes_are_ranked_with_their_names() -> None:
    logits = np.zeros(1000, np.float32)
    logits[[281, 7]] = 5.0, 4.0
    rows = describe(load_spec("scalenet_s0"), logits, top=2)
    assert [(row["class"], row["name"]) for row in rows] == [(281, "tabby"), (7, "cock")]
    assert rows[0]["probability"] == pytest.approx(np.exp(5) / (np.exp(5) + np.exp(4) + 998))
    assert row_text(rows[1]).startswith("class 7, cock, probability 0.0")
    unnamed = describe(load_spec("scalenet_s0").replace(classes=10), np.arange(10.0), top=1)
    assert unnamed == [{"class": 9, "probability": pytest.approx(np.exp(9) / np.exp(np.arange(10)).sum())}]


def test_features_and_broken_outputs() -> None:
    spec = load_spec("scalenet_s0")
    assert describe(spec.replace(classes=0), np.ones(1280)) == [{"features": 1280, "mean": 1.0, "deviation": 0.0}]
    with pytest.raises(WeightsError, match="scalenet_s0: found outputs that are not finite"):
        describe(spec, np.full(1000, np.nan))


def test_segmentations_are_areas() -> None:
    logits = np.zeros((19, 4, 4), np.float32)
    logits[3, :, :3] = logits[5, :, 3] = 1.0
    rows = describe(load_spec("scalenas_s1"), logits)
    assert rows == [{"class": 3, "share": 0.75}, {"class": 5, "share": 0.25}]


def test_joints_are_peaks_moved_by_a_quarter_pixel() -> None:
    heatmaps = np.zeros((2, 8, 6), np.float32)
    heatmaps[0, 4, 3], heatmaps[0, 4, 4], heatmaps[0, 3, 3] = 1.0, 0.5, 0.2
    heatmaps[1, 0, 0] = 0.7  # at the border, where a neighbour is missing
    first, second = describe(load_spec("hrnet_w18_pose").replace(classes=2), heatmaps)
    assert first == {"joint": 0, "x": pytest.approx(3.75 / 6), "y": pytest.approx(4.25 / 8), "score": 1.0}
    assert second == {"joint": 1, "x": pytest.approx(0.5 / 6), "y": pytest.approx(0.5 / 8), "score": pytest.approx(0.7)}
