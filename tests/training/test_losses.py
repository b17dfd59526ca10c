"""What training minimises, against plain computations."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812

from scalenet_zoo.data.examples import IGNORE
from scalenet_zoo.training.losses import heatmap_loss, people_loss, pixel_loss, task_loss, teacher_loss
from scalenet_zoo.training.recipe import Recipe


def masked(shape: tuple[int, int, int], classes: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.randint(classes, shape, generator=generator)
    mask[torch.rand(shape, generator=generator) < 0.3] = IGNORE
    return mask


@given(st.integers(0, 10**6))
def test_pixels_without_a_label_count_for_nothing(seed: int) -> None:
    mask = masked((2, 8, 8), 4, seed)
    logits = torch.randn(2, 4, 8, 8)
    found = pixel_loss(logits, mask)
    labelled = mask != IGNORE
    expected = F.cross_entropy(logits.permute(0, 2, 3, 1)[labelled], mask[labelled])
    torch.testing.assert_close(found, expected)


def test_a_mask_of_void_alone_gives_no_loss_and_no_gradient() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = pixel_loss(logits, torch.full((1, 16, 16), IGNORE), 0.9, 0.1)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@given(st.integers(0, 10**6), st.floats(0.05, 0.95), st.floats(0.0, 1.0))
def test_ohem_keeps_hard_pixels_or_the_hardest(seed: int, threshold: float, keep: float) -> None:
    mask = masked((2, 8, 8), 4, seed)
    logits = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) * 3
    found = pixel_loss(logits, mask, threshold, keep)
    labelled = mask != IGNORE
    losses = F.cross_entropy(logits.permute(0, 2, 3, 1)[labelled], mask[labelled], reduction="none").sort(
        descending=True
    )[0]
    hard = max(int((torch.exp(-losses) <= threshold).sum()), min(int(keep * mask.numel()), len(losses)))
    expected = losses[:hard].mean() if hard else torch.tensor(0.0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_logits_are_resized_to_the_mask() -> None:
    logits, mask = torch.randn(1, 3, 4, 6), masked((1, 16, 24), 3, 0)
    large = F.interpolate(logits, size=(16, 24), mode="bilinear", align_corners=False)
    torch.testing.assert_close(pixel_loss(logits, mask), F.cross_entropy(large, mask, ignore_index=IGNORE))


def test_joints_without_a_label_teach_nothing() -> None:
    heatmaps = torch.randn(2, 3, 4, 4, requires_grad=True)
    weights = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    target = torch.randn(2, 3, 4, 4)
    loss = heatmap_loss(heatmaps, {"heatmaps": target, "weights": weights})
    # HRNet: for each joint half the mean squared error over images and pixels, then their mean.
    joints = [
        0.5 * F.mse_loss(heatmaps[:, j] * weights[:, j, None, None], target[:, j] * weights[:, j, None, None])
        for j in range(3)
    ]
    torch.testing.assert_close(loss, torch.stack(joints).mean())
    loss.backward()  # type: ignore[no-untyped-call]
    assert heatmaps.grad is not None
    assert not heatmaps.grad[weights == 0].any()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.3])
def test_label_smoothing_is_torchs(smoothing: float) -> None:
    logits, classes = torch.randn(5, 7), torch.randint(7, (5,))
    found = task_loss("classification", Recipe(smoothing=smoothing))(logits, classes)
    torch.testing.assert_close(found, F.cross_entropy(logits, classes, label_smoothing=smoothing))


@pytest.mark.parametrize("values", [{"mixup": 0.2}, {"cutmix": 0.2}, {"mixup": 0.2, "cutmix": 0.2}])
def test_mixed_images_have_shares_of_classes(values: dict[str, Any]) -> None:
    logits, shares = torch.randn(5, 7), torch.rand(5, 7).softmax(1)
    found = task_loss("classification", Recipe(smoothing=0.1, **values))(logits, shares)
    torch.testing.assert_close(found, F.cross_entropy(logits, shares))  # mixup has smoothed them already


PROBABILITIES = (0.9, 0.6, 0.3, 0.2)
"""Of the true classes of four pixels; a fifth has no label."""


@pytest.mark.parametrize(
    ("threshold", "keep", "hard"),
    [
        (None, 0.0, PROBABILITIES),
        (0.7, 0.0, (0.6, 0.3, 0.2)),
        (0.25, 0.0, (0.2,)),
        (0.25, 0.4, (0.3, 0.2)),  # two of five pixels
        (0.25, 0.5, (0.3, 0.2)),
        (0.25, 0.6, (0.6, 0.3, 0.2)),
        (0.25, 1.0, PROBABILITIES),
        (0.1, 0.0, ()),
        (1.0, 0.0, PROBABILITIES),
    ],
)
def test_the_hard_pixels_of_a_recipe_are_those(threshold: float | None, keep: float, hard: tuple[float, ...]) -> None:
    true = torch.tensor([*PROBABILITIES, 0.5]).view(1, 1, 1, 5)
    logits = torch.cat([true, 1 - true], dim=1).log()
    mask = torch.tensor([0, 0, 0, 0, IGNORE]).view(1, 1, 5)
    recipe = Recipe(ohem_threshold=threshold, ohem_keep=keep)
    expected = -sum(map(math.log, hard)) / max(1, len(hard))
    assert task_loss("segmentation", recipe)(logits, mask).item() == pytest.approx(expected, rel=1e-5)
    # Of two processes, of which the other one has twice as many hard pixels: the mean of both losses is that of all.
    shared = task_loss("segmentation", recipe, lambda count: count * 1.5)(logits, mask).item()
    assert shared == pytest.approx(expected / (1.5 if hard else 1), rel=1e-5)


def test_losses_are_computed_in_single_precision() -> None:
    def halves(*shape: int) -> torch.Tensor:
        return torch.randn(*shape).to(torch.bfloat16)

    logits, mask = halves(1, 3, 4, 4), masked((1, 8, 8), 3, 0)
    torch.testing.assert_close(pixel_loss(logits, mask), pixel_loss(logits.float(), mask), rtol=0, atol=0)
    heatmaps, target = halves(1, 2, 4, 4), {"heatmaps": torch.randn(1, 2, 4, 4), "weights": torch.ones(1, 2)}
    torch.testing.assert_close(heatmap_loss(heatmaps, target), heatmap_loss(heatmaps.float(), target), rtol=0, atol=0)
    maps, people = halves(1, 6, 8, 8), people_target(1)
    torch.testing.assert_close(people_loss(maps, people), people_loss(maps.float(), people), rtol=0, atol=0)
    for task, shape in (("classification", (4, 3)), ("pose", (1, 2, 4, 4))):
        loss, output, taught = teacher_loss(task, 2.0), halves(*shape), halves(*shape)  # type: ignore[arg-type]
        torch.testing.assert_close(loss(output, taught), loss(output.float(), taught.float()), rtol=0, atol=0)


def people_target(images: int) -> dict[str, torch.Tensor]:
    """Heatmaps and places of two people with two joints each, made up."""
    generator = torch.Generator().manual_seed(images)
    target = {
        "fine": torch.rand(images, 2, 8, 8, generator=generator),
        "coarse": torch.rand(images, 2, 4, 4, generator=generator),
        "fine_weights": torch.ones(images, 8, 8),
        "coarse_weights": torch.ones(images, 4, 4),
    }
    places = torch.rand(images, 2, 32, generator=generator).argsort(2)[:, :, :2]
    return {**target, "places": places}


def test_the_people_of_a_batch_count_as_those_of_each_image() -> None:
    output, target = torch.randn(3, 6, 8, 8), people_target(3)
    alone = [
        people_loss(output[i : i + 1] * 30, {name: value[i : i + 1] for name, value in target.items()})
        for i in range(3)
    ]
    torch.testing.assert_close(people_loss(output * 30, target), torch.stack(alone).mean())


def test_a_teacher_that_agrees_adds_nothing() -> None:
    logits = torch.randn(4, 6)
    assert abs(teacher_loss("classification", 2.0)(logits, logits.clone()).item()) < 1e-6
    assert teacher_loss("pose", 1.0)(logits, logits.clone()).item() == 0
    assert teacher_loss("segmentation", 1.0)(logits, logits + 2).item() == pytest.approx(4)


def test_a_teachers_gradient_is_that_of_its_probabilities_as_targets() -> None:
    student, teacher = torch.randn(4, 6, requires_grad=True), torch.randn(4, 6)
    teacher_loss("classification", 1.0)(student, teacher).backward()  # type: ignore[no-untyped-call]
    found, student.grad = student.grad, None
    F.cross_entropy(student, teacher.softmax(1)).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(found, student.grad)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 4.0])
def test_a_teachers_loss_is_its_divergence_at_a_temperature_times_its_square(temperature: float) -> None:
    """The teacher says 3/4 and 1/4 at this temperature, the student 1/2 and 1/2; a second image teaches nothing."""
    taught = torch.tensor([[temperature * math.log(3), 0.0], [0.0, 0.0]])
    output = torch.zeros(2, 2, requires_grad=True)
    found = teacher_loss("classification", temperature)(output, taught)
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert found.item() == pytest.approx(temperature**2 * divergence / 2, rel=1e-5)
    # So its gradient is T times the difference of the probabilities, not that difference over T (Hinton et al., 2015).
    found.backward()  # type: ignore[no-untyped-call]
    assert output.grad is not None
    torch.testing.assert_close(output.grad, temperature / 2 * torch.tensor([[-0.25, 0.25], [0.0, 0.0]]))
