"""`supernet train`, `search` and `report` on the command line: from data to specs, and what they refuse."""

import json
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from scalenet_zoo import ArchSpec, create_model
from scalenet_zoo.arch.family import Family
from scalenet_zoo.core.run_folder import LOCK
from scalenet_zoo.search.driver import RunOptions
from scalenet_zoo.search.methods import open_run
from scalenet_zoo.search.scalenet.config import ScaleNetConfig
from scalenet_zoo.search.scalenet.ledger import ScaleNetLedger
from tests.helpers.command import Run
from tests.helpers.data_files import picture
from tests.helpers.processes import launch_two, other_process, search_whole_and_killed
from tests.helpers.search_config import CONFIG, HERE, write_config
from tests.helpers.spaces import TINY


def state(folder: Path, method: str = "joint") -> dict[str, Any]:
    found = ScaleNetLedger.load(folder / "search" / f"{method}.json").model_dump(mode="json")
    return {name: value for name, value in found.items() if "seconds" not in name}


def test_a_search_ends_with_specs_that_build(run: Run, tmp_path: Path) -> None:
    config, folder = write_config(tmp_path), tmp_path / "run"
    summary = run.json("supernet", "train", config, "--output", folder, *HERE)
    assert summary["images"] == summary["steps"] * 16
    trained = (folder / "supernet" / "supernet.safetensors").stat()
    printed = run.json("search", config, "--output", folder, *HERE)
    assert (folder / "supernet" / "supernet.safetensors").stat().st_mtime_ns == trained.st_mtime_ns

    family = Family.load(folder / "family.json")
    assert Family.from_dict(printed["family"], "printed") == family
    assert [strategy.name for strategy in family.strategies] == [f"toy_s{stage}" for stage in range(5)]
    joint = ScaleNetLedger.load(folder / "search" / "joint.json")
    assert joint.ended
    assert [candidate.scaling.stage for candidate in joint.candidates(TINY)] == [0, 1, 2]
    for strategy, found in zip(family.strategies, joint.found, strict=False):
        (result,) = strategy.results
        assert (result.metric, result.value, result.origin) == ("supernet_top1", found.score, "measured")
    specs = [ArchSpec.load(folder / "specs" / f"toy_s{stage}.json") for stage in range(5)]
    assert [spec.cost.macs for spec in specs[:3]] == [found.macs for found in joint.found]
    assert specs[0].classes == 10
    for stage in (3, 4):
        assert specs[stage].cost.macs <= 2**stage * specs[0].cost.macs
    assert specs[1].provenance.details["networks_scored"] == joint.evaluations
    create_model(folder / "specs" / "toy_s1.json")
    built = run.json(
        "build", "--flops", "500K", "--divisor", "1", "--family", folder / "family.json", "--output", tmp_path
    )
    assert 0.97 * 500_000 <= built["cost"]["macs"] <= 500_000
    _, line = run.error("build", "--flops", "100M", "--family", folder / "family.json", "--output", tmp_path)
    assert "for the family toy" in line
    for method in CONFIG["baselines"]:
        assert state(folder, method)["search"] == method
        assert len(list((folder / "baselines" / method).glob("toy_*.json"))) == 3
        assert ScaleNetLedger.load(folder / "search" / f"{method}.json").evaluations == joint.evaluations
    page = Path(printed["report"]).read_text()
    assert "toy_s4" in page

    before = {path: path.read_bytes() for path in folder.rglob("*.json") if "report" not in path.parts}
    run.json("search", config, "--output", folder, *HERE)  # nothing is missing: nothing changes
    assert {path: path.read_bytes() for path in before} == before


def test_a_folder_has_one_run_at_a_time(run: Run, tmp_path: Path) -> None:
    config, folder = write_config(tmp_path), tmp_path / "run"
    program = (
        "import time; from pathlib import Path; from scalenet_zoo.core.run_folder import hold\n"
        f"with hold(Path({str(folder)!r})):\n    print('ready', flush=True); time.sleep(100)"
    )
    with other_process(program) as process:
        for command in (("search",), ("supernet", "train")):
            code, line = run.error(*command, config, "--output", folder, *HERE)
            assert (code, line) == (1, f"{folder}: found another process at work in it, expected one at a time")
        assert [path.name for path in folder.iterdir()] == [LOCK]  # and nothing was written
        process.kill()
        process.wait()
        with open_run(ScaleNetConfig.load(config), folder, RunOptions(cpu=True, workers=0)).at_work():
            assert sorted(path.name for path in folder.iterdir()) == [LOCK, "config.yaml", "run.json"]
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "run.json"]


@pytest.mark.nightly
def test_a_killed_search_ends_as_one_that_was_not(tmp_path: Path) -> None:
    config = write_config(tmp_path, baselines=["random"])
    search_whole_and_killed(config, tmp_path, ("--cpu", "--workers", "1"), (0.0, 0.3, 0.7))
    for method in ("joint", "random"):
        assert state(tmp_path / "whole", method) == state(tmp_path / "killed", method)
    families = [json.loads((tmp_path / name / "family.json").read_text()) for name in ("whole", "killed")]
    assert families[0]["strategies"] == families[1]["strategies"]


@pytest.mark.distributed
def test_two_processes_search_as_one(run: Run, tmp_path: Path) -> None:
    config = write_config(tmp_path, baselines=["separate"])
    one, two = tmp_path / "one", tmp_path / "two"
    run.json("supernet", "train", config, "--output", one, *HERE)
    shutil.copytree(one, two)
    run.json("search", config, "--output", one, *HERE)
    launch_two("-m", "scalenet_zoo", "search", config, "--output", two, *HERE)
    for method in ("joint", "separate"):
        assert state(one, method) == state(two, method)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"limits": {"macs": "10K"}}, "limits.macs: found at most 10.8K for stage 0, expected"),
        ({"limits": {"params": "1K"}}, "limits.params: found at most 1K for stage 0, expected"),
        ({"limits": {"macs": "210K", "tolerance": 0.05, "params": "3.5K"}}, "limits"),
        ({"limits": {"macs": "6 apples"}}, "limits: macs: found '6 apples', expected a positive number"),
        ({"limits": {"latency": "4ms"}}, "latency: found no back end, expected one in `backend`, such as ort-cpu"),
        ({"limits": {"latency": "4ms", "backend": "abacus"}}, "abacus"),
        ({"space": "huge"}, "huge: found no such space, expected lite, scalenet, small or a YAML file"),
        ({"space": {"name": "x"}}, "space: stem: is missing"),
        ({"search": {"population": 1}}, "search.population: found 1, expected greater than or equal to 2"),
        ({"speed": "high"}, "speed: found 'high', expected no such field"),
        ({"data": "imagefolder:nowhere"}, "nowhere"),
        ({"supernet": {"recipe": {"opt": "adamw"}}}, "supernet: recipe: opt: found adamw"),
        ({"search": {"weights": [1.0]}}, r"weights: found [1.0], expected one for each of the stages 1, 2"),
        ({"supernet": {"stage_probabilities": [1.0]}}, "stage_probabilities: found [1.0], expected 3 numbers"),
        ({"limits": "60K"}, "limits: found '60K', expected"),
        ({"name": date(2024, 1, 1), "space": date(2024, 1, 1)}, "2024-01-01: found no such space"),
        ({"space": {**CONFIG["space"], "scaling": CONFIG["space"]["scaling"][:1]}}, "scaling: found only stage 0"),
    ],
)
def test_an_invalid_run_fails_in_one_line_and_leaves_nothing(
    changes: dict[str, Any],
    complaint: str,
    run: Run,
    tmp_path: Path,
) -> None:
    flags = ("--macs", "60K") if changes == {"limits": "60K"} else ()
    code, line = run.error("search", write_config(tmp_path, **changes), "--output", tmp_path / "run", *flags, *HERE)
    assert code == 1
    assert complaint in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("classes", "complaint"),
    [((), "found no images"), (("cat",), "expected two or more")],
)
def test_data_without_classes_to_tell_apart_are_refused(
    classes: tuple[str, ...],
    complaint: str,
    run: Run,
    tmp_path: Path,
) -> None:
    for split in ("train", "val"):
        folder = tmp_path / "data" / split
        folder.mkdir(parents=True)
        for name in classes:
            (folder / name).mkdir()
            picture(0).save(folder / name / "0.png")
    config = write_config(tmp_path, data=str(tmp_path / "data"), limit=None)
    code, line = run.error("search", config, "--output", tmp_path / "run", *HERE)
    assert code == 1
    assert complaint in line


def test_unfit_validation_images_are_found_before_the_training(run: Run, tmp_path: Path) -> None:
    for split, names in (("train", "ab"), ("val", "a")):
        for name in "ab":
            (tmp_path / "data" / split / name).mkdir(parents=True)
        for number in range(16):
            picture(number).save(tmp_path / "data" / split / names[number % len(names)] / f"{number}.png")
    config = write_config(tmp_path, data=str(tmp_path / "data"), limit=None)
    code, line = run.error("search", config, "--output", tmp_path / "run", *HERE)
    assert code == 1
    assert "split val: found images of 1 class, expected two or more" in line
    assert not (tmp_path / "run" / "supernet").exists()


@pytest.mark.slow
def test_what_nothing_depends_on_yet_may_change(run: Run, tmp_path: Path) -> None:
    """A supernet's settings until it is trained, limits until a search; after it another run takes the supernet."""
    folder, other = tmp_path / "run", tmp_path / "other"
    recipe = CONFIG["supernet"]["recipe"]
    config = write_config(tmp_path, supernet={"recipe": {**recipe, "batch_size": 500}}, baselines=[], limit=70)
    _, line = run.error("supernet", "train", config, "--output", folder, *HERE)
    assert "expected at least a batch of 500" in line
    config = write_config(tmp_path, baselines=[])
    run.json("supernet", "train", config, "--output", folder, *HERE)
    run.json("search", config, "--output", folder, "--macs", "150K", *HERE)
    assert json.loads((folder / "run.json").read_text())["config"]["limits"]["macs"] == ["150K"]
    _, line = run.error("search", config, "--output", folder, "--macs", "130K", *HERE)
    assert f"{folder}: limits.macs: found ['150K'] in this run, expected ['130K'], as now given" in line

    run.json("search", config, "--output", other, "--macs", "130K", "--supernet", folder, *HERE)
    for name in ("supernet.safetensors", "summary.json", "log.jsonl"):
        assert (other / "supernet" / name).read_bytes() == (folder / "supernet" / name).read_bytes()
    assert ScaleNetLedger.load(other / "search" / "joint.json").ended
    for changes, complaint in (
        ({"limit": 70}, f"{folder}: limit: found 80 in this run, expected 70, as now given"),
        ({"supernet": {"recipe": {**recipe, "lr": 0.1}}}, f"{folder}: supernet.recipe.lr: found 0.05 in this run"),
    ):
        config = write_config(tmp_path, **changes)
        _, line = run.error("search", config, "--output", tmp_path / "third", "--supernet", folder, *HERE)
        assert complaint in line
    _, line = run.error("search", config, "--output", tmp_path / "third", "--supernet", tmp_path, *HERE)
    assert f"{tmp_path}: found no trained supernet, expected one in {tmp_path / 'supernet'}" in line


def test_a_run_with_another_configuration_is_refused(run: Run, tmp_path: Path) -> None:
    config, folder = write_config(tmp_path), tmp_path / "run"
    with open_run(ScaleNetConfig.load(config), folder, RunOptions(cpu=True, workers=0)).at_work():
        pass
    for name in ("supernet", "search"):
        (folder / name).mkdir()
    changed = {**CONFIG["search"], "population": 6}
    _, line = run.error("search", write_config(tmp_path, search=changed), "--output", folder, *HERE)
    assert f"{folder}: search.population: found 4 in this run, expected 6, as now given" in line
    _, line = run.error("search", write_config(tmp_path), "--output", folder, "--macs", "150K", *HERE)
    assert f"{folder}: limits.macs: found ['140K'] in this run, expected ['150K']" in line
    _, line = run.error("search", write_config(tmp_path, limit=70), "--output", folder, *HERE)
    assert f"{folder}: limit: found 80 in this run, expected 70" in line


WRONG: list[tuple[dict[str, Any], list[str], str]] = [
    ({"data": "imagefolder:/nowhere"}, [], "imagefolder:/nowhere: found nothing at /nowhere, expected a folder"),
    ({"data": "masks:."}, [], "masks:.: found no such data for classification, expected a folder or digits"),
    ({"space": "nowhere.yaml"}, [], "nowhere.yaml: cannot be read: No such file or directory"),
    ({"search": {"weights": [1.0]}}, [], "weights: found [1.0], expected one for each of the stages 1, 2"),
    ({"supernet": {"recipe": {"lr": "fast"}}}, [], "supernet: recipe: lr: found 'fast', expected"),
    ({}, ["--macs", "1M,2M,3M,4M"], "limits.macs: found 4 limits, expected at most 3"),
    ({}, ["--latency", "1ms", "--on", "abacus"], "abacus"),
    ({}, ["--supernet", "/nowhere"], "/nowhere: found no trained supernet, expected one in /nowhere/supernet"),
]


def test_early_errors_are_reported_without_torch(tmp_path: Path) -> None:
    commands = []
    for number, (changes, arguments, _) in enumerate(WRONG):
        (folder := tmp_path / str(number)).mkdir()
        commands.append(["search", str(write_config(folder, **changes)), "--output", str(folder / "run"), *arguments])
    program = f"""
import sys
from scalenet_zoo.cli import app
from scalenet_zoo.core.errors import ZooError
for command in {commands!r}:
    try:
        app(command, standalone_mode=False)
    except ZooError as error:
        print(error)
print("torch" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    *lines, torch_is_there = result.stdout.splitlines()
    assert torch_is_there == "False"
    for line, (_, _, complaint) in zip(lines, WRONG, strict=True):
        assert complaint in line
    assert not list(tmp_path.rglob("run"))


def test_flags_change_the_limits(tmp_path: Path) -> None:
    config = ScaleNetConfig.load(write_config(tmp_path), {"limits": {"macs": ["1M", None, "4M"], "backend": "ort-cpu"}})
    assert config.limits.amounts("macs", [0, 1, 2]) == {0: 1e6, 2: 4e6}
    assert config.limits.tolerance == 0.3


@pytest.mark.parametrize("name", ["digits", "imagenet"])
def test_packaged_configurations_are_valid(name: str) -> None:
    config = ScaleNetConfig.load(name)
    assert config.open_space().scaling
    config.supernet.make_recipe()
