"""Searches in a small space, with made-up scores whose optimum is known."""

import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scalenet_zoo.arch.population import Population
from scalenet_zoo.core.documents import spec_errors
from scalenet_zoo.search.ledger import AnyLedger
from scalenet_zoo.search.record import Record
from scalenet_zoo.search.scalenet.baselines import search_baseline
from scalenet_zoo.search.scalenet.config import Baseline, MCEASettings
from scalenet_zoo.search.scalenet.ledger import ScaleNetLedger
from scalenet_zoo.search.scalenet.limits import Bounds, Limits
from scalenet_zoo.search.scalenet.mcea import MCEA
from scalenet_zoo.search.scalenet.sampling import FeasibleSampler
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
            {"stage": 1, "depth": [1.1, 1.2, 1.3], "width": [1.1, 1.2, 1.3], "resolution": [32, 36, 38]},
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


@dataclass(frozen=True)
class Machine:
    """Latency by multiply-adds, and something that is no sum over layers."""

    speed: float = 1e6

    def predict(self, population: Population) -> np.ndarray:
        macs = population.cost.macs / self.speed
        return np.asarray(macs * (1 + 0.02 * np.sin(macs * 20)))


class Made:
    """A scorer by a formula, which keeps its scores as lines of a file, as the real one does.

    Attributes:
        asked: networks that were computed in this sitting, one after the other.
        space: that they are of.
    """

    images_each = 100
    seconds = 0.0
    space = SMALL

    def __init__(self, formula: Callable[[Candidate], float], cache: Path | None = None, pause: float = 0.0) -> None:
        self.formula, self.cache, self.pause = formula, cache, pause
        self.asked: list[str] = []
        self.known: dict[str, float] = {}
        if cache and cache.exists():
            lines = cache.read_text().splitlines(keepends=True)
            rows = [line.split("\t") for line in lines if line.endswith("\n")]  # the last may have been cut off
            self.known = {key: float(score) for key, score in rows}

    def score(self, keys: Sequence[str]) -> list[float]:
        for key in keys:
            if key not in self.known:
                time.sleep(self.pause)
                self.asked.append(key)
                self.known[key] = self.formula(Candidate.from_key(self.space, key))
                if self.cache:
                    with self.cache.open("a") as file:
                        file.write(f"{key}\t{self.known[key]!r}\n")
        return [self.known[key] for key in keys]


def make_record(
    path: Path,
    search: str = "joint",
    scorer: Any = None,
    judged: Bounds | None = None,
    settings: MCEASettings = SETTINGS,
    context: dict[str, Any] | None = None,
    **given: Any,
) -> Record[ScaleNetLedger, Bounds]:
    """The record of a search in a folder."""
    judged, scorer = judged or bounds(), scorer or Made(hashed)
    scorer.space = judged.space
    asked: dict[str, Any] = {
        "search": settings.model_dump(mode="json", exclude_none=True),
        "limits": judged.limits.model_dump(mode="json", exclude_none=True),
        "classes": judged.classes,
    }
    first = ScaleNetLedger(
        method="scalenet",
        search=search,
        name="small",
        space=judged.space.model_dump(mode="json"),
        space_hash=judged.space.hash,
        settings=asked | (context or {}),
    )
    return Record(path / f"{search}.json", first, scorer, judged, **given)


def joint_search(path: Path, scorer: Any = None, settings: MCEASettings = SETTINGS, **given: Any) -> ScaleNetLedger:
    """A joint search in a folder, to its end."""
    record = make_record(path, "joint", scorer, settings=settings, **given)
    return record.run(lambda: MCEA(record, settings).run())


def baseline_search(
    search: Baseline, path: Path, scorer: Any = None, evaluations: int = 201, **given: Any
) -> ScaleNetLedger:
    """A search to compare with, in a folder, to its end."""
    settings = given.get("settings", SETTINGS)
    record = make_record(path, search, scorer, context={"evaluations": evaluations}, **given)
    return record.run(lambda: search_baseline(search, record, settings, evaluations))


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


def same_but_for_time(ledger: AnyLedger) -> AnyLedger:
    return ledger.model_copy(update={"seconds": 0.0, "scoring_seconds": 0.0})


def main(folder: str) -> None:
    """A slow search, to be killed."""
    joint_search(Path(folder), Made(hashed, Path(folder) / "scores.tsv", pause=0.002))


if __name__ == "__main__":
    main(sys.argv[1])
