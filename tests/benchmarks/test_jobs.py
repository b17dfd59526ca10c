"""Jobs of a study: the order, what may run side by side, resuming, and no job that outlives a killed run."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import jobs
from benchmarks.jobs import Answers, Job, Results, choose, do_missing, study_command
from tests.helpers.processes import ends, is_running


def named(*names: str) -> list[Job]:
    return [Job(name, dict, ()) for name in names]


def test_jobs_that_time_networks_run_alone_and_last() -> None:
    timed, shared = (
        named("latency", "search_int8/0", "search_int8/1"),
        named("search/0", "tuned/latency/0", "tuned/a/0"),
    )
    alone = ("latency", "search_int8")
    assert choose([*timed, *shared], [], 2, alone) == shared[:2]
    assert choose([*timed, *shared], ["tuned/b/0"], 2, alone) == shared[:1]
    assert choose(timed, ["tuned/b/0"], 2, alone) == []
    assert choose(timed, [], 2, alone) == timed[:1]
    assert choose([*timed[1:], *shared], ["latency"], 2, alone) == []
    assert choose(timed, [], 2) == timed[:2]


def test_a_job_without_its_file_does_not_begin(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.jsonl", tmp_path / "results.jsonl")
    waiting = Job("note/0", note, (tmp_path, 0), needs=tmp_path / "weights")
    do_missing(lambda answers: [waiting, Job("note/1", note, (tmp_path, 1))], results, 1)
    assert list(results.answers) == ["note/1"]
    (tmp_path / "weights").write_text("")
    do_missing(lambda answers: [waiting], results, 1)
    assert list(results.answers) == ["note/1", "note/0"]


def note(folder: Path, number: int) -> dict[str, Any]:
    (folder / f"done_{number}").write_text("")
    return {"number": number}


def test_what_is_missing_is_done_as_soon_as_it_is_known(tmp_path: Path) -> None:
    """The third job is known only once the first has an answer, and the second has one already."""

    def wanted(answers: Answers) -> list[Job]:
        known = [0, 1, *([answers["note/0"]["number"] + 2] if "note/0" in answers else [])]
        return [Job(f"note/{number}", note, (tmp_path, number)) for number in known]

    results = Results(tmp_path / "results.jsonl", tmp_path / "results.jsonl")
    results.add("note/1", {"number": 1})
    do_missing(wanted, results, 1)
    assert list(results.answers) == ["note/1", "note/0", "note/2"]
    assert sorted(path.name for path in tmp_path.glob("done_*")) == ["done_0", "done_2"]
    again = Results(tmp_path / "results.jsonl", tmp_path / "results.jsonl")
    assert again.answers == results.answers


def test_a_study_runs_or_prints_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran, results = list[tuple[Path, Path, int]](), tmp_path / "results.jsonl"

    def call(*words: str) -> None:
        monkeypatch.setattr(sys, "argv", ["study", *words])
        study_command("a study", "the data", results, lambda *given: ran.append(given), Path.read_text)

    monkeypatch.chdir(tmp_path)
    call("--data", "data", "--run", "run")
    assert ran == [(Path("data"), tmp_path / "run", 2)]  # workers may change the folder
    for words, message in (
        (["--tables"], f"--tables: found no {results}, expected the results of a run"),
        (["--data", "data"], "found no --data or no --run, expected both, or --tables"),
    ):
        with pytest.raises(SystemExit):
            call(*words)
        assert message in capsys.readouterr().err
    results.write_text("| a table |")
    call("--tables")
    assert capsys.readouterr().out == "| a table |\n"
    assert len(ran) == 1


@pytest.mark.slow
def test_no_job_outlives_a_killed_run(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, time\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from multiprocessing import get_context\n"
        "from benchmarks.jobs import end_with_parent\n"
        "if __name__ == '__main__':\n"
        "    pool = ProcessPoolExecutor(1, get_context('spawn'), initializer=end_with_parent)\n"
        "    print(pool.submit(os.getpid).result(), flush=True)\n"
        "    pool.submit(time.sleep, 600)\n"
    )
    root = Path(jobs.__file__).parents[1]
    command, environment = [sys.executable, str(script)], {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_running(child)
        parent.kill()
    assert ends(child)
