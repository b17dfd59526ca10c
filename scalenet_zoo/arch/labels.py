"""What a network's outputs are called and how they are drawn: classes, or joints; and which are the same as others."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from scalenet_zoo.arch.spec import Strict

Byte = Annotated[int, Field(ge=0, le=255)]
LabelIndex = Annotated[int, Field(ge=0)]
LabelName = Annotated[str, Field(min_length=1, max_length=200)]


class Labels(Strict):
    """Classes or joints of a data set; they travel with checkpoints and exports in `pretrained_cfg["labels"]`.

    Attributes:
        names: one a class or joint, or none where they are not known.
        ids: of classes in WordNet, such as n01440764, or none: they tell classes of one name apart (ImageNet has two
            that are called `crane`).
        colours: red, green, blue of each class of a segmentation, or none.
        flip_pairs: joints that change places when a picture is mirrored: left and right.
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
                raise ValueError(f"{field}: found {found}, expected {count}, as there are names")
        for field in ("flip_pairs", "skeleton"):
            for pair in getattr(self, field):
                if max(pair) >= count:
                    raise ValueError(f"{field}: found {list(pair)}, expected numbers of joints below {count}")
        return self

    @classmethod
    def of(cls, pretrained_cfg: Mapping[str, Any]) -> Self:
        """The labels that a network's `pretrained_cfg` holds; empty ones if it has none.

        Raises:
            pydantic.ValidationError: they are not valid.
        """
        return cls.model_validate(pretrained_cfg.get("labels", {}), strict=False)

    def to_cfg(self) -> dict[str, Any]:
        """As `pretrained_cfg["labels"]` has them: plain lists, for JSON."""
        return self.model_dump(mode="json", exclude_defaults=True)


def match_labels(ours: Labels, theirs: Labels) -> list[int | None]:
    """Find classes or joints of data among those of a network.

    By WordNet's ids where both have them, else by name; ids stand for WordNet's descriptions, too. Names are compared
    as `match_names` does.

    Args:
        ours: the network's, with names.
        theirs: the data's, with names.

    Returns:
        The number in the network of each of the data's; None where it has none, or more than one.
    """
    if ours.ids and theirs.ids:
        return match_names(ours.ids, theirs.ids)
    if list(map(spelling, ours.names)) == list(map(spelling, theirs.names)):  # though a name be there twice
        return list(range(len(ours.names)))
    pairs = [
        (ours.names, theirs.names),
        (_descriptions(ours.ids), theirs.names),
        (ours.names, _descriptions(theirs.ids)),
    ]
    return min((match_names(*pair) for pair in pairs if all(pair)), key=lambda found: found.count(None))


def match_names(ours: Sequence[str], theirs: Sequence[str]) -> list[int | None]:
    """The place among `ours` of each of `theirs`; None where there is none, or more than one.

    White space at the ends does not count, nor which of Unicode's forms a name has; upper and lower case only where
    names differ in more than that.
    """
    found: list[int | None] = [None] * len(theirs)
    for spell in (spelling, lambda name: spelling(name).casefold()):
        here, there = _once(ours, spell), _once(theirs, spell)
        for key, place in there.items():
            if found[place] is None:
                found[place] = here.get(key)
    return found


def spelling(name: str) -> str:
    """A name as it is compared with others: Unicode's composed form, without white space at the ends."""
    return unicodedata.normalize("NFC", name).strip()


def _once(names: Sequence[str], spell: Callable[[str], str]) -> dict[str, int]:
    """The places of those names that are there once."""
    keys = list(map(spell, names))
    counts = Counter(keys)
    return {key: place for place, key in enumerate(keys) if counts[key] == 1}


@cache
def imagenet_labels() -> Labels:
    """Of ImageNet's 1000 classes: the first of each one's names, and its id in WordNet."""
    from timm.data import ImageNetInfo

    ids = ImageNetInfo().label_names()
    return Labels(names=words_of(ids), ids=tuple(ids))


def words_of(ids: Sequence[str]) -> tuple[str, ...]:
    """The first name that WordNet has for each id; the id itself where ImageNet has no such class."""
    return tuple(words.split(",")[0] for words in _descriptions(ids))


def _descriptions(ids: Sequence[str]) -> tuple[str, ...]:
    """All names that WordNet has for each id."""
    words = _wordnet() if ids else {}
    return tuple(words.get(id_, id_) for id_ in ids)


@cache
def _wordnet() -> dict[str, str]:
    from timm.data import ImageNetInfo

    words: dict[str, str] = {}
    for subset in ("imagenet-22k", "imagenet-1k"):  # the larger one lacks one of the smaller one's
        words |= ImageNetInfo(subset).label_descriptions(as_dict=True)
    return words
