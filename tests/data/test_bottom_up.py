"""Bottom-up pose: the loss of tags, grouping, whole images with several people, and the whole pipeline."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from torch import Tensor

from scalenet_zoo import create_model
from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.arch.spec import ArchSpec, Input, Task
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.data.crops import apply, inverse
from scalenet_zoo.data.examples import Part, People, Person, Region, View
from scalenet_zoo.data.loaders import evaluation_loader, training_loader
from scalenet_zoo.data.people import MOST_PEOPLE, as_images, draw_people, fit_image
from scalenet_zoo.data.sources import open_data
from scalenet_zoo.inference.draw import draw
from scalenet_zoo.inference.evaluate import evaluate_network
from scalenet_zoo.inference.grouping import group_people, match_tags, merge_scales, split_output
from scalenet_zoo.inference.metrics import BottomUp, make_meter
from scalenet_zoo.inference.oks import COCO_FIGURES
from scalenet_zoo.inference.predict import describe_output, predict_pictures
from scalenet_zoo.inference.prepare import prepare_inference
from scalenet_zoo.training.log import read_log
from scalenet_zoo.training.losses import people_loss, tag_loss, task_loss
from scalenet_zoo.training.recipe import Recipe
from scalenet_zoo.training.trainer import Options, train_network
from tests.helpers.data_files import INTERFACE, person, picture, write_coco
from tests.helpers.shapes import SPECS

SPEC = ArchSpec.create(
    "tiny_bottom_up",
    "pose",
    Input(height=64, width=64),
    3,
    SPECS["pose"].network.model_copy(update={"head": "bottom_up"}),
    SPECS["pose"].provenance,
)
LABELS = Labels(
    names=("head", "left_foot", "right_foot"), flip_pairs=((1, 2),), skeleton=((0, 1), (0, 2)), sigmas=(0.08,) * 3
)
PEOPLE = st.integers(1, 4)


# --- the loss -------------------------------------------------------------------------------------


def plain_tag_loss(tags: Tensor, places: Tensor) -> float:
    """The loss by its definition, person by person."""
    means, pull = [], 0.0
    for row in places.tolist():
        own = [float(tags.flatten()[place]) for place in row if place >= 0]
        if own:
            means.append(sum(own) / len(own))
            pull += sum((tag - means[-1]) ** 2 for tag in own) / len(own)
    if not means:
        return 0.0
    near = [float(np.exp(-((a - b) ** 2))) for i, a in enumerate(means) for j, b in enumerate(means) if i != j]
    return pull / len(means) + (0.5 * sum(near) / len(near) if near else 0.0)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(0, 4))
def test_tag_loss_is_what_its_definition_says(seed: int, people: int) -> None:
    rng = np.random.default_rng(seed)
    tags = torch.from_numpy(rng.normal(size=(2, 3, 4, 5)))
    places = torch.full((2, 6, 3), -1)
    for image in range(2):
        cells = rng.permutation(20)[: people * 3].reshape(people, 3) + 20 * np.arange(3)
        places[image, :people] = torch.from_numpy(np.where(rng.random((people, 3)) < 0.3, -1, cells))
    found = tag_loss(tags, places)
    assert found.tolist() == pytest.approx([plain_tag_loss(t, p) for t, p in zip(tags, places, strict=True)])


def test_tag_loss_pulls_persons_together_and_pushes_them_apart() -> None:
    for places, signs in (([[[0, 2]]], (-1, 0, 1, 0)), ([[[0, -1], [-1, 3]]], (1, 0, 0, -1))):  # signs of the gradient
        tags = torch.tensor([0.0, 1.0, 0.5, 0.6]).reshape(1, 2, 1, 2).requires_grad_()
        tag_loss(tags, torch.tensor(places)).sum().backward()  # type: ignore[no-untyped-call]
        assert tags.grad is not None
        assert tuple(tags.grad.flatten().sign().int().tolist()) == signs


def target_of(people: People, to_image: np.ndarray, size: tuple[int, int] = (64, 64)) -> dict[str, Tensor]:
    return {name: value[None] for name, value in draw_people(people, to_image, size, 2.0).items()}


def output_of(target: dict[str, Tensor], tags: list[float], noise: float = 0.0) -> Tensor:
    """The outputs of a perfect network: the target's heatmaps, and one tag per person."""
    batch, joints, height, width = target["coarse"].shape
    maps = torch.zeros(batch, joints, height, width)
    grid = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), 2)
    for image in range(batch):
        for joint in range(joints):
            rows = [(n, int(p)) for n, p in enumerate(target["places"][image, :, joint]) if p >= 0]
            if rows:  # each place has the tag of the nearest person
                cells = torch.tensor([[p % (height * width) // width, p % width] for _, p in rows])
                nearest = (grid[:, :, None] - cells).square().sum(3).argmin(2)
                values = torch.tensor([tags[n] for n, _ in rows])
                maps[image, joint] = values[nearest] + noise * (2 * torch.rand(height, width) - 1)
    coarse = torch.cat([target["coarse"], maps], 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    return torch.cat([target["fine"], coarse], 1)


def somebody(joints: list[tuple[float, float]], image_id: int = 0, number: int = 0) -> Person:
    keypoints = np.array([[x, y, 2 if x >= 0 else 0] for x, y in joints], np.float32)
    box = (*keypoints[:, :2].min(0).tolist(), *(np.ptp(keypoints[:, :2], axis=0) + 1).tolist())
    return Person(keypoints, box, box[2] * box[3], image_id, number)


WHOLE = np.array([[64.0, 0, -0.5], [0, 64.0, -0.5]])  # an image of 64 x 64 pixels, unchanged
TWO = People(0, (somebody([(15, 10), (10, 40), (21, 40)]), somebody([(45, 20), (40, 52), (52, 50)])))


def test_people_loss_is_heatmaps_at_both_scales_and_a_little_of_the_tags() -> None:
    target = target_of(TWO, WHOLE)
    target["fine_weights"][:, :, 16:] = 0
    perfect = output_of(target, [0.0, 9.0])
    assert people_loss(perfect, target).item() == pytest.approx(0, abs=1e-7)
    torch.manual_seed(0)
    output = torch.randn_like(perfect)
    fine, coarse, tags = split_output(output, 3)
    expected = (
        ((fine - target["fine"])[..., :16] ** 2).sum() / fine.numel()
        + ((coarse - target["coarse"]) ** 2).mean()
        + 0.001 * plain_tag_loss(tags[0], target["places"][0])
    )
    torch.testing.assert_close(task_loss("pose", Recipe(), bottom_up=True)(output, target), expected)


# --- grouping -------------------------------------------------------------------------------------


@st.composite
def scenes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Joints of some people on a grid so wide that joints of one kind do not touch, the missing joints, and tags."""
    people, joints = draw(PEOPLE), draw(st.integers(1, 4))
    cells = [draw(st.permutations(range(16)))[:people] for _ in range(joints)]
    shifts = draw(st.lists(st.floats(-8, 8), min_size=2 * people * joints, max_size=2 * people * joints))
    places = np.array(shifts).reshape(people, joints, 2)
    places += 48 * np.stack([np.array(cells).T % 4, np.array(cells).T // 4], axis=2) + 32
    there = np.array(
        draw(st.lists(st.booleans(), min_size=people * joints, max_size=people * joints)), dtype=bool
    ).reshape(people, joints)
    there[np.arange(people), draw(st.lists(st.integers(0, joints - 1), min_size=people, max_size=people))] = True
    tags = [2.5 * place for place in draw(st.permutations(range(people)))]
    return places, there, tags


@settings(max_examples=40, deadline=None)
@given(scenes())
def test_people_are_recovered_whoever_lacks_which_joint(scene: tuple[np.ndarray, np.ndarray, list[float]]) -> None:
    places, there, tags = scene
    size = 224
    keypoints = np.concatenate([places, 2.0 * there[..., None]], axis=2).astype(np.float32)
    people = People(0, tuple(Person(row, (0, 0, 1, 1), 1.0, 0) for row in keypoints))
    target = target_of(people, np.array([[size, 0, -0.5], [0, size, -0.5]]), (size, size))
    torch.manual_seed(0)
    (found,) = group_people(output_of(target, tags, noise=0.2), places.shape[1])
    assert len(found.joints) == len(places)
    seen = found.joints[..., :2] * size - 0.5
    for row, has in zip(places, there, strict=True):
        off = np.abs(seen - row).max(2)[:, has].max(1)
        assert off.min() < 2.0  # pixels, a cell of the fine heatmaps
        assert (found.joints[off.argmin(), has, 2] > 0.8).all()
        assert (found.joints[off.argmin(), ~has, 2] < 0.1).all()
    assert (np.diff(found.scores) <= 0).all()


def test_people_who_cross_are_told_apart_by_their_tags() -> None:
    crossing = People(0, (somebody([(10, 10), (50, 50), (32, 4)]), somebody([(50, 10), (10, 50), (32, 60)])))
    output = output_of(target_of(crossing, WHOLE), [-1.0, 1.0])
    (found,) = group_people(output, 3)
    places = found.joints[..., :2] * 64 - 0.5
    for one in crossing.persons:
        assert min(np.abs(place - one.keypoints[:, :2]).max() for place in places) < 1.5


def test_a_missing_joint_is_where_the_heatmap_is_weak_and_the_tag_right() -> None:
    target = target_of(TWO, WHOLE)
    output = output_of(target, [0.0, 3.0])
    faint = output.clone()
    faint[:, [2, 5], :, :22] *= 0.09  # too weak for a peak
    faint[:, [2, 5], 2:6, 2:6] = 0.095  # and a stronger peak elsewhere, from the other person
    faint[:, 8, 2:6, 2:6] = 3.0
    (whole,), (found,) = group_people(output, 3), group_people(faint, 3)
    np.testing.assert_allclose(sorted(found.joints[:, 2, 0]), sorted(whole.joints[:, 2, 0]), atol=0.02)
    assert found.joints[:, 2, 2].min() < 0.1
    assert found.scores[1] == pytest.approx(found.joints[1, :2, 2].sum() / 3)


def test_matching_gives_every_peak_to_one_person() -> None:
    scores = np.array([[0.9, 0.8, 0.05], [0.7, 0.6, 0.5]])
    tags = np.array([[0.0, 5.0, 9.0], [5.1, 0.1, 9.0]])[..., None]
    assert match_tags(scores, tags).tolist() == [[0, 1], [1, 0], [-1, 2]]
    assert match_tags(0 * scores, tags).shape == (0, 2)
    # The peak at 2.5 belongs to the first person, even if another person is then left with the peak at 0.
    assert match_tags(np.ones((2, 2)), np.array([[2.5, 5], [0, 2.5]])[..., None]).tolist() == [[0, 1], [1, -1], [-1, 0]]
    # At equal distances in whole steps the nearest peak wins, whatever its height.
    assert match_tags(np.array([[0.9, 0.2], [0.3, 0.9]]), np.array([[0, 0.6], [0.4, 0.2]])[..., None]).tolist() == [
        [0, 1],
        [1, 0],
    ]


def test_no_more_people_than_are_looked_for_and_none_where_there_is_nobody() -> None:
    crowd = torch.zeros(2, 3, 64, 64)
    crowd[0, 0, ::6, ::6] = 1
    crowd[0, 2] = torch.arange(32.0).repeat_interleave(2) * 5
    many, none = group_people(crowd, 1)
    assert many.joints.shape == (MOST_PEOPLE, 1, 3)
    assert none.joints.shape == (0, 1, 3)


def test_a_plateau_is_one_peak() -> None:
    output = torch.zeros(1, 3, 32, 32)
    output[0, :2, 8:10, 8:10] = 1
    (found,) = group_people(output, 1)
    assert len(found.joints) == 1
    assert np.abs(found.joints[0, 0, :2] * 32 - 9).max() < 0.5


def test_scales_are_merged_and_further_tags_are_kept_apart() -> None:
    output = torch.rand(2, 12, 8, 12)
    output[:, 3:] = output[:, 3:, ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3)
    heatmaps, tags = merge_scales(output, 3)
    assert (heatmaps.shape, tags.shape) == ((2, 3, 8, 12), (2, 3, 2, 8, 12))
    torch.testing.assert_close(tags[:, 1, 1, 0, 0], output[:, 10, 0, 0])
    torch.testing.assert_close(heatmaps[..., 0, 0], (output[:, :3, 0, 0] + output[:, 3:6, 0, 0]) / 2)


# --- data -----------------------------------------------------------------------------------------

SQUARE = [[40, 10, 60, 10, 60, 30, 40, 30]]
COCO_SPEC = SPEC.replace(classes=4, height=64, width=96)


def coco(folder: Path) -> Path:
    """Two persons, and an outlined one without joints; a person, a crowd, and one without joints; an empty image."""
    unknown: dict[str, Any] = {"keypoints": [0] * 12, "num_keypoints": 0}
    people = [
        person(1, 10),
        person(2, 11, x=30),
        person(3, 10, x=30),
        person(4, 10, **unknown, segmentation=SQUARE),
        person(5, 11, **unknown, iscrowd=1, segmentation={"counts": [60, 4740], "size": [80, 60]}),
        person(6, 11, **unknown),
    ]
    root = write_coco(folder, people=people)
    picture(9).save(root / "images" / "val" / "empty.png")
    file = root / "annotations" / "person_keypoints_val.json"
    file.write_text(
        file.read_text().replace(
            '"images": [', '"images": [{"id": 12, "file_name": "empty.png", "width": 24, "height": 20}, '
        )
    )
    return root


def test_persons_become_images_with_everybody_in_them(tmp_path: Path) -> None:
    persons: Any = open_data(f"coco:{coco(tmp_path)}", "pose", "val")
    everything, trained = as_images(persons), as_images(persons, all_images=False)
    assert (len(persons), len(everything), len(trained)) == (3, 3, 2)
    assert as_images(everything) is everything
    for name in ("labels", "source", "split", "task"):
        assert getattr(everything, name) == getattr(persons, name)
    image, first = trained.read(0)
    _, second = trained.read(1)
    assert isinstance(first, People)
    assert isinstance(second, People)
    assert image.size == (90, 70)
    assert [one.id for one in first.persons] == [1, 3]
    assert [(one.crowd, one.outline is not None) for one in first.unlabelled] == [(False, True)]
    assert [(one.crowd, one.outline is not None) for one in second.unlabelled] == [(True, True), (False, False)]
    assert everything.read(2)[1].persons == ()  # type: ignore[union-attr]
    assert everything.name(2).endswith("empty.png")
    assert len(as_images(Part(persons, 1))) == 1


def test_images_that_are_not_as_annotated_are_refused(tmp_path: Path) -> None:
    images = as_images(open_data(f"coco:{coco(tmp_path)}", "pose", "val"))  # type: ignore[arg-type]
    picture(1).save(tmp_path / "images" / "val" / "1.png")
    with pytest.raises(
        InputError, match=r"1.png: found \(24, 20\) pixels, expected \(60, 80\), as its annotations say"
    ):
        images.read(1)
    bad = write_coco(tmp_path / "bad", people=[person(1, 10), person(2, 10, iscrowd=1, segmentation=[[1, 2]])])
    with pytest.raises(InputError, match="annotation 2: segmentation: cannot be read"):
        open_data(f"coco:{bad}", "pose", "val")


def test_targets_say_where_joints_are_and_where_nobody_is_labelled(tmp_path: Path) -> None:
    image, people = as_images(open_data(f"coco:{coco(tmp_path)}", "pose", "val")).read(0)  # type: ignore[arg-type]
    assert isinstance(people, People)
    seen, to_image = fit_image(image, (64, 96))
    assert seen.size == (96, 64)
    target = draw_people(people, to_image, (64, 96), 1.0)
    assert target["fine"].shape == (4, 32, 48)
    assert target["coarse"].shape == (4, 16, 24)
    points = apply(inverse(to_image), np.stack([one.keypoints[:, :2] for one in people.persons]).astype(np.float64))
    for n, joints in enumerate(points[:, :3]):
        for joint, (x, y) in enumerate(joints):
            for scale, width, height in (("coarse", 24, 16), ("fine", 48, 32)):
                assert target[scale][joint, int(y * height), int(x * width)] > 0.6
            assert target["places"][n, joint] == (joint * 16 + int(y * 16)) * 24 + int(x * 24)
    assert target["places"][:2, 3].tolist() == [-1, -1]
    assert (target["places"][2:] == -1).all()
    assert not target["coarse"][3].any()
    corners = apply(inverse(to_image), np.array([[42.0, 12], [58, 28]]))
    inside = np.zeros((32, 48), bool)
    (left, top), (right, bottom) = (corners * [48, 32]).astype(int)
    inside[top : bottom + 1, left : right + 1] = True
    assert not target["fine_weights"][inside].any()
    assert 0.8 < target["fine_weights"].mean() < 0.95


def test_mirrored_people_change_left_and_right() -> None:
    mirror = WHOLE * [[-1], [1]] + [[0, 0, 63], [0, 0, 0]]
    plain = draw_people(TWO, WHOLE, (64, 64), 2.0)
    mirrored = draw_people(TWO, mirror, (64, 64), 2.0, np.array([0, 2, 1]))
    for scale in ("coarse", "fine"):
        torch.testing.assert_close(mirrored[scale], plain[scale][[0, 2, 1]].flip(2))


@pytest.mark.parametrize("workers", [0, 2])
def test_training_batches_do_not_depend_on_workers(tmp_path: Path, workers: int) -> None:
    persons: Any = open_data(f"coco:{coco(tmp_path)}", "pose", "val")
    recipe = Recipe(rotation=20, train_size=(64, 64))
    batches = []
    for count in (workers, 0):
        loader = training_loader(persons, COCO_SPEC, INTERFACE, recipe, 2, count)
        torch.manual_seed(0)
        loader.dataset.set_epoch(1)  # type: ignore[attr-defined]
        batches += list(loader)
    first, second = batches
    assert first["image"].shape == (2, 3, 64, 64)
    assert {name: tuple(value.shape) for name, value in first["target"].items()} == {
        "coarse": (2, 4, 16, 16),
        "coarse_weights": (2, 16, 16),
        "fine": (2, 4, 32, 32),
        "fine_weights": (2, 32, 32),
        "places": (2, MOST_PEOPLE, 4),
    }
    torch.testing.assert_close(first, second)


def test_evaluation_sees_whole_images_and_boxes_are_refused(tmp_path: Path) -> None:
    persons: Any = open_data(f"coco:{coco(tmp_path)}", "pose", "val")
    (batch,) = evaluation_loader(persons, np.array, COCO_SPEC, 4, 0)
    assert batch["image"].shape == (3, 64, 96, 3)
    assert all(isinstance(view, View) for view in batch["target"])
    object.__setattr__(persons, "truth", {})
    with pytest.raises(InputError, match="found boxes of persons, expected none: the network finds them itself"):
        evaluation_loader(persons, np.array, COCO_SPEC, 4, 0)


# --- the whole pipeline ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Couples:
    """Made-up images of two stick people: a head of one colour, feet of two others, on noise."""

    count: int
    split: str = "train"
    source: str = "couples"
    task: Task = "pose"
    labels: Labels = LABELS

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"couple {index}"

    def read(self, index: int) -> tuple[Image.Image, People]:
        rng = np.random.default_rng([index, self.split == "val"])
        image = Image.fromarray(rng.integers(0, 60, (64, 64, 3)).astype(np.uint8))
        pen = ImageDraw.Draw(image)
        persons = []
        for number, left in enumerate((4, 36)):
            x, y = left + rng.integers(8, 16), int(rng.integers(6, 24))
            joints = [(float(x), float(y)), (float(x + 6), y + 28.0), (float(x - 6), y + 28.0)]
            for (a, b), colour in zip(joints, ("red", "lime", "blue"), strict=True):
                pen.ellipse((a - 3, b - 3, a + 3, b + 3), fill=colour)
            persons.append(somebody(joints, index, number))
        return image, People(index, tuple(persons))


def perfect(people: Couples, indices: range) -> tuple[Tensor, list[View]]:
    targets = [people.read(index)[1] for index in indices]
    outputs = [output_of(target_of(one, WHOLE), [0.0, 3.0]) for one in targets]
    return torch.cat(outputs), [View(one, WHOLE) for one in targets]


def test_heatmaps_and_tags_of_the_truth_find_everybody() -> None:
    meter = make_meter(SPEC, LABELS)
    assert isinstance(meter, BottomUp)
    for start in (4, 0):
        meter.update(*perfect(Couples(8), range(start, start + 4)))
    figures = meter.compute()
    assert figures["ap"] == figures["ar"] == 1
    assert set(figures) <= set(COCO_FIGURES)


def test_figures_fall_with_missed_and_mixed_up_people_but_not_with_crowds() -> None:
    couples = Couples(6)
    output, views = perfect(couples, range(6))
    missed = output.clone()
    missed[:3] = 0
    mixed = output.clone()
    mixed[:, 6:] = 0  # all tags the same
    crowded = [
        View(People(one.image_id, one.persons[:1], (Region(one.persons[1].box, 900.0, crowd=True),)), WHOLE)
        for one in (view.people for view in views)
    ]
    figures = []
    for maps, targets in ((output, views), (missed, views), (mixed, views), (output, crowded)):
        meter = BottomUp(LABELS)
        meter.update(maps, targets)
        figures.append(meter.compute())
    assert figures[1]["ar"] == pytest.approx(0.5)
    assert float(figures[2]["ap"]) < 0.9  # type: ignore[arg-type]
    assert figures[3]["ap"] == 1  # found in a crowd: neither right nor wrong


def test_nobody_found_is_no_error_and_nobody_there_is() -> None:
    _, views = perfect(Couples(2), range(2))
    meter = BottomUp(LABELS)
    meter.update(torch.zeros(2, 9, 32, 32), views)
    assert meter.compute()["ap"] == 0
    empty = BottomUp(LABELS)
    empty.update(torch.zeros(1, 9, 32, 32), [View(People(0, ()), WHOLE)])
    with pytest.raises(InputError, match="found no persons with labelled joints in 1 images, expected some"):
        empty.compute()


def ready(labels: Labels = LABELS) -> Any:
    torch.manual_seed(0)
    model: Any = create_model(SPEC).eval()
    model.pretrained_cfg["labels"] = labels.to_cfg()
    return model


def test_flip_test_of_a_mirror_symmetric_network_changes_nothing_but_adds_tags() -> None:
    inference = prepare_inference(ready())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        plain, both = inference.run(images), inference.mirrored(LABELS).run(images)
        there = inference.run(images.flip(3)).flip(3)
    assert both.shape == (2, 12, 32, 32)
    order = [0, 2, 1]
    torch.testing.assert_close(both[:, :3], (plain[:, :3] + there[:, order]) / 2)
    torch.testing.assert_close(both[:, 3:6], (plain[:, 3:6] + there[:, 3:6][:, order]) / 2)
    torch.testing.assert_close(both[:, 6:9], plain[:, 6:])
    torch.testing.assert_close(both[:, 9:], there[:, 6:][:, order])


def test_prediction_gives_everybody_in_each_picture_and_draws_them() -> None:
    inference = prepare_inference(ready())
    couples = Couples(2)
    pictures = [couples.read(i)[0].crop((0, 0, 64, 48 + 16 * i)) for i in range(2)]
    outputs = torch.cat(
        [output_of(target_of(couples.read(i)[1], fit_image(pictures[i], (64, 64))[1]), [0.0, 3.0]) for i in range(2)]
    )
    object.__setattr__(inference, "run", lambda images: outputs)
    decisions = predict_pictures(inference, pictures)
    for i, (found, shown) in enumerate(zip(decisions, pictures, strict=True)):
        truth = np.stack([one.keypoints for one in couples.read(i)[1].persons])
        places = found[..., :2] * shown.size - 0.5
        assert found.shape == (2, 3, 3)
        for one in truth:
            visible = one[:, 1] < shown.height - 4
            assert min(np.abs(place - one[:, :2])[visible].max() for place in places) < 2
    with pytest.raises(InputError, match="tiny_bottom_up: found boxes of persons, expected none: it finds the persons"):
        predict_pictures(inference, pictures, [[], []])
    rows = describe_output(SPEC, decisions[1], form="joints", names=LABELS.names)
    assert [(row["person"], row["name"]) for row in rows] == [(i, name) for i in range(2) for name in LABELS.names]
    assert describe_output(SPEC, outputs[1].numpy(), names=LABELS.names)[0].keys() == rows[0].keys()
    sheet = np.asarray(draw(inference, pictures[1], decisions[1]))
    assert (sheet[:64, :64] != np.asarray(pictures[1])).any()
    assert draw(inference, pictures[1], decisions[1][:0]).width == sheet.shape[1]


def test_training_lowers_the_loss_and_the_network_is_kept(tmp_path: Path) -> None:
    torch.manual_seed(0)
    recipe = Recipe(epochs=6, batch_size=4, opt="adam", lr=1e-2, weight_decay=0.0, sched="none", hflip=0.0)
    options = Options(workers=0, cpu=True, log_interval=5, val_interval=6)
    trained = train_network(create_model(SPEC), recipe, Couples(8), Couples(4, "val"), tmp_path / "run", options)
    losses = [line["loss"] for line in read_log(tmp_path / "run") if line["kind"] == "train"]
    assert losses[-1] < 0.75 * losses[0]
    assert trained.metric == "ap"
    assert 0 <= trained.best <= 1
    best: Any = create_model(tmp_path / "run").eval()
    assert best.spec.bottom_up
    found = evaluate_network(best, Couples(4, "val"))
    assert found.images == 4
    assert found.metrics["ap"] == pytest.approx(trained.best, abs=1e-6)
    flipped = evaluate_network(best, Couples(4, "val"), flip=True).metrics["ap"]
    assert 0 <= float(flipped) <= 1  # type: ignore[arg-type]


def test_a_teacher_must_find_several_people_as_well(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="teacher: found bottom_up False of tiny_pose, expected True as tiny_bottom_up"
    ):
        train_network(
            create_model(SPEC),
            Recipe(epochs=1, batch_size=4),
            Couples(4),
            Couples(4, "val"),
            tmp_path / "run",
            Options(workers=0, cpu=True),
            teacher=create_model(SPECS["pose"].replace(classes=3)),
        )
