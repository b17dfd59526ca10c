"""The files of a run, read from its folder for the report.

    RUN/config.yaml, run.json               the configuration; versions and machine
    RUN/supernet/log.jsonl, summary.json    the training of the supernet
    RUN/search/SEARCH.json                  `ledger.Ledger`, one per search
    RUN/family.json, specs/NAME.json        the networks found
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
"""For each method: the class of its ledgers, the class of its space, and the names of its searches, its own first."""


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """The files of a run.

    Attributes:
        folder: the folder of the run.
        method: the method that searched: `scalenet` or `scalenas`.
        ledgers: the ledgers of the searches, by name; the method's own comes first, if it exists.
        specs: the networks found, by name.
        family: the family of the networks; None: they belong to none.
        trained: networks trained alone.
        log: the training lines of the supernet's log.
        summary: the summary of the supernet's training; None: it has not ended.
        config: the text of config.yaml; empty: there is none.
        about: the configuration and the machine; None: there is no run.json.
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
    """Read the files of a run.

    Raises:
        InputError: the folder does not exist, has nothing that a search writes, or has a file that cannot be read.
        SpecError: a file is damaged, or an earlier version wrote it.
        TrainingError: the log is damaged.
    """
    if not run.is_dir():
        raise InputError(f"{run}: found no folder, expected that of a search")
    log = [line for line in read_log(run / "supernet") if line.get("kind") == "train"]
    trained = over_seeds(Standalone.load(path).rows) if (path := run / "standalone.json").exists() else []
    about = RunAbout.load(path) if (path := run / ABOUT_RUN).exists() else None
    method = _method(run, about)
    ledger, space, searches = METHODS[method]
    paths = {search: run / "search" / f"{search}.json" for search in searches}
    ledgers = {search: ledger.load(path) for search, path in paths.items() if path.exists()}
    for search, found in ledgers.items():
        space.from_values(
            found.space, f"{paths[search]}: space"
        )  # fails early if it is no space; sections read it later
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


def _method(run: Path, about: RunAbout | None) -> str:
    """Find the method of a run: the one that run.json names or, without it, the one whose own search is there."""
    asked = about.config.get("method") if about else None
    if isinstance(asked, str) and asked in METHODS:
        return asked
    begun = (name for name, (_, _, searches) in METHODS.items() if (run / "search" / f"{searches[0]}.json").exists())
    return next(begun, "scalenet")


def _read_config(path: Path) -> str:
    """Read the text of a configuration; empty: there is none."""
    if not path.exists():
        return ""
    try:
        return read_text(path, YAML_BYTES)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
