"""Drawings of digits, brought into the form of scikit-learn's digits: independent readers of these read them."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from scalenet_zoo.data.digits import open_digits
from scalenet_zoo.data.drawings import SIDE, frame_digit


def seven(size: tuple[int, int], thickness: float, ink: str, page: str, shift: float = 0.0) -> Image.Image:
    """Draw a 7 with two lines, 60% as high as the page's shorter side."""
    picture = Image.new("RGB", size, page)
    height = 0.6 * min(size)
    x, y = (size[0] - 0.7 * height) / 2 + shift * size[0], (size[1] - height) / 2 + shift * size[1]
    points = [(x, y), (x + 0.7 * height, y), (x + 0.25 * height, y + height)]
    width = max(1, round(thickness * min(size)))
    ImageDraw.Draw(picture).line(points, fill=ink, width=width, joint="curve")
    return picture


def drawings() -> Iterator[Image.Image]:
    for size in ((28, 28), (200, 200), (300, 500), (640, 480)):
        for thickness in (0.02, 0.06, 0.15):
            for ink, page in (("black", "white"), ("white", "black"), ("navy", "lightyellow")):
                for shift in (0.0, 0.1):
                    yield seven(size, thickness, ink, page, shift)


@pytest.fixture(scope="module")
def reader() -> LogisticRegression:
    """Reads the data set's own images, and has never seen a drawing."""
    digits = load_digits()
    return LogisticRegression(max_iter=300).fit(digits.data, digits.target)


def values(image: Image.Image) -> np.ndarray:
    """The 64 values of an image, from 0 to 16 as scikit-learn has them."""
    found: np.ndarray = np.asarray(image)[..., 0].astype(float).ravel() * 16 / 255
    return found


def test_sevens_of_all_sizes_strokes_and_colours_are_read_as_sevens(reader: LogisticRegression) -> None:
    drawn = list(drawings())
    found = reader.predict(np.stack([values(frame_digit(picture)) for picture in drawn]))
    assert (found == 7).mean() == 1, np.flatnonzero(found != 7)
    as_they_are = np.stack([values(picture.resize((SIDE, SIDE), Image.Resampling.BOX)) for picture in drawn])
    assert (reader.predict(as_they_are) == 7).mean() < 0.5  # without being framed, they are not read


def test_the_data_sets_own_images_stay_as_they_are() -> None:
    image, _ = open_digits("digits", "val").read(0)
    assert frame_digit(image) is image


def test_an_enlarged_image_of_the_data_set_keeps_its_class(reader: LogisticRegression) -> None:
    examples = open_digits("digits", "val")
    pairs = [examples.read(index) for index in range(0, len(examples), 6)]
    enlarged = [image.resize((80, 80), Image.Resampling.BICUBIC) for image, _ in pairs]
    framed = np.stack([values(frame_digit(picture)) for picture in enlarged])
    right = reader.predict(framed) == [target for _, target in pairs]
    assert right.mean() > 0.8


@given(
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    page=st.integers(0, 255),
    ink=st.integers(0, 255),
    box=st.tuples(*[st.floats(0, 1)] * 4),
)
@settings(max_examples=60, deadline=None)
def test_anything_gives_an_image_of_the_data_sets_form(
    width: int, height: int, page: int, ink: int, box: tuple[float, float, float, float]
) -> None:
    picture = Image.new("RGB", (width, height), (page,) * 3)
    x, y = sorted(box[:2]), sorted(box[2:])
    corners = (x[0] * width, y[0] * height, x[1] * width, y[1] * height)
    ImageDraw.Draw(picture).rectangle(corners, fill=(ink,) * 3)
    framed = frame_digit(picture)
    assert (framed.mode, framed.size) == ("RGB", (SIDE, SIDE))
    assert frame_digit(framed) is framed


def test_light_on_dark_and_dark_on_light_give_the_same() -> None:
    pair = [frame_digit(seven((120, 90), 0.05, *colours)) for colours in (("black", "white"), ("white", "black"))]
    assert pair[0].tobytes() == pair[1].tobytes()


def test_an_empty_page_is_black() -> None:
    assert frame_digit(Image.new("RGB", (50, 50), "white")).getcolors() == [(SIDE**2, (0, 0, 0))]
