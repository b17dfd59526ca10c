"""What networks reach that were trained alone, as JSON: `RUN/standalone.json`.

A network may stand there several times, once a seed. They tell how good a found family really is, and whether the
supernet's scores rank networks as training them alone does.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Annotated, Literal

from pydantic import Field

from scalenet_zoo.arch.spec import Document, Strict
from scalenet_zoo.search.ledger import Share

StandaloneGroup = Literal["found", "compound", "random", "ageing", "known", "rank"]


class StandaloneRow(Strict):
    """A network that was trained alone, once.

    Attributes:
        group: `found`: of what the search found; `compound`, `random`, `ageing`: of a baseline's; `known`: published,
            HRNet say; `rank`: drawn to compare rankings.
        name: the same for all seeds of a network.
        stage: its scaling stage; multipath networks have none.
        seed: of this training.
        macs: of the network.
        params: of the network.
        reached: its top-1 accuracy, or mIoU, AP or PCK: what networks of its task are judged by.
        epochs: that it was trained for.
        score: by the supernet.
        latency_ms: measured.
    """

    group: StandaloneGroup
    name: str
    stage: int = 0
    seed: int
    macs: Annotated[int, Field(gt=0)]
    params: Annotated[int, Field(gt=0)]
    reached: Share
    epochs: Annotated[int, Field(gt=0)]
    score: Share | None = None
    latency_ms: Annotated[float, Field(gt=0)] | None = None


class Standalone(Document):
    """All networks that were trained alone for a run."""

    format: Literal["scalenet-zoo/standalone"] = "scalenet-zoo/standalone"
    version: Annotated[int, Field(ge=1, le=1)] = 1
    rows: tuple[StandaloneRow, ...] = ()


@dataclass(frozen=True)
class TrainedAlone:
    """A network over its seeds.

    Attributes:
        first: one of its rows.
        reached: the mean.
        spread: the seeds' standard deviation; 0 of a single one.
        seeds: how many.
    """

    first: StandaloneRow
    reached: float
    spread: float
    seeds: int


def over_seeds(rows: Iterable[StandaloneRow]) -> list[TrainedAlone]:
    """The networks of some rows, in their order."""
    networks: dict[tuple[str, str, int], list[StandaloneRow]] = {}
    for row in rows:
        networks.setdefault((row.group, row.name, row.stage), []).append(row)
    trained = []
    for of_one in networks.values():
        reached = [row.reached for row in of_one]
        spread = stdev(reached) if len(reached) > 1 else 0.0
        trained.append(TrainedAlone(of_one[0], fmean(reached), spread, len(reached)))
    return trained
