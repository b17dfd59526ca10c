"""Object keypoint similarity (OKS): COCO's figures for persons that were found, and persons found twice."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

COCO_FIGURES = ("ap", "ap50", "ap75", "ap_medium", "ap_large", "ar", "ar50", "ar75", "ar_medium", "ar_large")
"""What COCO's evaluation of keypoints gives, in its order."""
SAME_PERSON = 0.9
"""OKS above which two persons found are one (HRNet, TPAMI 2020)."""
VISIBLE = 0.2
"""Score of a joint above which it counts for its person's score (HRNet, TPAMI 2020)."""


def oks_figures(truth: dict[str, Any], detections: list[dict[str, Any]], sigmas: Sequence[float]) -> dict[str, float]:
    """COCO's figures, shares from 0 to 1, without those for sizes that nobody has.

    Args:
        truth: a COCO document: images, categories, and annotations with keypoints, num_keypoints, bbox, area, iscrowd,
            and ids from 1 (the evaluation takes 0 for no match). Every image counts, also one with nobody in it.
        detections: {"image_id", "category_id", "keypoints", "score"} of each person found.
        sigmas: of the joints.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    known = COCO()
    known.dataset = truth
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        known.createIndex()
        found = known.loadRes(detections) if detections else COCO()
        evaluation = COCOeval(known, found, "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: float(value) for name, value in zip(COCO_FIGURES, evaluation.stats, strict=True) if value >= 0}


def person_score(joints: np.ndarray, box_score: float) -> float:
    """A person's score as HRNet has it: the box's times the mean of those of visible joints, (joints, 3)."""
    visible = joints[joints[:, 2] > VISIBLE, 2]
    return box_score * float(visible.mean()) if len(visible) else 0.0


def oks_nms(
    joints: np.ndarray, scores: np.ndarray, areas: np.ndarray, sigmas: Sequence[float], same: float = SAME_PERSON
) -> list[int]:
    """OKS non-maximum suppression: which of an image's persons are kept, the highest score first.

    Args:
        joints: (persons, joints, 2 or more): x and y.
        scores: (persons,).
        areas: (persons,): of the persons' crops.
        sigmas: of the joints.
        same: OKS above which the person of the lower score is left out.
    """
    kept: list[int] = []
    for one in np.argsort(-scores, kind="stable").tolist():
        squares = ((joints[kept, :, :2] - joints[one, :, :2]) ** 2).sum(2)
        spread = 2 * (2 * np.array(sigmas)) ** 2 * ((areas[kept] + areas[one]) / 2)[:, None]
        if not (np.exp(-squares / spread).mean(1) > same).any():
            kept.append(one)
    return kept
