"""Published weights: for which architectures there are some, of which training, and what they were found to score.

    searched_archs/published.json --Published--> by name, by NAME.TAG, or by the architecture's hash

Weights are timm's, on the Hugging Face Hub. Timm's tags tell trainings of one architecture apart:
`efficientnet_b0.ra_in1k`. Nothing here needs torch or timm: `python -m tools.timm_entries` asked timm and wrote the
file.
"""

import math
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from scalenet_zoo.arch.spec import ArchSpec, Document, Name, Pixels, Result, Sha256, Strict

MORE_DATA = frozenset({"in12k", "in21k", "in22k", "jft"})
"""Parts of timm's tags that name data beyond ImageNet-1k."""
_TIMM = "timm, "
Percent = Annotated[float, Field(ge=0, le=100)]


class QuotedResult(Strict):
    """What timm reports of weights on ImageNet-1k's validation images.

    Attributes:
        pixels: height and width of the images.
        top1, top5: accuracy in percent.
        crop_pct: share of an image's shorter side that the network saw.
        interpolation: how images were resized.
    """

    pixels: Pixels
    top1: Percent
    top5: Percent
    crop_pct: Annotated[float, Field(gt=0, le=1)]
    interpolation: str


class PublishedWeights(Strict):
    """Weights of one training.

    Attributes:
        timm: the name of timm's model, with its tag: `efficientnet_b0.ra_in1k`.
        repository: where the Hub has them.
        mean, std: of each channel of pixels from 0 to 1, as images must be prepared for them.
        license: of the weights.
        results: none if they are of another task's network, whose backbone alone is taken.
    """

    timm: Name
    repository: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    license: str
    results: tuple[QuotedResult, ...] = ()

    @property
    def tag(self) -> str:
        """Timm's name for the training: `ra_in1k`."""
        return self.timm.partition(".")[2]

    @property
    def saw_imagenet_alone(self) -> bool:
        """Whether the network was trained on ImageNet-1k and nothing else, as the tag tells."""
        return not MORE_DATA & set(self.tag.split("_"))

    def result_at(self, pixels: int) -> QuotedResult | None:
        """The result at the resolution nearest, as a ratio, to a number of pixels; None: nobody reports any."""
        return min(self.results, key=lambda result: abs(math.log(result.pixels / pixels)), default=None)


def origin_of(weights: PublishedWeights, result: QuotedResult) -> str:
    """Whose figure this is, as a spec's provenance says it."""
    return f"{_TIMM}{weights.timm} at {result.pixels} pixels"


def is_of_weights(result: Result) -> bool:
    """Whether a figure in a spec's provenance is of published weights, not of the architecture's paper."""
    return result.origin.startswith(_TIMM)


class PublishedEntry(Strict):
    """All published weights for one architecture.

    Attributes:
        name: of the zoo's entry.
        hash: of its architecture; no two entries of the file share it.
        pixels: height of the images that the entry's cost is stated for.
        weights: one a tag.
    """

    name: Name
    hash: Sha256
    pixels: Pixels
    weights: Annotated[tuple[PublishedWeights, ...], Field(min_length=1)]

    @property
    def default(self) -> PublishedWeights:
        """What `pretrained` takes without a tag.

        Of the weights that were trained on ImageNet-1k alone those with the best top-1 near the entry's resolution;
        where all of them saw more data, the best of all. More data is never a silent default, since its licence or its
        overlap with the user's images may matter; its tag asks for it.
        """
        alone = [each for each in self.weights if each.saw_imagenet_alone]
        return max(alone or self.weights, key=self.top1)

    def top1(self, weights: PublishedWeights) -> float:
        """The quoted top-1 of weights near the entry's resolution; -1: nobody reports any."""
        result = weights.result_at(self.pixels)
        return result.top1 if result else -1.0

    def find(self, tag: str) -> PublishedWeights | None:
        """The weights with this tag; None: there are none."""
        return next((each for each in self.weights if each.tag == tag), None)

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags there are, the default first, then by top-1."""
        order = sorted(self.weights, key=lambda each: (each != self.default, -self.top1(each), each.tag))
        return tuple(each.tag for each in order)


class Published(Document):
    """The file `searched_archs/published.json`."""

    format: Literal["scalenet-zoo/published"] = "scalenet-zoo/published"
    version: Annotated[int, Field(ge=1, le=1)] = 1
    entries: tuple[PublishedEntry, ...]


def published_path() -> Path:
    """Where the file is."""
    return Path(str(files("scalenet_zoo.searched_archs"))) / "published.json"


@cache
def published_entries() -> dict[str, PublishedEntry]:
    """The zoo's entries that have published weights, by name."""
    return {entry.name: entry for entry in Published.load(published_path()).entries}


@cache
def _by_hash() -> dict[str, PublishedEntry]:
    return {entry.hash: entry for entry in published_entries().values()}


def split_tag(name: str) -> tuple[PublishedEntry, str] | None:
    """What NAME.TAG is made of: an entry that has published weights, and what may be one of its tags.

    None: it has no dot, or there is no such entry.
    """
    entry, dot, tag = name.partition(".")
    return (published_entries()[entry], tag) if dot and entry in published_entries() else None


def is_tagged(name: str) -> bool:
    """Whether this is NAME.TAG of published weights."""
    found = split_tag(name)
    return found is not None and found[0].find(found[1]) is not None


def published_entry(spec: ArchSpec) -> PublishedEntry | None:
    """All published weights for this very architecture, whatever its name is; None: there are none."""
    return _by_hash().get(spec.hash)


def published_weights(spec: ArchSpec, tag: str | None = None) -> PublishedWeights | None:
    """The published weights for this very architecture.

    Args:
        spec: of the network; if its name is NAME.TAG, as `load_spec` of such a name gives it, of that tag.
        tag: of timm; None: the one of the name, else the default.

    Returns:
        None: there are none, or none with this tag.
    """
    entry = published_entry(spec)
    if entry is None:
        return None
    if tag is not None:
        return entry.find(tag)
    named, _, tag = spec.name.partition(".")
    return (entry.find(tag) if named == entry.name else None) or entry.default
