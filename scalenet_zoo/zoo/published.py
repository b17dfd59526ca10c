"""Published weights: which architectures have them, how they were trained, and their reported accuracy.

    searched_archs/published.json --Published--> entries, found by name, by NAME.TAG, or by the architecture's hash

The weights are timm's, on the Hugging Face Hub. Timm's tags distinguish several trainings of one architecture:
`efficientnet_b0.ra_in1k`. Nothing here needs torch or timm: `python -m tools.timm_entries` writes the file from timm's
registry.
"""

import math
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from scalenet_zoo.arch.spec import ArchSpec, Name, Pixels, Result, Sha256
from scalenet_zoo.core.documents import Document, Strict

MORE_DATA = frozenset({"in12k", "in21k", "in22k", "jft"})
"""Parts of timm's tags that stand for training data beyond ImageNet-1k."""
_TIMM = "timm, "
Percent = Annotated[float, Field(ge=0, le=100)]


class QuotedResult(Strict):
    """The accuracy that timm reports for weights on the validation images of ImageNet-1k.

    Attributes:
        pixels: height and width of the images.
        top1, top5: accuracy in percent.
        crop_pct: share of an image's shorter side that the network saw, above 0 and at most 1.
        interpolation: how images were resized, by timm's name.
    """

    pixels: Pixels
    top1: Percent
    top5: Percent
    crop_pct: Annotated[float, Field(gt=0, le=1)]
    interpolation: str


class PublishedWeights(Strict):
    """The published weights of one training.

    Attributes:
        timm: the name of timm's model, with its tag: `efficientnet_b0.ra_in1k`.
        repository: their repository on the Hub.
        mean, std: mean and standard deviation of each channel, for pixels from 0 to 1; images must be normalised with
            them.
        license: the licence of the weights.
        results: the reported accuracy; empty if the weights belong to a network for another task, of which only the
            backbone is used.
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
        """Whether the network was trained on ImageNet-1k only, according to the tag."""
        return not MORE_DATA & set(self.tag.split("_"))

    def result_at(self, pixels: int) -> QuotedResult | None:
        """Return the result at the resolution nearest to `pixels`, compared by ratio; None: no result is reported."""
        return min(self.results, key=lambda result: abs(math.log(result.pixels / pixels)), default=None)


def origin_of(weights: PublishedWeights, result: QuotedResult) -> str:
    """Return the origin of a quoted figure, as a spec's provenance states it."""
    return f"{_TIMM}{weights.timm} at {result.pixels} pixels"


def is_of_weights(result: Result) -> bool:
    """Return whether a figure in a spec's provenance belongs to published weights, not to the architecture's paper."""
    return result.origin.startswith(_TIMM)


class PublishedEntry(Strict):
    """All published weights for one architecture.

    Attributes:
        name: the name of the zoo's entry.
        hash: the hash of its architecture; no two entries of the file share it.
        pixels: height of the images that the entry's cost is stated for.
        weights: the weights, one item per tag.
    """

    name: Name
    hash: Sha256
    pixels: Pixels
    weights: Annotated[tuple[PublishedWeights, ...], Field(min_length=1)]

    @property
    def default(self) -> PublishedWeights:
        """The weights that `pretrained` loads if no tag is given.

        These are the weights with the best top-1 accuracy near the entry's resolution among those trained on
        ImageNet-1k only, or among all if every training used more data. Weights trained on more data are never a
        silent default, because the licence of the data or their overlap with the user's images may matter; select them
        by their tag.
        """
        alone = [each for each in self.weights if each.saw_imagenet_alone]
        return max(alone or self.weights, key=self.top1)

    def top1(self, weights: PublishedWeights) -> float:
        """Return the quoted top-1 accuracy in percent near the entry's resolution; -1: no result is reported."""
        result = weights.result_at(self.pixels)
        return result.top1 if result else -1.0

    def find(self, tag: str) -> PublishedWeights | None:
        """Return the weights with this tag; None: there are none."""
        return next((each for each in self.weights if each.tag == tag), None)

    @property
    def tags(self) -> tuple[str, ...]:
        """All tags: the default first, then by falling top-1 accuracy."""
        order = sorted(self.weights, key=lambda each: (each != self.default, -self.top1(each), each.tag))
        return tuple(each.tag for each in order)


class Published(Document):
    """The content of the file `searched_archs/published.json`."""

    format: Literal["scalenet-zoo/published"] = "scalenet-zoo/published"
    version: Annotated[int, Field(ge=1, le=1)] = 1
    entries: tuple[PublishedEntry, ...]


def published_path() -> Path:
    """Return the path of `searched_archs/published.json`."""
    return Path(str(files("scalenet_zoo.searched_archs"))) / "published.json"


@cache
def published_entries() -> dict[str, PublishedEntry]:
    """Return the zoo's entries that have published weights, by name."""
    return {entry.name: entry for entry in Published.load(published_path()).entries}


@cache
def _by_hash() -> dict[str, PublishedEntry]:
    return {entry.hash: entry for entry in published_entries().values()}


def split_tag(name: str) -> tuple[PublishedEntry, str] | None:
    """Split NAME.TAG into an entry with published weights and a tag, which the entry may or may not have.

    Returns:
        The entry and the tag; None: the name has no dot, or there is no such entry.
    """
    entry, dot, tag = name.partition(".")
    return (published_entries()[entry], tag) if dot and entry in published_entries() else None


def is_tagged(name: str) -> bool:
    """Return whether a name is NAME.TAG of published weights."""
    found = split_tag(name)
    return found is not None and found[0].find(found[1]) is not None


def published_entry(spec: ArchSpec) -> PublishedEntry | None:
    """Return all published weights for exactly this architecture, whatever its name; None: there are none."""
    return _by_hash().get(spec.hash)


def published_weights(spec: ArchSpec, tag: str | None = None) -> PublishedWeights | None:
    """Return the published weights for exactly this architecture.

    Args:
        spec: the spec of the network. A name of the form NAME.TAG, as in the specs of `load_spec("NAME.TAG")`, selects
            the weights with this tag.
        tag: timm's tag; None: the tag in the name, or the default.

    Returns:
        The weights; None: there are none, or none with this tag.
    """
    entry = published_entry(spec)
    if entry is None:
        return None
    if tag is not None:
        return entry.find(tag)
    named, _, tag = spec.name.partition(".")
    return (entry.find(tag) if named == entry.name else None) or entry.default
