"""The functions behind the commands `search` and `supernet`, which only print their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.backends import require_backend
from scalenet_zoo.core.distributed import on_main_rank
from scalenet_zoo.core.errors import InputError, UsageError
from scalenet_zoo.core.file_kinds import user_path
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.core.quantities import parse_count, parse_ms
from scalenet_zoo.latency.precisions import check_precision
from scalenet_zoo.search.config import SearchConfig
from scalenet_zoo.search.methods import load_config, open_run
from scalenet_zoo.supernet.summary import SupernetSummary, trained_supernet

if TYPE_CHECKING:
    from scalenet_zoo.search.extract import Extracted
    from scalenet_zoo.search.method import Written
    from scalenet_zoo.search.report.next_commands import NextCommand


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes:
        folder: the run's folder.
        written: the files written (specs and, for ScaleNet, the family), and a table of the networks.
        report: the page that reports on the search.
        commands: the commands for using what was found.
    """

    folder: Path
    written: Written
    report: Path
    commands: Sequence[NextCommand]


def run_search(
    config: str | Path | SearchConfig,
    output: str | Path | None = None,
    *,
    data: str | None = None,
    limits: Mapping[str, Any] | None = None,
    precision: str | None = None,
    supernet: str | Path | None = None,
    workers: int = 2,
    save_every: int | None = None,
    log_interval: int = 50,
    cpu: bool = False,
    about: Mapping[str, Any] | None = None,
    on_progress: OnProgress = lambda what, done, total: None,
) -> SearchResult:
    """Train a supernet, search it, and write specs and a report. Work that is already in the folder is not repeated.

    Args:
        config: a YAML file, the name of a packaged configuration, or the configuration itself.
        output: the folder to write to, or whose run to resume; None: runs/NAME.
        data: replaces the configuration's data.
        limits: replace those of the configuration's limits that are named: `macs`, `params`, `latency`, `backend`,
            `threads`.
        precision: the precision in which latency is limited: fp32, fp16 or int8; None: the configuration's.
        supernet: another run whose supernet is used instead of training one.
        workers: processes that load images, for each process that trains.
        save_every: steps between checkpoints of the supernet, in addition to those after each epoch.
        log_interval: steps between lines of the supernet's log.
        cpu: stay on the CPU, even if there is a GPU.
        about: details to add to the provenance of the networks that are found.
        on_progress: called with what is being done, how much of it is done, and how much there is.

    Raises:
        InputError: configuration, data and space do not fit each other, or the other run has no trained supernet.
        UsageError: networks do not run in this precision on the back end.
        SpecError: a file is damaged.
        BudgetError: no network can keep the limits.
        TrainingError: another run is working in the folder, or the folder has a run with another configuration.
        BackendError: the back end whose latency is limited cannot run here.
        OutputError: a file cannot be written.
    """
    latency = {} if precision is None else {"precision": precision}
    chosen = _check(config, {"data": data, "limits": dict(limits or {}), "latency": latency})
    taken = None if supernet is None else Path(supernet)
    if taken is not None:
        trained_supernet(taken)

    from scalenet_zoo.search.driver import RunOptions

    options = RunOptions(
        workers=workers,
        save_every=save_every,
        log_interval=log_interval,
        cpu=cpu,
        on_progress=on_progress,
        about=about or {},
        supernet=taken,
    )
    run = open_run(chosen, output, options)
    written = run.search()

    from scalenet_zoo.search.report.page import next_commands, write_report

    report, commands = on_main_rank(lambda: (write_report(run.folder), next_commands(run.folder)))
    return SearchResult(run.folder, written, report, commands)


def train_supernet(
    config: str | Path | SearchConfig,
    output: str | Path | None = None,
    *,
    data: str | None = None,
    **options: Any,  # noqa: ANN401 - as `RunOptions` has them
) -> tuple[Path, SupernetSummary]:
    """Train the supernet of a search, or resume its training; arguments and errors are those of `run_search`.

    Returns:
        The folder of the run, and a summary of the training.
    """
    chosen = _check(config, {"data": data})

    from scalenet_zoo.search.driver import RunOptions

    run = open_run(chosen, output, RunOptions(**options))
    return run.folder, run.train()


def extract_found(
    run: str | Path,
    network: str | None = None,
    output: str | Path | None = None,
    *,
    flops: str | float | None = None,
    latency: str | float | None = None,
    on: str | None = None,
    threads: int | None = None,
    precision: str | None = None,
    workers: int = 2,
    cpu: bool = False,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Extracted:
    """Write a network of a run's space as a model folder with the supernet's weights, usable without training.

    The network's batch-norm statistics are estimated again, and it is scored.

    Args:
        run: the folder of a search, or of `train_supernet`.
        network: the name of a network that was found, such as NAME_0, or the file of a spec; None: a budget is given.
        output: the model folder to write; None: the network's name.
        flops: a budget of MACs, as `"20M"` or a number.
        latency: a latency budget, as `"2ms"` or in milliseconds; requires `on`.
        on: the back end of the latency budget.
        threads: CPU threads of the latency budget; None: as many as torch uses.
        precision: the precision of the latency budget: fp32, fp16 or int8; None: fp32.
        workers: processes that load images.
        cpu: stay on the CPU, even if there is a GPU.
        on_progress: called with what is being done, how much of it is done, and how much there is.

    Raises:
        UsageError: not exactly one of `network`, `flops` and `latency` is given.
        QuantityError, BudgetError: the budget cannot be read, or is outside the space's range.
        InputError: the run has no trained supernet or no such network, or the data are unfit.
        BackendError: the back end cannot run here.
        SpecError: a file is damaged.
        TrainingError: the folder has a run with another configuration.
        OutputError: the model folder cannot be written.
    """
    if [network, flops, latency].count(None) != 2:
        raise UsageError("found none or several of `network`, `flops` and `latency`, expected exactly one")
    if (latency is None) != (on is None) or (latency is None and (threads is not None or precision is not None)):
        raise UsageError("found `latency`, `on`, `threads` or `precision`, expected `latency` and `on` together")
    macs = parse_count(flops, "--flops") if isinstance(flops, str) else flops
    budget = parse_ms(latency, "--latency") if isinstance(latency, str) else latency
    timed = check_precision(precision or "fp32", on or "ort-cpu")
    if on is not None:
        require_backend(on)
    folder = Path(run)
    config = _check(folder / "config.yaml", {})
    trained_supernet(folder)
    spec = None if network is None else find_spec(folder, network)

    import torch

    from scalenet_zoo.latency.profile import Settings
    from scalenet_zoo.search.driver import RunOptions
    from scalenet_zoo.search.extract import Extractor

    extractor = Extractor(open_run(config, folder, RunOptions(workers=workers, cpu=cpu)), on_progress)
    if macs is not None:
        spec = extractor.best_at(macs)
    elif budget is not None and on is not None:
        threads = threads or torch.get_num_threads()
        name, divisor = extractor.method.space.name, extractor.method.divisor
        spec = extractor.best_within(
            budget,
            Settings(family=name, backend=on, precision=timed, threads=threads, batch=1, divisor=divisor),
        )
    assert spec is not None
    return extractor.write(spec, Path(output or spec.name))


def find_spec(run: Path, name: str) -> ArchSpec:
    """Load the spec of a network that a run found, by its name, or the spec in a file.

    Raises:
        InputError: there is no such network and no such file.
        SpecError: the file is damaged.
    """
    folders = [run / "specs", *sorted((run / "baselines").glob("*"))]
    files = [*(folder / f"{name}.json" for folder in folders), user_path(name)]
    path = next((path for path in files if path.is_file()), None)
    if path is None:
        found = sorted(path.stem for path in folders[0].glob("*.json"))
        raise InputError(f"{name}: found no such network in {run}, expected {', '.join(found) or 'one'} or a file")
    return ArchSpec.load(path)


def _check(config: str | Path | SearchConfig, changes: Mapping[str, Any]) -> SearchConfig:
    """Load a configuration with changes, and check what can be checked before torch is imported."""
    given = {name: value for name, value in changes.items() if value}
    chosen = config.changed(given) if isinstance(config, SearchConfig) else load_config(config, given)
    chosen.check()
    return chosen
