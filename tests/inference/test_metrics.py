"""Metrics, against scikit-learn, pycocotools run on files, direct computations and cases worked out by hand."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.metrics import accuracy_score, jaccard_score, top_k_accuracy_score
from torch.nn import functional as F  # noqa: N812
from torchmetrics.functional.classification import multiclass_calibration_error

from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.data.crops import apply, crop_person, draw_heatmaps, inverse
from scalenet_zoo.data.examples import IGNORE, Crop, Person
from scalenet_zoo.inference.decode import find_joints, pixel_classes, place_joints
from scalenet_zoo.inference.metrics import CALIBRATION_BINS, CalibrationError, Classification, Pose, Segmentation
from scalenet_zoo.inference.oks import COCO_FIGURES
from tests.helpers.processes import run_processes

LEEDS = Labels(
    names=(
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist", "right_elbow",
        "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck", "head_top",
    ),
    sigmas=(0.089, 0.087, 0.107, 0.107, 0.087, 0.089, 0.062, 0.072, 0.079, 0.079, 0.072, 0.062, 0.079, 0.079),
)  # fmt: skip


def parts(count: int, size: int) -> list[slice]:
    return [slice(i, i + size) for i in range(0, count, size)]


def direct_ece(confidence: np.ndarray, correct: np.ndarray) -> float:
    """As Guo et al. (ICML 2017) define it, bin by bin."""
    error = 0.0
    for i in range(CALIBRATION_BINS):
        inside = (confidence > i / CALIBRATION_BINS) & (confidence <= (i + 1) / CALIBRATION_BINS)
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return error


# --- classification -------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 1000),
    size=st.integers(1, 70),
    classes=st.integers(6, 20),
    form=st.sampled_from(["raw", "softmax"]),
)
@settings(max_examples=25)
def test_accuracies_are_scikit_learns_and_calibration_is_the_direct_one(
    seed: int, size: int, classes: int, form: Any
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(60, classes, generator=generator)
    targets = torch.randint(0, classes, (60,), generator=generator)
    logits[torch.arange(40), targets[:40]] += 3
    probabilities = logits.softmax(1)
    meter = Classification(classes, form)
    for part in parts(60, size):
        meter.update((logits if form == "raw" else probabilities)[part], targets[part])
    found = meter.compute()
    assert list(found) == ["top1", "top5", "ece"]
    assert found["top1"] == pytest.approx(accuracy_score(targets, logits.argmax(1)), abs=1e-6)
    of_five = top_k_accuracy_score(targets.numpy(), logits.numpy(), k=5, labels=range(classes))
    assert found["top5"] == pytest.approx(of_five, abs=1e-6)
    confidence, predicted = probabilities.max(1)
    assert found["ece"] == pytest.approx(direct_ece(confidence.numpy(), (predicted == targets).numpy()), abs=1e-6)
    theirs = multiclass_calibration_error(probabilities, targets, classes, n_bins=CALIBRATION_BINS)
    assert found["ece"] == pytest.approx(float(theirs), abs=1e-6)


def test_calibration_worked_out_by_hand() -> None:
    meter = CalibrationError()
    meter.update(torch.tensor([0.95, 0.97, 0.5, 0.52]), torch.tensor([True, False, True, True]))
    assert float(meter.compute()) == pytest.approx((abs(0.96 * 2 - 1) + abs(1.02 - 2)) / 4)
    sure = CalibrationError()
    sure.update(torch.ones(3), torch.ones(3, dtype=torch.bool))
    assert float(sure.compute()) == 0.0


def test_five_classes_have_no_top_five() -> None:
    meter = Classification(5)
    meter.update(torch.eye(5), torch.arange(5))
    assert meter.compute()["top1"] == 1.0
    assert "top5" not in meter.compute()
    with pytest.raises(InputError, match="data: found the class 5, expected 0 to 4"):
        meter.update(torch.eye(5), torch.arange(1, 6))


# --- segmentation ---------------------------------------------------------------------------------


@given(seed=st.integers(0, 1000), size=st.integers(1, 4), void=st.booleans())
@settings(max_examples=20)
def test_ious_are_scikit_learns_over_the_pixels_of_masks_of_any_size(seed: int, size: int, void: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(4, 6, 5, 7, generator=generator)
    logits[:, 5] = -100  # neither found nor there
    masks = [torch.randint(0, 5, (h, w), generator=generator) for h, w in ((20, 28), (13, 9), (5, 7), (3, 4))]
    if void:
        for mask in masks:
            mask[torch.rand(mask.shape, generator=generator) < 0.3] = IGNORE
    meter = Segmentation(6, ["sky", "road", "car", "tree", "pole", "bus"])
    for part in parts(4, size):
        meter.update(logits[part].contiguous(memory_format=torch.channels_last), masks[part])
    found = meter.compute()

    resized = [
        F.interpolate(one[None], mask.shape, mode="bilinear")[0] for one, mask in zip(logits, masks, strict=True)
    ]
    classes, confidence = (
        torch.cat([part[mask != IGNORE] for part, mask in zip(images, masks, strict=True)]).numpy()
        for images in ([one.argmax(0) for one in resized], [one.softmax(0).amax(0) for one in resized])
    )
    truth = torch.cat([mask[mask != IGNORE] for mask in masks]).numpy()
    expected = jaccard_score(truth, classes, average=None, labels=range(5))
    ious = found["iou"]
    assert isinstance(ious, dict)
    assert list(ious) == ["sky", "road", "car", "tree", "pole", "bus"]
    assert [ious[name] for name in list(ious)[:5]] == pytest.approx(expected.tolist())
    assert ious["bus"] is None
    assert found["miou"] == pytest.approx(expected.mean())
    assert found["pixel_accuracy"] == pytest.approx(accuracy_score(truth, classes))
    assert found["ece"] == pytest.approx(direct_ece(confidence, classes == truth), abs=1e-6)


def test_a_class_that_is_found_but_not_there_counts_and_void_does_not() -> None:
    mask = torch.tensor([[0, 0, 1, IGNORE]])
    logits = torch.tensor([[5.0, 0, 0, 0], [0, 0, 5, 5], [0, 5, 0, 0]])[None, :, None]
    meter = Segmentation(3)
    meter.update(logits, [mask])
    found = meter.compute()
    assert found["iou"] == {"0": 0.5, "1": 1.0, "2": 0.0}
    assert found["miou"] == pytest.approx(0.5)
    assert found["pixel_accuracy"] == pytest.approx(2 / 3)


def test_perfect_segmentations_and_nothing_but_void() -> None:
    mask = torch.tensor([[0, 1], [2, IGNORE]])
    meter = Segmentation(3)
    meter.update(100 * F.one_hot(mask.clamp(max=2), 3).permute(2, 0, 1)[None].float(), [mask])
    assert meter.compute() == {"miou": 1.0, "pixel_accuracy": 1.0, "ece": 0.0, "iou": {"0": 1.0, "1": 1.0, "2": 1.0}}
    meter = Segmentation(3)
    meter.update(torch.zeros(1, 3, 1, 1), [torch.full((4, 4), IGNORE)])
    with pytest.raises(InputError, match="all masks are void"):
        meter.compute()


def test_classes_of_a_file_are_taken_as_they_are() -> None:
    classes = torch.tensor([[[0, 1], [2, 2]]], dtype=torch.int32)
    mask = classes[0].long().repeat_interleave(4, 0).repeat_interleave(4, 1)
    meter = Segmentation(3, form="argmax")
    meter.update(classes, [mask])
    assert meter.compute() == {"miou": 1.0, "pixel_accuracy": 1.0, "iou": {"0": 1.0, "1": 1.0, "2": 1.0}}
    assert pixel_classes(classes[0], (8, 8))[0].equal(mask)


# --- pose -----------------------------------------------------------------------------------------

HEATMAPS = arrays.arrays(
    np.float32,
    st.tuples(st.just(2), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)),
    elements=st.floats(-4, 4, width=16),
)


def peak(heatmap: np.ndarray) -> list[float]:
    """HRNet's decoding, written out for one heatmap."""
    height, width = heatmap.shape
    y, x = divmod(int(heatmap.argmax()), width)
    dx = np.sign(heatmap[y, x + 1] - heatmap[y, x - 1]) / 4 if 0 < x < width - 1 else 0.0
    dy = np.sign(heatmap[y + 1, x] - heatmap[y - 1, x]) / 4 if 0 < y < height - 1 else 0.0
    return [(x + dx + 0.5) / width, (y + dy + 0.5) / height, heatmap[y, x]]


@given(heatmaps=HEATMAPS)
@settings(max_examples=60)
def test_joints_are_peaks_moved_by_a_quarter_pixel(heatmaps: np.ndarray) -> None:
    found = find_joints(torch.from_numpy(heatmaps)).numpy()
    expected = [[peak(heatmap) for heatmap in image] for image in heatmaps]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def persons(count: int = 24, joints: int = 14, seed: int = 0) -> list[Person]:
    """Two an image, some joints without a label, of very different sizes."""
    random = np.random.default_rng(seed)
    made = []
    for i in range(count):
        size = random.uniform(25, 250)
        corner = random.uniform(0, 200, 2)
        keypoints = np.zeros((joints, 3), np.float32)
        keypoints[:, :2] = corner + size * random.random((joints, 2))
        keypoints[:, 2] = random.choice([0, 1, 2], joints, p=[0.2, 0.2, 0.6])
        keypoints[keypoints[:, 2] == 0] = 0
        made.append(Person(keypoints, (*corner.tolist(), size, size), 0.53 * size**2, 7 + i // 2, i))
    return made


UNIT = np.array([[1.0, 0, 0], [0, 1, 0]])
"""From pixels as shares to pixels: found joints are then in pixels of the image."""


def measured(found: np.ndarray, truth: list[Person], labels: Labels = LEEDS) -> dict[str, Any]:
    """Figures for joints (n, joints, 3) in pixels."""
    meter = Pose(labels, "joints")
    meter.update(torch.from_numpy(found), [Crop(person, UNIT) for person in truth])
    return dict(meter.compute())


def test_perfect_joints_have_ap_1() -> None:
    truth = persons()
    found = measured(np.stack([person.keypoints for person in truth]), truth)
    assert list(found) == [*COCO_FIGURES, "pck_torso"]
    assert all(value == pytest.approx(1.0) for value in found.values())


def test_joints_that_are_far_off_have_ap_0_and_sizes_that_nobody_has_are_left_out() -> None:
    truth = [person for person in persons() if person.area > 96**2]
    far = np.stack([person.keypoints for person in truth]) + np.array([1000, 0, 0])
    found = measured(far, truth)
    assert {name: value for name, value in found.items() if value} == {}
    assert "ap_medium" not in found
    assert found["ap_large"] == 0.0


@pytest.mark.parametrize("joints", [14, 17])
def test_ap_and_ar_are_those_of_pycocotools_on_files(tmp_path: Path, joints: int) -> None:
    truth = persons(60, joints)
    random = np.random.default_rng(1)
    sizes = np.array([person.box[2] for person in truth])[:, None, None]
    found = np.stack([person.keypoints for person in truth]).astype(np.float64)
    found[..., :2] += sizes * random.normal(0, random.uniform(0.005, 0.12, (60, 1, 1)), (60, joints, 2))
    found[..., 2] = random.random((60, joints))
    sigmas = tuple(random.uniform(0.02, 0.12, joints).tolist())
    labels = Labels(names=tuple(f"joint {i}" for i in range(joints)), sigmas=sigmas)

    annotations = [
        {
            "id": person.id + 1,
            "image_id": person.image_id,
            "category_id": 1,
            "keypoints": person.keypoints.ravel().tolist(),
            "num_keypoints": int((person.keypoints[:, 2] > 0).sum()),
            "bbox": list(person.box),
            "area": person.area,
            "iscrowd": 0,
        }
        for person in truth
    ]
    images = [{"id": i} for i in sorted({person.image_id for person in truth})]
    categories = [{"id": 1, "name": "person"}]
    document = {"info": {}, "images": images, "categories": categories, "annotations": annotations}
    (tmp_path / "truth.json").write_text(json.dumps(document))
    results = [
        {
            "image_id": person.image_id,
            "category_id": 1,
            "keypoints": one.ravel().tolist(),
            "score": one[:, 2].mean(),
        }
        for person, one in zip(truth, found, strict=True)
    ]
    (tmp_path / "found.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "truth.json"))
        reference = COCOeval(coco, coco.loadRes(str(tmp_path / "found.json")), "keypoints")
        reference.params.kpt_oks_sigmas = np.array(sigmas)
        reference.evaluate()
        reference.accumulate()
        reference.summarize()

    ours = measured(found, truth, labels)
    assert 0.1 < reference.stats[0] < 0.9
    assert [ours[name] for name in COCO_FIGURES] == pytest.approx(reference.stats.tolist(), abs=1e-12)


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    truth = persons(4)
    measured(np.stack([person.keypoints for person in truth]), truth)
    assert capsys.readouterr() == ("", "")


def person_of(points: dict[str, tuple[float, float]], labels: Labels, box: float = 100.0) -> Person:
    keypoints = np.zeros((len(labels.names), 3), np.float32)
    for name, point in points.items():
        keypoints[labels.names.index(name)] = *point, 2
    return Person(keypoints, (0.0, 0.0, box, box / 2), box**2 / 4, 1, 1)


@pytest.mark.parametrize(
    ("points", "off", "expected"),
    [
        # The torso is 50 long (3-4-5), so 10 is near enough.
        ({"left_shoulder": (0, 0), "right_hip": (30, 40), "neck": (5, 5)}, {"neck": 9.9}, {"pck_torso": 1.0}),
        ({"left_shoulder": (0, 0), "right_hip": (30, 40), "neck": (5, 5)}, {"neck": 10.1}, {"pck_torso": 2 / 3}),
        # The other diagonal, 100 long, stands in.
        ({"right_shoulder": (0, 0), "left_hip": (60, 80), "neck": (5, 5)}, {"neck": 19.9}, {"pck_torso": 1.0}),
        ({"right_shoulder": (0, 0), "left_hip": (60, 80)}, {"left_hip": 21}, {"pck_torso": 0.5}),
        ({"right_shoulder": (0, 0), "neck": (5, 5)}, {}, {}),  # no torso, nothing to say
    ],
)  # fmt: skip
def test_pck_of_the_torso_by_hand(points: Any, off: dict[str, float], expected: dict[str, float]) -> None:
    person = person_of(points, LEEDS)
    found = person.keypoints.copy()
    for name, pixels in off.items():
        found[LEEDS.names.index(name), 0] += pixels
    figures = measured(found[None], [person])
    assert {name: value for name, value in figures.items() if "pck" in name} == pytest.approx(expected)


def test_pck_of_the_box_by_hand() -> None:
    labels = Labels(names=("tip", "tail"), sigmas=(0.05, 0.05))
    person = person_of({"tip": (10, 10), "tail": (50, 10)}, labels, box=60.0)
    for pixels, expected in ((11.9, 1.0), (12.1, 0.5)):
        found = person.keypoints + np.array([[pixels, 0, 0], [0, 0, 0]], np.float32)
        assert measured(found[None], [person], labels)["pck_box"] == pytest.approx(expected)


def test_heatmaps_of_crops_lead_back_to_the_joints() -> None:
    """Training's targets as outputs: what is lost is the heatmap's resolution alone."""
    truth = [person for person in persons() if person.box[2] > 60]
    size = (256, 192)
    labels = Labels(names=tuple(f"joint {i}" for i in range(14)), sigmas=LEEDS.sigmas)
    meter = Pose(labels)
    off = []
    for person in truth:
        _, to_image = crop_person(Image.new("RGB", (500, 500)), person.box, size)
        shares = apply(inverse(to_image), person.keypoints[:, :2].astype(np.float64))
        maps, weights = draw_heatmaps(shares, person.keypoints[:, 2] > 0, (64, 48), 2.0)
        meter.update(torch.from_numpy(maps)[None], [Crop(person, to_image)])
        found = place_joints(find_joints(torch.from_numpy(maps)[None])[0].numpy(), to_image)
        cell = np.linalg.norm(to_image[:, 0]) / 48
        off.append(np.abs(found[:, :2] - person.keypoints[:, :2])[weights > 0] / cell)
    assert np.concatenate(off).max() <= 0.5
    assert np.concatenate(off).mean() < 0.2
    figures = meter.compute()
    assert figures["pck_box"] == 1.0
    assert float(figures["ap"]) > 0.95  # type: ignore[arg-type]


# --- several processes ----------------------------------------------------------------------------


def _share_of(rank: int, world: int) -> list[Any]:
    """What one process of several measures: every `world`-th image."""
    generator = torch.Generator().manual_seed(3)
    logits, targets = torch.randn(11, 7, generator=generator), torch.randint(0, 7, (11,), generator=generator)
    maps = torch.randn(11, 4, 6, 6, generator=generator)
    masks = [torch.randint(0, 4, (9, 8 + i), generator=generator) for i in range(11)]
    truth = persons(11)
    found = np.stack([person.keypoints for person in truth]) + np.random.default_rng(0).normal(0, 5, (11, 14, 3))
    classes, pixels, pose = Classification(7), Segmentation(4), Pose(LEEDS, "joints")
    for i in range(rank, 11, world):
        classes.update(logits[i : i + 1], targets[i : i + 1])
        pixels.update(maps[i : i + 1], masks[i : i + 1])
        pose.update(torch.from_numpy(found[i : i + 1]), [Crop(truth[i], UNIT)])
    return [classes.compute(), pixels.compute(), pose.compute()]


@pytest.mark.distributed
@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.nightly)])
def test_several_processes_give_what_one_gives(world: int) -> None:
    alone = _share_of(0, 1)
    assert 0 < alone[2]["ap"] < 1
    for of_process in run_processes(_share_of, world):
        for ours, expected in zip(of_process, alone, strict=True):
            assert ours.pop("iou", None) == expected.get("iou")
            assert ours == pytest.approx({name: value for name, value in expected.items() if name != "iou"}, abs=1e-7)
