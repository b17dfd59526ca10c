"""Persons: read from COCO files, cut out, augmented; their joints as heatmaps and back."""

import json
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from scalenet_zoo.data import Crop, Person, crop_person, evaluation_loader, mirror_order, open_data, training_loader
from scalenet_zoo.data.crops import apply, crop_matrix, cut, draw_heatmaps, inverse
from scalenet_zoo.data.loaders import seeded
from scalenet_zoo.data.pose import COCO_JOINTS, Persons, augmentation
from scalenet_zoo.decode import find_joints, place_joints
from scalenet_zoo.errors import InputError
from scalenet_zoo.images import preprocessing
from scalenet_zoo.labels import Labels
from scalenet_zoo.recipe import Recipe
from tests.data_files import CFG, JOINTS, person, write_coco
from tests.shapes import SPECS

SPEC = SPECS["pose"].replace(classes=4, height=64, width=48)
STRONG = Recipe(hflip=0.5, resize=(0.7, 1.3), rotation=60.0)
SIZE = (64, 48)

boxes = st.tuples(st.floats(-20, 60), st.floats(-20, 60), st.floats(4, 200), st.floats(4, 200))
views = st.tuples(st.floats(0.5, 2), st.floats(-180, 180), st.booleans())
shares = st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))


def persons(root: Path, **kwargs: Any) -> Persons:
    examples = open_data(str(root), "pose", "val", **kwargs)
    assert isinstance(examples, Persons)
    return examples


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
    assert "no sigmas are known for tail: taken to be 0.079" in caplog.text
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
    assert (labels.skeleton, labels.flip_pairs, labels.sigmas[3]) == (((0, 3),), (), 0.2)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[", "is not valid YAML"),
        ("3", "found no fields, expected some of names, flip_pairs, skeleton, sigmas"),
        ("colour: red", "found colour, expected some of names"),
        ("names: [a]", r"names: found \['a'\], expected 4 names, one a joint"),
        ("names: [a, a, b, c]", "names: found .*, expected different ones"),
        ("flip_pairs: [[1, 2], [2, 3]]", "flip_pairs: found .*, expected every joint once at most"),
        ("flip_pairs: [[1, 1]]", "flip_pairs: found .*, expected every joint once at most"),
        ("flip_pairs: [1, 2]", "flip_pairs: found .*, expected a list of pairs"),
        ("skeleton: [[0, 4]]", "skeleton: found 4, expected the name of a joint, or 0 to 3"),
        ("skeleton: [[nose, wing]]", "skeleton: found 'wing', expected the name of a joint"),
        ("skeleton: [[true, 1]]", "skeleton: found True, expected the name of a joint"),
        ("sigmas: [0.1]", "sigmas: found 1, expected 4, one a joint"),
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
        ({"keypoints": [1, 2, 2]}, "annotation 1: keypoints: found 3 numbers, expected 12, all of them finite"),
        ({"keypoints": [math.nan] * 12}, "annotation 1: keypoints: found 12 numbers, expected 12, all of them finite"),
        ({"keypoints": "none"}, "cannot be read as COCO keypoints: "),
        ({"bbox": [1, 2, 3]}, r"annotation 1: bbox: found \[1, 2, 3\], expected x, y, width and height, above 0"),
        ({"bbox": [1, 2, 3, 0]}, "annotation 1: bbox: found"),
        ({"area": math.inf}, "annotation 1: area: found inf, expected a finite number"),
        ({"image_id": 99}, "99 is missing, or no image has this id"),
        ({"keypoints": [0] * 12}, "found no persons with keypoints, expected some: of person it has 1, all of them"),
        (
            {"iscrowd": 1},
            "found no persons with keypoints, expected some: of person it has 1, all of them cr",
        ),
        ({"category_id": 2}, "found no persons with keypoints, expected some: of person it has none"),
        (
            {"keypoints": [9, 12, 2, 91, 10, 1, 7, 11, 1, 0, 0, 0]},
            r"annotation 1: keypoints: found left_eye \(joint 1\) at x 91, y 10, expected it within 0.png of 90 x 70",
        ),
        (
            {"keypoints": [9, -1.5, 2, 50, 10, 1, 7, 11, 1, 0, 0, 0]},
            r"annotation 1: keypoints: found nose \(joint 0\) at x 9, y -1.5, expected it within 0.png of 90 x 70",
        ),
    ],
)
def test_bad_annotations_are_named(change: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    write_coco(tmp_path, people=[person(1, 10) | change])
    with pytest.raises(InputError, match=rf"person_keypoints_val.json: {complaint}") as caught:
        persons(tmp_path)
    assert "\n" not in str(caught.value)


def test_joints_at_the_edge_and_joints_without_a_label_may_lie_outside(tmp_path: Path) -> None:
    """By a pixel at most; training leaves out those outside the crop."""
    keypoints = [-1, 70, 2, 90, -1, 1, 500, -500, 0, 45, 35, 2]
    whole = person(1, 10, keypoints=keypoints, bbox=[0, 0, 90, 70])
    examples = persons(write_coco(tmp_path, people=[whole, person(2, 10, keypoints=keypoints, bbox=[30, 20, 30, 30])]))
    assert examples.read(0)[1].keypoints.ravel().tolist() == keypoints
    for index, weights in ((0, [1, 1, 0, 1]), (1, [0, 0, 0, 1])):
        _, target = augmentation(SPEC, CFG, Recipe(hflip=0.0, resize=(1.0, 1.0)), examples.labels)(
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
        (lambda data: data["annotations"][0].pop("bbox"), "'bbox' is missing"),
        (lambda data: data.pop("images"), "10 is missing, or no image has this id"),
        (lambda data: data.pop("categories"), "'categories' is missing"),
        (lambda data: data["categories"][0].pop("keypoints"), "found no category with keypoints"),
        (
            lambda data: data["images"][0].update(file_name="../secret.png"),
            "found the image ../secret.png, expected one in",
        ),
        (
            lambda data: data["categories"][0].update(skeleton=[[0, 1]]),
            r"skeleton\.0\.0: found -1, expected greater than or equal to 0",
        ),
        (lambda data: data["categories"][0].update(skeleton=[[5, 1]]), r"skeleton: found \[4, 0\], expected numbers"),
    ],
)
def test_bad_files_are_named(edit: Any, complaint: str, tmp_path: Path) -> None:
    path = write_coco(tmp_path) / "annotations" / "person_keypoints_val.json"
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=f"person_keypoints_val.json: .*{complaint}"):
        persons(tmp_path)
    path.write_text("[]")
    with pytest.raises(InputError, match="cannot be read as COCO keypoints: annotation file format"):
        persons(tmp_path)
    path.write_text("{")
    with pytest.raises(InputError, match="cannot be read as COCO keypoints: Expecting property name"):
        persons(tmp_path)


def test_images_that_annotations_do_not_fit_are_named(tmp_path: Path) -> None:
    examples = persons(write_coco(tmp_path))
    Image.new("RGB", (70, 90)).save(examples.name(0))
    with pytest.raises(
        InputError, match=r"0.png: found \(70, 90\) pixels, expected \(90, 70\), as its annotations say"
    ):
        examples.read(0)


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
    """Heatmaps, decoded and taken back through the crop's matrix, are the joints; left and right change places."""
    root = tmp_path_factory.getbasetemp() / "persons"
    examples = persons(root if root.exists() else write_coco(root))
    image, someone = examples.read(index)
    with seeded(seed):
        zoom, turn = float(torch.empty(()).uniform_(0.7, 1.3)), float(torch.empty(()).uniform_(-60, 60))
        mirrored = float(torch.rand(())) < 0.5
    with seeded(seed):
        pixels, target = augmentation(SPEC, CFG, STRONG, examples.labels)(image, someone)
    assert pixels.shape == (3, 64, 48)
    assert target["heatmaps"].shape == (4, 16, 12)
    matrix = crop_matrix(someone.box, SIZE, zoom, turn, mirrored)
    found = place_joints(find_joints(target["heatmaps"][None])[0].numpy(), matrix)
    order = [0, 2, 1, 3] if mirrored else [0, 1, 2, 3]
    expected = someone.keypoints[order]
    pixel = np.abs(np.linalg.det(matrix[:, :2])) ** 0.5 / 12  # of a heatmap, in the image's
    assert target["weights"][3] == 0
    for joint in np.flatnonzero(target["weights"].numpy()):
        assert np.linalg.norm(found[joint, :2] - expected[joint, :2]) < pixel


def test_a_mirrored_crop_is_the_mirror_image_with_joints_exchanged(tmp_path: Path) -> None:
    examples = persons(write_coco(tmp_path))
    image, someone = examples.read(2)
    plain, flipped = (
        augmentation(SPEC, CFG, Recipe(resize=(1.0, 1.0), hflip=hflip), examples.labels)(image, someone)
        for hflip in (0.0, 1.0)
    )
    assert torch.allclose(flipped[0].flip(2), plain[0], atol=0.05)
    order = mirror_order(examples.labels)
    assert torch.allclose(flipped[1]["heatmaps"].flip(2)[order], plain[1]["heatmaps"], atol=1e-5)
    assert torch.equal(flipped[1]["weights"][order], plain[1]["weights"])
    crop = crop_person(image, someone.box, SIZE)[0]
    assert torch.allclose(plain[0], preprocessing(SPEC, CFG)(crop), atol=1e-6)


@given(st.integers(2, 30).flatmap(lambda count: st.tuples(st.just(count), st.permutations(range(count)))))
def test_mirroring_twice_is_identity(drawn: tuple[int, list[int]]) -> None:
    count, shuffled = drawn
    pairs = tuple(zip(shuffled[::3], shuffled[1::3], strict=False))
    order = mirror_order(Labels(names=tuple(map(str, range(count))), flip_pairs=pairs))
    assert order[order].tolist() == list(range(count))
    assert all(order[first] == second for first, second in pairs)


@given(points=st.lists(shares, min_size=4, max_size=4), width=st.integers(8, 40))
def test_a_mirrored_crops_heatmaps_are_mirrored_to_the_pixel(points: Any, width: int) -> None:
    """So a flip test needs no shift by a pixel, as HRNet's own geometry does."""
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
    (batch,) = evaluation_loader(examples, preprocessing(SPEC, CFG), SPEC, 8, workers)
    assert batch["image"].shape == (3, 3, 64, 48)
    for index, crop in enumerate(batch["target"]):
        assert isinstance(crop, Crop)
        image, someone = examples.read(index)
        assert (crop.person.id, crop.person.box) == (someone.id, someone.box)
        assert np.array_equal(crop.person.keypoints, someone.keypoints)
        assert torch.equal(batch["image"][index], preprocessing(SPEC, CFG)(crop_person(image, someone.box, SIZE)[0]))
        labelled = someone.keypoints[:, 2] > 0
        points = apply(inverse(crop.to_image), someone.keypoints[:, :2])
        maps, weights = draw_heatmaps(points, labelled, (64, 48), 2.0)
        assert (weights == labelled).all()
        found = place_joints(find_joints(torch.from_numpy(maps)[None])[0].numpy(), crop.to_image)
        assert np.abs(found - someone.keypoints)[labelled, :2].max() < 1.2 * crop.to_image[1, 1] / 64


def test_training_batches(tmp_path: Path) -> None:
    examples = persons(write_coco(tmp_path))
    loader = training_loader(examples, SPEC, CFG, replace(STRONG, heatmap_sigma=1.0), 3, 0)
    (batch,) = loader
    assert batch["image"].shape == (3, 3, 64, 48)
    assert {name: tuple(tensor.shape) for name, tensor in batch["target"].items()} == {
        "heatmaps": (3, 4, 16, 12),
        "weights": (3, 4),
    }
    assert batch["target"]["heatmaps"].dtype == torch.float32
    wide = next(iter(training_loader(examples, SPEC, CFG, STRONG, 3, 0)))["target"]["heatmaps"]
    assert wide.sum() > 2 * batch["target"]["heatmaps"].sum()
    assert isinstance(examples.read(0)[1], Person)
