"""What a search has found so far, as JSON: `RUN/search/SEARCH.json`, the same for every method.

It is written after every step of the search. It holds no state of random generators: what is drawn is a function of
the seed and the place in the search, and scores are kept on disk, so a search that was killed is run again from its
beginning through the scores that it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field, JsonValue, ValidationInfo, field_validator

from scalenet_zoo.arch.spec import Document, Name, Strict
from scalenet_zoo.core.bounds import LEDGER_BYTES, LEDGER_VALUES
from scalenet_zoo.core.errors import SpecError, TrainingError
from scalenet_zoo.core.files import format_json
from scalenet_zoo.spaces.candidates import candidate_key

if TYPE_CHECKING:
    from pathlib import Path

Share = Annotated[float, Field(ge=0, le=1)]


class ScoredNetwork(Strict):
    """A network that a search has scored, or ends with.

    Attributes:
        key: names it in the space.
        generation: in which it was scored, counted from 0.
        score: by the supernet, 0 to 1; None: not scored, as it need not be of the space.
        macs: of the network.
        params: of the network.
        latency_ms: predicted by the model as it was fitted last; None: latency is not limited.
        measured_ms: the same, measured.
    """

    key: str
    generation: Annotated[int, Field(ge=0)]
    score: Share | None = None
    macs: int
    params: int
    latency_ms: float | None = None
    measured_ms: float | None = None


class TimedNetwork(Strict):
    """A network whose latency was predicted, then measured, both in milliseconds."""

    key: str
    predicted: float
    measured: float


class LatencyRound(Strict):
    """What was measured after some steps, before the model was fitted anew; rounds are counted from 1."""

    round: Annotated[int, Field(ge=1)]
    networks: tuple[TimedNetwork, ...]


class Ledger(Document):
    """A search, so far or ended; a method may add to it.

    Attributes:
        method: whose search it is: `scalenet`, `scalenas`.
        search: the method's own, or one that it is compared with.
        name: of what is found.
        space: that is searched, and its hash.
        settings: of the search, all that it depends on.
        networks: in the order in which they were scored.
        chosen: places in `networks` of those that the search ends with, or would end with now.
        latency_rounds: measurements, if latency is limited.
        steps: times that this was written.
        images: that passed forward to score the networks.
        seconds: of search, scoring included, over all sittings.
        scoring_seconds: of scoring alone.
        ended: whether there is nothing left to do.
    """

    most_bytes: ClassVar[int] = LEDGER_BYTES
    most_values: ClassVar[int] = LEDGER_VALUES

    format: Literal["scalenet-zoo/search"] = "scalenet-zoo/search"
    version: Annotated[int, Field(ge=2, le=2)] = 2
    method: str
    search: str
    name: Name
    space: dict[str, JsonValue]
    space_hash: str
    settings: dict[str, JsonValue]
    networks: tuple[ScoredNetwork, ...] = ()
    chosen: tuple[int, ...] = ()
    latency_rounds: tuple[LatencyRound, ...] = ()
    steps: Annotated[int, Field(ge=0)] = 0
    images: int = 0
    seconds: float = 0.0
    scoring_seconds: float = 0.0
    ended: bool = False

    @field_validator("chosen")
    @classmethod
    def _of_networks(cls, chosen: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        known = len(info.data.get("networks", ()))
        if any(not 0 <= place < known for place in chosen):
            raise ValueError(f"expected places among {known:,} networks")
        return chosen

    @property
    def space_name(self) -> str:
        """The name of the space."""
        return str(self.space["name"])

    @property
    def found(self) -> list[ScoredNetwork]:
        """The networks that the search ends with, or would end with now."""
        return [self.networks[place] for place in self.chosen]

    @property
    def evaluations(self) -> int:
        """Networks that this search asked a score for, each counted once."""
        return sum(network.score is not None for network in self.networks)

    @property
    def times(self) -> dict[str, float]:
        """Milliseconds measured, by the networks' keys."""
        times = {network.key: network.measured for each in self.latency_rounds for network in each.networks}
        return times | {each.key: each.measured_ms for each in self.networks if each.measured_ms is not None}

    @property
    def asked(self) -> dict[str, Any]:
        """Which search it is: what a search that goes on must have the same."""
        return self.model_dump(include={"method", "search", "name", "space", "space_hash", "settings"})

    def to_json(self) -> str:
        """The file's text: a network a line, written fast, since there may be many."""
        head = format_json(self.model_dump(mode="json", exclude_none=True, exclude={"networks"}))
        networks = ",\n".join(f"    {network.model_dump_json(exclude_none=True)}" for network in self.networks)
        return head.removesuffix("\n}") + f',\n  "networks": [\n{networks}\n  ]\n}}\n'

    @classmethod
    def from_dict(cls, data: object, source: str) -> Self:
        """See `Document.from_dict`.

        Raises:
            SpecError: also that version 0.1 wrote it.
        """
        if isinstance(data, dict) and data.get("format") in _OLD_FORMATS and data.get("version") == 1:
            raise OldLedgerError(source, data)
        return super().from_dict(data, source)


AnyLedger = TypeVar("AnyLedger", bound=Ledger)

_OLD_FORMATS = ("scalenet-zoo/search", "scalenet-zoo/topology-search")


class OldLedgerError(SpecError):
    """The file of a search that scalenet-zoo 0.1 wrote."""

    def __init__(self, source: str, data: dict[str, Any]) -> None:
        super().__init__(
            f"{source}: version: found 1, as scalenet-zoo 0.1 writes it, expected 2; run `scalenet-zoo search` with"
            " this folder as --output again: it writes the file anew from the scores that there are"
        )
        self.data = data


def load_earlier(path: Path, first: AnyLedger) -> AnyLedger | None:
    """What an earlier sitting of a search has written; of one by version 0.1, its times and what it measured.

    Args:
        path: of the file.
        first: of the search, before anything is done.

    Raises:
        SpecError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        return type(first).load(path)
    except OldLedgerError as old:
        data = old.data
    try:
        rounds = tuple(
            LatencyRound(
                round=each["round"],
                networks=tuple(
                    TimedNetwork(key=_old_key(one), predicted=one["predicted"], measured=one["measured"])
                    for one in each["networks"]
                ),
            )
            for each in data.get("latency_rounds", ())
        )
        seconds = {name: float(data.get(name, 0.0)) for name in ("seconds", "scoring_seconds")}
    except (KeyError, TypeError, ValueError):
        return None  # nothing can be taken over: the search is done again through its scores
    return first.model_copy(update={"latency_rounds": rounds, **seconds})


def _old_key(network: Mapping[str, Any]) -> str:
    """Version 0.1 wrote ScaleNet's networks as base models and strategies."""
    if "key" in network:
        return str(network["key"])
    scaling = network["scaling"]
    return candidate_key(network["kernels"], scaling["depth"], scaling["width"], scaling["resolution"])


def check_same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse a file of another search.

    Raises:
        TrainingError: what was searched `before`, as the file says, is not what is to be searched `now`.
    """
    if difference := first_difference(before, now):
        field, found, expected = difference
        raise TrainingError(f"{path}: {field}: found {found} in this search, expected {expected}, as now given")


def first_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first name (nested ones joined by dots) with other values before than now, and both; None: all are equal."""
    then, since = flatten(before), flatten(now)
    for name in {**then, **since}:
        if then.get(name) != since.get(name):
            return name, then.get(name), since.get(name)
    return None


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as one: names joined by dots."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
