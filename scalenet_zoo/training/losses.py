"""Losses: one function per task, and the loss that a teacher adds."""

from collections.abc import Callable
from typing import Any

import torch
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from scalenet_zoo.arch.spec import Task
from scalenet_zoo.data.examples import IGNORE
from scalenet_zoo.inference.grouping import split_output
from scalenet_zoo.training.recipe import Recipe

Loss = Callable[[Tensor, Any], Tensor]
"""A function of a network's output and a batch's target; returns a scalar."""
MeanCount = Callable[[Tensor], Tensor]
"""A function from a count in this process to its mean over all processes."""

TAG_WEIGHT = 0.001
"""The weight of the tags' loss, relative to that of the heatmaps (HigherHRNet, CVPR 2020)."""


def task_loss(task: Task, recipe: Recipe, mean_count: MeanCount = lambda count: count, bottom_up: bool = False) -> Loss:
    """Make the loss of a task.

    Args:
        task: the task of the network.
        recipe: the recipe, for label smoothing, mixup and OHEM.
        mean_count: averages a count over processes, so that the mean of their losses is the loss of all pixels.
        bottom_up: whether the network is a bottom-up one, which finds several people in a picture.

    Returns:
        Classification: cross entropy of logits (n, classes) with classes (n,) or, after mixup, shares (n, classes).
        Segmentation: `pixel_loss`, with the recipe's OHEM. Pose: `heatmap_loss`, or `people_loss` for bottom-up
        networks.
    """
    if task == "classification":
        if recipe.mixup or recipe.cutmix:
            soft: nn.Module = SoftTargetCrossEntropy()
            return soft
        smooth: nn.Module = LabelSmoothingCrossEntropy(recipe.smoothing) if recipe.smoothing else nn.CrossEntropyLoss()
        return smooth
    if task == "pose":
        return people_loss if bottom_up else heatmap_loss
    return lambda logits, mask: pixel_loss(logits, mask, recipe.ohem_threshold, recipe.ohem_keep, mean_count)


def pixel_loss(
    logits: Tensor,
    mask: Tensor,
    ohem_threshold: float | None = None,
    ohem_keep: float = 0.0,
    mean_count: MeanCount = lambda count: count,
) -> Tensor:
    """Compute the mean cross entropy of labelled pixels; with a threshold, of the hard ones among them (OHEM).

    This is the online hard example mining of HRNet (TPAMI 2020): a pixel is hard if the probability of its true class
    is below the threshold. The threshold rises until a share `ohem_keep` of all pixels is hard, if enough are labelled.

    Args:
        logits: (n, classes, h, w), which are resized to the mask's size.
        mask: int64 (n, H, W), classes or `IGNORE`.
        ohem_threshold: the threshold; None: every labelled pixel counts.
        ohem_keep: the least share of pixels to keep.
        mean_count: averages a count over processes.
    """
    logits = F.interpolate(logits.float(), size=mask.shape[-2:], mode="bilinear", align_corners=False)
    losses = F.cross_entropy(logits, mask, ignore_index=IGNORE, reduction="none")
    counted = mask != IGNORE
    if ohem_threshold is not None:
        with torch.no_grad():
            probabilities = torch.exp(-losses)[counted]
            kept = min(int(ohem_keep * mask.numel()), probabilities.numel())
            hardest = float(probabilities.kthvalue(kept).values) if kept else 0.0
            counted = counted & (torch.exp(-losses) <= max(ohem_threshold, hardest))
    total = (losses * counted).sum()
    return total / mean_count(counted.sum()).clamp(min=1)


def heatmap_loss(heatmaps: Tensor, target: dict[str, Tensor]) -> Tensor:
    """Compute half the mean squared error of heatmaps, without unlabelled joints (HRNet, TPAMI 2020).

    Args:
        heatmaps: the network's output (n, joints, h, w).
        target: "heatmaps", of the same shape, and "weights" (n, joints), 0 or 1.
    """
    difference = (heatmaps.float() - target["heatmaps"]) * target["weights"][:, :, None, None]
    return 0.5 * difference.square().mean()


def people_loss(output: Tensor, target: dict[str, Tensor]) -> Tensor:
    """Compute the mean squared error of coarse and fine heatmaps plus weighted `tag_loss` (HigherHRNet, CVPR 2020).

    Args:
        output: the output of a bottom-up network, (n, 3 joints, h, w).
        target: "fine" and "coarse", heatmaps (n, joints, h, w) and (n, joints, h / 2, w / 2); "fine_weights" and
            "coarse_weights", (n, h, w) and (n, h / 2, w / 2), 0 where nothing is known; "places", as for `tag_loss`.
    """
    fine, coarse, tags = split_output(output.float(), target["fine"].shape[1])
    difference = sum(
        ((found - target[scale]).square() * target[f"{scale}_weights"][:, None]).mean()
        for scale, found in (("fine", fine), ("coarse", coarse))
    )
    return difference + TAG_WEIGHT * tag_loss(tags, target["places"]).mean()


def tag_loss(tags: Tensor, places: Tensor) -> Tensor:
    """Compute the loss of associative embedding, which pulls a person's tags together and pushes people's tags apart.

    For N people with mean tags h_n, it is the mean over people and their joints of (tag - h_n)^2, plus half the mean of
    exp(-(h_n - h_m)^2) over ordered pairs of different people (Newell et al., NeurIPS 2017; weights of HigherHRNet).

    Args:
        tags: the tags, (n, joints, h, w).
        places: int64 (n, people, joints): the position of each joint, as an index from 0 to joints x h x w - 1 into
            `tags`; -1 for a missing joint, and for all joints of a missing person.

    Returns:
        The loss of each image, (n,).
    """
    there = places >= 0
    values = tags.flatten(1).gather(1, places.clamp(min=0).flatten(1)).view(places.shape)
    joints = there.sum(2).clamp(min=1)
    means = (values * there).sum(2) / joints
    spread = ((values - means[..., None]).square() * there).sum(2) / joints
    known = there.any(2)
    people = known.sum(1)
    pull = spread.sum(1) / people.clamp(min=1)
    pairs = known[:, :, None] & known[:, None] & ~torch.eye(places.shape[1], dtype=torch.bool, device=places.device)
    nearness = torch.exp(-(means[:, :, None] - means[:, None]).square())
    push = 0.5 * (nearness * pairs).sum((1, 2)) / (people * (people - 1)).clamp(min=1)
    return pull + push


def teacher_loss(task: Task, temperature: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Make the loss that measures how far a network's output is from its teacher's.

    Classification: the Kullback-Leibler divergence of probabilities at a temperature T, times T^2 (Hinton, 2015).
    Segmentation and pose: the mean squared difference (ScaleNAS, AutoML-Conf 2022, section 3).
    """
    if task != "classification":
        return lambda output, taught: F.mse_loss(output.float(), taught.float())

    def divergence(output: Tensor, taught: Tensor) -> Tensor:
        student, teacher = ((logits.float() / temperature).log_softmax(-1) for logits in (output, taught))
        return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2

    return divergence
