"""Segmentation of large pictures at their own resolution, in overlapping tiles of the network's input.

picture --tile_starts--> tiles --network--> logits --tile_weights--> blended, one band of rows at a time

Neighbouring tiles are blended in the middle of their overlap: over half of the overlap, the weight of one tile falls
along a cosine while the weight of the other rises. In the outer quarter of the overlap, a tile has no weight, since it
lacks the context beyond its edge.
Classes (an exported file's argmax) cannot be blended: each pixel has the class of the tile with the nearest centre.
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
"""The default overlap of neighbouring tiles, as a share of a tile's height and width."""


def doubt_resolution(spec: ArchSpec, tiles: bool) -> str | None:
    """Return a warning if a network does not see pictures as it did in training; None: it does, or this is not known.

    Args:
        spec: the spec of a segmentation network.
        tiles: whether pictures are shown in tiles at their own resolution, or whole, squeezed to the network's input.
    """
    own = learnt_own_resolution(spec)
    if own is None or own == tiles:
        return None
    if tiles:
        return (
            f"{spec.name} was trained on whole pictures, squeezed to its input: in tiles it does worse, and the"
            " borders of tiles may show; to train it for tiles, use --recipe tiles, or own_resolution: true in another"
        )
    return (
        f"{spec.name} was trained on parts of pictures at their own resolution: use --tile to show it pictures that way"
    )


def learnt_own_resolution(spec: ArchSpec) -> bool | None:
    """Tell whether a network was trained on crops at the pictures' own resolution; None: it is not known."""
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
    """Compute the class of each pixel of a picture, int32 (height, width).

    Args:
        inference: a segmentation network.
        picture: RGB, of any size.
        overlap: the least overlap of neighbouring tiles, as a share of a tile.
        batch_size: tiles per batch, if the network takes batches of this size.
        on_rows: called with the number of rows of the picture that are done.

    Raises:
        InputError: the network is for another task, or the overlap is out of range.
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
    """Yield a network's output for each pixel of a picture, in bands of rows from top to bottom.

    Only one row of tiles is in memory at a time.

    Args:
        inference: as for `segment`.
        picture: as for `segment`; if it is smaller than a tile, the rest of the tile has the mean colour.
        overlap: as for `segment`.
        batch_size: as for `segment`.

    Yields:
        The first row of a band, and its logits (classes, rows, width), or its classes (rows, width) if the network
        returns classes; float32.

    Raises:
        InputError: as for `segment`.
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
    """Compute the starts of the fewest tiles that cover an axis, evenly spread.

    Args:
        length: the length of the picture along the axis, in pixels; if it is less than a tile's, there is one tile.
        tile: the length of a tile along the axis, in pixels.
        overlap: the least overlap of neighbouring tiles, as a share of a tile.

    Raises:
        InputError: the overlap is less than 0, or is not less than 1.
    """
    if not 0 <= overlap < 1:
        raise InputError(f"overlap: found {overlap}, expected a share of a tile, at least 0 and below 1")
    rest = max(0, length - tile)
    steps = math.ceil(rest / max(1, tile - math.ceil(tile * overlap)))
    return [i * rest // steps for i in range(steps)] + [rest]


def tile_weights(length: int, tile: int, starts: Sequence[int], smooth: bool = True) -> list[np.ndarray]:
    """Compute the weights of each tile's pixels along an axis; at each pixel of the picture, all weights sum to 1.

    Args:
        length: the length of the picture along the axis, in pixels.
        tile: the length of a tile along the axis, in pixels.
        starts: the starts from `tile_starts`.
        smooth: whether to blend; False: each pixel belongs to one tile.

    Returns:
        One float32 array per tile, for its pixels within the picture.
    """
    centres = np.arange(length) + 0.5
    # Half the width of a blend, which leaves out a quarter of the smallest overlap at each end.
    half = min((before + tile - start for before, start in pairwise(starts)), default=0) / 4 if smooth else 0.0
    steps: list[np.ndarray] = [np.ones(length)]  # the total weight of a tile and all tiles after it
    for before, start in pairwise(starts):
        off = centres - (before + tile + start) / 2
        steps.append(0.5 - 0.5 * np.cos(np.pi * np.clip(off / (2 * half) + 0.5, 0, 1)) if half else 1.0 * (off > 0))
    steps.append(np.zeros(length))
    return [
        (step - after)[start : start + tile].astype(np.float32)
        for start, (step, after) in zip(starts, pairwise(steps), strict=True)
    ]


def _filled(inference: "Inference", picture: Image.Image) -> Image.Image:
    """Fill a picture that is smaller than a tile with the mean colour, to the right and below."""
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
    """Yield the network's output for each tile, given by its upper left corner."""
    size, step = inference.spec.input, inference.batch_size(batch_size)
    for start in range(0, len(corners), step):
        tiles = [picture.crop((x, y, x + size.width, y + size.height)) for x, y in corners[start : start + step]]
        yield from inference.run(torch.stack([torch.as_tensor(inference.transform(tile)) for tile in tiles]))
