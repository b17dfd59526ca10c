"""What training minimises, against plain computations."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812

from scalenet_zoo.data.examples import IGNORE
from scalenet_zoo.training.losses import heatmap_loss, pixel_loss, task_loss, teacher_loss
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


def test_label_smoothing_is_torchs() -> None:
    logits, classes = torch.randn(5, 7), torch.randint(7, (5,))
    found = task_loss("classification", Recipe(smoothing=0.1))(logits, classes)
    torch.testing.assert_close(found, F.cross_entropy(logits, classes, label_smoothing=0.1))


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
