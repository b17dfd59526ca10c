"""Scores of topologies by a supernet's weights: what evaluation says, masks and crops kept on disk, processes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.arch.spec import Task
from scalenet_zoo.core.errors import InputError, TrainingError, WeightsError
from scalenet_zoo.data.examples import Crop, Part, Person
from scalenet_zoo.data.loaders import evaluation_loader
from scalenet_zoo.data.preparation import pixels, preprocessing
from scalenet_zoo.inference.evaluate import evaluate_network
from scalenet_zoo.networks.batch_norm import reestimate_batch_norm
from scalenet_zoo.search.images import cached_images, check_data
from scalenet_zoo.search.scalenas.config import ScaleNASConfig, ScaleNASScoring
from scalenet_zoo.search.scalenas.method import ScaleNASMethod
from scalenet_zoo.search.scoring import Scorer
from scalenet_zoo.spaces.scalenas import Topologies
from scalenet_zoo.supernet.scalenas.network import ScaleNASSupernet
from scalenet_zoo.zoo.interface import Interface
from tests.helpers.processes import run_processes
from tests.helpers.shapes import Shapes
from tests.helpers.topologies import random_supernet, tiny_space

TASKS: tuple[Task, ...] = ("segmentation", "pose")
tasks = pytest.mark.parametrize("task", TASKS)


def classes_of(task: str) -> int:
    return 2 if task == "pose" else 3


def drawn(task: str, count: int = 3) -> Topologies:
    return tiny_space(task).sample(np.random.default_rng(0), count)


def make_scorer(
    task: Task, folder: Path, supernet: ScaleNASSupernet | None = None, identity: str = "weights", **changes: Any
) -> Scorer:
    settings = ScaleNASScoring(bn_images=10, batch_size=4).model_copy(update=changes)
    supernet = supernet or random_supernet(task, classes_of(task))
    space = supernet.space.model_dump(mode="json")
    config = ScaleNASConfig(name="x", method="scalenas", data="shapes", space=space, scoring=settings)
    method = ScaleNASMethod(config, Shapes(task, 20).labels)
    method.supernet = supernet
    return Scorer(method, Shapes(task, 20), Shapes(task, 9, "val"), folder, identity)


def scores_of(scorer: Scorer, chosen: Topologies) -> list[float]:
    return scorer.score(tiny_space(scorer.method.config.task).keys(chosen))


# --- images ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes(Shapes):
    """Images of different sizes; some cannot be read, or none may be read at all."""

    damaged: tuple[int, ...] = ()
    sealed: bool = False

    def read(self, index: int) -> tuple[Image.Image, Any]:
        assert not self.sealed
        if index in self.damaged:
            raise InputError(f"{self.name(index)}: cannot be read")
        image, target = super().read(index)
        if self.task == "segmentation":
            width = 40 + 3 * index
            return image.resize((width, 50)), np.array(Image.fromarray(target).resize((width, 50)))
        return image, target


@tasks
def test_cached_images_and_targets_are_those_that_evaluation_sees(task: Task, tmp_path: Path) -> None:
    spec = tiny_space(task).spec(drawn(task)[0], classes_of(task))
    cached = cached_images(Sizes(task, 11, damaged=(4,)), spec, tmp_path)
    again = cached_images(Sizes(task, 11, sealed=True), spec, tmp_path)
    assert len(cached) == len(again) == 10
    assert cached.broken == ("shape 4: cannot be read",)
    transform = pixels(spec, Interface.of(spec))
    (batch,) = evaluation_loader(Sizes(task, 11, damaged=(4,)), transform, spec, 11, 0)
    for kept in (cached, again):
        assert torch.equal(kept.images, batch["image"])
        parts = list(kept.batches(4))
        assert [len(targets) for _, targets in parts] == [4, 4, 2]
        for target, expected in zip([each for _, part in parts for each in part], batch["target"], strict=True):
            if isinstance(expected, Crop):
                np.testing.assert_array_equal(target.to_image, expected.to_image)
                np.testing.assert_array_equal(target.person.keypoints, expected.person.keypoints)
                assert target.person.keypoints.dtype == np.float32
                for name in ("box", "area", "image_id", "id"):
                    assert getattr(target.person, name) == getattr(expected.person, name)
            else:
                assert target.dtype == torch.uint8
                assert torch.equal(target.long(), expected)


@tasks
def test_data_in_which_nothing_is_labelled_are_refused(task: Task, tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Bare(Shapes):
        def read(self, index: int) -> tuple[Image.Image, Any]:
            image, target = super().read(index)
            if task == "segmentation":
                target = np.full_like(target, 255)
            else:
                target.keypoints[:, 2] = 0
            return image, target

    said = {
        "segmentation": "found no labelled pixel in 4 masks of train, expected some",
        "pose": "split train: found no person with a labelled joint, expected some",
    }
    spec = tiny_space(task).spec(drawn(task)[0], classes_of(task))
    with pytest.raises(InputError, match=f"^shapes: {said[task]}"):
        cached_images(Bare(task, 4), spec, tmp_path)
    assert not list(tmp_path.iterdir())


def test_data_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    class OneJoint(Shapes):
        labels = Labels(names=("nose",), sigmas=(0.1,))

    class OneOfTwo(Shapes):
        labels = Labels(names=("left_corner",), sigmas=(0.1,))

    with pytest.raises(InputError, match=r"^shapes: split train: found data for pose, expected segmentation$"):
        check_data(Shapes("pose", 4), task="segmentation")
    with pytest.raises(InputError, match=r"^shapes: split val: found no images, expected some$"):
        check_data(Shapes("pose", 4), Shapes("pose", 0, "val"), task="pose")
    with pytest.raises(InputError, match=r"split val: found the joint 'nose', expected those of the split train"):
        check_data(Shapes("pose", 4), OneJoint("pose", 4, "val"), task="pose")
    with pytest.raises(InputError, match=r"split val: found no joint 'right_corner', expected all of the split train"):
        check_data(Shapes("pose", 4), OneOfTwo("pose", 4, "val"), task="pose")


@tasks
def test_parts_with_another_order_are_numbered_as_the_first(task: Task, tmp_path: Path) -> None:
    order = [1, 0] if task == "pose" else [2, 0, 1]

    @dataclass(frozen=True)
    class Reordered(Shapes):
        @property
        def labels(self) -> Labels:
            known = super().labels.names
            names = tuple(known[i] for i in order)
            return Labels(names=names, sigmas=(0.1, 0.1) if task == "pose" else ())

        def read(self, index: int) -> tuple[Image.Image, Any]:
            image, target = super().read(index)
            if task == "pose":
                return image, replace(target, keypoints=target.keypoints[order])
            mask = np.argsort(order)[target].astype(np.uint8)
            mask[0] = 255
            return image, mask

    first, second = check_data(Shapes(task, 4), Reordered(task, 4, "val"), task=task)
    assert second.labels == first.labels
    for i in range(4):
        found, expected = second.read(i)[1], Shapes(task, 4, "val").read(i)[1]
        if isinstance(found, Person):
            assert (found.keypoints == expected.keypoints).all()
        else:
            assert (np.asarray(found)[1:] == expected[1:]).all()
            assert (np.asarray(found)[0] == 255).all()


# --- scores ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "metric", "figure"),
    [("segmentation", "miou", "miou"), ("pose", "ap", "ap"), ("pose", "pck", "pck_box")],
)
def test_a_score_is_what_evaluation_says(task: Task, metric: str, figure: str, tmp_path: Path) -> None:
    supernet, chosen = random_supernet(task, classes_of(task)), drawn(task)
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    scorer = make_scorer(task, tmp_path, supernet, metric=metric)
    scores = scores_of(scorer, chosen)
    assert scorer.images_each == 10 + 9
    for topology, score in zip([chosen[i] for i in range(3)], scores, strict=True):
        spec = supernet.space.spec(topology, supernet.classes)
        network = supernet.extract(spec).eval()
        transform = preprocessing(spec, Interface.of(spec))
        part = Part(Shapes(task, 20), 10)
        images = torch.stack([transform(part.read(i)[0]) for i in range(10)])
        if task == "pose":
            loader = evaluation_loader(part, transform, spec, 10, 0)
            images = next(iter(loader))["image"]
        reestimate_batch_norm(network, [images[i::3] for i in range(3)])
        assert score == pytest.approx(evaluate_network(network, Shapes(task, 9, "val")).metrics[figure], abs=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())


@tasks
def test_networks_are_scored_only_once(task: Task, tmp_path: Path) -> None:
    chosen = drawn(task)
    scores = scores_of(make_scorer(task, tmp_path), chosen)
    supernet = random_supernet(task, classes_of(task))
    supernet.extract = None  # type: ignore[assignment,method-assign] # nothing may be taken from it
    scorer = make_scorer(task, tmp_path, supernet)
    assert scores_of(scorer, chosen[[2, 0, 1, 0]]) == [scores[i] for i in (2, 0, 1, 0)]
    with pytest.raises(TrainingError, match=r'supernet: found scores for "weights", expected "others"; delete'):
        make_scorer(task, tmp_path, identity="others")
    with pytest.raises(TrainingError, match=r"settings.bn_images: found scores for 10, expected 8; delete the file"):
        make_scorer(task, tmp_path, bn_images=8)


def test_a_metric_of_another_task_is_refused() -> None:
    with pytest.raises(InputError, match=r"^scoring.metric: found miou, expected ap or pck for pose$"):
        ScaleNASScoring(metric="miou").metric_of("pose")
    assert ScaleNASScoring().metric_of("segmentation") == "miou"


def test_outputs_that_are_not_finite_are_reported(tmp_path: Path) -> None:
    supernet = random_supernet("segmentation")
    supernet.largest.classifier.weight.data.fill_(torch.nan)  # type: ignore[operator]
    with pytest.raises(WeightsError, match="found outputs that are not finite"):
        scores_of(make_scorer("segmentation", tmp_path, supernet), drawn("segmentation", 1))


# --- processes ------------------------------------------------------------------------------------


def _score(rank: int, world: int, task: Task, folder: Path) -> Sequence[float]:
    return scores_of(make_scorer(task, folder), drawn(task))  # three: one process has nothing to do in the last turn


@pytest.mark.distributed
@tasks
def test_two_processes_score_as_one_does(task: Task, tmp_path: Path) -> None:
    (alone,) = run_processes(_score, 1, task, tmp_path / "one")
    first, second = run_processes(_score, 2, task, tmp_path / "two")
    assert first == second == alone
    kept = [(tmp_path / name / "scores.jsonl").read_text() for name in ("one", "two")]
    assert kept[0] == kept[1]
    assert len(kept[0].splitlines()) == 4
    assert json.loads(kept[0].splitlines()[1])["network"] in tiny_space(task).keys(drawn(task))
