"""Profiles that are measured, on a real back end."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scalenet_zoo.core.errors import InputError, OutputError, SpecError, TrainingError
from scalenet_zoo.core.outputs import check_writable
from scalenet_zoo.core.run_folder import hold
from scalenet_zoo.latency import measuring, profile
from scalenet_zoo.latency.measuring import measure_profile
from scalenet_zoo.latency.model import LatencyModel, make_latency_model, model_path
from scalenet_zoo.latency.profile import Profile
from scalenet_zoo.zoo.sources import load_spec
from tests.helpers.latency import SCALENET, SETTINGS, TINY, made_up_profile


@pytest.mark.slow
def test_a_real_profile_predicts_in_the_right_range(small_range: None, tmp_path: Path) -> None:
    told = []
    model = make_latency_model(SCALENET, SETTINGS, TINY, tmp_path / "model.json", lambda *what: told.append(what))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.profile.json"]
    assert [(done, total) for _, done, total in told] == [(i, 8) for i in range(9)]
    assert LatencyModel.load(tmp_path / "model.json") == model
    measured = Profile.load(tmp_path / "model.profile.json")
    times = [ms for m, ms in zip(measured.measurements, measured.milliseconds, strict=True) if m.role == "networks"]
    assert all(0.1 < ms < 1000 for ms in times)
    assert (
        0.2 * min(times) < model.predict_spec(load_spec("scalenet_s0").replace(height=160, width=160)) < 5 * max(times)
    )
    assert measured.machine["cpu"]


PROGRAM = """
import sys
from pathlib import Path
from scalenet_zoo.latency import items, measuring, yardstick
from scalenet_zoo.latency.plan import Plan
from scalenet_zoo.latency.profile import Settings
from scalenet_zoo.zoo.catalog import load_family
items.macs_range, measuring.VISITS, yardstick.QUIET = lambda base_macs: (100e6, 200e6), 1, float("inf")
settings = Settings(family="scalenet", backend="torch", threads=1)
plan = Plan(layers=4, networks=4, held_out=2)
tell = lambda what, done, total: print(done, flush=True)
measuring.measure_profile(load_family("scalenet"), settings, plan, Path(sys.argv[1]), tell)
"""


@pytest.mark.slow
def test_a_killed_profile_resumes_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    with subprocess.Popen([sys.executable, "-c", PROGRAM, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 3:
                process.send_signal(signal.SIGKILL)
    assert list(tmp_path.glob("*.json")) == []
    kept = Profile.load(tmp_path / "p.partial" / "p.json").measurements
    assert 3 <= len(kept) < 10
    done = subprocess.run([sys.executable, "-c", PROGRAM, path], capture_output=True, text=True, check=True).stdout
    assert int(done.split()[0]) == len(kept)
    finished = Profile.load(path)
    assert finished.measurements[: len(kept)] == kept
    assert len(finished.measurements) == 10
    assert [file.name for file in tmp_path.iterdir()] == ["p.json"]


def test_a_partial_profile_of_another_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = tmp_path / "p.partial" / "p.json"
    made = made_up_profile(plan=TINY)
    made.save(part)
    with pytest.raises(InputError, match=r"p.partial/p.json: plan: found another run's, expected this run's; delete"):
        measure_profile(SCALENET, SETTINGS, TINY.model_copy(update={"seed": 5}), tmp_path / "p.json")
    with pytest.raises(InputError, match=r"p.partial/p.json: machine.cpu: found another run's"):
        measure_profile(SCALENET, SETTINGS, TINY, tmp_path / "p.json")
    monkeypatch.setattr(profile, "machine", lambda: {"cpu": None, "gpu": None, "versions": None})
    first, *others = made.measurements
    for measurements in ((*others, first), (*made.measurements, first)):
        made.model_copy(update={"measurements": measurements}).save(part)
        with pytest.raises(InputError, match=r"p.partial/p.json: measurements: found another run's, expected this"):
            measure_profile(SCALENET, SETTINGS, TINY, tmp_path / "p.json")
    part.write_text(made.to_json()[:-9])
    with pytest.raises(SpecError, match=r"p.partial/p.json: is not valid JSON"):
        measure_profile(SCALENET, SETTINGS, TINY, tmp_path / "p.json")


def test_one_process_at_a_time_measures_a_profile(tmp_path: Path) -> None:
    with (
        hold(tmp_path / "p.partial"),  # as another process would
        pytest.raises(TrainingError, match=r"p.partial: found another process at work in it, expected one at a time"),
    ):
        measure_profile(SCALENET, SETTINGS, TINY, tmp_path / "p.json")


@pytest.mark.parametrize("cached", [True, False])
def test_a_file_that_cannot_be_written_is_reported_before_measuring(
    cached: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ("file" if cached else "cache")))
    monkeypatch.setattr(measuring, "prepare_yardstick", None)  # nothing may be measured
    path = model_path(SETTINGS) if cached else tmp_path / "file" / "model.json"
    hint = "; XDG_CACHE_HOME=FOLDER puts it elsewhere" if cached else ""
    with pytest.raises(OutputError, match=f"profile.json: cannot be written: (Not a directory|File exists){hint}$"):
        make_latency_model(SCALENET, SETTINGS, TINY, path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_checking_that_a_file_can_be_written_leaves_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "newer" / "file.json")
    (tmp_path / "old.json").write_text("old")
    check_writable(tmp_path / "old.json")
    assert [path.name for path in tmp_path.iterdir()] == ["old.json"]
    assert (tmp_path / "old.json").read_text() == "old"
