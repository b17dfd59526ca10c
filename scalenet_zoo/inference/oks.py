"""Object keypoint similarity (OKS): COCO's figures for the persons found, and removal of duplicates."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

COCO_FIGURES = ("ap", "ap50", "ap75", "ap_medium", "ap_large", "ar", "ar50", "ar75", "ar_medium", "ar_large")
"""The figures of COCO's keypoint evaluation, in its order."""
SAME_PERSON = 0.9
"""The OKS above which two detections show the same person (HRNet, TPAMI 2020)."""
VISIBLE = 0.2
"""The score above which a joint counts towards its person's score (HRNet, TPAMI 2020)."""


def oks_figures(truth: dict[str, Any], detections: list[dict[str, Any]], sigmas: Sequence[float]) -> dict[str, float]:
    """Compute COCO's figures, shares from 0 to 1, for the sizes of persons that occur.

    Args:
        truth: a COCO document: images, categories, and annotations with keypoints, num_keypoints, bbox, area, iscrowd,
            and ids from 1 (to COCO's evaluation, 0 means no match). Every image counts, even if nobody is in it.
        detections: {"image_id", "category_id", "keypoints", "score"} for each person found.
        sigmas: the sigma of each joint.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    known = COCO()
    known.dataset = truth
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints messages
        known.createIndex()
        found = known.loadRes(detections) if detections else COCO()
        evaluation = COCOeval(known, found, "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: float(value) for name, value in zip(COCO_FIGURES, evaluation.stats, strict=True) if value >= 0}


def person_score(joints: np.ndarray, box_score: float) -> float:
    """Compute a person's score as in HRNet: the score of the box times the mean score of the visible joints.

    Args:
        joints: (joints, 3): x, y and the score.
        box_score: the score of the box.
    """
    visible = joints[joints[:, 2] > VISIBLE, 2]
    return box_score * float(visible.mean()) if len(visible) else 0.0


def oks_nms(
    joints: np.ndarray, scores: np.ndarray, areas: np.ndarray, sigmas: Sequence[float], same: float = SAME_PERSON
) -> list[int]:
    """Choose which persons of an image to keep, by OKS non-maximum suppression.

    Args:
        joints: (persons, joints, 2 or more): x and y.
        scores: (persons,).
        areas: (persons,): the areas of the persons' crops.
        sigmas: the sigma of each joint.
        same: the OKS above which the person with the lower score is left out.

    Returns:
        The indices of the persons to keep, the highest score first.
    """
    kept: list[int] = []
    for one in np.argsort(-scores, kind="stable").tolist():
        squares = ((joints[kept, :, :2] - joints[one, :, :2]) ** 2).sum(2)
        spread = 2 * (2 * np.array(sigmas)) ** 2 * ((areas[kept] + areas[one]) / 2)[:, None]
        if not (np.exp(-squares / spread).mean(1) > same).any():
            kept.append(one)
    return kept
