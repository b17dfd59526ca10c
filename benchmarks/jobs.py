"""Jobs of a long study: what is missing is done by several processes, and a stopped run resumes.

answers --wanted--> jobs whose arguments are known --processes--> answers, one line of results.jsonl each
"""

import argparse
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

Answers = Mapping[str, dict[str, Any]]
"""The answers of finished jobs, by their names."""


@dataclass
class Results:
    """The answers so far, by the names of jobs, in files that are added to."""

    path: Path
    copy: Path
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            text = self.path.read_text()
            whole = text[: text.rfind("\n") + 1]  # the last line may have been cut off
            self.path.write_text(whole)
            self.answers = {row.pop("job"): row for row in map(json.loads, whole.splitlines())}
            if self.copy != self.path:
                shutil.copy(self.path, self.copy)

    def add(self, name: str, answer: dict[str, Any]) -> None:
        """Write an answer."""
        self.answers[name] = answer
        line = json.dumps({"job": name, **_short(answer)}) + "\n"
        for path in {self.path, self.copy}:
            with path.open("a") as file:
                file.write(line)

    def __contains__(self, name: str) -> bool:
        return name in self.answers


@dataclass(frozen=True)
class Job:
    """A piece of work for one process.

    Attributes:
        name: its line in the results; the part before the first slash is its kind.
        function: a function of a module, which returns the answer.
        arguments: the function's arguments, which can be pickled.
        size: jobs of one kind and size take about as long.
        needs: a file without which the job cannot begin, such as weights that an earlier machine has kept.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    size: str = ""
    needs: Path | None = None

    @property
    def kind(self) -> str:
        """The kind of the job."""
        return self.name.partition("/")[0]

    @property
    def can_begin(self) -> bool:
        """Whether the file that it needs is there."""
        return self.needs is None or self.needs.exists()


def do_missing(
    wanted: Callable[[Answers], Iterable[Job]], results: Results, processes: int, alone: Collection[str] = ()
) -> None:
    """Do all jobs that have no answer yet; a free process takes the first job that it may begin.

    Args:
        wanted: all jobs whose arguments are known by these answers, finished or not, in order.
        results: the answers so far; new ones are added.
        processes: number of processes, with one thread each.
        alone: the kinds of jobs beside which no other may run, because they time networks; they come last.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    running: dict[Future[dict[str, Any]], str] = {}
    with ProcessPoolExecutor(processes, get_context("spawn"), initializer=end_with_parent) as pool:
        while True:
            begun = {*results.answers, *running.values()}
            missing = [job for job in wanted(results.answers) if job.name not in begun and job.can_begin]
            for job in choose(missing, running.values(), processes, alone):
                running[pool.submit(job.function, *job.arguments)] = job.name
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name = running.pop(future)
                results.add(name, future.result())
                print(f"{name}: {str(future.result())[:100]}", flush=True)


def choose(
    missing: Sequence[Job], running: Collection[str], processes: int, alone: Collection[str] = ()
) -> Sequence[Job]:
    """Choose the jobs to begin now, beside those running: jobs that run alone begin only when no other job is left."""
    if any(name.partition("/")[0] in alone for name in running):
        return []
    shared = [job for job in missing if job.kind not in alone]
    if shared or running:
        return shared[: processes - len(running)]
    return missing[:1]


def study_command(
    about: str | None,
    data: str,
    results: Path,
    work: Callable[[Path, Path, int], None],
    tables: Callable[[Path], object],
) -> None:
    """Read the command line of a study, and run the study or print its tables.

    Args:
        about: the description for `--help`.
        data: what `--data` takes, in words.
        results: the file of the committed results.
        work: runs the study, given the data, the folder of the run and the number of processes.
        tables: makes the tables, given the results.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help=data)
    parser.add_argument("--run", type=Path, help="the folder of everything that the run makes; keep it to resume")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--tables", action="store_true", help="print the tables of the committed results")
    given = parser.parse_args()
    if given.tables:
        if not results.exists():
            parser.error(f"--tables: found no {results}, expected the results of a run")
        print(tables(results))
        return
    if given.data is None or given.run is None:
        parser.error("found no --data or no --run, expected both, or --tables")
    work(given.data, given.run.resolve(), given.processes)


def end_with_parent() -> None:
    """End this process as soon as its parent ends: a job that runs on would lock its folder for the next session."""
    parent = parent_process()
    assert parent is not None

    def wait_for_end() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait_for_end, daemon=True).start()


def _short(value: Any) -> Any:
    """Figures with as many digits as mean something."""
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, dict):
        return {name: _short(each) for name, each in value.items()}
    return [_short(each) for each in value] if isinstance(value, list | tuple) else value
