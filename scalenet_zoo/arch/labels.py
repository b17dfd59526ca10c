"""Labels: the names of a network's classes or joints, how they are drawn, and how two sets of labels are matched."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from scalenet_zoo.core.documents import Strict, first_complaint
from scalenet_zoo.core.errors import InputError

Byte = Annotated[int, Field(ge=0, le=255)]
LabelIndex = Annotated[int, Field(ge=0)]
LabelName = Annotated[str, Field(min_length=1, max_length=200)]


class Labels(Strict):
    """Classes or joints of a data set; they travel with checkpoints and exports in `pretrained_cfg["labels"]`.

    Attributes:
        names: one per class or joint; empty if they are not known.
        ids: the WordNet ids of classes, such as n01440764, or empty. They tell classes of one name apart (ImageNet has
            two that are called `crane`).
        colours: red, green and blue (0 to 255) of each class of a segmentation, or empty.
        flip_pairs: pairs of left and right joints, which change places when a picture is mirrored.
        skeleton: joints that a line connects.
        sigmas: how far people disagree about each joint, for COCO's object keypoint similarity (OKS).
    """

    names: Annotated[tuple[LabelName, ...], Field(max_length=1_000_000)] = ()
    ids: Annotated[tuple[LabelName, ...], Field(max_length=1_000_000)] = ()
    colours: tuple[tuple[Byte, Byte, Byte], ...] = ()
    flip_pairs: tuple[tuple[LabelIndex, LabelIndex], ...] = ()
    skeleton: tuple[tuple[LabelIndex, LabelIndex], ...] = ()
    sigmas: tuple[Annotated[float, Field(gt=0, le=10)], ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        count = len(self.names)
        for field in ("ids", "colours", "sigmas"):
            if (found := len(getattr(self, field))) not in (0, count):
                raise ValueError(f"{field}: found {found}, expected {count}, one per name")
        for field in ("flip_pairs", "skeleton"):
            for pair in getattr(self, field):
                if max(pair) >= count:
                    raise ValueError(f"{field}: found {list(pair)}, expected numbers of joints below {count}")
        return self

    @classmethod
    def of(cls, pretrained_cfg: Mapping[str, Any]) -> Self:
        """Read the labels from a network's `pretrained_cfg`; they are empty if it has none.

        Raises:
            pydantic.ValidationError: they are not valid.
        """
        return cls.model_validate(pretrained_cfg.get("labels", {}), strict=False)

    def to_cfg(self) -> dict[str, Any]:
        """Convert to the plain lists that `pretrained_cfg["labels"]` holds, ready for JSON."""
        return self.model_dump(mode="json", exclude_defaults=True)


def class_labels(source: str, names: Sequence[str]) -> Labels:
    """Return the labels of named classes; ImageNet's synsets (n01440764) get their names in words (tench).

    Args:
        source: the name of the data set in messages.
        names: the names of the classes.

    Raises:
        InputError: a name is empty or too long.
    """
    synsets = bool(names) and all(re.fullmatch(r"n\d{8}", name) for name in names)
    try:
        return Labels(names=words_of(names) if synsets else tuple(names), ids=tuple(names) if synsets else ())
    except ValidationError as error:
        raise InputError(f"{source}: classes: {first_complaint(error)}") from None


def match_labels(ours: Labels, theirs: Labels) -> list[int | None]:
    """Find the classes or joints of a data set among those of a network.

    They are matched by WordNet's ids where both have ids, else by name. Where only one has ids, WordNet's descriptions
    of the ids serve as names, too. `match_names` compares the names.

    Args:
        ours: the network's labels, with names.
        theirs: the data set's labels, with names.

    Returns:
        For each label of the data set, its index in the network; None where the network has no such label, or several.
    """
    if ours.ids and theirs.ids:
        return match_names(ours.ids, theirs.ids)
    if list(map(spelling, ours.names)) == list(map(spelling, theirs.names)):  # even if a name occurs twice
        return list(range(len(ours.names)))
    pairs = [
        (ours.names, theirs.names),
        (_descriptions(ours.ids), theirs.names),
        (ours.names, _descriptions(theirs.ids)),
    ]
    return min((match_names(*pair) for pair in pairs if all(pair)), key=lambda found: found.count(None))


def match_names(ours: Sequence[str], theirs: Sequence[str]) -> list[int | None]:
    """Find the index in `ours` of each name in `theirs`; None where there is no such name, or several.

    White space at the ends and the Unicode form of a name do not count. Upper and lower case count only among names
    that differ in nothing else.
    """
    found: list[int | None] = [None] * len(theirs)
    for spell in (spelling, lambda name: spelling(name).casefold()):
        here, there = _once(ours, spell), _once(theirs, spell)
        for key, place in there.items():
            if found[place] is None:
                found[place] = here.get(key)
    return found


def spelling(name: str) -> str:
    """Bring a name into the form in which names are compared: composed Unicode, no white space at the ends."""
    return unicodedata.normalize("NFC", name).strip()


def _once(names: Sequence[str], spell: Callable[[str], str]) -> dict[str, int]:
    """The indices of the names that occur once, by name."""
    keys = list(map(spell, names))
    counts = Counter(keys)
    return {key: place for place, key in enumerate(keys) if counts[key] == 1}


@cache
def imagenet_labels() -> Labels:
    """Labels of ImageNet's 1000 classes: the first name of each class, and its WordNet id."""
    from timm.data import ImageNetInfo

    ids = ImageNetInfo().label_names()
    return Labels(names=words_of(ids), ids=tuple(ids))


def words_of(ids: Sequence[str]) -> tuple[str, ...]:
    """Look up the first name that WordNet has for each id; the id itself where ImageNet has no such class."""
    return tuple(words.split(",")[0] for words in _descriptions(ids))


def _descriptions(ids: Sequence[str]) -> tuple[str, ...]:
    """Look up all names that WordNet has for each id."""
    words = _wordnet() if ids else {}
    return tuple(words.get(id_, id_) for id_ in ids)


@cache
def _wordnet() -> dict[str, str]:
    from timm.data import ImageNetInfo

    words: dict[str, str] = {}
    for subset in ("imagenet-22k", "imagenet-1k"):  # the larger set lacks one class of the smaller set
        words |= ImageNetInfo(subset).label_descriptions(as_dict=True)
    return words
