"""Persons: reading COCO files, crops, augmentation; from joints to heatmaps and back."""

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import ExifTags, Image
from pycocotools import mask as coco_mask

from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.data.coco import outline
from scalenet_zoo.data.crops import apply, crop_matrix, crop_person, cut, draw_heatmaps, inverse
from scalenet_zoo.data.detections import read_detections
from scalenet_zoo.data.examples import Crop, People, Person
from scalenet_zoo.data.joints import COCO_JOINTS, find_pairs
from scalenet_zoo.data.loaders import evaluation_loader, seeded, training_loader
from scalenet_zoo.data.people import as_images
from scalenet_zoo.data.people import people_augmentation as augment_people
from scalenet_zoo.data.pose import Persons, read_sized
from scalenet_zoo.data.pose_augmentation import mirror_order, person_augmentation
from scalenet_zoo.data.preparation import preprocessing
from scalenet_zoo.data.sources import open_data
from scalenet_zoo.inference.decode import find_joints, place_joints
from scalenet_zoo.inference.metrics import Pose
from scalenet_zoo.training.recipe import Recipe
from tests.helpers.data_files import INTERFACE, JOINTS, person, write_coco
from tests.helpers.shapes import SPECS

SPEC = SPECS["pose"].replace(classes=4, height=64, width=48)
STRONG = Recipe(hflip=0.5, resize=(0.7, 1.3), rotation=60.0)
SIZE = (64, 48)
SIGMAS = {"sigmas": [0.03, 0.03, 0.03, 0.08]}

boxes = st.tuples(st.floats(-20, 60), st.floats(-20, 60), st.floats(4, 200), st.floats(4, 200))
views = st.tuples(st.floats(0.5, 2), st.floats(-180, 180), st.booleans())
shares = st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))


def persons(root: Path, **kwargs: Any) -> Persons:
    examples = open_data(str(root), "pose", "val", **kwargs)
    assert isinstance(examples, Persons)
    return examples


def edited(root: Path, edit: Any) -> Path:
    """Change the annotations of `write_coco`."""
    path = root / "annotations" / "person_keypoints_val.json"
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))
    return path


def test_persons_are_read(tmp_path: Path) -> None:
    unlabelled = person(4, 10, keypoints=[0] * 12, bbox=[0, 0, 0, 0])
    people = [person(1, 10), person(2, 10, x=30), person(3, 11), unlabelled, person(5, 11, iscrowd=1)]
    people.append(person(6, 11, category_id=2))
    examples = persons(write_coco(tmp_path, people=people))
    assert len(examples) == 3
    assert [examples.name(i) for i in (0, 1, 2)] == [str(tmp_path / "images" / "val" / f"{i}.png") for i in (0, 0, 1)]
    image, second = examples.read(1)
    assert image.size == (90, 70)
    assert (second.image_id, second.id, second.area, second.box) == (10, 2, 400.0, (30.0, 8.0, 20.0, 40.0))
    assert second.keypoints.dtype == np.float32
    assert second.keypoints.tolist() == [[34, 12, 2], [38, 10, 2], [32, 11, 1], [0, 0, 0]]
    assert examples.labels.names == JOINTS
    assert examples.labels.skeleton == ((0, 1), (0, 3))
    assert examples.labels.flip_pairs == ((1, 2),)


@pytest.mark.parametrize("folder", ["images/val2017", "val2017"])
def test_names_of_coco_itself_are_understood(folder: str, tmp_path: Path) -> None:
    write_coco(tmp_path, split="val2017")
    (tmp_path / "images" / "val2017").rename(tmp_path / "moved")
    (tmp_path / folder).parent.mkdir(exist_ok=True)
    (tmp_path / "moved").rename(tmp_path / folder)
    for split in ("val", "val2017", "validation"):
        examples = open_data(f"coco:{tmp_path}", "pose", split)
        assert isinstance(examples, Persons)
        assert examples.read(2)[0].size == (60, 80)
    with pytest.raises(InputError, match="found no split train, expected one of val, val2017"):
        open_data(f"coco:{tmp_path}", "pose", "train")
    (tmp_path / folder).rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="found no folder val2017, expected the images in images/val2017 or val2017"):
        persons(tmp_path)


def test_sigmas_are_found_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert persons(write_coco(tmp_path / "usual")).labels.sigmas == (0.026, 0.025, 0.025, 0.079)
    assert "the sigmas of tail are unknown: using 0.079" in caplog.text
    caplog.clear()
    for field in ("sigmas", "keypoint_sigmas"):
        category = {field: [0.1, 0.2, 0.3, 0.4]}
        assert persons(write_coco(tmp_path / field, category=category)).labels.sigmas == (0.1, 0.2, 0.3, 0.4)
    people = [person(1, 10, keypoints=[9, 9, 2] * 17)]
    whole = persons(write_coco(tmp_path / "whole", people=people, category={"keypoints": COCO_JOINTS}))
    assert whole.labels.sigmas[-1] == 0.089
    assert len(whole.labels.flip_pairs) == 8
    assert not caplog.text


def test_a_yaml_file_says_otherwise(tmp_path: Path) -> None:
    write_coco(tmp_path)
    joints = tmp_path / "joints.yaml"
    joints.write_text("names: [nose, eye_l, eye_r, tail]\nflip_pairs: [[eye_l, 2]]\nsigmas: {tail: 0.5, eye_l: 0.1}")
    labels = persons(tmp_path, joints=joints).labels
    assert labels.names == ("nose", "eye_l", "eye_r", "tail")
    assert labels.flip_pairs == ((1, 2),)
    assert labels.skeleton == ((0, 1), (0, 3))
    assert labels.sigmas == (0.026, 0.1, 0.079, 0.5)
    joints.write_text("skeleton: [[0, tail]]\nsigmas: [0.1, 0.1, 0.1, 0.2]\nflip_pairs: []")
    labels = persons(tmp_path, joints=joints).labels
    assert (labels.skeleton, labels.flip_pairs, labels.sigmas[3]) == (
        ((0, 3),),
        ((0, 0), (1, 1), (2, 2), (3, 3)),  # each stays where it is
        0.2,
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[", "is not valid YAML"),
        ("3", "found no fields, expected some of names, flip_pairs, skeleton, sigmas"),
        ("colour: red", "found 'colour', expected some of names"),
        ("names: [a]", r"names: found \['a'\], expected 4 names, one per joint"),
        ("names: [a, a, b, c]", "names: found .*, expected different names"),
        ("flip_pairs: [[1, 2], [2, 3]]", "flip_pairs: found .*, expected each joint at most once"),
        ("flip_pairs: [[1, 1]]", "flip_pairs: found .*, expected each joint at most once"),
        ("flip_pairs: [1, 2]", "flip_pairs: found .*, expected a list of pairs"),
        ("skeleton: [[0, 4]]", "skeleton: found 4, expected the name of a joint, or 0 to 3"),
        ("skeleton: [[nose, wing]]", "skeleton: found 'wing', expected the name of a joint"),
        ("skeleton: [[true, 1]]", "skeleton: found True, expected the name of a joint"),
        ("sigmas: [0.1]", "sigmas: found 1, expected 4, one per joint"),
        ("names: [a, b, c, 3]", "names: found .*, expected 4 names, one per joint"),
        ("sigmas: [0.1, 0.1, 0.1, little]", "sigmas: found 'little', expected numbers"),
        ("sigmas: {nose: true}", "sigmas: found True, expected numbers"),
        ("sigmas: {wing: 0.1}", "sigmas: found 'wing', expected names among nose"),
        ("sigmas: 0.1", "sigmas: found 0.1, expected a list, or numbers by name"),
        ("sigmas: [0.1, 0.1, 0.1, 0]", r"sigmas\.3: found 0, expected greater than 0"),
        ("sigmas: [0.1, 0.1, 0.1, .nan]", r"sigmas\.3: found nan, expected a finite number"),
    ],
)
def test_bad_yaml_files_are_named(text: str, complaint: str, tmp_path: Path) -> None:
    write_coco(tmp_path)
    (tmp_path / "joints.yaml").write_text(text)
    with pytest.raises(InputError, match=f"joints.yaml: {complaint}") as caught:
        persons(tmp_path, joints=tmp_path / "joints.yaml")
    assert "\n" not in str(caught.value)


def test_a_yaml_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.yaml: cannot be read: No such file"):
        persons(write_coco(tmp_path), joints=tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"keypoints": [1, 2, 2]}, "annotation 1: keypoints: found 3 numbers, expected 12"),
        ({"keypoints": [math.nan] * 12}, ".*found NaN, expected a finite number"),
        ({"keypoints": [10**400] * 12}, ".*found an integer of 401 digits, expected one of 64 bits"),
        ({"keypoints": "none"}, "annotations.0.keypoints: found 'none', expected a valid tuple"),
        ({"keypoints": [[9, 12, 2]] * 4}, "annotations.0.keypoints.0: found .9, 12, 2., expected a valid number"),
        ({"keypoints": [True] * 12}, "annotations.0.keypoints.0: found True, expected a valid number"),
        ({"bbox": [1, 2, 3]}, r"annotations\.0\.bbox\.3: is missing"),
        ({"bbox": ["1", 2, 3, 4]}, r"annotations\.0\.bbox\.0: found '1', expected a valid number"),
        ({"bbox": None}, "annotation 1: bbox is missing"),
        ({"bbox": [1, 2, 3, 0]}, "annotation 1 of 0.png: bbox: found .1, 2, 3, 0., expected x, y, width and height in"),
        ({"bbox": [0.1, 0.2, 0.3, 0.4]}, "annotation 1 of 0.png: bbox: found .0.1, 0.2, 0.3, 0.4., expected x, y, wid"),
        ({"bbox": [1, 2, 1e9, 1e9]}, "annotation 1 of 0.png: bbox: found .*, outside of 90 x 70 pixels by more"),
        (
            {"keypoints": [0.9, 0.2, 2, 0.8, 0.1, 2, 0.7, 0.1, 2, 0, 0, 0], "bbox": [50, 20, 30, 40]},
            "annotation 1 of 0.png: bbox: found .50, 20, 30, 40., far from all joints, expected it around them",
        ),
        ({"iscrowd": 3}, r"annotations\.0\.iscrowd: found 3, expected less than or equal to 1"),
        ({"id": "a"}, r"annotations\.0\.id: found 'a', expected a valid integer"),
        ({"id": None}, "an annotation: id is missing"),
        ({"image_id": 99}, "annotation 1: image_id: found 99, expected one of the 2 that are listed"),
        ({"category_id": 99}, "annotation 1: category_id: found 99, expected one of the 2 that are listed"),
        ({"keypoints": [0] * 12}, "found no persons with keypoints, expected some: of person it has 1, all of them"),
        ({"iscrowd": 1}, "found no persons with keypoints, expected some: of person it has 1, all of them cr"),
        ({"category_id": 2}, "found no persons with keypoints, expected some: of person it has none"),
        (
            {"keypoints": [91, 12, 2, 91, 10, 1, 7, 11, 1, 0, 0, 0]},
            r"annotation 1: keypoints: found 'nose' \(joint 0\) at x 91, y 12, expected it within 0.png of 90 x 70"
            r" pixels \(2 of 3\)",
        ),
        (
            {"keypoints": [0, 0, 0, 9, -1.5, 2, 0, 0, 0, 0, 0, 0]},
            r"annotation 1: keypoints: found 'left_eye' \(joint 1\) at x 9, y -1.5, .* \(1 of 1\)",
        ),
    ],
    ids=str,
)
def test_bad_annotations_are_named(change: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    write_coco(tmp_path, people=[person(1, 10) | change])
    with pytest.raises(InputError, match=rf"person_keypoints_val.json: {complaint}") as caught:
        persons(tmp_path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("change", "left", "told"),
    [
        (
            {"keypoints": [95, 12, 2, 9, 10, 2, 7, 11, 1, 0, 0, 0]},
            [1, 2, 3],
            "joints outside of their images, treated",
        ),
        (
            {"keypoints": [1e300, 12, 2, 9, 10, 2, 7, 11, 1, 0, 0, 0]},
            [1, 2, 3],
            "joints outside of their images, treated",
        ),
        (
            {"keypoints": [-1e18, 12, 2, *[0] * 9]},
            [2, 3],
            "joints outside of their images, treated",
        ),
        ({"bbox": [5, 8, 0, 40]}, [2, 3], "persons left out because of their boxes: 1, first"),
        ({"bbox": [5, 8, -20, 40]}, [2, 3], "persons left out because of their boxes: 1, first"),
        ({"bbox": [500, 8, 20, 40]}, [2, 3], "persons left out because of their boxes: 1, first"),
        ({"bbox": [60, 8, 20, 40]}, [2, 3], "persons left out because of their boxes: 1, first"),
    ],
)
def test_what_is_amiss_with_one_is_told_and_the_others_stay(
    change: dict[str, Any], left: list[int], told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Single faults are logged, and the person counts as one without joints in the truth for a detector's boxes."""
    write_coco(tmp_path, people=[person(1, 10) | change, person(2, 10, x=30), person(3, 11)], category=SIGMAS)
    examples = persons(tmp_path)
    assert examples.ids.tolist() == left
    for index in range(len(examples)):
        someone = examples.person(index)
        outside = someone.id == 1
        assert someone.keypoints[:, 2].tolist() == [0 if outside else 2, 2, 1, 0]
        assert someone.keypoints[0].any() != outside
    (record,) = caplog.records
    assert f"val.json: {told}" in record.getMessage()
    assert "annotation 1" in record.getMessage()
    assert sum(map(len, examples.unlabelled.values())) == 3 - len(left)
    (tmp_path / "boxes.json").write_text(json.dumps([{"image_id": 10, "category_id": 1, "bbox": [1, 2, 30, 40]}]))
    truth = persons(tmp_path, boxes=tmp_path / "boxes.json").truth
    assert truth is not None
    assert sorted(row["num_keypoints"] for row in truth["annotations"]) == sorted([3, 3, 2 if 1 in left else 0])
    assert all(np.isfinite(row["bbox"]).all() for row in truth["annotations"])


def test_what_is_amiss_with_many_is_refused(tmp_path: Path) -> None:
    people = [person(i, 10) | ({"bbox": [5, 8, 0, 40]} if i < 4 else {}) for i in range(1, 31)]
    assert len(persons(write_coco(tmp_path / "tenth", people=people))) == 27
    people[20] = person(21, 10, bbox=[5, 8, 0, 40])
    with pytest.raises(InputError, match=r"annotation 1 of 0.png: bbox: found .* \(4 of 30\)"):
        persons(write_coco(tmp_path / "more", people=people))


@pytest.mark.parametrize("area", [0, -5, None, "none", 1, 900, 1e300, 10**18, True, [3]], ids=str)
def test_areas_that_do_not_fit_the_boxes_are_taken_from_them(
    area: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise a perfect network would have an average precision of 0, or a wrong one of 1."""
    people = [person(1, 10, area=area), person(2, 10, x=40, area=area), person(3, 11, area=area)]
    people.append(person(4, 11, keypoints=[], area=area))
    if area is None:
        people = [{key: value for key, value in one.items() if key != "area"} for one in people]
    examples = persons(write_coco(tmp_path, people=people, category=SIGMAS))
    assert examples.areas.tolist() == pytest.approx([424.0] * 3)
    assert examples.unlabelled[11][0].area == pytest.approx(424.0)
    assert "val.json: areas replaced by 0.53 of the boxes: 4, first annotation 1: area" in caplog.text
    assert len(caplog.records) == 1
    (tmp_path / "boxes.json").write_text(json.dumps([{"image_id": 10, "category_id": 1, "bbox": [1, 2, 30, 40]}]))
    truth = persons(tmp_path, boxes=tmp_path / "boxes.json").truth
    assert truth is not None
    assert [row["area"] for row in truth["annotations"]] == pytest.approx([424.0] * 4)
    meter = Pose(examples.labels, "joints")
    for off, precision in ((0.001, 1), (300, 0)):
        meter.found.clear()
        for index in range(3):
            someone = examples.person(index)
            seen = np.column_stack([someone.keypoints[:, :2] + off, np.full(4, 0.9)])
            meter.update(torch.from_numpy(seen)[None], [Crop(someone, np.array([[1.0, 0, 0], [0, 1, 0]]))])
        assert meter.compute()["ap"] == pytest.approx(precision)


@pytest.mark.parametrize(
    ("field", "twice", "complaint"),
    [
        ("annotations", {"id": 1}, "annotations: found the id 1 twice, expected it once"),
        ("annotations", {"id": "1"}, "annotations: found the id 1 twice, expected it once"),
        ("images", {"id": 10}, "images: found the id 10 twice, expected it once"),
        ("images", {"id": 10.0}, "images: found the id 10 twice, expected it once"),
        ("images", {"file_name": "0.png"}, "images: found the file_name '0.png' twice, expected it once"),
        ("categories", {"id": 1}, "categories: found the id 1 twice, expected it once"),
    ],
)
def test_what_is_there_twice_is_named(field: str, twice: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    path = edited(write_coco(tmp_path), lambda data: data[field][1].update(twice))
    with pytest.raises(InputError, match=f"person_keypoints_val.json: {complaint}"):
        persons(tmp_path)
    with pytest.raises(InputError, match=f"person_keypoints_val.json: {complaint}"):
        read_detections(path)


def test_persons_are_of_all_categories_that_have_the_same_joints(tmp_path: Path) -> None:
    people = [person(1, 10), person(2, 10, x=30, category_id=2), person(3, 11, category_id=2, keypoints=[])]
    boxes = [{"image_id": 10, "category_id": number, "bbox": [1, 2, 30, 40]} for number in (1, 2)]
    path = edited(
        write_coco(tmp_path, people=people),
        lambda data: data["categories"][1].update(keypoints=list(JOINTS), skeleton=[[1, 3]]),
    )
    examples = persons(tmp_path)
    assert examples.ids.tolist() == [1, 2]
    assert len(examples.unlabelled[11]) == 1
    assert examples.labels.skeleton == ((0, 1), (0, 3))
    assert [one.category_id for one in read_detections(path)] == [1, 2, 2]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    detected = persons(tmp_path, boxes=tmp_path / "boxes.json")
    assert len(detected) == 2
    assert detected.truth is not None
    assert {row["category_id"] for row in detected.truth["annotations"]} == {1}
    edited(tmp_path, lambda data: data["categories"][1].update(keypoints=["nose", "right_eye", "left_eye", "tail"]))
    with pytest.raises(InputError, match=r"found keypoints \['nose', .* of 'person' and .* of 'dog', expected the"):
        persons(tmp_path)


def test_what_is_not_said_is_the_usual(tmp_path: Path) -> None:
    """iscrowd defaults to 0, keypoints to not labelled; numbers may be strings, and files may begin with a BOM."""
    people = [person(1, 10), person(2, 10, x=30), person(3, 11)]
    del people[2]["keypoints"]
    for one in people:
        del one["iscrowd"]
        one["id"], one["image_id"] = f"{one['id']:04}", str(one["image_id"])
    path = edited(write_coco(tmp_path, people=people), lambda data: data["images"][1].update(id="0011"))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    examples = persons(tmp_path)
    assert (examples.ids.tolist(), examples.image_ids.tolist()) == ([1, 2], [10, 10])
    assert [region.box for region in examples.unlabelled[11]] == [(5, 8, 20, 40)]
    path.write_text(path.read_text("utf-8-sig").replace('"0011"', '"street"').replace('"11"', '"street"'))
    with pytest.raises(InputError, match="images: found the id 'street', expected whole numbers"):
        persons(tmp_path)


HOLE = {"counts": [600, 5700], "size": [70, 90]}


@pytest.mark.parametrize(
    ("segmentation", "complaint"),
    [
        ([[1, 1, -1e10, 1, 20, 20]], r"found a point at x -1e\+10, y 1, expected it within 90 x 70 pixels"),
        ([[1, 1, 1, 1e308, 20, 20]], r"found a point at x 1, y 1e\+308, expected"),
        ([[1, 2]], r"found \[1, 2\], expected x and y of three points or more"),
        ([[1, 2, 3, 4, 5, 6, 7]], "expected x and y of three points or more"),
        ([[1, 2, 3, "4", 5, 6]], "expected x and y of three points or more"),
        ([1, 2, 3, 4, 5, 6], "expected polygons"),
        ("mask", "expected polygons"),
        ([[0, 0, 89, 69] * 10_000], "found outlines 2.* pixels long, expected at most 2,000,000"),
        (HOLE | {"size": [90, 70]}, r"found the size \[90, 70\], expected \[70, 90\], height and width"),
        (HOLE | {"counts": [600, 5699]}, "found counts of 6299 pixels in total, expected 6300"),
        (HOLE | {"counts": [-600, 6900]}, "found the counts .*, expected lengths of runs, 0 or more"),
        (HOLE | {"counts": [600, 5700.0]}, "found the counts .*, expected lengths of runs, 0 or more"),
        (HOLE | {"counts": None}, "found the counts None, expected lengths of runs, 0 or more"),
        (HOLE | {"counts": "hb0"}, "found counts of .* in total, expected 6300"),
        (HOLE | {"counts": "o" * 50}, "found 'o' in the counts, expected COCO's compressed"),
        (HOLE | {"counts": "o"}, "found counts that are cut off"),
        (HOLE | {"counts": "\u2603"}, "found '\u2603' in the counts, expected COCO's compressed"),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("iscrowd", [0, 1])
def test_outlines_are_looked_at_before_pycocotools_reads_them(
    segmentation: Any, complaint: str, iscrowd: int, tmp_path: Path
) -> None:
    someone = person(2, 10, keypoints=[], iscrowd=iscrowd, segmentation=segmentation)
    write_coco(tmp_path, people=[person(1, 10), someone])
    with pytest.raises(InputError, match=f"annotation 2: segmentation: cannot be read: .*{complaint}") as caught:
        persons(tmp_path)
    assert len(str(caught.value)) < 500


@given(mask=arrays(np.uint8, st.tuples(st.integers(1, 30), st.integers(1, 30)), elements=st.integers(0, 1)))
def test_outlines_of_run_lengths_are_those_of_pycocotools(mask: np.ndarray) -> None:
    size = (mask.shape[1], mask.shape[0])
    encoded = coco_mask.encode(np.asfortranarray(mask))
    flat = mask.ravel(order="F").astype(int)
    ends = np.flatnonzero(np.diff(flat, prepend=0, append=1 - flat[-1]))
    for counts in (encoded["counts"].decode(), np.diff(ends, prepend=0).tolist()):
        assert outline({"counts": counts, "size": list(mask.shape)}, size, "x") == encoded


def test_polygons_are_cut_off_at_the_edges_of_the_picture() -> None:
    found = outline([[-5, -5, 4, -5, 4, 9, -5, 9], [6, 6, 9, 6, 9, 18, 6, 18]], (9, 9), "x")
    expected = np.zeros((9, 9), np.uint8)
    expected[:, :4] = expected[6:, 6:] = 1
    assert found == coco_mask.encode(np.asfortranarray(expected))


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        ("nose left_hand right_hand", [(1, 2)]),
        ("nose right_hand left_hand", [(2, 1)]),
        *(
            (names, [(0, 1)])
            for names in (
                "L_hand R_hand", "l_hand r_hand", "LeftHand RightHand", "leftHand rightHand", "hand_left hand_right",
                "HandL HandR", "hand-l hand-r", "hand.L hand.R", "LHand RHand", "lhand rhand", "LEFTHAND RIGHTHAND",
                "lefthand righthand", "upper_left_arm upper_right_arm", "left right", "FL FR", "L1 R1",
            )
        ),
        ("LF RF LR RR", [(0, 1), (2, 3)]),
        ("left_eye_left left_eye_right right_eye_left right_eye_right", [(0, 3), (1, 2)]),
    ],
)  # fmt: skip
def test_left_and_right_are_known_by_the_usual_spellings(names: str, pairs: list[tuple[int, int]]) -> None:
    assert find_pairs(names.split()) == (pairs, [])
    assert find_pairs([name.replace("_", " ") for name in names.split()]) == (pairs, [])


@pytest.mark.parametrize(
    ("names", "alone"),
    [
        ("elbow erbow", []),
        ("nose bright upright", []),
        ("left_hand nose", ["left_hand"]),
        ("nose R_hand", ["R_hand"]),
        ("left_hand LeftHand right_hand", ["left_hand", "LeftHand", "right_hand"]),
    ],
)
def test_sides_without_a_partner_are_none(names: str, alone: list[str]) -> None:
    assert find_pairs(names.split()) == ([], alone)


@pytest.mark.parametrize("head", ["top_down", "bottom_up"])
@pytest.mark.parametrize(
    ("names", "said", "mirrored"),
    [
        (JOINTS, "", True),
        (("nose", "eye_a", "eye_b", "tail"), "", False),
        (("left_eye", "right_eye", "left_ear", "tail"), "", False),  # one has no partner
        (("nose", "eye_a", "eye_b", "tail"), "flip_pairs: [[eye_a, eye_b]]", True),
        (("nose", "eye_a", "eye_b", "tail"), "flip_pairs: []", True),
    ],
)
def test_nobody_is_mirrored_whose_left_and_right_are_not_known(
    head: str, names: Sequence[str], said: str, mirrored: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_coco(tmp_path, category={**SIGMAS, "keypoints": names})
    (tmp_path / "joints.yaml").write_text(said)
    examples = persons(tmp_path, joints=tmp_path / "joints.yaml" if said else None)
    recipe, unmirrored = (Recipe(resize=(1.0, 1.0), hflip=hflip) for hflip in (1.0, 0.0))
    if head == "top_down":
        image, someone = examples.read(0)
        seen, target = person_augmentation(SPEC, INTERFACE, recipe, examples.labels)(image, someone)
        plain, still = person_augmentation(SPEC, INTERFACE, unmirrored, examples.labels)(image, someone)
    else:
        spec, everybody = SPEC.replace(width=64), as_images(examples, all_images=False)
        image, people = everybody.read(0)
        assert isinstance(people, People)
        with seeded(0):
            seen, target = augment_people(spec, INTERFACE, recipe, examples.labels)(image, people)
        with seeded(0):
            plain, still = augment_people(spec, INTERFACE, unmirrored, examples.labels)(image, people)
    assert torch.equal(seen, plain) != mirrored
    maps = "heatmaps" if head == "top_down" else "coarse"
    if mirrored and not said.endswith("[]"):
        order = mirror_order(examples.labels).tolist()
        assert order == [0, 2, 1, 3]
    assert torch.equal(target[maps], still[maps]) != mirrored
    assert ("images are not mirrored although hflip is 1" in caplog.text) != mirrored
    assert len(caplog.records) == (not mirrored)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(60, 40), (50, 50)])
def test_joints_lie_where_they_are_seen_or_the_picture_is_refused(
    orientation: int, size: tuple[int, int], tmp_path: Path
) -> None:
    """A picture that EXIF turns, with labels for the stored or the upright image."""
    stored = Image.new("RGB", size)
    exif = stored.getexif()
    exif[ExifTags.Base.Orientation] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    seen = size[::-1] if orientation > 4 else size
    if orientation == 1 or seen != size:
        assert read_sized(tmp_path / "a.png", seen).size == seen
    else:
        with pytest.raises(InputError, match=f"a.png: found the EXIF orientation {orientation}, expected none: lab"):
            read_sized(tmp_path / "a.png", seen)
    if seen != size:
        with pytest.raises(InputError, match=f"a.png: found the EXIF orientation {orientation}, expected none: lab"):
            read_sized(tmp_path / "a.png", size)


def test_joints_at_the_edge_and_joints_without_a_label_may_lie_outside(tmp_path: Path) -> None:
    """Joints may be outside of an image by a pixel at most; training ignores joints outside of the crop."""
    keypoints = [-1, 70, 2, 90, -1, 1, 500, -500, 0, 45, 35, 2]
    whole = person(1, 10, keypoints=keypoints, bbox=[0, 0, 90, 70])
    examples = persons(write_coco(tmp_path, people=[whole, person(2, 10, keypoints=keypoints, bbox=[30, 20, 30, 30])]))
    assert examples.read(0)[1].keypoints.ravel().tolist() == [-1, 70, 2, 90, -1, 1, 0, 0, 0, 45, 35, 2]
    for index, weights in ((0, [1, 1, 0, 1]), (1, [0, 0, 0, 1])):
        _, target = person_augmentation(SPEC, INTERFACE, Recipe(hflip=0.0, resize=(1.0, 1.0)), examples.labels)(
            *examples.read(index)
        )
        assert target["weights"].tolist() == weights
        assert [bool(one.any()) for one in target["heatmaps"]] == [bool(weight) for weight in weights]


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (
            lambda data: data.update(images=[], annotations=[]),
            "found no persons with keypoints, .* it has none",
        ),
        (lambda data: data["annotations"][0].pop("bbox"), "annotation 1: bbox is missing"),
        (lambda data: data["annotations"][0].pop("id"), "an annotation: id is missing"),
        (lambda data: data.pop("images"), "images: is missing"),
        (lambda data: data.pop("annotations"), "annotations: is missing"),
        (lambda data: data.update(annotations={}), "annotations: found {}, expected a valid tuple"),
        (lambda data: data.pop("categories"), "found no category with keypoints"),
        (
            lambda data: data["categories"][0].update(keypoints=[str(i) for i in range(1001)]),
            "categories: found 1,001 keypoints, expected at most 1,000",
        ),
        *(
            (
                lambda data, size=size: data["images"][0].update(size),
                "image 10: found a size of .* pixels, expected 1 to",
            )
            for size in ({"width": 0}, {"height": -70}, {"width": 10**9}, {"width": 20_000, "height": 20_000})
        ),
        (lambda data: data["images"][0].pop("width"), "image 10: width or height is missing"),
        (lambda data: data["images"][0].update(width="wide"), "images.0.width: found 'wide', expected a valid integer"),
        (lambda data: data["categories"][0].pop("keypoints"), "found no category with keypoints"),
        (
            lambda data: data["images"][0].update(file_name="../secret.png"),
            "found the path ../secret.png, expected one in",
        ),
        (
            lambda data: data["categories"][0].update(skeleton=[[0, 1]]),
            r"skeleton\.0\.0: found -1, expected greater than or equal to 0",
        ),
        (lambda data: data["categories"][0].update(skeleton=[[5, 1]]), r"skeleton: found \[4, 0\], expected numbers"),
    ],
)
def test_bad_files_are_named(edit: Any, complaint: str, tmp_path: Path) -> None:
    path = edited(write_coco(tmp_path), edit)
    with pytest.raises(InputError, match=f"person_keypoints_val.json: .*{complaint}"):
        persons(tmp_path)
    path.write_text("[]")
    with pytest.raises(InputError, match=r"val.json: found \[\], expected an object with images, annotations"):
        persons(tmp_path)
    path.write_text("{")
    with pytest.raises(InputError, match="val.json: is not valid JSON: Expecting property name"):
        persons(tmp_path)


def test_images_that_annotations_do_not_fit_are_named(tmp_path: Path) -> None:
    examples = persons(write_coco(tmp_path))
    Image.new("RGB", (70, 90)).save(examples.name(0))
    with pytest.raises(
        InputError, match=r"0.png: found \(70, 90\) pixels, expected \(90, 70\), as its annotations say"
    ):
        examples.read(0)


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "\ud800.png", "a\0.png", "", "\x1b[31mred.png"])
def test_images_that_cannot_be_are_broken_ones(name: str, tmp_path: Path) -> None:
    """Single faulty boxes are left out."""
    edited(write_coco(tmp_path), lambda data: data["images"][0].update(file_name=name))
    examples = persons(tmp_path)
    assert examples.read(2)[0].size == (60, 80)
    with pytest.raises(InputError, match="val.*: ") as caught:
        examples.read(0)
    assert str(caught.value).isprintable()


@given(box=boxes, view=views, point=shares)
def test_matrices_undo_each_other(box: Any, view: Any, point: tuple[float, float]) -> None:
    matrix = crop_matrix(box, SIZE, *view)
    assert np.allclose(apply(inverse(matrix), apply(matrix, np.array(point))), point, atol=1e-9)
    mirror = crop_matrix(box, SIZE, view[0], view[1], not view[2])
    assert np.allclose(apply(mirror, np.array([1 - point[0], point[1]])), apply(matrix, np.array(point)), atol=1e-9)


@given(box=boxes)
def test_crops_hold_the_enlarged_box_in_the_right_proportions(box: Any) -> None:
    matrix = crop_matrix(box, SIZE)
    width, height = matrix[0, 0], matrix[1, 1]
    assert width / height == pytest.approx(48 / 64)
    assert max(box[2] / width, box[3] / height) == pytest.approx(1 / 1.25)
    middle = apply(matrix, np.array([0.5, 0.5]))
    assert middle.tolist() == pytest.approx([box[0] + box[2] / 2 - 0.5, box[1] + box[3] / 2 - 0.5])


@given(point=st.tuples(st.integers(30, 69), st.integers(30, 69)), view=views)
def test_what_lies_at_a_point_lies_there_in_the_crop(point: tuple[int, int], view: Any) -> None:
    """A bright dot is found where the matrix says, whatever the turn, zoom and mirroring."""
    pixels = np.zeros((100, 100, 3), np.uint8)
    pixels[point[1] - 1 : point[1] + 2, point[0] - 1 : point[0] + 2] = 255
    zoom, turn, mirrored = view
    matrix = crop_matrix((20.0, 10.0, 60.0, 80.0), (128, 96), max(zoom, 1.0) / 2, turn, mirrored)
    crop = np.asarray(cut(Image.fromarray(pixels), matrix, (128, 96)).convert("L"), dtype=np.float64)
    x, y = apply(inverse(matrix), np.array(point)) * [96, 128] - 0.5
    rows, columns = np.indices(crop.shape)
    assert (crop * columns).sum() / crop.sum() == pytest.approx(x, abs=0.3)
    assert (crop * rows).sum() / crop.sum() == pytest.approx(y, abs=0.3)


def test_large_images_do_not_alias() -> None:
    checks = (np.indices((2000, 1500)).sum(0) % 2 * 255).astype(np.uint8)
    crop, to_image = crop_person(Image.fromarray(checks).convert("RGB"), (0.0, 0.0, 1500.0, 2000.0), SIZE)
    inside = np.asarray(crop)[16:48, 12:36]
    assert inside.std() < 8
    assert abs(inside.mean() - 127.5) < 2
    assert apply(to_image, np.array([[0.1, 0.1], [0.9, 0.9]])) == pytest.approx(
        np.array([[-0.5, -0.5], [1499.5, 1999.5]])
    )


@given(
    points=st.lists(shares, min_size=1, max_size=5),
    size=st.tuples(st.integers(8, 64), st.integers(8, 64)),
    sigma=st.floats(1, 3),
)
def test_heatmaps_are_decoded_to_their_joints(points: Any, size: tuple[int, int], sigma: float) -> None:
    joints = np.array(points)
    maps, weights = draw_heatmaps(joints, np.full(len(joints), True), size, sigma)
    assert maps.shape == (len(joints), *size)
    assert (weights == 1).all()
    found = find_joints(torch.from_numpy(maps)[None])[0, :, :2].numpy()
    assert np.abs((found - joints) * size[::-1]).max() <= 0.5 + 1e-3


def test_joints_that_count_for_nothing() -> None:
    points = np.array([[0.5, 0.5], [0.5, 0.5], [-0.01, 0.5], [0.5, 1.0]])
    maps, weights = draw_heatmaps(points, np.array([True, False, True, True]), (16, 12), 2.0)
    assert weights.tolist() == [1, 0, 0, 0]
    assert (maps[1:] == 0).all()
    assert maps[0].max() == pytest.approx(np.exp(-0.5 / 8), abs=0.01)


@given(seed=st.integers(0, 2**31 - 1), index=st.integers(0, 2))
def test_augmented_joints_are_found_again_in_the_image(seed: int, index: int, tmp_path_factory: Any) -> None:
    """Decoded heatmaps, mapped back with the crop's matrix, give the joints; left and right change places."""
    root = tmp_path_factory.getbasetemp() / "persons"
    examples = persons(root if root.exists() else write_coco(root))
    image, someone = examples.read(index)
    with seeded(seed):
        zoom, turn = float(torch.empty(()).uniform_(0.7, 1.3)), float(torch.empty(()).uniform_(-60, 60))
        mirrored = float(torch.rand(())) < 0.5
    with seeded(seed):
        pixels, target = person_augmentation(SPEC, INTERFACE, STRONG, examples.labels)(image, someone)
    assert pixels.shape == (3, 64, 48)
    assert target["heatmaps"].shape == (4, 16, 12)
    matrix = crop_matrix(someone.box, SIZE, zoom, turn, mirrored)
    found = place_joints(find_joints(target["heatmaps"][None])[0].numpy(), matrix)
    order = [0, 2, 1, 3] if mirrored else [0, 1, 2, 3]
    expected = someone.keypoints[order]
    pixel = np.abs(np.linalg.det(matrix[:, :2])) ** 0.5 / 12  # a heatmap's pixel, in pixels of the image
    assert target["weights"][3] == 0
    for joint in np.flatnonzero(target["weights"].numpy()):
        assert np.linalg.norm(found[joint, :2] - expected[joint, :2]) < pixel


def test_a_mirrored_crop_is_the_mirror_image_with_joints_exchanged(tmp_path: Path) -> None:
    examples = persons(write_coco(tmp_path))
    image, someone = examples.read(2)
    plain, flipped = (
        person_augmentation(SPEC, INTERFACE, Recipe(resize=(1.0, 1.0), hflip=hflip), examples.labels)(image, someone)
        for hflip in (0.0, 1.0)
    )
    assert torch.allclose(flipped[0].flip(2), plain[0], atol=0.05)
    order = mirror_order(examples.labels)
    assert torch.allclose(flipped[1]["heatmaps"].flip(2)[order], plain[1]["heatmaps"], atol=1e-5)
    assert torch.equal(flipped[1]["weights"][order], plain[1]["weights"])
    crop = crop_person(image, someone.box, SIZE)[0]
    assert torch.allclose(plain[0], preprocessing(SPEC, INTERFACE)(crop), atol=1e-6)


@given(st.integers(2, 30).flatmap(lambda count: st.tuples(st.just(count), st.permutations(range(count)))))
def test_mirroring_twice_is_identity(drawn: tuple[int, list[int]]) -> None:
    count, shuffled = drawn
    pairs = tuple(zip(shuffled[::3], shuffled[1::3], strict=False))
    order = mirror_order(Labels(names=tuple(map(str, range(count))), flip_pairs=pairs))
    assert order[order].tolist() == list(range(count))
    assert all(order[first] == second for first, second in pairs)


@given(points=st.lists(shares, min_size=4, max_size=4), width=st.integers(8, 40))
def test_a_mirrored_crops_heatmaps_are_mirrored_to_the_pixel(points: Any, width: int) -> None:
    """A flip test therefore needs no shift by a pixel, unlike in HRNet's geometry."""
    labels = Labels(names=tuple("abcd"), flip_pairs=((0, 2),))
    joints, seen = np.array(points), np.full(4, True)
    plain, _ = draw_heatmaps(joints, seen, (16, width), 2.0)
    order = mirror_order(labels)
    turned = np.column_stack([1 - 1e-12 - joints[:, 0], joints[:, 1]])[order].clip(0)
    there, _ = draw_heatmaps(turned, seen, (16, width), 2.0)
    assert np.allclose(there[order][:, :, ::-1], plain, atol=1e-5)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_gives_crops_that_lead_back(workers: int, tmp_path: Path) -> None:
    examples = persons(write_coco(tmp_path))
    (batch,) = evaluation_loader(examples, preprocessing(SPEC, INTERFACE), SPEC, 8, workers)
    assert batch["image"].shape == (3, 3, 64, 48)
    for index, crop in enumerate(batch["target"]):
        assert isinstance(crop, Crop)
        image, someone = examples.read(index)
        assert (crop.person.id, crop.person.box) == (someone.id, someone.box)
        assert np.array_equal(crop.person.keypoints, someone.keypoints)
        crop_alone = crop_person(image, someone.box, SIZE)[0]
        assert torch.equal(batch["image"][index], preprocessing(SPEC, INTERFACE)(crop_alone))
        labelled = someone.keypoints[:, 2] > 0
        points = apply(inverse(crop.to_image), someone.keypoints[:, :2])
        maps, weights = draw_heatmaps(points, labelled, (64, 48), 2.0)
        assert (weights == labelled).all()
        found = place_joints(find_joints(torch.from_numpy(maps)[None])[0].numpy(), crop.to_image)
        assert np.abs(found - someone.keypoints)[labelled, :2].max() < 1.2 * crop.to_image[1, 1] / 64


def test_training_batches(tmp_path: Path) -> None:
    examples = persons(write_coco(tmp_path))
    loader = training_loader(examples, SPEC, INTERFACE, STRONG.replace({"heatmap_sigma": 1.0}), 3, 0)
    (batch,) = loader
    assert batch["image"].shape == (3, 3, 64, 48)
    assert {name: tuple(tensor.shape) for name, tensor in batch["target"].items()} == {
        "heatmaps": (3, 4, 16, 12),
        "weights": (3, 4),
    }
    assert batch["target"]["heatmaps"].dtype == torch.float32
    wide = next(iter(training_loader(examples, SPEC, INTERFACE, STRONG, 3, 0)))["target"]["heatmaps"]
    assert wide.sum() > 2 * batch["target"]["heatmaps"].sum()
    assert isinstance(examples.read(0)[1], Person)
