"""Drawing of what a network finds on a picture: a label, or classes of pixels or joints with a legend."""

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
"""The least score of a joint that is drawn by default."""
LARGEST_LEGEND = 30
"""The largest number of entries that a legend lists."""
LEAST_LABELLED = 160
"""The least length, in pixels, of the longer side of a picture with a label."""
_NOT_DRAWN: Colour = (255, 255, 255)


def draw(
    inference: "Inference", picture: Image.Image, decision: np.ndarray, threshold: float | None = None
) -> Image.Image:
    """Draw what `predict` finds in a picture.

    Args:
        inference: the network, whose labels name classes and joints.
        picture: RGB.
        decision: the network's decision for the picture, in the form that `predict_pictures` returns.
        threshold: the least score of a joint that is drawn; None: `MIN_SCORE`.

    Returns:
        A new picture. A legend makes it wider than the given one, and may make it higher.
    """
    labels, classes, task = inference.labels, inference.spec.classes, inference.spec.task
    if task == "classification":
        best = int(decision.argmax())
        name = inference.names[best] if inference.names else f"class {best}"
        return draw_label(picture, name, float(decision[best]))
    if task == "segmentation":
        names = inference.names or [f"class {i}" for i in range(classes)]
        return draw_classes(picture, decision, names, labels.colours)
    names = inference.names or [f"joint {i}" for i in range(classes)]
    least = MIN_SCORE if threshold is None else threshold
    return draw_joints(picture, decision, names, labels.skeleton, labels.colours, least)


def draw_label(picture: Image.Image, name: str, probability: float) -> Image.Image:
    """Draw the name of a class and its probability on a picture, in white on a black band along its top.

    A picture that is too small to carry a readable label is enlarged first, without smoothing.

    Args:
        picture: RGB.
        name: the name of the class; if it is too long for the picture, an ellipsis replaces its end.
        probability: the probability of the class, from 0 to 1.
    """
    shorter, longer = sorted(picture.size)
    if longer < LEAST_LABELLED:
        factor = -(-LEAST_LABELLED // longer)
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
        shorter *= factor
    font = _font(max(12, shorter // 20))
    margin = font.size // 2
    text, ending, room = printable(name), f" {probability:.1%}", picture.width - 2 * margin
    if font.getlength(text + ending) > room:
        while text and font.getlength(f"{text}\N{HORIZONTAL ELLIPSIS}{ending}") > room:
            text = text[:-1]
        text += "\N{HORIZONTAL ELLIPSIS}"
    drawn = picture.copy()
    pen = ImageDraw.Draw(drawn)
    height = int(font.size * 1.25) + margin
    pen.rectangle((0, 0, drawn.width, height), fill="black")
    pen.text((margin, height / 2), text + ending, fill="white", font=font, anchor="lm")
    return drawn


def palette(count: int) -> list[Colour]:
    """Return colours that are easy to tell apart: matplotlib's 60 qualitative ones, repeated if `count` is larger."""
    colours = [colour for name in ("tab20", "tab20b", "tab20c") for colour in matplotlib.colormaps[name].colors]  # type: ignore[attr-defined]
    red_green_blue = [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in colours]
    return [red_green_blue[i % len(red_green_blue)] for i in range(count)]


def draw_classes(
    picture: Image.Image, classes: np.ndarray, names: Sequence[str], colours: Sequence[Colour] = ()
) -> Image.Image:
    """Colour the pixels of a picture by class, and list the classes that occur and their shares in a legend.

    Args:
        picture: RGB.
        classes: the class of each pixel, (height, width).
        names: the names of all classes.
        colours: the colours of all classes; empty: `palette`.
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
    threshold: float = MIN_SCORE,
) -> Image.Image:
    """Draw joints with a score of `threshold` or more, and the skeleton between them.

    In the legend, joints that are not drawn are white. For a single person, the legend also gives the joints' scores.
    If there are several persons, each has its number above it.

    Args:
        picture: RGB.
        persons: (persons, joints, 3): x and y as shares of the picture's width and height, and the score.
        names: the names of the joints.
        skeleton: the pairs of joints to connect.
        colours: the colours of the joints; empty: `palette`.
        threshold: the least score of a joint that is drawn.
    """
    colours = colours or palette(len(names))
    drawn = picture.copy()
    pen = ImageDraw.Draw(drawn)
    radius = max(2, round(max(picture.size) / 120))
    font = _font(max(10, 4 * radius))
    for number, joints in enumerate(persons):
        places = [(x * picture.width - 0.5, y * picture.height - 0.5) for x, y, _ in joints.tolist()]
        seen = [score >= threshold for score in joints[:, 2].tolist()]
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
    shown = [bool((scores >= threshold).any()) for scores in persons[:, :, 2].T]
    texts = names if len(persons) != 1 else [f"{name} {s:.2f}" for name, s in zip(names, persons[0, :, 2], strict=True)]
    rows = zip(shown, colours, texts, strict=False)
    return _with_legend(drawn, [(colour if seen else _NOT_DRAWN, text) for seen, colour, text in rows])


def _with_legend(picture: Image.Image, legend: list[tuple[Colour, str]]) -> Image.Image:
    """Add a legend to the right of a picture, with one line for each colour and its text."""
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
    """Load the font that comes with matplotlib, which covers many scripts."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
