"""Judging what is timed: accuracy as in `evaluate`, its standard error, and agreement as in exports."""

import re
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from scalenet_zoo import create_model, evaluate
from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.arch.spec import Task, spec_of
from scalenet_zoo.core.backends import find_backend
from scalenet_zoo.data.image_files import sample_photographs
from scalenet_zoo.data.loaders import evaluation_loader
from scalenet_zoo.export.inputs import network_input
from scalenet_zoo.export.metadata import Metadata, OnnxOptions
from scalenet_zoo.export.onnx import metadata_of
from scalenet_zoo.export.verify import agree, run_torch
from scalenet_zoo.inference.metrics import PRIMARY, make_meter
from scalenet_zoo.inference.prepare import prepare_inference
from scalenet_zoo.latency.cases import Case, Subject
from scalenet_zoo.latency.comparison.judging import GROUPS, Decisions, Judgement, LeftOut, judge, share_error
from scalenet_zoo.latency.comparison.running import open_network
from tests.helpers.networks import randomise
from tests.helpers.shapes import SPECS, Shapes

TASKS: tuple[Task, ...] = ("classification", "segmentation", "pose")
COUNT = 24


class Easy(Shapes):
    """Shapes whose joints may lie far off, so that a network of random weights has found some of them."""

    @property
    def labels(self) -> Labels:
        labels = super().labels
        return labels.model_copy(update={"sigmas": (2.0, 2.0)}) if self.task == "pose" else labels


def shapes_network(task: Task, seed: int = 0) -> nn.Module:
    """A network of random weights that knows the names of `Shapes`."""
    labels = Shapes(task, 1).labels
    network: Any = randomise(create_model(SPECS[task], num_classes=len(labels.names)), seed)
    network.pretrained_cfg["labels"] = labels.to_cfg()
    assert isinstance(network, nn.Module)
    return network.eval()


@pytest.fixture(scope="module", params=TASKS)
def network(request: pytest.FixtureRequest) -> nn.Module:
    return shapes_network(request.param)


def judged(network: nn.Module, backend: str, batch: int = 1, precision: Any = "fp32") -> Judgement:
    spec = spec_of(network)
    with open_network(network, Case(Subject(spec.name, spec), backend, precision, batch), 1) as opened:
        return judge(metadata_of(network, OnnxOptions()), opened, Easy(spec.task, COUNT, "val"), workers=0)


@pytest.mark.parametrize(
    ("task", "backend", "batch"),
    [
        *((task, "torch", batch) for task in TASKS for batch in (1, 5)),
        pytest.param("classification", "ort-cpu", 2, marks=pytest.mark.slow),
        pytest.param("segmentation", "ort-cpu", 2, marks=pytest.mark.slow),
        pytest.param("pose", "ort-cpu", 2, marks=pytest.mark.slow),
        pytest.param("classification", "openvino", 2, marks=pytest.mark.slow),
    ],
)
def test_a_runner_is_judged_as_evaluate_judges_its_network(task: Task, backend: str, batch: int) -> None:
    if not find_backend(backend).ready:
        pytest.skip(find_backend(backend).about)
    network = shapes_network(task)
    expected = evaluate(network, Easy(task, COUNT, "val"), workers=0)
    found = judged(network, backend, batch)
    assert (found.metric, found.images, found.noun) == (PRIMARY[task], expected.images, expected.noun)
    assert found.accuracy == pytest.approx(expected.metrics[PRIMARY[task]], abs=1e-4)
    assert found.metrics.keys() == expected.metrics.keys()
    assert found.error is not None
    assert 0 < found.error < 0.5
    assert found.decisions.agreement(found.decisions) == 1.0
    if backend != "torch":
        assert found.decisions.agreement(judged(network, "torch").decisions) > 0.98


def test_half_precision_is_judged_in_half_precision() -> None:
    network = shapes_network("classification")
    half, whole = judged(network, "torch", precision="fp16"), judged(network, "torch")
    assert half.metrics["ece"] != whole.metrics["ece"]
    assert half.metrics["ece"] == pytest.approx(whole.metrics["ece"], abs=1e-2)


@dataclass(frozen=True)
class Noisy:
    """A stand-in for an exported file: a network whose outputs are off."""

    network: nn.Module
    metadata: Metadata
    noise: float

    def __call__(self, images: np.ndarray) -> np.ndarray:
        output = run_torch(self.network, images)
        wobble = np.sin(np.arange(output.size).reshape(output.shape) * 12.9898 + images.sum())
        noisy: np.ndarray = output + self.noise * output.std() * wobble.astype(np.float32)
        return noisy


@pytest.mark.parametrize("noise", [0.0, 0.5, 3.0])
def test_agreement_is_counted_as_for_exports(network: nn.Module, noise: float) -> None:
    metadata = metadata_of(network, OnnxOptions(batch=(1, 1, 1)))
    exported, photographs = Noisy(network, metadata, noise), sample_photographs()
    expected = agree(partial(run_torch, network), exported, photographs).share
    ours, theirs = Decisions(metadata.spec, "raw"), Decisions(metadata.spec, "raw")
    for photograph in photographs:
        images = network_input(metadata, [photograph], 1)
        ours.add(torch.from_numpy(run_torch(network, images)))
        theirs.add(torch.from_numpy(exported(images)))
    assert theirs.agreement(ours) == pytest.approx(expected, abs=1e-12)
    if not noise:
        assert expected == 1.0
    elif metadata.spec.task != "classification":  # of which there are but two decisions
        assert expected < 1.0


def test_agreement_on_given_classes() -> None:
    spec = SPECS["classification"]
    ours, theirs = Decisions(spec, "raw"), Decisions(spec, "raw")
    for decisions, classes in ((ours, [0, 1, 2, 2]), (theirs, [0, 1, 1, 2])):
        for part in (classes[:1], classes[1:]):
            decisions.add(torch.eye(3)[part])
    assert ours.agreement(theirs) == 0.75


# --- standard errors ------------------------------------------------------------------------------


@given(st.integers(1, 10_000), st.data())
def test_the_error_of_a_share(count: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, count))
    outcomes = np.repeat([1.0, 0.0], [right, count - right])
    assert share_error(right / count, count) == pytest.approx(outcomes.std() / count**0.5, abs=1e-12)


@pytest.mark.parametrize("task", ["segmentation", "pose"])
def test_the_error_of_other_figures_is_the_jackknife(task: Task) -> None:
    """With one image per group, the figure is computed again without each image."""
    network, examples = shapes_network(task), Easy(task, 8, "val")
    inference = prepare_inference(network)
    spec = inference.spec
    loader = evaluation_loader(examples, inference.transform, spec, 1, 0)
    with torch.inference_mode():
        batches = [(inference.run(batch["image"]), batch["target"]) for batch in loader]
    groups = LeftOut(spec, examples, "raw")
    for output, targets in batches:
        groups.update(output, targets)
    figures: list[Any] = []
    for left_out in range(len(batches)):
        meter = make_meter(spec, examples.labels)
        for place, (output, targets) in enumerate(batches):
            if place != left_out:
                meter.update(output, targets)
        figures.append(meter.compute()[PRIMARY[task]])
    deviations = np.array(figures) - np.mean(figures)
    expected = ((len(batches) - 1) / len(batches) * (deviations**2).sum()) ** 0.5
    assert groups.error(PRIMARY[task]) == pytest.approx(expected, rel=1e-6)
    assert groups.error(PRIMARY[task]) != 0


@settings(max_examples=5)
@given(st.integers(0, 2**32 - 1))
def test_the_jackknife_is_near_what_other_images_would_give(seed: int) -> None:
    """For mIoU, compared with the deviation over 200 data sets drawn from the same images (the bootstrap)."""
    rng = np.random.default_rng(seed)
    spec, examples = SPECS["segmentation"], Shapes("segmentation", 100, "val")
    masks = rng.integers(0, 3, (100, 12, 12))
    wrong = rng.random((100, 12, 12)) < rng.uniform(0, 0.6, (100, 1, 1))
    found = np.where(wrong, rng.integers(0, 3, masks.shape), masks)
    groups = LeftOut(spec, examples, "argmax")
    for one, mask in zip(found, masks, strict=True):
        groups.update(torch.from_numpy(one)[None], [torch.from_numpy(mask)])
    assert len(groups) == GROUPS
    confusion = np.stack(
        [
            np.bincount(3 * mask.ravel() + one.ravel(), minlength=9).reshape(3, 3)
            for one, mask in zip(found, masks, strict=True)
        ]
    )

    def miou(drawn: np.ndarray) -> float:
        counts = confusion[drawn].sum(0)
        same = counts.diagonal()
        return float((same / (counts.sum(0) + counts.sum(1) - same)).mean())

    bootstrap = np.std([miou(rng.integers(0, 100, 100)) for _ in range(200)])
    error = groups.error("miou")
    assert error is not None
    assert 0.5 < error / bootstrap < 1.8


def test_one_image_has_no_error() -> None:
    spec, examples = SPECS["segmentation"], Shapes("segmentation", 1, "val")
    groups = LeftOut(spec, examples, "argmax")
    assert groups.error("miou") is None
    groups.update(torch.zeros(1, 4, 4, dtype=torch.int64), [torch.ones(4, 4, dtype=torch.int64)])
    assert groups.error("miou") is None


def test_the_metric_has_a_name_for_people() -> None:
    from scalenet_zoo.latency.comparison.table import METRIC_NAMES

    assert {task: re.sub("[^a-z0-9]", "", name.lower()) for task, name in METRIC_NAMES.items()} == PRIMARY
