"""Files that version 0.1 wrote, in fixtures/written_by_0_1: the present code reads them, and goes on with them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from scalenet_zoo import create_model, load_spec
from tests.helpers.command import Run

FIXTURES = Path(__file__).parent / "fixtures" / "written_by_0_1"
ANSWERS: dict[str, Any] = json.loads((FIXTURES / "answers.json").read_text(encoding="utf-8"))
HERE = ("--cpu", "--workers", "0")
OF_THE_MOMENT = ("seconds", "search_seconds", "versions", "command", "machine", "date", "images_per_second", "method")
"""What differs from one run of a command to the next; `method` may name a module, which may move."""


@pytest.fixture
def old(run: Run, tmp_path: Path) -> Path:
    """A copy of the files, in which commands run; runs of a search have got the supernet that they share."""
    shutil.copytree(FIXTURES, tmp_path, dirs_exist_ok=True)
    for supernet in (tmp_path / "scalenet" / "supernet", tmp_path / "scalenas" / "supernet"):
        for name in ("finished", "searching", "latency"):
            if (supernet.parent / name).exists():
                shutil.copytree(supernet, supernet.parent / name / "supernet")
    return tmp_path


def lasting(value: Any) -> Any:
    """Without what is of the moment; a prediction's classes by their names."""
    if isinstance(value, dict):
        return {name: lasting(item) for name, item in value.items() if name not in OF_THE_MOMENT}
    if isinstance(value, list):
        if value and isinstance(value[0], dict) and "probability" in value[0]:
            return {row["name"]: lasting(row) for row in value}
        return [lasting(item) for item in value]
    return value


def assert_same(found: Any, expected: Any, tolerance: float = 1e-4, where: str = "") -> None:
    """Numbers to rounding, on another CPU say; all else exactly."""
    if isinstance(expected, dict) and isinstance(found, dict):
        assert found.keys() == expected.keys(), where
        for name in expected:
            assert_same(found[name], expected[name], tolerance, f"{where}.{name}")
    elif isinstance(expected, list) and isinstance(found, list):
        assert len(found) == len(expected), where
        for i, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_same(one, other, tolerance, f"{where}.{i}")
    else:
        assert found == (pytest.approx(expected, abs=tolerance) if isinstance(expected, float) else expected), where


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def result(folder: Path) -> dict[str, Any]:
    """What a search has written for other commands: specs, and the family."""
    found = {}
    for path in (*folder.glob("specs/*.json"), *folder.glob("baselines/*/*.json"), *folder.glob("family.json")):
        found[str(path.relative_to(folder))] = lasting(read(path))
    return found


def scores(folder: Path) -> dict[tuple[str, int], float]:
    """What networks were scored in a run, and their scores."""
    return {(line["network"], line["resolution"]): line["score"] for line in read_lines(folder / "scores.jsonl")[1:]}


def assert_drawn_or_refused(run: Run, folder: Path) -> None:
    """`report` draws a page, or says in one line which version wrote the search."""
    code, _, line = run("report", folder)
    assert code == 0 or (line.count("\n") == 1 and "scalenet-zoo 0.1" in line), line


def of_this_machine(profile: Path) -> None:
    """Let a profile have been measured here: that of another machine is refused, as ever."""
    from scalenet_zoo.core.backends import machine

    values = read(profile)
    profile.write_text(json.dumps({**values, "machine": machine()}), encoding="utf-8")


# --- specs, networks, families, ONNX files ----------------------------------------------------------


@pytest.mark.parametrize("command", ANSWERS)
def test_commands_answer_as_version_0_1_did(command: str, run: Run, old: Path) -> None:
    found = run.json(*command.split())
    found = {name: value for name, value in found.items() if name in ANSWERS[command]}  # there may be more to say now
    tolerance = 0.03 if "int8" in command else 1e-4  # CPUs add up int8 in several ways
    assert_same(lasting(found), lasting(ANSWERS[command]), tolerance)


def test_python_reads_specs_and_model_folders(old: Path) -> None:
    spec = load_spec("training/spec.json")
    assert (spec.name, spec.cost.macs, spec.classes) == ("digit_reader", 50_890, 10)
    for source in ("training/finished", "local-dir:training/finished/best"):
        assert load_spec(source).hash == spec.hash
        model: Any = create_model(source, pretrained=True)
        state = model.state_dict()
        for name, tensor in load_file(old / "training/finished/best/model.safetensors").items():
            assert torch.equal(state[name], tensor)
        assert model.pretrained_cfg["crop_pct"] == 0.875


def test_an_engine_is_known_by_its_record(run: Run, old: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    export = ("export", "files/reader.onnx", "--to", "tensorrt-rtx", "--compress", "--output", "files/reader.engine")
    names = ("files/reader.engine", "files/reader.engine.json")
    before = [((old / name).stat().st_mtime_ns, (old / name).read_bytes()) for name in names]
    _, line = run.error(*export, "--compute-capability", "12.0")
    assert "is stale" in line
    assert "compute_capabilities was 8.9, is 12.0" in line
    if "TensorRT-RTX" not in line:  # of the same version as it was built by
        assert run(*export, "--compute-capability", "8.9")[0] == 0
    assert [((old / name).stat().st_mtime_ns, (old / name).read_bytes()) for name in names] == before


# --- training ---------------------------------------------------------------------------------------


def test_a_killed_training_ends_as_it_would_have(run: Run, old: Path) -> None:
    train = ("train", "training/spec.json", "--recipe", "training/recipe.yaml", "--data", "digits", "--limit", 480)
    (at,) = (old / "training/interrupted/checkpoints").iterdir()
    assert 30 < int(at.name) < 60
    printed = run.json(*train, "--log-interval", 5, "--output", "training/interrupted", "--resume", *HERE)
    whole, resumed = (old / "training" / name for name in ("finished", "interrupted"))
    assert printed["epoch"] == 2
    log, expected_log = (lasting(read_lines(folder / "log.jsonl")) for folder in (resumed, whole))
    assert_same(log, expected_log, 0.02)  # a prediction among 480 may change on another CPU
    weights, expected = (load_file(folder / "best" / "model.safetensors") for folder in (resumed, whole))
    assert weights.keys() == expected.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-4)


def test_a_supernet_killed_in_its_training_ends_as_it_would_have(run: Run, old: Path) -> None:
    run.json("supernet", "train", "scalenet/config.yaml", "--output", "scalenet/training", *HERE)
    found, expected = (
        load_file(old / "scalenet" / name / "supernet.safetensors") for name in ("training/supernet", "supernet")
    )
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-3)
    summary, expected_summary = (
        read(old / "scalenet" / name / "summary.json") for name in ("training/supernet", "supernet")
    )
    assert (summary["space_hash"], summary["steps"]) == (expected_summary["space_hash"], expected_summary["steps"])


# --- searches ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["scalenet", "scalenas"])
def test_a_killed_search_ends_as_it_would_have(method: str, run: Run, old: Path) -> None:
    whole, killed = old / method / "finished", old / method / "searching"
    assert 0 < len(scores(killed)) < len(scores(whole))
    assert_drawn_or_refused(run, killed)
    run.json("search", f"{method}/config.yaml", "--output", killed, *HERE)
    assert_same(result(killed), result(whole))
    assert scores(killed) == pytest.approx(scores(whole), abs=1e-4)


@pytest.mark.parametrize("method", ["scalenet", "scalenas"])
def test_an_ended_search_stays_as_it_is(method: str, run: Run, old: Path) -> None:
    folder = old / method / "finished"
    before, scored = result(folder), (folder / "scores.jsonl").read_bytes()
    assert_drawn_or_refused(run, folder)
    printed = run.json("search", f"{method}/config.yaml", "--output", folder, *HERE)
    assert result(folder) == before
    assert (folder / "scores.jsonl").read_bytes() == scored  # nothing was scored again
    page = Path(printed["report"]).read_text(encoding="utf-8")
    assert ("toy_s4" if method == "scalenet" else "streets_4") in page


def test_a_search_under_a_limit_on_latency_measures_nothing_again(run: Run, old: Path) -> None:
    folder = old / "scalenet/latency"
    of_this_machine(folder / "latency/profile.json")
    before = result(folder)
    code, _, told = run("search", "scalenet/latency.yaml", "--output", folder, *HERE)
    assert code == 0, told
    assert "measuring" not in told
    assert "profiling" not in told
    assert_same(result(folder), before)


def test_a_network_is_extracted_with_its_weights(run: Run, old: Path) -> None:
    found = read(old / "scalenas/finished/specs/streets_4.json")["provenance"]["results"][0]["value"]
    run.json("supernet", "extract", "scalenas/finished", "streets_4", "--output", "model", *HERE)
    figures = run.json("evaluate", "model", "--data", "masks:scalenas/masks", "--workers", "0")
    assert figures["metrics"]["miou"] == pytest.approx(found, abs=1e-4)


@pytest.mark.slow
def test_a_supernet_serves_another_run(run: Run, old: Path) -> None:
    run.json("search", "scalenet/config.yaml", "--supernet", "scalenet/finished", "--output", "new", *HERE)
    assert_same(result(old / "new"), result(old / "scalenet/finished"))


# --- latency ----------------------------------------------------------------------------------------


def test_a_profile_is_gone_on_with(run: Run, old: Path) -> None:
    """All is measured, and the process was killed before the model was fitted: it is fitted to these measurements.

    The solver of the earlier version stopped before the optimum, so its model was a little different.
    """
    from scalenet_zoo.latency.model import LatencyModel, fit_latency_model
    from scalenet_zoo.latency.profile import Profile

    part = old / "model.profile.partial" / "model.profile.json"
    part.parent.mkdir()
    shutil.copy(old / "files/model.profile.json", part)
    of_this_machine(part)
    profile = ("profile", "--on", "ort-cpu", "--threads", 1, "--divisor", 1, "--layers", 2, "--networks", 4)
    run.json(*profile, "--held-out", 2, "--family", "scalenet/finished/family.json", "--output", old / "model.json")
    measured = [read(path)["measurements"] for path in (old / "files/model.profile.json", old / "model.profile.json")]
    assert measured[0] == measured[1]
    before, after = (LatencyModel.load(path) for path in (old / "files/model.json", old / "model.json"))
    spec = load_spec("scalenet/finished/specs/toy_s0.json")
    assert after == fit_latency_model(Profile.load(old / "model.profile.json"))
    assert after.predict_spec(spec) == pytest.approx(before.predict_spec(spec), rel=2e-3)
