"""What all loaders have in common."""

import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform
from torch import Tensor

from scalenet_zoo.arch.spec import Task
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.data.broken import BrokenImages, LoadingError
from scalenet_zoo.data.loaders import TrainingSet, evaluation_loader, seeded, training_loader
from scalenet_zoo.data.preparation import preprocessing
from scalenet_zoo.data.sources import open_data
from scalenet_zoo.data.streams import Stream
from scalenet_zoo.training.recipe import Recipe
from tests.helpers.data_files import (
    INTERFACE,
    examples_of,
    fitting_spec,
    spoil,
)
from tests.helpers.shapes import SPECS

STRONG = Recipe(
    hflip=0.5, color_jitter=0.4, aa="rand-m9-mstd0.5", reprob=0.5, rotation=30.0, scale=(0.3, 1.0), broken_limit=3
)


def tensors(batch: Any) -> list[Tensor]:
    """The tensors of a batch."""
    if isinstance(batch, dict):
        return [tensor for value in batch.values() for tensor in tensors(value)]
    return [batch] if isinstance(batch, Tensor) else []


@given(seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 1000), index=st.integers(0, 2**40))
def test_randomness_is_a_function_of_seed_epoch_and_index(seed: int, epoch: int, index: int) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    with seeded(1, 2, 3):
        before = draw()
    with seeded(1, 2, 3):
        with seeded(seed, epoch, index):
            first = draw()
        assert draw() == before  # the outer random state is unchanged
        with seeded(seed, epoch, index):
            assert draw() == first
        for other in ((seed + 1, epoch, index), (seed, epoch + 1, index), (seed, epoch, index + 1)):
            with seeded(*other):
                assert draw() != first


@pytest.mark.parametrize("task", ["classification", "segmentation", "pose"])
def test_pictures_do_not_depend_on_workers(task: Task, tmp_path: Path) -> None:
    examples = examples_of(task, tmp_path)
    spec = fitting_spec(examples)

    def epochs(workers: int, recipe: Recipe = STRONG) -> Iterator[list[list[bytes]]]:
        loader = training_loader(examples, spec, INTERFACE, recipe, 1, workers)
        for epoch in (0, 1):
            loader.dataset.set_epoch(epoch)  # type: ignore[attr-defined]
            batches = list(loader)
            assert [list(batch) for batch in batches] == [["image", "target", "broken"]] * len(examples)
            yield sorted([tensor.numpy().tobytes() for tensor in tensors(batch)] for batch in batches)

    first, second = epochs(0)
    assert list(epochs(1)) == list(epochs(2)) == [first, second]
    assert first != second
    assert next(epochs(0, STRONG.replace({"seed": 1}))) != first


@pytest.mark.parametrize("task", ["classification", "segmentation", "pose"])
def test_workers_may_be_started_anew(task: Task, tmp_path: Path) -> None:
    """Without fork (Windows, macOS) the parts of a loader are pickled for its workers."""
    examples = examples_of(task, tmp_path)
    spec = fitting_spec(examples)
    for loader in (
        training_loader(examples, spec, INTERFACE, STRONG, 1, 0),
        evaluation_loader(examples, preprocessing(spec, INTERFACE), spec, 1, 0),
    ):
        dataset, collate = pickle.loads(pickle.dumps((loader.dataset, loader.collate_fn)))
        one, other = loader.collate_fn([loader.dataset[0]]), collate([dataset[0]])
        assert len(tensors(one)) in (1, 2, 3)
        assert all(map(torch.equal, tensors(one), tensors(other)))


def test_classifiers_see_what_timm_shows(tmp_path: Path) -> None:
    examples = examples_of("classification", tmp_path)
    spec = fitting_spec(examples)
    loader = training_loader(examples, spec, INTERFACE, STRONG, 4, 0)
    loader.dataset.set_epoch(7)  # type: ignore[attr-defined]
    transform = create_transform(
        (3, 32, 32),
        is_training=True,
        scale=STRONG.scale,
        ratio=STRONG.ratio,
        color_jitter=STRONG.color_jitter,
        auto_augment=STRONG.aa,
        re_prob=STRONG.reprob,
        re_mode="pixel",
        interpolation="bilinear",
        mean=INTERFACE.mean,
        std=INTERFACE.std,
    )
    for index in range(4):
        with seeded(STRONG.seed, 7, index):
            expected = transform(examples.read(index)[0])
        assert torch.equal(loader.dataset[index][0], expected)


@pytest.mark.parametrize("task", ["classification", "segmentation", "pose"])
def test_training_may_use_another_size_and_grey_networks(task: Task, tmp_path: Path) -> None:
    examples = examples_of(task, tmp_path)
    spec = fitting_spec(examples, channels=1)
    batch = next(iter(training_loader(examples, spec, INTERFACE, STRONG.replace({"train_size": (64, 96)}), 2, 0)))
    assert batch["image"].shape == (2, 1, 64, 96)
    assert abs(float(batch["image"].mean())) < 3
    shapes = [tuple(tensor.shape) for tensor in tensors(batch["target"])]
    assert (
        shapes
        == {
            "classification": [(2,)],
            "segmentation": [(2, 64, 96)],
            "pose": [(2, 4, 16, 24), (2, 4)],
        }[task]
    )
    whole = next(iter(evaluation_loader(examples, preprocessing(spec, INTERFACE), spec, 2, 0)))
    assert whole["image"].shape == (2, 1, spec.input.height, spec.input.width)


def test_plain_augmentation_shows_a_classifier_the_image_itself(tmp_path: Path) -> None:
    examples = examples_of("classification", tmp_path)
    spec = fitting_spec(examples)
    plain = Recipe(hflip=0.0, scale=(1.0, 1.0), ratio=(1.2, 1.2))  # the pictures' own shape
    for channels in (1, 3):
        seen = spec.replace(channels=channels)
        loader = training_loader(examples, seen, INTERFACE, plain, 8, 0)
        squash = preprocessing(seen, INTERFACE)
        image = loader.dataset[0][0]
        expected = squash(examples.read(0)[0].resize((32, 32), Image.Resampling.BILINEAR))
        assert torch.allclose(image, expected, atol=0.03)


@pytest.mark.parametrize("world", [1, 2, 5])
def test_processes_share_images_without_overlap(world: int) -> None:
    examples = open_data("digits", "classification", "val", limit=23)
    assert not isinstance(examples, Stream)
    spec = fitting_spec(examples)
    shares = []
    for rank in range(world):
        loader = evaluation_loader(examples, np.array, spec, 3, 0, rank, world)
        batches = list(loader)
        assert all(batch["image"].dtype == torch.uint8 for batch in batches)
        shares.append(torch.cat([batch["target"] for batch in batches]).tolist())
    everything = [examples.read(i)[1] for i in range(23)]
    assert shares == [everything[rank::world] for rank in range(world)]


@pytest.mark.parametrize("task", ["classification", "segmentation", "pose"])
@pytest.mark.parametrize("workers", [0, 2])
def test_broken_images_are_named_and_replaced_or_left_out(task: Task, workers: int, tmp_path: Path) -> None:
    examples = examples_of(task, tmp_path)
    spec = fitting_spec(examples)
    spoil(examples.name(1))
    broken = BrokenImages(10)
    loader = training_loader(examples, spec, INTERFACE, STRONG, 1, workers)
    for _ in range(2):
        for batch in loader:
            assert len(batch["image"]) == 1
            broken.add(batch["broken"])
    files = {examples.name(i) for i in range(len(examples)) if examples.name(i) == examples.name(1)}
    assert len(broken) == 1  # each file once
    assert broken.names[0].startswith(f"{files.pop()}: cannot be read as an image: ")
    dataset = loader.dataset
    assert isinstance(dataset, TrainingSet)
    assert [len(dataset[i][2]) > 0 for i in range(len(examples))].count(True) in (1, 2)  # two persons are in one file

    batches = list(evaluation_loader(examples, preprocessing(spec, INTERFACE), spec, 1, workers))
    lost = [len(batch["image"]) == 0 for batch in batches]
    assert lost == [bool(batch["broken"]) for batch in batches]
    assert 1 <= sum(lost) <= 2
    assert all(len(batch["target"]) == len(batch["image"]) for batch in batches)
    whole = list(evaluation_loader(examples, preprocessing(spec, INTERFACE), spec, len(examples), workers))
    assert len(whole[0]["image"]) == len(whole[0]["target"]) == len(examples) - sum(lost)


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_broken_images_are_an_error_of_one_line(workers: int, tmp_path: Path) -> None:
    examples = examples_of("classification", tmp_path)
    for i in range(len(examples)):
        spoil(examples.name(i))
    loader = training_loader(examples, fitting_spec(examples), INTERFACE, STRONG, 1, workers)
    with pytest.raises(
        LoadingError, match=r"^data: found 4 images that cannot be used, expected at most 3: .*png: .* \(and 3 more\)$"
    ):
        next(iter(loader))
    broken = BrokenImages(1)
    broken.add(["a.jpg: is no image"])
    broken.add(["a.jpg: is no image"])
    with pytest.raises(
        InputError, match=r"^data: found 2 images that .*, expected at most 1: a.jpg: is no image \(and 1 more\)$"
    ):
        broken.add(["b.jpg: is missing"])


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_classes_that_the_network_lacks_are_named(task: Task, tmp_path: Path) -> None:
    examples = examples_of(task, tmp_path)
    spec = SPECS[task].replace(classes=1)
    for loader in (
        training_loader(examples, spec, INTERFACE, STRONG, len(examples), 0),
        evaluation_loader(examples, preprocessing(spec, INTERFACE), spec, len(examples), 0),
    ):
        with pytest.raises(LoadingError, match="^[^\n]*png: found the class [12], expected a number from 0 to 0$"):
            list(loader)


def test_less_than_a_batch_is_an_error() -> None:
    examples = open_data("digits", "classification", "val", limit=3)
    with pytest.raises(InputError, match="digits: found 3 images of val, expected at least a batch of 4"):
        training_loader(examples, SPECS["classification"], INTERFACE, Recipe(), 4, 0)
