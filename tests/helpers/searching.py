"""Searches in a small space, with made-up scores whose optimum is known."""

import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scalenet_zoo.arch.spec import spec_errors
from scalenet_zoo.search.scalenet.limits import Bounds, Limits
from scalenet_zoo.search.scalenet.mcea import MCEA
from scalenet_zoo.search.scalenet.sampling import FeasibleSampler
from scalenet_zoo.search.scalenet.state import SearchState
from scalenet_zoo.search.settings import MCEASettings
from scalenet_zoo.spaces.candidates import Candidate
from scalenet_zoo.spaces.scalenet import Scaling, Space

SMALL = Space.from_values(
    {
        "name": "small",
        "stem": {"channels": 8, "kernel": 3, "stride": 2},
        "stages": [
            {"channels": 8, "stride": 1, "expand": 1, "depths": [1], "kernels": [3, 5, 7]},
            {"channels": 16, "stride": 2, "expand": 4, "depths": [1, 2, 3], "kernels": [3, 5, 7]},
            {"channels": 24, "stride": 2, "expand": 4, "depths": [2, 3], "kernels": [3, 5, 7]},
        ],
        "head": {"channels": 64},
        "scaling": [
            {"stage": 0, "depth": [1.0], "width": [1.0], "resolution": [32]},
            {"stage": 1, "depth": [1.1, 1.2, 1.3], "width": [1.1, 1.2, 1.3], "resolution": [32, 36, 40]},
            {"stage": 2, "depth": [1.3, 1.5, 1.7], "width": [1.3, 1.5, 1.7], "resolution": [40, 48]},
        ],
    },
    "small",
)


def limits(**values: Any) -> Limits:
    """Limits as in a YAML file."""
    with spec_errors("limits"):
        return Limits.model_validate(values)


LIMITS = limits(macs="900K", tolerance=0.15, growth=0.3)
SETTINGS = MCEASettings(population=24, generations=8, rounds=2, keep=12, first_bases=6)


def bounds(given: Limits = LIMITS, space: Space = SMALL) -> Bounds:
    return Bounds(space, 10, given)


class Made:
    """A scorer by a formula, which keeps its scores as lines of a file, as the real one does.

    Attributes:
        asked: networks that were computed in this sitting, one after the other.
    """

    images_each = 100
    seconds = 0.0

    def __init__(self, formula: Callable[[Candidate], float], cache: Path | None = None, pause: float = 0.0) -> None:
        self.formula, self.cache, self.pause = formula, cache, pause
        self.asked: list[str] = []
        self.known: dict[str, float] = {}
        if cache and cache.exists():
            lines = cache.read_text().splitlines(keepends=True)
            rows = [line.split("\t") for line in lines if line.endswith("\n")]  # the last may have been cut off
            self.known = {key: float(score) for key, score in rows}

    def score(self, candidates: Sequence[Candidate]) -> list[float]:
        for candidate in candidates:
            if candidate.key not in self.known:
                time.sleep(self.pause)
                self.asked.append(candidate.key)
                self.known[candidate.key] = self.formula(candidate)
                if self.cache:
                    with self.cache.open("a") as file:
                        file.write(f"{candidate.key}\t{self.known[candidate.key]!r}\n")
        return [self.known[candidate.key] for candidate in candidates]


def hashed(candidate: Candidate) -> float:
    """A score without any order, but for larger kernels being better."""
    digest = hashlib.sha256(candidate.key.encode()).digest()
    return 0.5 * float(np.count_nonzero(candidate.kernels == 7)) / 10 + digest[0] / 512


def optimum(seed: int, judged: Bounds) -> tuple[np.ndarray, dict[int, Scaling]]:
    """A base model within the limits, and strategies admissible for it."""
    rng = np.random.default_rng(seed)
    while True:
        base = FeasibleSampler(judged).draw(rng, 1)
        admissible = {stage: judged.admissible(stage, base) for stage in (1, 2)}
        if all(admissible.values()):
            return base[0], {stage: each[rng.integers(len(each))] for stage, each in admissible.items()}


def nearness(base: np.ndarray, scalings: dict[int, Scaling]) -> Callable[[Candidate], float]:
    """A score of 1 for one base model under one strategy a stage, and less the more a network differs from them."""

    def score(candidate: Candidate) -> float:
        share = float((candidate.kernels == base).mean())
        if (wanted := scalings.get(candidate.scaling.stage)) is None:
            return share
        off = abs(candidate.scaling.depth - wanted.depth) + abs(candidate.scaling.width - wanted.width)
        return share / 2 + 0.5 - off / 4 - abs(candidate.scaling.resolution - wanted.resolution) / 80

    return score


def same_but_for_time(state: SearchState) -> SearchState:
    return state.model_copy(update={"seconds": 0.0, "scoring_seconds": 0.0})


def main(folder: str) -> None:
    """A slow search, to be killed."""
    scorer = Made(hashed, Path(folder) / "scores.tsv", pause=0.002)
    MCEA(bounds(), scorer, SETTINGS, Path(folder) / "joint.json", "small").run()


if __name__ == "__main__":
    main(sys.argv[1])
