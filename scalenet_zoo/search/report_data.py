"""What there is of a run, read from its folder for the report.

    RUN/config.yaml, run.json               what was asked for; versions and machine
    RUN/supernet/log.jsonl, summary.json    the training of the supernet
    RUN/search/METHOD.json                  `state.SearchState`, one a method
    RUN/family.json, specs/NAME.json        what was found
    RUN/standalone.json                     `standalone.Standalone`: networks trained alone

Any of these may be missing, but not all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from scalenet_zoo._files import read_json
from scalenet_zoo.errors import InputError
from scalenet_zoo.family import Family, Strategy
from scalenet_zoo.scaling import apply_strategy
from scalenet_zoo.search.standalone import Standalone, Trained, over_seeds
from scalenet_zoo.search.state import Found, HalfStep, Method, SearchState
from scalenet_zoo.spec import ArchSpec
from scalenet_zoo.training_log import read_log


@dataclass(frozen=True)
class Run:
    """What there is of a run.

    Attributes:
        folder: of the run.
        states: of the searches, by method.
        family: what was found.
        specs: the family's networks, by the names of its strategies.
        trained: networks trained alone.
        log: lines of the supernet's training.
        summary: of that training.
        config: the text of config.yaml.
        about: versions, machine and what else run.json has.
    """

    folder: Path
    states: Mapping[str, SearchState]
    family: Family | None
    specs: Mapping[str, ArchSpec]
    trained: Sequence[Trained]
    log: Sequence[Mapping[str, Any]]
    summary: Mapping[str, Any]
    config: str
    about: Mapping[str, Any]

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

    def trained_alone(self, stage: float) -> Trained | None:
        """The found network of a stage, trained alone."""
        return next((t for t in self.trained if t.first.group == "found" and t.first.stage == stage), None)


def read_run(run: Path) -> Run:
    """Read what there is of a run.

    Raises:
        InputError: there is no such folder, or nothing in it that a search writes, or a file cannot be read.
        SpecError: a file of ours is damaged.
    """
    if not run.is_dir():
        raise InputError(f"{run}: found no folder, expected that of a search")
    paths = {name: run / "search" / f"{name}.json" for name in get_args(Method)}
    states = {name: SearchState.load(path) for name, path in paths.items() if path.exists()}
    log = [line for line in read_log(run / "supernet") if line.get("kind") == "train"]
    family = Family.load(path) if (path := run / "family.json").exists() else None
    trained = over_seeds(Standalone.load(path).rows) if (path := run / "standalone.json").exists() else []
    if not (states or log or family or trained):
        raise InputError(
            f"{run}: found nothing that a search writes, expected supernet/log.jsonl, search/joint.json,"
            " family.json or standalone.json"
        )
    specs = {spec.name: spec for spec in map(ArchSpec.load, sorted(run.glob("specs/*.json")))}
    if family:
        specs = {s.name: specs.get(s.name) or apply_strategy(family, s) for s in family.strategies}
    config = run / "config.yaml"
    return Run(
        folder=run,
        states=states,
        family=family,
        specs=specs,
        trained=trained,
        log=log,
        summary=_read_object(run / "supernet" / "summary.json"),
        config=config.read_text(encoding="utf-8", errors="replace") if config.exists() else "",
        about=_read_object(run / "run.json"),
    )


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty if there is no such file."""
    if not path.exists():
        return {}
    try:
        value = read_json(path)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: found {type(value).__name__}, expected a JSON object")
    return value
