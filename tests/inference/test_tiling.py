"""Large pictures in tiles: where tiles lie, what they weigh, and that nothing of them is seen in the result."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from scalenet_zoo import create_model
from scalenet_zoo.core.errors import InputError, WeightsError
from scalenet_zoo.data.preparation import normalisation
from scalenet_zoo.export.metadata import OnnxOptions
from scalenet_zoo.export.onnx import export_onnx
from scalenet_zoo.export.onnx_network import OnnxNetwork
from scalenet_zoo.inference.evaluate import evaluate_network
from scalenet_zoo.inference.predict import predict_pictures
from scalenet_zoo.inference.prepare import Inference, prepare_inference
from scalenet_zoo.inference.tiling import (
    OVERLAP,
    doubt_resolution,
    learnt_own_resolution,
    run_tiles,
    segment,
    tile_starts,
    tile_weights,
)
from scalenet_zoo.training.recipe import Recipe
from scalenet_zoo.training.trainer import Options, train_network
from tests.helpers.networks import random_model, shallow
from tests.helpers.shapes import SPECS, Shapes

lengths = st.integers(1, 400)
tiles = st.integers(1, 96)
overlaps = st.floats(0, 0.9)
TILE = (32, 48)


def seeing(function: Any, tile: tuple[int, int] = TILE) -> Inference:
    """A network that computes what a test says, for tiles of (height, width) pixels."""
    inference = prepare_inference(random_model(SPECS["segmentation"].replace(height=tile[0], width=tile[1])))
    return replace(inference, run=function)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8))


def normalised(inference: Inference, picture: Image.Image) -> Tensor:
    """The whole picture as a network would see it."""
    mean, std = (torch.tensor(values)[:, None, None] for values in normalisation(inference.spec, inference.interface))
    return (torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255 - mean) / std


def whole(inference: Inference, picture: Image.Image, overlap: float = 0.25, batch_size: int = 8) -> Tensor:
    """All bands together."""
    bands = list(run_tiles(inference, picture, overlap, batch_size))
    assert [top for top, _ in bands] == np.cumsum([0, *(band.shape[-2] for _, band in bands)])[:-1].tolist()
    return torch.cat([band for _, band in bands], dim=-2)


@given(length=lengths, tile=tiles, overlap=overlaps)
def test_tiles_cover_the_picture_and_stay_within_it(length: int, tile: int, overlap: float) -> None:
    starts = tile_starts(length, tile, overlap)
    assert starts[0] == 0
    assert starts[-1] == max(0, length - tile)
    assert starts == sorted(set(starts))
    for before, start in pairwise(starts):
        assert before + tile - start >= min(overlap * tile, tile - 1)
    farthest = max(step for step in range(1, tile + 1) if step == 1 or tile - step >= overlap * tile)
    assert len(starts) == 1 or tile + (len(starts) - 2) * farthest < length  # fewer would not cover it


@given(length=lengths, tile=tiles, overlap=overlaps, smooth=st.booleans())
def test_weights_of_each_pixel_add_up_to_one(length: int, tile: int, overlap: float, smooth: bool) -> None:
    starts = tile_starts(length, tile, overlap)
    total = np.zeros(length)
    for start, weights in zip(starts, tile_weights(length, tile, starts, smooth), strict=True):
        assert len(weights) == min(tile, length)
        assert weights.min() >= 0
        assert smooth or set(weights.tolist()) <= {0.0, 1.0}
        total[start : start + tile] += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)


@given(length=st.integers(65, 400), overlap=st.floats(0.1, 0.5))
def test_the_border_of_a_tile_counts_nothing_unless_it_is_the_pictures(length: int, overlap: float) -> None:
    starts = tile_starts(length, 64, overlap)
    margin = int(overlap * 64 / 4)
    weights = tile_weights(length, 64, starts)
    for one in weights[1:]:
        assert (one[:margin] == 0).all()
    for one in weights[:-1]:
        assert (one[64 - margin :] == 0).all()
    assert weights[0][0] == weights[-1][-1] == 1
    jumps = np.abs(np.diff(np.stack([weights[0], weights[-1]]))).max()
    assert jumps < np.pi / (0.9 * overlap * 64)  # of a cosine over half the overlap: no seam


@settings(max_examples=40)
@given(width=st.integers(1, 200), height=st.integers(1, 150), overlap=st.floats(0, 0.7), batch_size=st.integers(1, 9))
def test_a_function_of_each_pixel_has_the_untiled_result(
    width: int, height: int, overlap: float, batch_size: int
) -> None:
    mixing = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    inference = seeing(lambda images: torch.einsum("cd,ndhw->nchw", mixing, images))
    picture = noise(width, height, seed=width)
    found = whole(inference, picture, overlap, batch_size)
    expected = torch.einsum("cd,dhw->chw", mixing, normalised(inference, picture))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    if not (found.topk(2, 0).values.diff(dim=0).abs() < 1e-4).any():
        assert np.array_equal(segment(inference, picture, overlap), expected.argmax(0).numpy())


@pytest.mark.parametrize(("width", "height"), [(131, 97), (48, 100), (200, 20)])
def test_convolutions_that_see_less_than_the_border_leave_no_seam(width: int, height: int) -> None:
    """Tiles overlap by 12 rows and 18 columns at least, so 3 rows and 4 columns at their borders count nothing."""
    kernels = torch.randn(4, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    inference = seeing(lambda images: F.conv2d(images, kernels, padding=3))
    picture = noise(width, height)
    found = whole(inference, picture, overlap=0.375)
    expected = F.conv2d(normalised(inference, picture)[None], kernels, padding=3)[0]
    rows = (
        height if height >= TILE[0] else height - 3
    )  # below a small picture is the mean colour, which is 0 but nearly
    torch.testing.assert_close(found[:, :rows], expected[:, :rows], atol=1e-4, rtol=1e-4)


def test_logits_at_a_quarter_of_the_resolution() -> None:
    """Where tiles begin at multiples of 4, means of blocks and what lies between them are the whole picture's."""
    inference = seeing(lambda images: F.avg_pool2d(images, 4))
    picture = noise(48 + 2 * 36, 32 + 24)
    found = whole(inference, picture)
    pooled = F.avg_pool2d(normalised(inference, picture)[None], 4)
    expected = F.interpolate(pooled, found.shape[1:], mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_classes_are_those_of_the_tile_whose_middle_is_nearest() -> None:
    """A network that gives tiles numbers, in the order in which it sees them."""
    seen: list[int] = []

    def numbers(images: Tensor) -> Tensor:
        first = len(seen)
        seen.extend(range(first, first + len(images)))
        return torch.arange(first, first + len(images)).view(-1, 1, 1).expand(-1, 8, 12)

    inference = replace(seeing(numbers), form="argmax")
    width, height = 140, 75
    found = segment(inference, noise(width, height), 0.3)
    centres = [(y + 16, x + 24) for y in tile_starts(height, 32, 0.3) for x in tile_starts(width, 48, 0.3)]
    rows, columns = np.indices((height, width)) + 0.5
    distances = (
        np.stack([np.maximum(abs(rows - y), 0) for y, _ in centres]),
        np.stack([abs(columns - x) for _, x in centres]),
    )
    assert len(seen) == len(centres) > 6
    chosen = [np.take_along_axis(distance, found[None].astype(int), 0)[0] for distance in distances]
    for distance, own in zip(distances, chosen, strict=True):
        assert (own <= distance.min(0) + 1e-9).all()


def test_a_picture_of_the_networks_size_is_seen_whole() -> None:
    inference = prepare_inference(random_model(SPECS["segmentation"]))
    picture = noise(64, 64)
    assert np.array_equal(segment(inference, picture), predict_pictures(inference, [picture])[0])


@pytest.mark.parametrize(
    "options",
    [
        OnnxOptions(batch=(2, 4, 4), preprocess=True),
        OnnxOptions(batch=(1, 1, 1), preprocess=True, output="argmax"),
    ],
    ids=["raw", "argmax"],
)
def test_a_file_segments_as_its_network(options: OnnxOptions, tmp_path: Path) -> None:
    model = random_model(shallow("hrnet_w18").replace(height=64, width=64))
    export_onnx(model, tmp_path / "x.onnx", options)
    picture = noise(150, 100).resize((75, 50)).resize((150, 100))
    ours, theirs = (
        segment(prepare_inference(opened), picture) for opened in (OnnxNetwork.load(tmp_path / "x.onnx"), model)
    )
    assert ours.shape == (100, 150)
    assert (ours == theirs).mean() > (0.7 if options.output == "argmax" else 0.999)


@pytest.mark.parametrize(
    ("training", "own"),
    [
        ({"recipe": {"own_resolution": True}}, True),
        ({"recipe": {"own_resolution": False}}, False),
        ({"recipe": {"epochs": 9}}, False),  # older than the field
        ({}, None),
        ("by hand", None),
        (None, None),
    ],
)
def test_what_a_network_was_trained_on_is_told(training: Any, own: bool | None) -> None:
    details = {} if training is None else {"training": training}
    spec = SPECS["segmentation"]
    spec = spec.model_copy(update={"provenance": spec.provenance.model_copy(update={"details": details})})
    assert learnt_own_resolution(spec) is own
    whole, tiled = (doubt_resolution(spec, tiles) for tiles in (False, True))
    assert (whole is not None) == (own is True)
    assert (tiled is not None) == (own is False)
    if tiled:
        assert tiled.startswith(
            "tiny_segmentation was trained on whole pictures, squeezed to its input: in tiles it does"
        )


def test_a_training_for_tiles_is_judged_in_tiles(tmp_path: Path) -> None:
    spec = SPECS["segmentation"].replace(height=32, width=32)
    recipe = Recipe(epochs=1, batch_size=4, own_resolution=True)
    shapes, other = Shapes("segmentation", 8), Shapes("segmentation", 4, "val")  # of 64 x 64 pixels
    trained = train_network(random_model(spec), recipe, shapes, other, tmp_path / "run", Options(workers=0, cpu=True))
    best: Any = create_model(str(tmp_path / "run" / "best"))
    assert (
        trained.best
        == evaluate_network(best, other, overlap=OVERLAP).metrics["miou"]
        != evaluate_network(best, other).metrics["miou"]
    )
    assert {result.data for result in best.spec.provenance.results} == {"shapes val, in tiles"}
    assert learnt_own_resolution(best.spec) is True


def test_rows_are_told() -> None:
    told: list[int] = []
    segment(seeing(lambda images: images[:, :2]), noise(60, 100), on_rows=told.append)
    assert told == sorted(told)
    assert told[-1] == 100
    assert len(told) > 2


def test_what_cannot_be_tiled() -> None:
    for overlap in (-0.1, 1.0, float("nan")):
        with pytest.raises(InputError, match="overlap: found .*, expected a share of a tile, at least 0 and below 1"):
            tile_starts(10, 4, overlap)
    with pytest.raises(InputError, match="tiny_pose: found a network for pose, expected segmentation"):
        segment(prepare_inference(random_model(SPECS["pose"])), noise(9, 9))
    with pytest.raises(WeightsError, match="found outputs that are not finite"):
        segment(seeing(lambda images: torch.full((len(images), 3, 8, 12), torch.nan)), noise(90, 90))
