"""What there is of a run, read from its folder for the report.

    RUN/config.yaml, run.json               what was asked for; versions and machine
    RUN/supernet/log.jsonl, summary.json    the training of the supernet
    RUN/search/METHOD.json                  `state.SearchState` or `multipath_state.TopologyState`, one a method
    RUN/family.json, specs/NAME.json        what was found
    RUN/standalone.json                     `standalone.Standalone`: networks trained alone

Any of these may be missing, but not all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from scalenet_zoo.arch.family import Family, Strategy
from scalenet_zoo.arch.scaling import apply_strategy
from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.bounds import YAML_BYTES
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.files import read_text
from scalenet_zoo.search.config import RUN_FILE, RunAbout
from scalenet_zoo.search.scalenas.state import ScoredTopology, TopologyMethod, TopologyState
from scalenet_zoo.search.scalenet.state import Found, HalfStep, Method, SearchState
from scalenet_zoo.search.standalone import Standalone, TrainedAlone, over_seeds
from scalenet_zoo.supernet.summary import SUMMARY, SupernetSummary
from scalenet_zoo.training.log import read_log

AnyState = TypeVar("AnyState", SearchState, TopologyState)


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """What there is of a run of either kind.

    Attributes:
        folder: of the run.
        specs: the networks found, by their names.
        trained: networks trained alone.
        log: lines of the supernet's training.
        summary: of that training; None: it has not ended.
        config: the text of config.yaml.
        about: what was asked for, and the machine; None: there is no run.json.
    """

    folder: Path
    specs: Mapping[str, ArchSpec]
    trained: Sequence[TrainedAlone]
    log: Sequence[Mapping[str, Any]]
    summary: SupernetSummary | None
    config: str
    about: RunAbout | None


@dataclass(frozen=True, kw_only=True)
class TopologyRun(RunFiles):
    """What there is of a search of topologies.

    Attributes:
        states: of the searches, by method.
    """

    states: Mapping[str, TopologyState]

    @property
    def evolution(self) -> TopologyState | None:
        """Topology evolution."""
        return self.states.get("evolution")

    @property
    def found(self) -> list[tuple[str, ScoredTopology, TrainedAlone | None]]:
        """The front of topology evolution: name, network, and the same trained alone, the cheapest first."""
        if not self.evolution:
            return []
        alone = {network.first.name: network for network in self.trained if network.first.group == "found"}
        names = [f"{self.evolution.name}_{number}" for number in range(len(self.evolution.front))]
        return [(name, network, alone.get(name)) for name, network in zip(names, self.evolution.found, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Run(RunFiles):
    """What there is of a search of base model and scaling strategies.

    Attributes:
        states: of the searches, by method.
        family: what was found.
    """

    states: Mapping[str, SearchState]
    family: Family | None

    @property
    def joint(self) -> SearchState | None:
        """The joint search."""
        return self.states.get("joint")

    @property
    def strategies(self) -> list[Strategy]:
        """The family's, from the smallest stage."""
        return sorted(self.family.strategies, key=lambda strategy: strategy.stage) if self.family else []

    @property
    def searched(self) -> float:
        """The last stage that was searched; later ones are extrapolated."""
        last = self.joint.stages if self.joint else [strategy.stage for strategy in self.strategies]
        return max(last, default=0)

    def last_step(self, kind: Literal["strategies", "bases"]) -> HalfStep | None:
        """The last half-step of a kind of the joint search."""
        steps = self.joint.half_steps if self.joint else ()
        return next((step for step in reversed(steps) if step.kind == kind), None)

    def found(self, stage: float) -> Found | None:
        """What joint search ended with at a stage."""
        return next((found for found in self.joint.found if found.stage == stage), None) if self.joint else None

    def trained_alone(self, stage: float) -> TrainedAlone | None:
        """The found network of a stage, trained alone."""
        return next((t for t in self.trained if t.first.group == "found" and t.first.stage == stage), None)


def read_run(run: Path) -> Run | TopologyRun:
    """Read what there is of a run.

    Raises:
        InputError: there is no such folder, or nothing in it that a search writes, or a file cannot be read.
        SpecError: a file of ours is damaged.
        TrainingError: the log is damaged.
    """
    if not run.is_dir():
        raise InputError(f"{run}: found no folder, expected that of a search")
    log = [line for line in read_log(run / "supernet") if line.get("kind") == "train"]
    trained = over_seeds(Standalone.load(path).rows) if (path := run / "standalone.json").exists() else []
    about = RunAbout.load(path) if (path := run / RUN_FILE).exists() else None
    shared: dict[str, Any] = {
        "folder": run,
        "trained": trained,
        "log": log,
        "summary": SupernetSummary.load(path) if (path := run / "supernet" / SUMMARY).exists() else None,
        "config": _read_config(run / "config.yaml"),
        "about": about,
    }
    specs = {spec.name: spec for spec in map(ArchSpec.load, sorted(run.glob("specs/*.json")))}
    if (about and about.config.get("method") == "scalenas") or (run / "search" / "evolution.json").exists():
        topologies = _read_states(run, TopologyState, get_args(TopologyMethod))
        if topologies or log or trained:
            return TopologyRun(**shared, specs=specs, states=topologies)
        raise InputError(f"{run}: found nothing that a search writes, expected search/evolution.json")
    states = _read_states(run, SearchState, get_args(Method))
    family = Family.load(path) if (path := run / "family.json").exists() else None
    if not (states or log or family or trained):
        raise InputError(
            f"{run}: found nothing that a search writes, expected supernet/log.jsonl, search/joint.json,"
            " family.json or standalone.json"
        )
    if family:
        specs = {s.name: specs.get(s.name) or apply_strategy(family, s) for s in family.strategies}
    return Run(**shared, specs=specs, states=states, family=family)


def _read_states(run: Path, kind: type[AnyState], methods: Sequence[str]) -> dict[str, AnyState]:
    """The states of searches that there are."""
    paths = {name: run / "search" / f"{name}.json" for name in methods}
    return {name: kind.load(path) for name, path in paths.items() if path.exists()}


def _read_config(path: Path) -> str:
    """The text of a configuration; empty if there is none."""
    if not path.exists():
        return ""
    try:
        return read_text(path, YAML_BYTES)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
