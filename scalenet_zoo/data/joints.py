"""Joints of people: their names, left-right pairs, connections (the skeleton) and sigmas."""

import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pycocotools.cocoeval import Params
from pydantic import ValidationError

from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.core.documents import first_complaint
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.files import read_yaml
from scalenet_zoo.core.quoting import printable, quoted
from scalenet_zoo.data.coco import Category

_MIRRORED = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
COCO_JOINTS = ("nose", *(f"{side}_{joint}" for joint in _MIRRORED for side in ("left", "right")))
USUAL_SIGMA = 0.079
"""The sigma of a joint that COCO does not have: the value of COCO's shoulders."""

_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+|[^\W\d_A-Za-z]+")
_RIGHT = {"left": "right", "l": "r"}
_OTHER = _RIGHT | {right: left for left, right in _RIGHT.items()}

_log = logging.getLogger(__name__)


def read_joints(path: Path, category: Category, joints: Path | None = None) -> Labels:
    """Read the names, flip pairs, skeleton and sigmas of a data set's joints.

    Args:
        path: the file of annotations, for messages.
        category: a category in the annotations, with the names of its joints and optionally "skeleton" (pairs of
            numbers from 1) and "sigmas" or "keypoint_sigmas".
        joints: a YAML file whose fields replace those of the annotations: `names`; `flip_pairs` and `skeleton` (lists
            of pairs, of names or of numbers from 0); `sigmas` (a list, or numbers by name). All fields are optional.

    Returns:
        The labels of the joints. Fields of the YAML file come first, then those of the annotations. If neither has flip
        pairs, they are derived from left and right in the names (see `find_pairs`); there are none if a joint lacks its
        partner. If neither has sigmas, joints get COCO's sigmas by name, or `USUAL_SIGMA` with a warning. With
        `flip_pairs: []` no joints change places when an image is mirrored, and each joint is its own partner.

    Raises:
        InputError: the YAML file cannot be read, or a field is not valid.
    """
    said = _read_yaml(joints) if joints else {}
    where = joints or path
    names = category.keypoints
    if "names" in said:
        found = said["names"]
        if not isinstance(found, list) or len(found) != len(names) or not all(isinstance(name, str) for name in found):
            raise InputError(f"{where}: names: found {quoted(found)}, expected {len(names)} names, one per joint")
        names = tuple(found)
    if len(set(names)) != len(names):
        raise InputError(f"{where}: names: found {quoted(list(names))}, expected different names")
    skeleton = [[end - 1 for end in line] for line in category.skeleton]
    if "skeleton" in said:
        skeleton = _pairs(where, "skeleton", said["skeleton"], names)
    pairs, alone = find_pairs(names)
    pairs = [] if alone else pairs
    if "flip_pairs" in said:
        pairs = [(first, second) for first, second in _pairs(where, "flip_pairs", said["flip_pairs"], names)]
        flipped = [joint for pair in pairs for joint in pair]
        if len(set(flipped)) != len(flipped):
            raise InputError(
                f"{where}: flip_pairs: found {quoted(said['flip_pairs'])}, expected each joint at most once"
            )
        pairs = pairs or [(joint, joint) for joint in range(len(names))]
    sigmas = said.get("sigmas") or category.sigmas or category.keypoint_sigmas
    try:
        return Labels.model_validate(
            {"names": names, "flip_pairs": pairs, "skeleton": skeleton, "sigmas": _sigmas(where, sigmas, names)},
            strict=False,
        )
    except ValidationError as error:
        raise InputError(f"{where}: {first_complaint(error)}") from None


def find_pairs(names: Sequence[str]) -> tuple[list[tuple[int, int]], list[str]]:
    """Find pairs of left and right joints by their names: `left_hand`, `HandL`, `l-hand`, `lhand`.

    Case, separators and the position of the side in the name do not matter. A side without a separator counts only if
    the joint of the other side exists.

    Args:
        names: the names of all joints.

    Returns:
        Pairs of places in `names`, the left joint first; and the names that contain a side but have no partner, or
        several.
    """
    spelt = [tuple(word.lower() for word in _WORDS.findall(name)) for name in names]
    counts = Counter(spelt)
    places = {words: place for place, words in enumerate(spelt) if counts[words] == 1}
    pairs: list[tuple[int, int]] = []
    for words, place in places.items():
        partners = {places[other] for other in _right_of(words) if other in places}
        if len(partners) == 1:
            pairs.append((place, partners.pop()))
    paired = Counter(place for pair in pairs for place in pair)
    pairs = [pair for pair in pairs if paired[pair[0]] == paired[pair[1]] == 1]
    known = {place for pair in pairs for place in pair}
    alone = [
        name for place, name in enumerate(names) if place not in known and not _OTHER.keys().isdisjoint(spelt[place])
    ]
    return pairs, alone


def _right_of(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield possible names of the right joint for a left one; nothing if the joint is not on the left side."""
    if sides := [word for word in words if word in _OTHER]:
        if sides[0] in _RIGHT:
            yield tuple(_OTHER.get(word, word) for word in words)
        return
    for place, word in enumerate(words):
        for left, right in _RIGHT.items():
            if word.startswith(left):
                yield (*words[:place], right + word.removeprefix(left), *words[place + 1 :])
            if word.endswith(left):
                yield (*words[:place], word.removesuffix(left) + right, *words[place + 1 :])


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        said = read_yaml(path)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    fields = ("names", "flip_pairs", "skeleton", "sigmas")
    if not isinstance(said, dict) or (unknown := [key for key in said if key not in fields]):
        found = quoted(unknown[0]) if isinstance(said, dict) else "no fields"
        raise InputError(f"{path}: found {found}, expected some of {', '.join(fields)}")
    return said


def _pairs(where: Path, field: str, pairs: Any, names: Sequence[str]) -> list[list[int]]:  # noqa: ANN401
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise InputError(f"{where}: {field}: found {quoted(pairs)}, expected a list of pairs")
    for joint in (joint for pair in pairs for joint in pair):
        known = joint in names if isinstance(joint, str) else type(joint) is int and 0 <= joint < len(names)
        if not known:
            raise InputError(
                f"{where}: {field}: found {quoted(joint)}, expected the name of a joint, or 0 to {len(names) - 1}"
            )
    return [[names.index(joint) if isinstance(joint, str) else joint for joint in pair] for pair in pairs]


def _sigmas(where: Path, sigmas: Any, names: Sequence[str]) -> list[float]:  # noqa: ANN401
    """Return one sigma per joint."""
    values = sigmas.values() if isinstance(sigmas, dict) else sigmas if isinstance(sigmas, list) else ()
    if unfit := [value for value in values if type(value) not in (int, float)]:
        raise InputError(f"{where}: sigmas: found {quoted(unfit[0])}, expected numbers")
    if isinstance(sigmas, list):
        if len(sigmas) != len(names):
            raise InputError(f"{where}: sigmas: found {len(sigmas)}, expected {len(names)}, one per joint")
        return sigmas
    known = dict(zip(COCO_JOINTS, Params("keypoints").kpt_oks_sigmas.round(3).tolist(), strict=True))
    if isinstance(sigmas, dict):
        if unknown := [name for name in sigmas if name not in names]:
            raise InputError(f"{where}: sigmas: found {quoted(unknown[0])}, expected names among {', '.join(names)}")
        known |= sigmas
    elif sigmas is not None:
        raise InputError(f"{where}: sigmas: found {quoted(sigmas)}, expected a list, or numbers by name")
    if unknown := [name for name in names if name not in known]:
        _log.warning("%s: the sigmas of %s are unknown: using %s", where, printable(", ".join(unknown)), USUAL_SIGMA)
    return [known.get(name, USUAL_SIGMA) for name in names]
