"""A space of multipath networks small enough for tests, and made-up scores for it."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scalenet_zoo.core.documents import spec_errors
from scalenet_zoo.search.ledger import Ledger
from scalenet_zoo.search.record import Record
from scalenet_zoo.search.scalenas.config import TopologySettings
from scalenet_zoo.search.scalenas.limits import TopologyBounds, TopologyLimits
from scalenet_zoo.search.scalenas.search import TopologySearch
from scalenet_zoo.spaces.scalenas import MultipathSpace
from scalenet_zoo.supernet.scalenas.network import ScaleNASSupernet
from tests.helpers.networks import randomise

CLASSES = 3
SETTINGS = TopologySettings(first=24, evaluations=60, parents=12, tournament=4)


def tiny_space(head: str, pixels: int = 64) -> MultipathSpace:
    return MultipathSpace.from_values(
        {
            "name": f"tiny_{head}",
            "width": 4,
            "head": head,
            "modules": [1, 1, 1],
            "input": {"height": pixels, "width": pixels},
            "depths": [1, 2, 3],
            "groups": {"depths": [[1, 2], [2, 3]], "fusion": [0.2, 0.6]},
        },
        "tiny",
    )


SPACE = tiny_space("segmentation")


def random_supernet(head: str, classes: int = CLASSES) -> ScaleNASSupernet:
    supernet = ScaleNASSupernet(tiny_space(head), classes)
    randomise(supernet)
    return supernet.eval()


def limits(**values: Any) -> TopologyLimits:
    """Limits as in a YAML file."""
    with spec_errors("limits"):
        return TopologyLimits.model_validate(values)


def bounds(given: TopologyLimits | None = None) -> TopologyBounds:
    return TopologyBounds(SPACE, CLASSES, given or TopologyLimits())


class Formula:
    """A scorer by a formula, which keeps its scores as lines of a file, as the real one does.

    Attributes:
        asked: networks that were computed in this sitting.
    """

    images_each = 10
    seconds = 0.0

    def __init__(self, cache: Path | None = None, pause: float = 0.0) -> None:
        self.cache, self.pause = cache, pause
        self.asked: list[str] = []
        rng = np.random.default_rng(0)
        self.depth = rng.normal(0.5, 1.0, SPACE.largest.depth.shape)
        self.fusion = rng.normal(0.0, 0.3, SPACE.largest.fusion.shape)
        self.known: dict[str, float] = {}
        if cache and cache.exists():
            lines = cache.read_text().splitlines(keepends=True)
            rows = [line.split("\t") for line in lines if line.endswith("\n")]  # the last may have been cut off
            self.known = {key: float(score) for key, score in rows}

    def score(self, keys: Sequence[str]) -> list[float]:
        topologies = SPACE.from_keys(keys)
        values = (topologies.depth * self.depth).sum((1, 2)) + (topologies.fusion * self.fusion).sum((1, 2, 3, 4))
        for key, value in zip(keys, values.tolist(), strict=True):
            if key not in self.known:
                time.sleep(self.pause)
                self.asked.append(key)
                self.known[key] = 1 / (1 + float(np.exp((10 - value) / 5)))
                if self.cache:
                    with self.cache.open("a") as file:
                        file.write(f"{key}\t{self.known[key]!r}\n")
        return [self.known[key] for key in keys]


def search_topologies(
    path: Path,
    scorer: Any = None,
    search: str = "evolution",
    judged: TopologyBounds | None = None,
    settings: TopologySettings = SETTINGS,
    context: dict[str, Any] | None = None,
    every: int = 2,
    measured: int = 4,
    **given: Any,
) -> Ledger:
    """A search in a file, to its end."""
    judged = judged or bounds()
    first = Ledger(
        method="scalenas",
        search=search,
        name="tiny",
        space=SPACE.model_dump(mode="json"),
        space_hash=SPACE.hash,
        settings={
            "search": settings.model_dump(mode="json"),
            "limits": judged.limits.model_dump(mode="json", exclude_none=True),
            "classes": CLASSES,
            **(context or {"supernet": "weights"}),
        },
    )
    record = Record(path, first, scorer or Formula(), judged, **given)
    return record.run(lambda: TopologySearch(search, record, settings, every, measured).run())


def same_but_for_time(ledger: Ledger) -> Ledger:
    return ledger.model_copy(update={"seconds": 0.0, "scoring_seconds": 0.0})


def main(folder: str) -> None:
    """A slow search, to be killed."""
    search_topologies(Path(folder) / "evolution.json", Formula(Path(folder) / "scores.tsv", pause=0.01))


if __name__ == "__main__":
    main(sys.argv[1])
