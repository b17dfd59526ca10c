"""What a search of topologies has found so far, as JSON: `RUN/search/METHOD.json`.

It is written after every generation. As with the search of ScaleNet (`state.py`), it holds no state of random
generators: a search that was killed is run again from its beginning, through the scores that are kept on disk.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from scalenet_zoo.arch.spec import ArchSpec, Document, Name, Strict
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.file_kinds import user_path
from scalenet_zoo.search.scalenas.limits import MultipathLimits
from scalenet_zoo.search.scalenet.state import Timed
from scalenet_zoo.search.settings import TopologySettings
from scalenet_zoo.spaces.scalenas import MultipathSpace

TopologyBaseline = Literal["random", "ageing"]
TopologyMethod = Literal["evolution", "random", "ageing"]


class ScoredTopology(Strict):
    """A network that was scored.

    Attributes:
        key: names its topology; see `MultipathSpace.keys`.
        generation: in which it was; 0: drawn from the groups.
        score: by the supernet, 0 to 1.
        macs: of the network.
        params: of the network.
        latency_ms: predicted by the model as it was fitted last; None: latency is not limited.
        measured_ms: the same, measured.
    """

    key: str
    generation: Annotated[int, Field(ge=0)]
    score: Annotated[float, Field(ge=0, le=1)]
    macs: int
    params: int
    latency_ms: float | None = None
    measured_ms: float | None = None


class TimedTopology(Timed):
    """A topology whose latency was predicted, then measured."""

    key: str


class TopologyRound(Strict):
    """What was measured after some generations, before the model was fitted anew; rounds are counted from 1."""

    round: Annotated[int, Field(ge=1)]
    networks: tuple[TimedTopology, ...]


class TopologyState(Document):
    """A search, so far or ended.

    Attributes:
        method: how was searched.
        name: of the networks.
        space: that was searched.
        classes: classes or joints.
        settings: of the search.
        context: what else it depends on: the supernet's weights, how networks are scored, how latency is measured.
        limits: that the networks keep.
        networks: in the order in which they were scored.
        front: places in `networks` of those that no other feasible one beats in score and MACs, the cheapest first.
        latency_rounds: measurements, if latency is limited.
        images: that passed forward to score the networks.
        seconds: of search, scoring included, over all sittings.
        scoring_seconds: of scoring alone.
        done: whether it has ended.
    """

    format: Literal["scalenet-zoo/topology-search"] = "scalenet-zoo/topology-search"
    version: Annotated[int, Field(ge=1, le=1)] = 1
    method: TopologyMethod
    name: Name
    space: MultipathSpace
    classes: Annotated[int, Field(ge=1)]
    settings: TopologySettings
    context: dict[str, Any] = Field(default_factory=dict)
    limits: MultipathLimits = MultipathLimits()
    networks: tuple[ScoredTopology, ...] = ()
    front: tuple[int, ...] = ()
    latency_rounds: tuple[TopologyRound, ...] = ()
    images: int = 0
    seconds: float = 0.0
    scoring_seconds: float = 0.0
    done: bool = False

    @field_validator("front")
    @classmethod
    def _of_networks(cls, front: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        scored = len(info.data.get("networks", ()))
        if any(not 0 <= place < scored for place in front):
            raise ValueError(f"expected places among {scored:,} networks")
        return front

    @property
    def found(self) -> list[ScoredTopology]:
        """The front, the cheapest first."""
        return [self.networks[place] for place in self.front]


def find_spec(run: Path, name: str) -> ArchSpec:
    """The spec of a network that a run found, by its name, or of a file.

    Raises:
        InputError: there is none.
        SpecError: the file is damaged.
    """
    folders = [run / "specs", *sorted((run / "baselines").glob("*"))]
    files = [*(folder / f"{name}.json" for folder in folders), user_path(name)]
    path = next((path for path in files if path.is_file()), None)
    if path is None:
        found = sorted(path.stem for path in folders[0].glob("*.json"))
        raise InputError(f"{name}: found no such network in {run}, expected {', '.join(found) or 'one'} or a file")
    return ArchSpec.load(path)
