"""A space of multipath networks small enough for tests, and made-up scores for it."""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from scalenet_zoo.arch.spec import spec_errors
from scalenet_zoo.search.scalenas.limits import MultipathLimits, TopologyBounds
from scalenet_zoo.search.scalenas.search import TopologySearch
from scalenet_zoo.search.scalenas.state import TopologyMethod, TopologyState
from scalenet_zoo.search.settings import TopologySettings
from scalenet_zoo.spaces.scalenas import MultipathSpace, Topologies
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


def limits(**values: Any) -> MultipathLimits:
    """Limits as in a YAML file."""
    with spec_errors("limits"):
        return MultipathLimits.model_validate(values)


def bounds(given: MultipathLimits | None = None) -> TopologyBounds:
    return TopologyBounds(SPACE, CLASSES, given or MultipathLimits())


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

    def score(self, topologies: Topologies) -> list[float]:
        values = (topologies.depth * self.depth).sum((1, 2)) + (topologies.fusion * self.fusion).sum((1, 2, 3, 4))
        keys = SPACE.keys(topologies)
        for key, value in zip(keys, values.tolist(), strict=True):
            if key not in self.known:
                time.sleep(self.pause)
                self.asked.append(key)
                self.known[key] = 1 / (1 + float(np.exp((10 - value) / 5)))
                if self.cache:
                    with self.cache.open("a") as file:
                        file.write(f"{key}\t{self.known[key]!r}\n")
        return [self.known[key] for key in keys]


def make_search(path: Path, scorer: Any = None, method: TopologyMethod = "evolution", **changes: Any) -> TopologySearch:
    options = {"bounds": bounds(), "settings": SETTINGS, "name": "tiny", "context": {"supernet": "weights"}, **changes}
    return TopologySearch(method=method, scorer=scorer or Formula(), path=path, **options)


def same_but_for_time(state: TopologyState) -> TopologyState:
    return state.model_copy(update={"seconds": 0.0, "scoring_seconds": 0.0})


def main(folder: str) -> None:
    """A slow search, to be killed."""
    make_search(Path(folder) / "evolution.json", Formula(Path(folder) / "scores.tsv", pause=0.01)).run()


if __name__ == "__main__":
    main(sys.argv[1])
