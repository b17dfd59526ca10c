"""The ledger: what a search has found so far, as JSON in `RUN/search/SEARCH.json`. All methods use the same format.

The file is written after every step of the search. It has no state of random generators: what is drawn is a function of
the seed and the position in the search, and scores are kept on disk. So a killed search is resumed by running it again
from the beginning with the scores that it already has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field, JsonValue, ValidationInfo, field_validator

from scalenet_zoo.arch.spec import Name
from scalenet_zoo.core.bounds import LEDGER_BYTES, LEDGER_VALUES
from scalenet_zoo.core.documents import Document, Strict
from scalenet_zoo.core.errors import SpecError, TrainingError
from scalenet_zoo.core.files import format_json
from scalenet_zoo.spaces.candidates import candidate_key

if TYPE_CHECKING:
    from pathlib import Path

Share = Annotated[float, Field(ge=0, le=1)]


class ScoredNetwork(Strict):
    """A network that a search scored, or ends with.

    Attributes:
        key: the network's name in the space.
        generation: the generation in which it was scored, counted from 0.
        score: with the supernet's weights, 0 to 1; None: not scored, since the network need not belong to the space.
        macs: number of its MACs.
        params: number of its parameters.
        latency_ms: latency in milliseconds as the model that was fitted last predicts it; None: it is not limited.
        measured_ms: measured latency in milliseconds; None: not measured.
    """

    key: str
    generation: Annotated[int, Field(ge=0)]
    score: Share | None = None
    macs: int
    params: int
    latency_ms: float | None = None
    measured_ms: float | None = None


class TimedNetwork(Strict):
    """A network whose latency was predicted and then measured.

    Attributes:
        key: the network's name in the space.
        predicted: predicted latency in milliseconds.
        measured: measured latency in milliseconds.
    """

    key: str
    predicted: float
    measured: float


class LatencyRound(Strict):
    """The measurements after some steps of the search, to which the latency model was then fitted again.

    Attributes:
        round: number of the round, counted from 1.
        networks: the networks measured in it.
    """

    round: Annotated[int, Field(ge=1)]
    networks: tuple[TimedNetwork, ...]


class Ledger(Document):
    """A search that has ended or is under way; a method may add fields.

    Attributes:
        method: the method that the search belongs to: `scalenet` or `scalenas`.
        search: the name of the search: the method's own, or a baseline's.
        name: names the networks that are found.
        space: the space that is searched.
        space_hash: hash of the space.
        settings: all settings that the search depends on.
        networks: all networks, in the order in which they were scored.
        chosen: positions in `networks` of those that the search ends with, or would end with now.
        latency_rounds: measurements, if latency is limited.
        steps: how often the ledger was written.
        images: number of images in all forward passes that scored the networks.
        seconds: time of the search, including scoring, over all sessions.
        scoring_seconds: time of scoring alone.
        ended: whether the search is complete.
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
            raise ValueError(f"expected positions among {known:,} networks")
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
        """How many networks this search requested a score for; each counts once."""
        return sum(network.score is not None for network in self.networks)

    @property
    def times(self) -> dict[str, float]:
        """Measured latencies in milliseconds, by the networks' keys."""
        times = {network.key: network.measured for each in self.latency_rounds for network in each.networks}
        return times | {each.key: each.measured_ms for each in self.networks if each.measured_ms is not None}

    @property
    def asked(self) -> dict[str, Any]:
        """The fields that identify a search; a resumed search must have the same."""
        return self.model_dump(include={"method", "search", "name", "space", "space_hash", "settings"})

    def to_json(self) -> str:
        """The text of the file, with one line per network; it is written fast, since there may be many networks."""
        head = format_json(self.model_dump(mode="json", exclude_none=True, exclude={"networks"}))
        networks = ",\n".join(f"    {network.model_dump_json(exclude_none=True)}" for network in self.networks)
        return head.removesuffix("\n}") + f',\n  "networks": [\n{networks}\n  ]\n}}\n'

    @classmethod
    def from_dict(cls, data: object, source: str) -> Self:
        """See `Document.from_dict`.

        Raises:
            SpecError: as there; also, as `OldLedgerError`, if version 0.1 wrote the file.
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
            f"{source}: version: found 1, written by scalenet-zoo 0.1, expected 2; run `scalenet-zoo search` again with"
            " this folder as --output to convert the file, using the scores that there are"
        )
        self.data = data


def load_earlier(path: Path, first: AnyLedger) -> AnyLedger | None:
    """Load the ledger of an earlier session; of one by version 0.1, only its times and measurements are used.

    Args:
        path: the ledger's file.
        first: the ledger of the search before anything is done.

    Returns:
        The ledger; None: there is no file, or nothing in it can be used.

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
        return None  # nothing can be used: the search runs again with its scores
    return first.model_copy(update={"latency_rounds": rounds, **seconds})


def _old_key(network: Mapping[str, Any]) -> str:
    """The key of a network that version 0.1 wrote; it wrote ScaleNet's networks as base models with strategies."""
    if "key" in network:
        return str(network["key"])
    scaling = network["scaling"]
    return candidate_key(network["kernels"], scaling["depth"], scaling["width"], scaling["resolution"])


def check_same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse a file of another search.

    Raises:
        TrainingError: the file's values, `before`, differ from those of the present search, `now`.
    """
    if difference := first_difference(before, now):
        field, found, expected = difference
        raise TrainingError(f"{path}: {field}: found {found} in this search, expected {expected}, as now given")


def first_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """Find the first name whose values before and now differ.

    Returns:
        The name (nested names are joined by dots), the value before and the value now; None: all values are equal.
    """
    then, since = flatten(before), flatten(now)
    for name in {**then, **since}:
        if then.get(name) != since.get(name):
            return name, then.get(name), since.get(name)
    return None


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested objects into one, joining their names by dots."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
