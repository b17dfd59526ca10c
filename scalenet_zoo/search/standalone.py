"""Results of networks that were trained alone, as JSON in `RUN/standalone.json`.

A network may appear several times, once per seed. The results tell how good a family really is, and whether the
supernet's scores rank networks as training them alone does.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Annotated, Literal

from pydantic import Field

from scalenet_zoo.core.documents import Document, Strict
from scalenet_zoo.search.ledger import Share

StandaloneGroup = Literal["found", "compound", "random", "ageing", "known", "rank"]


class StandaloneRow(Strict):
    """One training of a network alone.

    Attributes:
        group: `found`: the search found the network; `compound`, `random`, `ageing`: a baseline did; `known`: it is
            published, like HRNet; `rank`: it was drawn to compare rankings.
        name: the same for all seeds of a network.
        stage: its scaling stage; 0 for multipath networks, which have none.
        seed: the training's seed.
        macs: number of MACs of the network.
        params: number of its parameters.
        reached: the metric of its task: top-1 accuracy, mIoU, AP or PCK, 0 to 1.
        epochs: length of the training.
        score: with the supernet's weights, 0 to 1; None: not scored.
        latency_ms: measured latency in milliseconds; None: not measured.
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
        first: the first of its rows.
        reached: mean of the metric over the seeds.
        spread: standard deviation over the seeds; 0 for a single seed.
        seeds: number of seeds.
    """

    first: StandaloneRow
    reached: float
    spread: float
    seeds: int


def over_seeds(rows: Iterable[StandaloneRow]) -> list[TrainedAlone]:
    """Combine the rows of each network over its seeds; networks keep the order of the rows."""
    networks: dict[tuple[str, str, int], list[StandaloneRow]] = {}
    for row in rows:
        networks.setdefault((row.group, row.name, row.stage), []).append(row)
    trained = []
    for of_one in networks.values():
        reached = [row.reached for row in of_one]
        spread = stdev(reached) if len(reached) > 1 else 0.0
        trained.append(TrainedAlone(of_one[0], fmean(reached), spread, len(reached)))
    return trained
