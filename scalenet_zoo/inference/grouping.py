"""Several people out of the maps of a bottom-up network (HigherHRNet, CVPR 2020; Newell et al., NeurIPS 2017).

output --merge_scales--> heatmaps, tags --find_peaks--> peaks --match_tags--> people --complete--> all their joints

A tag is a number at each place for each joint: near for joints of the same person, apart for those of others.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from scalenet_zoo.data.people import MOST_PEOPLE
from scalenet_zoo.inference.decode import quarter_steps
from scalenet_zoo.networks.layers import upsample

WINDOW = 5
"""Cells across in which a heatmap has one peak."""
MIN_PEAK = 0.1
"""Height of a peak that begins a person or is added to one."""
MAX_TAG_DISTANCE = 1.0
"""Of a joint's tag from the mean of its person's."""


@dataclass(frozen=True, eq=False)
class FoundPeople:
    """People in a picture, the surest first.

    Attributes:
        joints: float64 (people, joints, 3): x and y as shares of the picture's width and height, and the score.
        scores: (people,): the mean score of the joints that a peak gave, over all joints.
    """

    joints: np.ndarray
    scores: np.ndarray


@torch.no_grad()
def group_people(output: Tensor, joints: int) -> list[FoundPeople]:
    """Find the people in each picture of a batch.

    Args:
        output: of a network with the head bottom_up: (n, 3 joints, h, w), see `layers.BottomUpHead`; there may be
            further channels with tags of the same joints, such as a flip test's.
        joints: how many a person has.
    """
    heatmaps, tags = merge_scales(output.float(), joints)
    peaks = find_peaks(heatmaps, tags).double().cpu().numpy()
    return [_people(*image) for image in zip(peaks, heatmaps, tags, strict=True)]


def split_output(output: Tensor, joints: int) -> tuple[Tensor, Tensor, Tensor]:
    """Fine heatmaps (n, joints, h, w), coarse ones (n, joints, h / 2, w / 2), tags (n, sets x joints, h / 2, w / 2)."""
    return output[:, :joints], output[:, joints : 2 * joints, ::2, ::2], output[:, 2 * joints :, ::2, ::2]


def merge_scales(output: Tensor, joints: int) -> tuple[Tensor, Tensor]:
    """The mean of fine and coarse heatmaps (n, joints, h, w), and tags (n, joints, sets, h, w) of that size."""
    fine, coarse, tags = split_output(output, joints)
    size = fine.shape[-2:]
    tags = upsample(tags, size, "bilinear").reshape(len(tags), -1, joints, *size).transpose(1, 2)
    return (fine + upsample(coarse, size, "bilinear")) / 2, tags


def find_peaks(heatmaps: Tensor, tags: Tensor) -> Tensor:
    """The highest peaks of each heatmap (n, joints, h, w), moved a quarter cell towards the higher neighbour.

    Returns:
        (n, joints, peaks, 3 + sets): x and y as shares of width and height, height (0: there are no more peaks), tags.
    """
    highest = F.max_pool2d(heatmaps, WINDOW, 1, WINDOW // 2)
    peaks = torch.where(heatmaps == highest, heatmaps, 0).flatten(2)
    places = peaks.topk(min(MOST_PEOPLE, peaks.shape[2])).indices
    found = _read(heatmaps, tags, places)
    found[..., 2] = peaks.gather(2, places)
    return found


def match_tags(scores: np.ndarray, tags: np.ndarray) -> np.ndarray:
    """Tell whose the peaks are: joint by joint, each goes to the person whose tags are nearest, or begins a new one.

    Who gets which is an assignment problem, whose cost is, as published, the distance of tags in whole steps, then the
    height of the peak. Unlike there, of people equally far in whole steps the nearest is taken, and pairs that are too
    far apart to be matched are all equally bad, so that none of them spoils a good match.

    Args:
        scores: of peaks, (joints, peaks).
        tags: of peaks, (joints, peaks, sets).

    Returns:
        int64 (people, joints): which peak of a joint is a person's; -1: none.
    """
    owned = np.full((0, len(scores)), -1)
    for joint in range(len(scores)):
        peaks = np.flatnonzero(scores[joint] > MIN_PEAK)
        values, heights = tags[joint, peaks], scores[joint, peaks]
        new = np.ones(len(peaks), dtype=bool)
        if len(owned) and len(peaks):
            means = np.stack([tags[row >= 0, row[row >= 0]].mean(0) for row in owned])
            distance = np.linalg.norm(values[:, None] - means, axis=2)
            near = distance < MAX_TAG_DISTANCE
            cost = np.where(near, 100 * distance.round() + distance, 1000) - heights[:, None]
            rows, people = linear_sum_assignment(cost)
            matched = near[rows, people]
            owned[people[matched], joint] = peaks[rows[matched]]
            new[rows[matched]] = False
        begun = np.full((int(new.sum()), len(scores)), -1)
        begun[:, joint] = peaks[new]
        owned = np.concatenate([owned, begun])[:MOST_PEOPLE]
    return owned


def _people(peaks: np.ndarray, heatmaps: Tensor, tags: Tensor) -> FoundPeople:
    """The people of one picture, from the arguments of `find_peaks` and what it gives, without the batch axis."""
    size = heatmaps.shape[-1], heatmaps.shape[-2]
    scores = np.stack([_without_twins(of_joint, size) for of_joint in peaks])
    owned = match_tags(scores, peaks[..., 3:])
    there = owned >= 0
    people = peaks[np.arange(len(peaks)), np.maximum(owned, 0)] * there[..., None]
    order = np.argsort(-people[..., 2].mean(1), kind="stable")
    people, there = people[order], there[order]
    surest = people[..., 2].mean(1)
    for person, has in zip(people, there, strict=True):
        if not has.all():
            mean = torch.from_numpy(person[has, 3:].mean(0)).to(tags)
            person[~has] = _complete(heatmaps, tags, mean)[~has]
    return FoundPeople(people[..., :3], surest)


def _without_twins(peaks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The heights of a joint's peaks, 0 for those beside a peak that is as high: of a plateau one is enough."""
    cells = peaks[:, :2] * size
    beside = np.abs(cells[:, None] - cells).max(2) < WINDOW / 2
    heights = peaks[:, 2].copy()
    for i in range(1, len(peaks)):
        if (heights[:i] * beside[i, :i] > 0).any():
            heights[i] = 0
    return heights


def _complete(heatmaps: Tensor, tags: Tensor, mean: Tensor) -> np.ndarray:
    """Where a person's joints are likeliest, given the mean of its tags: (joints, 3 + sets), 0 for none.

    The published search would take a place with another's tag, too, if there is no better one.
    """
    distance = (tags - mean[:, None, None]).norm(dim=1)
    near = torch.where(distance < MAX_TAG_DISTANCE, heatmaps - distance.round(), -torch.inf)
    best, places = near.flatten(1).max(1)
    found = _read(heatmaps[None], tags[None], places[None, :, None])[0, :, 0]
    complete: np.ndarray = (found * ((found[:, 2] > 0) & best.isfinite())[:, None]).double().cpu().numpy()
    return complete


def _read(heatmaps: Tensor, tags: Tensor, places: Tensor) -> Tensor:
    """What heatmaps (n, joints, h, w) and tags are at places (n, joints, k); x, y, height and tags as `find_peaks`."""
    height, width = heatmaps.shape[-2:]
    right, down, score = (maps.flatten(2).gather(2, places) for maps in (*quarter_steps(heatmaps), heatmaps))
    x, y = places % width, places // width
    values = tags.flatten(3).gather(3, places[:, :, None].expand(-1, -1, tags.shape[2], -1))
    place = torch.stack([(x + right + 0.5) / width, (y + down + 0.5) / height, score], dim=3)
    return torch.cat([place, values.transpose(2, 3)], dim=3)
