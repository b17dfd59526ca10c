"""Persons that a detector found: files of boxes, their images, and COCO's metrics."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.data.crops import Box
from scalenet_zoo.data.detections import boxes_of_files, check_box, read_detections
from scalenet_zoo.data.examples import Crop, Person
from scalenet_zoo.data.pose import Persons
from scalenet_zoo.data.sources import open_data
from scalenet_zoo.inference import oks
from scalenet_zoo.inference.metrics import Pose
from tests.helpers.data_files import person, write_coco

UNIT = np.array([[1.0, 0, 0], [0, 1, 0]])
LABELS = Labels(names=("a", "b", "c", "d"), sigmas=(0.05, 0.06, 0.07, 0.08))


def box(image: int | str, x: float = 5, score: float = 0.9, **other: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": 1, "bbox": [x, 8, 20, 40], "score": score, **other}


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


# --- files of boxes -------------------------------------------------------------------------------


def test_boxes_belong_to_images_by_number_or_name(tmp_path: Path) -> None:
    boxes = [box(139, 1), box("far/b.jpg", 2), box("c", 3, 0.8), box("c.png", 4, 0.5), box("elsewhere/b.jpg", 9)]
    found = read_detections(write(tmp_path / "boxes.json", boxes))
    files = [Path(name) for name in ("x/000000000139.jpg", "x/far/b.jpg", "b.jpg", "x/c.png", "x/none.png")]
    places = {file.as_posix(): [x for x, *_ in some] for file, some in boxes_of_files(found, files, tmp_path).items()}
    assert places == {
        "x/000000000139.jpg": [1],
        "x/far/b.jpg": [2],
        "b.jpg": [],
        "x/c.png": [3, 4],  # the higher score first
        "x/none.png": [],
    }
    with pytest.raises(InputError, match=r"boxes.json: found boxes for the images 139, far/b.jpg, c, expected some"):
        boxes_of_files(found, [Path("none.png")], tmp_path / "boxes.json")


def test_an_annotations_file_has_boxes_too(tmp_path: Path) -> None:
    people = [person(1, 10), person(2, 11, x=30), person(3, 11, iscrowd=1), person(4, 11, category_id=2)]
    root = write_coco(tmp_path, people=people)
    found = read_detections(root / "annotations" / "person_keypoints_val.json")
    assert [(one.image_id, one.bbox[0], one.score) for one in found] == [("0.png", 5.0, 1.0), ("1.png", 30.0, 1.0)]


@pytest.mark.parametrize(
    ("categories", "known", "numbers"),
    [
        ({1: "dog", 7: "Person"}, {1: "person"}, [7, 7]),  # names decide, not numbers
        ({1: "dog", 7: "person"}, None, [7, 7]),
        ({7: "pedestrian"}, {1: "person"}, [7, 7]),  # there is no other category
        ({1: "", 7: ""}, {1: "person"}, [1]),
        ({1: "dog", 7: "cat"}, {1: "person"}, "found ['dog', 'cat'], expected person"),
        ({1: "dog", 7: "cat"}, None, "found ['dog', 'cat'], expected person"),
    ],
)
def test_persons_in_an_annotations_file_are_known_by_name(
    categories: dict[int, str], known: dict[int, str] | None, numbers: list[int] | str, tmp_path: Path
) -> None:
    boxes = [box(1, category_id=number) for number in (7, 7, 1) if number in categories]
    document = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": boxes,
        "categories": [{"id": number, "name": name} for number, name in categories.items()],
    }
    path = write(tmp_path / "boxes.json", document)
    if isinstance(numbers, str):
        with pytest.raises(InputError, match=re.escape(f"boxes.json: categories: {numbers}")):
            read_detections(path, categories=known)
    else:
        assert [one.category_id for one in read_detections(path, categories=known)] == numbers


def test_slivers_are_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    boxes = [box(1, 1), box(1, 2, bbox=[2, 3, 0, 4]), *(box(1, 3) for _ in range(9))]
    assert len(read_detections(write(tmp_path / "boxes.json", boxes))) == 10
    assert "boxes.json: boxes less than a pixel wide or high, left out: 1, first box 1 in image 1: " in caplog.text
    with pytest.raises(InputError, match=r"box 1 in image 1: bbox: found .* \(2 of 12\)"):
        read_detections(write(tmp_path / "boxes.json", [*boxes, box(1, bbox=[0.1, 0.2, 0.3, 0.4])]))


def test_numbers_may_be_texts_and_a_file_begin_with_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps([box("000139"), {**box(1), "image_id": 139.0}, box("a.jpg")]), "utf-8-sig")
    assert [one.image_id for one in read_detections(path)] == [139, 139, "a.jpg"]
    document = {"images": [{"id": "x", "file_name": "a.png"}], "annotations": [box("x")]}
    assert [one.image_id for one in read_detections(write(path, document))] == ["a.png"]


def test_unsure_boxes_and_other_things_are_left_out(tmp_path: Path) -> None:
    boxes = [box(1, 1, 0.9), box(1, 2, 0.3), box(1, 3, 0.2), box(1, 4, 0.9, category_id=3)]
    path = write(tmp_path / "boxes.json", boxes)
    assert [one.bbox[0] for one in read_detections(path, 0.3)] == [1, 2]
    assert [one.bbox[0] for one in read_detections(path, categories={3: "cat"})] == [4]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "is not valid JSON: Expecting property name"),
        ("[1]", "0: "),
        ([box(1), {"image_id": 1}], r"1\.category_id: is missing"),
        ([box(1, bbox=[1, 2, 0, 4])], r"box 0 in image 1: bbox: found \[1, 2, 0, 4\], expected x, y,"),
        ([box(1, bbox=[1, 2, 3])], r"0\.bbox\.3: is missing"),
        ([{**box(1), "score": "sure"}], r"0\.score: found 'sure', expected a valid number"),
        ([], "found 0 boxes, expected some of category 1, persons"),
        ([box(1, category_id=7)], r"found 1 boxes of the categories \[7\], expected some of category 1, persons"),
        ([box(1, score=0.2)], "found scores of 0.2 at most, expected some of at least 0.3"),
        ({"images": []}, "annotations: is missing"),
        ("3", "found 3, expected an object with images, annotations and categories"),
        ([box(1, math.nan)], ".*found NaN, expected a finite number"),
        ([box(10**400)], ".*found an integer of 401 digits, expected one of 64 bits"),
        ([box(10**19)], r"0\.image_id: found 10000000000000000000, expected a whole number or a name"),
        ([box(True)], r"0\.image_id: found True, expected a whole number or a name"),
        ([{**box(1), "bbox": ["5", 8, 20, 40]}], r"0\.bbox\.0: found '5', expected a valid number"),
        ([box(1, score=True)], r"0\.score: found True, expected a valid number"),
        (
            {"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}], "annotations": [box(1)]},
            "images: found the id 1 twice, expected it once",
        ),
        (
            {"images": [{"id": 1, "file_name": "a"}, {"id": 2, "file_name": "a"}], "annotations": [box(1)]},
            "images: found the file_name 'a' twice, expected it once",
        ),
        (
            {"images": [{"id": 1, "file_name": "a"}], "annotations": [box(2)]},
            "an annotation: image_id: found 2, expected one of the 1 that are listed",
        ),
        ('[{"image_id": 1, "image_id": 2}]', "found the key 'image_id' twice in one object"),
    ],
    ids=str,
)
def test_files_that_are_no_boxes_are_named(content: Any, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"boxes.json: {complaint}") as caught:
        read_detections(write(tmp_path / "boxes.json", content), 0.3)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"none.json: cannot be read: No such file"):
        read_detections(tmp_path / "none.json")


# --- a data set with a detector's boxes -----------------------------------------------------------


def detected(root: Path, boxes: Any, **kwargs: Any) -> Persons:
    path = write(root / "boxes.json", boxes)
    found = open_data(f"coco:{root}", "pose", "val", boxes=path, **kwargs)
    assert isinstance(found, Persons)
    return found


def test_persons_are_those_of_the_detector_and_the_truth_is_everybody(tmp_path: Path) -> None:
    unlabelled = person(8, 11, keypoints=[0] * 12)
    people = [person(5, 10), person(6, 10, x=30), unlabelled, person(9, 11, iscrowd=1)]
    write_coco(tmp_path, people=people)
    examples = detected(tmp_path, [box(11, 7, 0.5), box("0.png", 9, 0.8), box(10, 3, 0.1)], box_score=0.2)
    assert len(examples) == 2
    image, first = examples.read(0)
    assert image.size == (60, 80)
    assert (first.box, first.score, first.image_id) == ((7.0, 8.0, 20.0, 40.0), 0.5, 11)
    assert not first.keypoints.any()
    assert examples.read(1)[1].image_id == 10
    assert examples.truth is not None
    assert [(row["id"], row["image_id"], row["num_keypoints"]) for row in examples.truth["annotations"]] == [
        (1, 10, 3), (2, 10, 3), (3, 11, 0), (4, 11, 0)
    ]  # fmt: skip
    assert examples.truth["images"] == [{"id": 10}, {"id": 11}]
    part = detected(tmp_path, [box(11), box(10, 9), box(10, 3)], limit=1)
    assert (len(part), part.truth and part.truth["images"]) == (2, [{"id": 10}])


def test_boxes_that_do_not_fit_the_data_are_named(tmp_path: Path) -> None:
    write_coco(tmp_path)
    with pytest.raises(InputError, match=r"val.json: found no image 99, expected it because a box refers to it"):
        detected(tmp_path, [box(10), box(99)])
    with pytest.raises(InputError, match=r"val.json: found no boxes for its 1 images"):
        detected(tmp_path, [box(11)], limit=1)
    with pytest.raises(InputError, match=r"boxes.json: found boxes of persons for segmentation"):
        open_data(str(tmp_path), "segmentation", "val", boxes=tmp_path / "boxes.json")


@pytest.mark.parametrize(
    ("bbox", "fits"),
    [
        ((0, 0, 40, 30), True),
        ((-9, 0, 20, 30), True),  # a little more than half is in the picture
        ((-11, 0, 20, 30), False),
        ((100, 100, 5, 5), False),
        ((0, 0, 1e9, 1e9), False),
        ((20, 15, 60, 45), False),  # two corners instead of a corner and a size
    ],
)
def test_a_box_lies_in_its_picture(bbox: Box, fits: bool) -> None:
    if fits:
        check_box(bbox, (40, 30), "x.json: a.png")
    else:
        with pytest.raises(InputError, match=r"^x.json: a.png: bbox: found \[.*\], outside of 40 x 30 pixels by more"):
            check_box(bbox, (40, 30), "x.json: a.png")


# --- figures --------------------------------------------------------------------------------------


def truth_of(people: Sequence[Person]) -> dict[str, Any]:
    """A COCO document about persons, with two more images without people."""
    rows = [
        {
            "id": number,
            "image_id": one.image_id,
            "category_id": 1,
            "keypoints": one.keypoints.ravel().tolist(),
            "num_keypoints": 4,
            "bbox": list(one.box),
            "area": one.area,
            "iscrowd": 0,
        }
        for number, one in enumerate(people, 1)
    ]
    images = [{"id": image} for image in (*sorted({one.image_id for one in people}), 998, 999)]
    return {"images": images, "categories": [{"id": 1, "name": "person"}], "annotations": rows}


def crowd(count: int = 8) -> list[Person]:
    """Two persons per image, far apart."""
    random = np.random.default_rng(0)
    people = []
    for i in range(count):
        corner = np.array([400.0 * (i % 2), 10.0])
        keypoints = np.column_stack([corner + 150 * random.random((4, 2)), np.full(4, 2)]).astype(np.float32)
        people.append(Person(keypoints, (*corner.tolist(), 150.0, 150.0), 12_000.0, i // 2, i))
    return people


def figures(people: Sequence[Person], seen: Sequence[tuple[Person, float]], score: float = 0.9) -> dict[str, Any]:
    """Metrics of perfect joints for persons in boxes with scores; a person outside of the truth is a false alarm."""
    meter = Pose(LABELS, "joints", truth_of(people))
    size = np.array([[150.0, 0, 0], [0, 150, 0]])
    for number, (one, sure) in enumerate(seen):
        joints = np.column_stack([one.keypoints[:, :2] / 150, np.full(4, score)])
        found = Person(np.zeros((4, 3), np.float32), one.box, 150.0**2, one.image_id, number, sure)
        meter.update(torch.from_numpy(joints)[None], [Crop(found, size)])
    return dict(meter.compute())


def test_somebody_whom_the_detector_missed_and_somebody_who_is_not_there() -> None:
    people = crowd()
    whole = figures(people, [(one, 0.9) for one in people])
    assert (whole["ap"], whole["ar"]) == pytest.approx((1, 1))
    assert not any("pck" in name for name in whole)
    missed = figures(people, [(one, 0.9) for one in people[1:]])
    assert missed["ar"] == pytest.approx(7 / 8)
    assert missed["ap"] == pytest.approx(88 / 101)  # precision 1 at 88 of COCO's 101 recalls, up to 0.875
    alarm = Person(people[0].keypoints, people[0].box, 1.0, 999)  # in an image without people
    unsure, sure = (figures(people, [(alarm, score), *((one, 0.5) for one in people)]) for score in (0.1, 0.9))
    assert unsure["ap"] == pytest.approx(1)  # the last of all
    assert sure["ap"] == pytest.approx(8 / 9)  # the first
    assert sure["ar"] == pytest.approx(1)


def test_a_person_found_twice_counts_once() -> None:
    people = crowd()
    twice = [(people[0], 0.99), *((one, 0.9) for one in people)]
    assert figures(people, twice)["ap"] == pytest.approx(1)


def test_a_persons_score_is_that_of_the_box_and_of_visible_joints() -> None:
    joints = np.array([[0, 0, 0.9], [0, 0, 0.5], [0, 0, 0.2], [0, 0, -0.1]])
    assert oks.person_score(joints, 0.5) == pytest.approx(0.5 * 0.7)
    assert oks.person_score(joints[2:], 0.5) == 0


@given(seed=st.integers(0, 999), count=st.integers(0, 12), spread=st.floats(0.1, 20), same=st.floats(0.05, 0.95))
def test_of_persons_alike_the_surest_stays(seed: int, count: int, spread: float, same: float) -> None:
    random = np.random.default_rng(seed)
    joints = 100 + spread * random.normal(size=(count, 4, 3))
    scores, areas = random.random(count), random.uniform(500, 5000, count)

    def alike(one: int, other: int) -> float:
        similarities = []
        for joint, sigma in enumerate(LABELS.sigmas):
            off = np.sum((joints[one, joint, :2] - joints[other, joint, :2]) ** 2)
            similarities.append(np.exp(-off / ((areas[one] + areas[other]) / 2) / (2 * sigma) ** 2 / 2))
        return float(np.mean(similarities))

    kept = oks.oks_nms(joints, scores, areas, LABELS.sigmas, same)
    assert scores[kept].tolist() == sorted(scores[kept], reverse=True)
    for one in range(count):
        better = [other for other in kept if scores[other] > scores[one]]
        assert (one in kept) != any(alike(one, other) > same for other in better)
