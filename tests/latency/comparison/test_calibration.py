"""Calibration images for int8: from the training split, spread evenly, as networks see them; never judged images."""

from pathlib import Path

import pytest

from scalenet_zoo.core.errors import InputError
from scalenet_zoo.data.image_files import read_image
from scalenet_zoo.data.sources import open_data
from scalenet_zoo.data.streams import Stream
from scalenet_zoo.latency.comparison.calibration import MOST_IMAGES, CalibrationImages
from tests.helpers.data_files import spoil, write_coco, write_image_folder, write_masks
from tests.helpers.shapes import SPECS

CLASSIFIER, SEGMENTATION, POSE = (SPECS[task] for task in ("classification", "segmentation", "pose"))


def test_images_are_spread_over_the_training_split(tmp_path: Path) -> None:
    judged, training = (open_data("digits", "classification", split) for split in ("val", "train"))
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    first, second = (CalibrationImages.of_training("digits", CLASSIFIER, judged, folder) for folder in folders)
    assert first.digest == second.digest
    written = sorted(folders[0].iterdir())
    assert len(written) == MOST_IMAGES
    assert not isinstance(training, Stream)
    for place in (0, 77, MOST_IMAGES - 1):
        expected, _ = training.read(place * len(training) // MOST_IMAGES)
        assert read_image(written[place]).tobytes() == expected.tobytes()


def test_persons_are_cropped_as_a_network_sees_them(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_coco(tmp_path / "data", split)
    (tmp_path / "images").mkdir()
    data = f"coco:{tmp_path / 'data'}"
    CalibrationImages.of_training(data, POSE, open_data(data, "pose", "val"), tmp_path / "images")
    sizes = [read_image(path).size for path in sorted((tmp_path / "images").iterdir())]
    assert sizes == [(POSE.input.width, POSE.input.height)] * 3


def test_what_is_judged_is_left_out(tmp_path: Path) -> None:
    root = write_masks(tmp_path / "data")  # the splits are the same three images
    (root / "train.txt").write_text("0\n1\n2")
    (root / "val.txt").write_text("1")
    (tmp_path / "images").mkdir()
    data = f"masks:{root}"
    CalibrationImages.of_training(data, SEGMENTATION, open_data(data, "segmentation", "val"), tmp_path / "images")
    assert [path.name for path in sorted((tmp_path / "images").iterdir())] == ["000.png", "002.png"]
    (root / "val.txt").write_text("0\n1\n2")
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="found no training split besides val of"):
        CalibrationImages.of_training(data, SEGMENTATION, open_data(data, "segmentation", "val"), tmp_path / "none")


def test_an_image_that_cannot_be_read_is_skipped(tmp_path: Path) -> None:
    root = write_image_folder(tmp_path / "data")
    spoil(root / "train" / "cat" / "0.png")
    (tmp_path / "images").mkdir()
    judged = open_data(str(root), "classification", "val")
    CalibrationImages.of_training(str(root), CLASSIFIER, judged, tmp_path / "images")
    assert len(list((tmp_path / "images").iterdir())) == 11


def test_a_folder_is_known_by_its_images(tmp_path: Path) -> None:
    root = write_image_folder(tmp_path / "data")
    judged = open_data(str(root), "classification", "val")
    before = CalibrationImages.of_folder(root / "train", judged)
    assert before == CalibrationImages.of_folder(root / "train", judged)
    (root / "train" / "cat" / "0.png").unlink()
    assert CalibrationImages.of_folder(root / "train", judged).digest != before.digest
    with pytest.raises(
        InputError, match=r"found 0\.png, which is in the split val of .*, expected only images outside that split"
    ):
        CalibrationImages.of_folder(root / "val", judged)
