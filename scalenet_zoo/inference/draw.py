"""Segmentations and joints drawn over pictures, with a legend beside them."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from scalenet_zoo.core.quoting import printable

if TYPE_CHECKING:
    from scalenet_zoo.inference.prepare import Inference

Colour = tuple[int, int, int]

MIN_SCORE = 0.2
"""Of the joints that are drawn."""
LARGEST_LEGEND = 30
"""Lines of a legend."""
_NOT_DRAWN: Colour = (255, 255, 255)


def draw(inference: "Inference", picture: Image.Image, decision: np.ndarray) -> Image.Image:
    """Draw what `predict` gives for a picture; the network's labels say how."""
    labels, classes = inference.labels, inference.spec.classes
    if inference.spec.task == "segmentation":
        names = inference.names or [f"class {i}" for i in range(classes)]
        return draw_classes(picture, decision, names, labels.colours)
    names = inference.names or [f"joint {i}" for i in range(classes)]
    return draw_joints(picture, decision, names, labels.skeleton, labels.colours)


def palette(count: int) -> list[Colour]:
    """So many colours, easy to tell apart: matplotlib's 60 qualitative ones, again and again."""
    colours = [colour for name in ("tab20", "tab20b", "tab20c") for colour in matplotlib.colormaps[name].colors]  # type: ignore[attr-defined]
    red_green_blue = [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in colours]
    return [red_green_blue[i % len(red_green_blue)] for i in range(count)]


def draw_classes(
    picture: Image.Image, classes: np.ndarray, names: Sequence[str], colours: Sequence[Colour] = ()
) -> Image.Image:
    """Colour the classes of a picture's pixels; the legend has those that occur with their shares, the largest first.

    Args:
        picture: RGB.
        classes: (height, width) of the picture.
        names: of all classes.
        colours: of all classes; none: `palette`.
    """
    colours = colours or palette(len(names))
    painted = Image.fromarray(np.array(colours, np.uint8)[classes])
    shares = np.bincount(classes.ravel(), minlength=len(names)) / classes.size
    largest = [int(i) for i in np.argsort(-shares, kind="stable") if shares[i] > 0]
    legend = [(colours[i], f"{names[i]} {shares[i]:.1%}") for i in largest]
    return _with_legend(Image.blend(picture, painted, 0.5), legend)


def draw_joints(
    picture: Image.Image,
    persons: np.ndarray,
    names: Sequence[str],
    skeleton: Sequence[tuple[int, int]] = (),
    colours: Sequence[Colour] = (),
) -> Image.Image:
    """Draw joints with a score of `MIN_SCORE` or more, and the skeleton between them.

    The legend has joints that are not drawn in white, and of a single person the scores; several persons have their
    numbers beside them.

    Args:
        picture: RGB.
        persons: (persons, joints, 3): x and y as shares of the picture's width and height, and the score.
        names: of the joints.
        skeleton: pairs of joints.
        colours: of the joints; none: `palette`.
    """
    colours = colours or palette(len(names))
    drawn = picture.copy()
    pen = ImageDraw.Draw(drawn)
    radius = max(2, round(max(picture.size) / 120))
    font = _font(max(10, 4 * radius))
    for number, joints in enumerate(persons):
        places = [(x * picture.width - 0.5, y * picture.height - 0.5) for x, y, _ in joints.tolist()]
        seen = [score >= MIN_SCORE for score in joints[:, 2].tolist()]
        for start, end in skeleton:
            if seen[start] and seen[end]:
                pen.line([places[start], places[end]], fill=colours[end], width=radius)
        for (x, y), visible, colour in zip(places, seen, colours, strict=False):
            if visible:
                box = (x - radius, y - radius, x + radius, y + radius)
                pen.ellipse(box, fill=colour, outline="white", width=max(1, radius // 3))
        if len(persons) > 1 and any(seen):
            x, y = min((place for place, visible in zip(places, seen, strict=True) if visible), key=lambda p: p[1])
            text = {"font": font, "anchor": "ms", "stroke_width": 1, "stroke_fill": "black"}
            pen.text((x, y - 2 * radius), str(number), fill="white", **text)  # type: ignore[arg-type]
    shown = [bool((scores >= MIN_SCORE).any()) for scores in persons[:, :, 2].T]
    texts = names if len(persons) != 1 else [f"{name} {s:.2f}" for name, s in zip(names, persons[0, :, 2], strict=True)]
    rows = zip(shown, colours, texts, strict=False)
    return _with_legend(drawn, [(colour if seen else _NOT_DRAWN, text) for seen, colour, text in rows])


def _with_legend(picture: Image.Image, legend: list[tuple[Colour, str]]) -> Image.Image:
    """The picture with lines of a colour and a text to the right of it."""
    left_out = len(legend) - LARGEST_LEGEND
    lines: list[tuple[Colour | None, str]] = [(colour, printable(text)) for colour, text in legend[:LARGEST_LEGEND]]
    if left_out > 0:
        lines.append((None, f"and {left_out} more"))
    size = max(12, round(picture.height / 40))
    font = _font(size)
    line, margin = round(1.4 * size), size // 2
    width = 3 * margin + size + max((round(font.getlength(text)) for _, text in lines), default=0)
    height = max(picture.height, len(lines) * line + 2 * margin)
    sheet = Image.new("RGB", (picture.width + width, height), "white")
    sheet.paste(picture)
    pen = ImageDraw.Draw(sheet)
    x = picture.width + margin
    for i, (colour, text) in enumerate(lines):
        y = margin + i * line
        if colour:
            pen.rectangle((x, y, x + size - 1, y + size - 1), fill=colour, outline="grey")
        pen.text((x + size + margin, y + size / 2), text, fill="black", font=font, anchor="lm")
    return sheet


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Matplotlib's own, which has most of the world's letters."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
