"""Searching as functions: what the commands `search` and `supernet` do besides printing."""

from __future__ import annotations

from collections.abc import Mapping
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


@dataclass(frozen=True)
class SearchResult:
    """What a search has ended with.

    Attributes:
        folder: of the run.
        written: specs, and of ScaleNet the family, with a table of them.
        report: the page about it.
    """

    folder: Path
    written: Written
    report: Path


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
    """Train the supernet, search it, write specs and a report; what is in the folder already is not done again.

    Args:
        config: what is searched: a YAML file, the name of one of the package, or the configuration itself.
        output: the folder to write to, or to go on in; None: runs/NAME.
        data: the data, if not the configuration's.
        limits: what networks may cost, where it is not what the configuration says: `macs`, `params`, `latency`,
            `backend`, `threads`.
        precision: of the networks whose latency is limited, if not the configuration's: fp32, fp16 or int8.
        supernet: another run, whose supernet is taken instead of training one.
        workers: processes that load images, for each process that trains.
        save_every: steps between checkpoints of the supernet, besides those after each epoch.
        log_interval: steps between lines of the supernet's log.
        cpu: stay on the CPU, GPU or not.
        about: what else to say in the provenance of what is found.
        on_progress: told what is being done, how much of it is done, and how much there is.

    Raises:
        InputError: configuration, data and space do not fit, or there is no supernet to be taken.
        SpecError: a file is damaged.
        BudgetError: the limits cannot be kept.
        TrainingError: another run is at work in the folder, or it holds one with another configuration.
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

    from scalenet_zoo.search.report.page import write_report

    return SearchResult(run.folder, written, on_main_rank(lambda: write_report(run.folder)))


def train_supernet(
    config: str | Path | SearchConfig,
    output: str | Path | None = None,
    *,
    data: str | None = None,
    **options: Any,  # noqa: ANN401 - as `RunOptions` has them
) -> tuple[Path, SupernetSummary]:
    """Train the supernet of a search, or go on with it; arguments and errors are those of `run_search`.

    Returns:
        The folder of the run, and what the training came to.
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
    """Write a network of a run's space with the supernet's weights as a model folder: usable without training it.

    Batch-norm statistics are estimated anew, and the network is scored.

    Args:
        run: the folder of a search, or of `train_supernet`.
        network: that was found, such as NAME_0, or a spec's file; None: a budget is given.
        output: the model folder to write; None: the network's name.
        flops: at most so many MACs, as `"20M"` or a number.
        latency: at most so long, as `"2ms"` or milliseconds; needs `on`.
        on: the back end of the latency.
        threads: CPU threads of the latency; None: as many as torch uses.
        precision: of the network whose latency it is: fp32, fp16 or int8; None: fp32.
        workers: processes that load images.
        cpu: stay on the CPU, GPU or not.
        on_progress: told what is being done, how much of it is done, and how much there is.

    Raises:
        UsageError: not exactly one of `network`, `flops` and `latency` is given.
        QuantityError, BudgetError: the budget cannot be read, or is out of the space's range.
        InputError: the run has no trained supernet or no such network, or the data are unfit.
        BackendError: the back end cannot run here.
        SpecError: a file is damaged.
        TrainingError: the folder holds a run with another configuration.
        OutputError: the model folder cannot be written.
    """
    if [network, flops, latency].count(None) != 2:
        raise UsageError("found none or several of `network`, `flops` and `latency`, expected one of them")
    if (latency is None) != (on is None) or (latency is None and (threads is not None or precision is not None)):
        raise UsageError("found `latency`, `on`, `threads` or `precision` alone, expected `latency` with `on`")
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


def _check(config: str | Path | SearchConfig, changes: Mapping[str, Any]) -> SearchConfig:
    """A configuration with changes; what can be seen to be wrong is told before torch is imported."""
    given = {name: value for name, value in changes.items() if value}
    chosen = config.changed(given) if isinstance(config, SearchConfig) else load_config(config, given)
    chosen.check()
    return chosen
