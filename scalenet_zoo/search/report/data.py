"""What there is of a run, read from its folder for the report.

    RUN/config.yaml, run.json               what was asked for; versions and machine
    RUN/supernet/log.jsonl, summary.json    the training of the supernet
    RUN/search/SEARCH.json                  `ledger.Ledger`, one a search
    RUN/family.json, specs/NAME.json        what was found
    RUN/standalone.json                     `standalone.Standalone`: networks trained alone

Any of these may be missing, but not all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalenet_zoo.arch.family import Family
from scalenet_zoo.arch.scaling import apply_strategy
from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.bounds import YAML_BYTES
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.files import read_text
from scalenet_zoo.search.config import ABOUT_RUN, RunAbout
from scalenet_zoo.search.ledger import Ledger
from scalenet_zoo.search.scalenet.ledger import ScaleNetLedger
from scalenet_zoo.search.standalone import Standalone, TrainedAlone, over_seeds
from scalenet_zoo.spaces.scalenas import MultipathSpace
from scalenet_zoo.spaces.scalenet import Space
from scalenet_zoo.spaces.space_file import SpaceFile
from scalenet_zoo.supernet.summary import SUMMARY, SupernetSummary
from scalenet_zoo.training.log import read_log

METHODS: Mapping[str, tuple[type[Ledger], type[SpaceFile], tuple[str, ...]]] = {
    "scalenet": (ScaleNetLedger, Space, ("joint", "random", "compound", "separate")),
    "scalenas": (Ledger, MultipathSpace, ("evolution", "random", "ageing")),
}
"""What the searches of each method write, what their space is, and their names, the method's own first."""


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """What there is of a run.

    Attributes:
        folder: of the run.
        method: that searched.
        ledgers: of the searches, by name; the method's own first, if it is there.
        specs: the networks found, by their names.
        family: that they are of, if they are of one.
        trained: networks trained alone.
        log: lines of the supernet's training.
        summary: of that training; None: it has not ended.
        config: the text of config.yaml.
        about: what was asked for, and the machine; None: there is no run.json.
    """

    folder: Path
    method: str
    ledgers: Mapping[str, Any]
    specs: Mapping[str, ArchSpec]
    family: Family | None
    trained: Sequence[TrainedAlone]
    log: Sequence[Mapping[str, Any]]
    summary: SupernetSummary | None
    config: str
    about: RunAbout | None


def read_run(run: Path) -> RunFiles:
    """Read what there is of a run.

    Raises:
        InputError: there is no such folder, or nothing in it that a search writes, or a file cannot be read.
        SpecError: a file of ours is damaged, or an earlier version wrote it.
        TrainingError: the log is damaged.
    """
    if not run.is_dir():
        raise InputError(f"{run}: found no folder, expected that of a search")
    log = [line for line in read_log(run / "supernet") if line.get("kind") == "train"]
    trained = over_seeds(Standalone.load(path).rows) if (path := run / "standalone.json").exists() else []
    about = RunAbout.load(path) if (path := run / ABOUT_RUN).exists() else None
    topologies = about is not None and about.config.get("method") == "scalenas"
    method = "scalenas" if topologies or (run / "search" / "evolution.json").exists() else "scalenet"
    ledger, space, searches = METHODS[method]
    paths = {search: run / "search" / f"{search}.json" for search in searches}
    ledgers = {search: ledger.load(path) for search, path in paths.items() if path.exists()}
    for search, found in ledgers.items():
        space.from_values(found.space, f"{paths[search]}: space")  # that it is one; sections read it
    family = Family.load(path) if (path := run / "family.json").exists() else None
    if not (ledgers or log or family or trained):
        raise InputError(
            f"{run}: found nothing that a search writes, expected supernet/log.jsonl, search/{searches[0]}.json,"
            " family.json or standalone.json"
        )
    specs = {spec.name: spec for spec in map(ArchSpec.load, sorted(run.glob("specs/*.json")))}
    if family:
        specs = {each.name: specs.get(each.name) or apply_strategy(family, each) for each in family.strategies}
    return RunFiles(
        folder=run,
        method=method,
        ledgers=ledgers,
        specs=specs,
        family=family,
        trained=trained,
        log=log,
        summary=SupernetSummary.load(path) if (path := run / "supernet" / SUMMARY).exists() else None,
        config=_read_config(run / "config.yaml"),
        about=about,
    )


def _read_config(path: Path) -> str:
    """The text of a configuration; empty if there is none."""
    if not path.exists():
        return ""
    try:
        return read_text(path, YAML_BYTES)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
