"""Find several people in the maps of a bottom-up network (HigherHRNet, CVPR 2020; Newell et al., NeurIPS 2017).

output --merge_scales--> heatmaps, tags --find_peaks--> peaks --match_tags--> people --complete--> all their joints

A tag is a number for each joint at each position. Tags of the same person's joints are close to each other; tags of
different people are far apart.
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
"""The width and height, in cells, of the window in which a heatmap has at most one peak."""
MIN_PEAK = 0.1
"""The height above which a peak belongs to a person."""
MAX_TAG_DISTANCE = 1.0
"""The largest distance between a joint's tag and the mean tag of its person."""


@dataclass(frozen=True, eq=False)
class FoundPeople:
    """People in a picture, the most certain first.

    Attributes:
        joints: float64 (people, joints, 3): x and y as shares of the picture's width and height, and the score.
        scores: (people,): the sum of the scores of joints with a peak, divided by the number of all joints.
    """

    joints: np.ndarray
    scores: np.ndarray


@torch.no_grad()
def group_people(output: Tensor, joints: int) -> list[FoundPeople]:
    """Find the people in each picture of a batch.

    Args:
        output: the output of a bottom-up network (n, 3 joints, h, w), see `layers.BottomUpHead`; further channels may
            hold more tags of the same joints, such as those of a flip test.
        joints: the number of joints of a person.

    Returns:
        The people of each picture.
    """
    heatmaps, tags = merge_scales(output.float(), joints)
    peaks = find_peaks(heatmaps, tags).double().cpu().numpy()
    return [_people(*image) for image in zip(peaks, heatmaps, tags, strict=True)]


def split_output(output: Tensor, joints: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split the output of a bottom-up network.

    Args:
        output: as for `group_people`.
        joints: the number of joints of a person.

    Returns:
        Fine heatmaps (n, joints, h, w), coarse heatmaps (n, joints, h / 2, w / 2), and tags
        (n, sets * joints, h / 2, w / 2).
    """
    return output[:, :joints], output[:, joints : 2 * joints, ::2, ::2], output[:, 2 * joints :, ::2, ::2]


def merge_scales(output: Tensor, joints: int) -> tuple[Tensor, Tensor]:
    """Average the fine and coarse heatmaps of a bottom-up network, and resize its tags to them.

    Args:
        output: as for `group_people`.
        joints: the number of joints of a person.

    Returns:
        Heatmaps (n, joints, h, w), and tags (n, joints, sets, h, w).
    """
    fine, coarse, tags = split_output(output, joints)
    size = fine.shape[-2:]
    tags = upsample(tags, size, "bilinear").reshape(len(tags), -1, joints, *size).transpose(1, 2)
    return (fine + upsample(coarse, size, "bilinear")) / 2, tags


def find_peaks(heatmaps: Tensor, tags: Tensor) -> Tensor:
    """Find the highest peaks of each heatmap, moved a quarter cell towards the higher neighbour.

    Args:
        heatmaps: (n, joints, h, w).
        tags: (n, joints, sets, h, w).

    Returns:
        (n, joints, peaks, 3 + sets): x and y as shares of the heatmap's width and height, the height of the peak (0:
        there are no more peaks), and its tags.
    """
    highest = F.max_pool2d(heatmaps, WINDOW, 1, WINDOW // 2)
    peaks = torch.where(heatmaps == highest, heatmaps, 0).flatten(2)
    places = peaks.topk(min(MOST_PEOPLE, peaks.shape[2])).indices
    found = _read(heatmaps, tags, places)
    found[..., 2] = peaks.gather(2, places)
    return found


def match_tags(scores: np.ndarray, tags: np.ndarray) -> np.ndarray:
    """Assign peaks to people: joint by joint, each peak joins the person with the nearest tags, or starts a new person.

    This is an assignment problem. As published, its cost compares the rounded distances of the tags first, and the
    heights of the peaks second. Unlike in the published code, ties of the rounded distance go to the nearest person,
    and all pairs that are too far apart to match have the same cost, so that none of them spoils a good match.

    Args:
        scores: the scores of the peaks, (joints, peaks).
        tags: the tags of the peaks, (joints, peaks, sets).

    Returns:
        int64 (people, joints): the index of the peak of each person's joint; -1: there is none.
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
    """Find the people of one picture from the arguments and the result of `find_peaks`, without the batch axis."""
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
    """Return the heights of a joint's peaks, but 0 for all except the first of neighbouring peaks (a plateau)."""
    cells = peaks[:, :2] * size
    beside = np.abs(cells[:, None] - cells).max(2) < WINDOW / 2
    heights = peaks[:, 2].copy()
    for i in range(1, len(peaks)):
        if (heights[:i] * beside[i, :i] > 0).any():
            heights[i] = 0
    return heights


def _complete(heatmaps: Tensor, tags: Tensor, mean: Tensor) -> np.ndarray:
    """Find the likeliest positions of a person's joints, given the mean of the person's tags.

    The published search also accepts a position with another person's tag if there is no better one.

    Returns:
        float64 (joints, 3 + sets), as from `find_peaks`; 0 for joints without a position.
    """
    distance = (tags - mean[:, None, None]).norm(dim=1)
    near = torch.where(distance < MAX_TAG_DISTANCE, heatmaps - distance.round(), -torch.inf)
    best, places = near.flatten(1).max(1)
    found = _read(heatmaps[None], tags[None], places[None, :, None])[0, :, 0]
    complete: np.ndarray = (found * ((found[:, 2] > 0) & best.isfinite())[:, None]).double().cpu().numpy()
    return complete


def _read(heatmaps: Tensor, tags: Tensor, places: Tensor) -> Tensor:
    """Read heatmaps (n, joints, h, w) and tags at places (n, joints, k), in the form of `find_peaks`."""
    height, width = heatmaps.shape[-2:]
    right, down, score = (maps.flatten(2).gather(2, places) for maps in (*quarter_steps(heatmaps), heatmaps))
    x, y = places % width, places // width
    values = tags.flatten(3).gather(3, places[:, :, None].expand(-1, -1, tags.shape[2], -1))
    place = torch.stack([(x + right + 0.5) / width, (y + down + 0.5) / height, score], dim=3)
    return torch.cat([place, values.transpose(2, 3)], dim=3)
