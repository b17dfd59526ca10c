"""Segmentation of large pictures at their own resolution, in overlapping tiles of the network's input.

picture --tile_starts--> tiles --network--> logits --tile_weights--> blended, a band of rows at a time

Neighbouring tiles meet in the middle of their overlap. There one's weight falls as the other's rises, along a cosine
over half of the overlap; the outer quarter of the overlap, where a tile lacks what lies beyond it, counts nothing.
Classes (an exported file's argmax) cannot be blended: each pixel has that of the tile whose middle is nearest.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.inference.decode import resize_output
from scalenet_zoo.inference.predict import BATCH, check_finite

if TYPE_CHECKING:
    from scalenet_zoo.inference.prepare import Inference

OVERLAP = 0.25
"""Of neighbouring tiles, as a share of a tile's height and width."""


def doubt_resolution(spec: ArchSpec, tiles: bool) -> str | None:
    """What to say where a network is shown pictures otherwise than its training showed them; None: it is not known.

    Args:
        spec: of a network for segmentation.
        tiles: pictures are shown in tiles, at their own resolution; else whole, squeezed to the network's input.
    """
    own = learnt_own_resolution(spec)
    if own is None or own == tiles:
        return None
    if tiles:
        return (
            f"{spec.name} was trained on whole pictures, squeezed to its input: in tiles it does worse, and their"
            " borders may show; a training for tiles: --recipe tiles, or own_resolution: true in another"
        )
    return f"{spec.name} was trained on parts of pictures at their own resolution: --tile shows it pictures so"


def learnt_own_resolution(spec: ArchSpec) -> bool | None:
    """Whether a network was trained on parts of pictures at their own resolution; None: it is not known."""
    training = spec.provenance.details.get("training")
    recipe = training.get("recipe") if isinstance(training, dict) else None
    return recipe.get("own_resolution") is True if isinstance(recipe, dict) else None


def segment(
    inference: "Inference",
    picture: Image.Image,
    overlap: float = OVERLAP,
    batch_size: int = BATCH,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> np.ndarray:
    """The class of each of a picture's own pixels, int32 (height, width).

    Args:
        inference: a network for segmentation.
        picture: RGB, of any size.
        overlap: of neighbouring tiles at least, as a share of a tile.
        batch_size: tiles at once, within what the network takes.
        on_rows: told how many of the picture's rows are done.

    Raises:
        InputError: the network is for another task, or the overlap is none.
        WeightsError: outputs are not finite.
    """
    classes = np.empty((picture.height, picture.width), np.int32)
    for top, output in run_tiles(inference, picture, overlap, batch_size):
        best, found = output.max(0) if output.ndim == 3 else (output, output)  # faster than argmax
        check_finite(inference.spec, bool(best.isfinite().all()))
        classes[top : top + len(found)] = found.cpu().numpy()
        on_rows(top + len(found))
    return classes


@torch.inference_mode()
def run_tiles(
    inference: "Inference", picture: Image.Image, overlap: float = OVERLAP, batch_size: int = BATCH
) -> Iterator[tuple[int, Tensor]]:
    """A network's output for each of a picture's own pixels, a band of rows at a time, from the top to the bottom.

    No more than a row of tiles is in memory at a time.

    Args:
        inference: as for `segment`.
        picture: as for `segment`; where it is smaller than a tile, the rest of the tile has the mean colour.
        overlap: as for `segment`.
        batch_size: as for `segment`.

    Yields:
        A band's first row, and its logits (classes, rows, width), or its classes (rows, width) where the network gives
        those; float32.

    Raises:
        InputError: as `segment`.
    """
    spec = inference.spec
    if spec.task != "segmentation":
        raise InputError(f"{spec.name}: found a network for {spec.task}, expected segmentation for pictures in tiles")
    size = spec.input.height, spec.input.width
    tops, lefts = tile_starts(picture.height, size[0], overlap), tile_starts(picture.width, size[1], overlap)
    smooth = inference.form == "raw"
    down, across = (
        [torch.from_numpy(weights).to(inference.device) for weights in tile_weights(length, tile, starts, smooth)]
        for length, tile, starts in ((picture.height, size[0], tops), (picture.width, size[1], lefts))
    )
    outputs = _outputs(inference, _filled(inference, picture), [(x, y) for y in tops for x in lefts], batch_size)
    band = torch.zeros(0)
    for top, end, rows in zip(tops, [*tops[1:], picture.height], down, strict=True):
        for left, columns in zip(lefts, across, strict=True):
            output = resize_output(next(outputs), size)[..., : len(rows), : len(columns)]
            if not band.numel():
                band = output.new_zeros(*output.shape[:-1], picture.width)
            band[..., left : left + len(columns)].addcmul_(output, rows[:, None] * columns)
        yield top, band[..., : end - top, :]
        band = torch.cat([band[..., end - top :, :], torch.zeros_like(band[..., : end - top, :])], dim=-2)


def tile_starts(length: int, tile: int, overlap: float) -> list[int]:
    """Where tiles begin along an axis: as few as cover it, evenly spread.

    Args:
        length: pixels of the picture; below a tile's there is one tile.
        tile: pixels of a tile.
        overlap: of neighbouring tiles at least, as a share of a tile.

    Raises:
        InputError: the overlap is not at least 0 and below 1.
    """
    if not 0 <= overlap < 1:
        raise InputError(f"overlap: found {overlap}, expected a share of a tile, at least 0 and below 1")
    rest = max(0, length - tile)
    steps = math.ceil(rest / max(1, tile - math.ceil(tile * overlap)))
    return [i * rest // steps for i in range(steps)] + [rest]


def tile_weights(length: int, tile: int, starts: Sequence[int], smooth: bool = True) -> list[np.ndarray]:
    """How much each tile counts for its pixels along an axis; at each of the picture's pixels the sum is 1.

    Args:
        length: pixels of the picture.
        tile: pixels of a tile.
        starts: of `tile_starts`.
        smooth: False: each pixel is of one tile.

    Returns:
        float32, one array a tile, of its pixels within the picture.
    """
    centres = np.arange(length) + 0.5
    # Half of a step's width: so much of the smallest overlap that a quarter of it stays out at each end.
    half = min((before + tile - start for before, start in pairwise(starts)), default=0) / 4 if smooth else 0.0
    steps: list[np.ndarray] = [np.ones(length)]  # each tile's share of a pixel and those of all after it
    for before, start in pairwise(starts):
        off = centres - (before + tile + start) / 2
        steps.append(0.5 - 0.5 * np.cos(np.pi * np.clip(off / (2 * half) + 0.5, 0, 1)) if half else 1.0 * (off > 0))
    steps.append(np.zeros(length))
    return [
        (step - after)[start : start + tile].astype(np.float32)
        for start, (step, after) in zip(starts, pairwise(steps), strict=True)
    ]


def _filled(inference: "Inference", picture: Image.Image) -> Image.Image:
    """The picture, with the mean colour to the right and below where it is smaller than a tile."""
    size = inference.spec.input
    if picture.width >= size.width and picture.height >= size.height:
        return picture
    red, green, blue = (round(255 * value) for value in inference.interface.mean)
    filled = Image.new("RGB", (max(picture.width, size.width), max(picture.height, size.height)), (red, green, blue))
    filled.paste(picture)
    return filled


def _outputs(
    inference: "Inference", picture: Image.Image, corners: Sequence[tuple[int, int]], batch_size: int
) -> Iterator[Tensor]:
    """The network's output for each tile, given by its left and upper corner."""
    size, step = inference.spec.input, inference.batch_size(batch_size)
    for start in range(0, len(corners), step):
        tiles = [picture.crop((x, y, x + size.width, y + size.height)) for x, y in corners[start : start + step]]
        yield from inference.run(torch.stack([torch.as_tensor(inference.transform(tile)) for tile in tiles]))
