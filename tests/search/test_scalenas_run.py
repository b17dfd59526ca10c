"""`supernet train` and `search` of multipath networks on the command line: from data to specs; what they refuse."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from scalenet_zoo import ArchSpec, create_model
from scalenet_zoo.core.quantities import format_count
from scalenet_zoo.search.driver import RunOptions
from scalenet_zoo.search.ledger import Ledger
from scalenet_zoo.search.methods import load_config, open_run
from scalenet_zoo.search.scalenas.config import ScaleNASConfig
from scalenet_zoo.search.scalenet.config import ScaleNetConfig
from tests.helpers.command import Run
from tests.helpers.data_files import write_coco, write_masks
from tests.helpers.processes import launch_two, search_whole_and_killed
from tests.helpers.topologies import tiny_space

RECIPE = {"epochs": 1, "batch_size": 4, "lr": 0.01, "amp": "no"}
HERE = ("--cpu", "--workers", "0")


def write_config(folder: Path, head: str = "segmentation", **changes: Any) -> Path:
    data = folder / "data"
    if not data.exists():
        if head == "segmentation":
            write_masks(data, count=6)
        else:
            write_coco(data, "train")
            write_coco(data, "val")
    values = {
        "name": "toy",
        "method": "scalenas",
        "data": f"{'masks' if head == 'segmentation' else 'coco'}:{data}",
        "space": tiny_space(head, 32).model_dump(mode="json"),
        "supernet": {
            "recipe": RECIPE | ({"batch_size": 3} if head == "pose" else {}),
            "teacher": {"recipe": {"epochs": 1}},
        },
        "scoring": {"bn_images": 4, "batch_size": 4},
        "search": {"first": 6, "evaluations": 10, "parents": 4, "tournament": 2},
    }
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump({**values, **changes}))
    return path


def state(folder: Path, method: str = "evolution") -> dict[str, Any]:
    found = Ledger.load(folder / "search" / f"{method}.json").model_dump(mode="json")
    return {name: value for name, value in found.items() if "seconds" not in name}


@pytest.mark.parametrize("head", ["segmentation", pytest.param("pose", marks=pytest.mark.slow)])
def test_a_search_ends_with_specs_that_build(head: str, run: Run, tmp_path: Path) -> None:
    config, folder = write_config(tmp_path, head, baselines=["random", "ageing"]), tmp_path / "run"
    summary = run.json("supernet", "train", config, "--output", folder, *HERE)
    assert summary["images"] == summary["steps"] * RECIPE["batch_size"] if head == "segmentation" else 3
    trained = (folder / "supernet" / "supernet.safetensors").stat()
    printed = run.json("search", config, "--output", folder, *HERE)
    assert (folder / "supernet" / "supernet.safetensors").stat().st_mtime_ns == trained.st_mtime_ns

    found = Ledger.load(folder / "search" / "evolution.json")
    assert found.ended
    assert [each["name"] for each in printed["networks"]] == [f"toy_{i}" for i in range(len(found.chosen))]
    for i, network in enumerate(found.found):
        spec = ArchSpec.load(folder / "specs" / f"toy_{i}.json")
        assert (spec.task, spec.cost.macs, spec.cost.params) == (head, network.macs, network.params)
        (result,) = spec.provenance.results
        metric = "miou" if head == "segmentation" else "ap"
        assert (result.metric, result.value, result.origin) == (f"supernet_{metric}", network.score, "measured")
        assert result.data == ("masks:data val" if head == "segmentation" else "coco:data val")
        assert str(tmp_path) not in spec.provenance.model_dump_json()
        assert spec.provenance.details["topology"] == network.key
    create_model(folder / "specs" / "toy_0.json")
    for method in ("random", "ageing"):
        baseline = Ledger.load(folder / "search" / f"{method}.json")
        assert (baseline.search, len(baseline.networks)) == (method, 10)
        assert len(list((folder / "baselines" / method).glob(f"toy_{method}_*.json"))) == len(baseline.chosen)
    assert "toy_0" in Path(printed["report"]).read_text()
    model = tmp_path / "model"
    run.json("supernet", "extract", folder, "toy_0", "--output", model, "--cpu", "--workers", "0")
    figures = run.json("evaluate", model, "--data", yaml.safe_load(config.read_text())["data"], "--split", "val")
    assert figures["metrics"][metric] == pytest.approx(found.found[0].score, abs=1e-5)
    assert "found no such network" in run.error("supernet", "extract", folder, "toy_99", "--output", model, "--cpu")[1]

    before = {path: path.read_bytes() for path in folder.rglob("*.json") if "report" not in path.parts}
    assert run.json("search", config, "--output", folder, *HERE) == printed  # nothing is missing: nothing changes
    assert {path: path.read_bytes() for path in before} == before
    lines = run("search", config, "--output", folder, *HERE)[1].splitlines()
    rows = [line.split() for line in lines if line.startswith("toy_")]
    assert [row[0] for row in rows] == [each["name"] for each in printed["networks"]]
    assert rows[-1][1:] == [f"{network.score:.4f}", *map(format_count, (spec.cost.macs, spec.cost.params))]


@pytest.mark.nightly
def test_a_killed_search_ends_as_one_that_was_not(tmp_path: Path) -> None:
    config = write_config(tmp_path, baselines=["random"])
    search_whole_and_killed(config, tmp_path, HERE, (0.3, 0.8))
    for method in ("evolution", "random"):
        assert state(tmp_path / "whole", method) == state(tmp_path / "killed", method)


@pytest.mark.nightly
@pytest.mark.distributed
def test_two_processes_search_as_one(run: Run, tmp_path: Path) -> None:
    config = write_config(tmp_path, baselines=["ageing"])
    one, two = tmp_path / "one", tmp_path / "two"
    run.json("supernet", "train", config, "--output", one, *HERE)
    shutil.copytree(one, two)
    run.json("search", config, "--output", one, *HERE)
    launch_two("-m", "scalenet_zoo", "search", config, "--output", two, *HERE)
    for method in ("evolution", "ageing"):
        assert state(one, method) == state(two, method)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"limits": {"macs": "1M"}}, "limits.macs: found at most 1M, expected"),
        ({"limits": {"macs": ["1G", "2G"]}}, "expected one quantity with its unit, such as 20G or 40ms"),
        ({"limits": {"latency": "4ms", "backend": "abacus"}}, "abacus"),
        ({"limits": {"tolerance": 0.1}}, "limits.tolerance: found 0.1, expected no such field"),
        ({"method": "nas"}, "method: found 'nas', expected scalenet or scalenas"),
        ({"space": "scalenet"}, "scalenet: found no such space, expected scalenas_pose, scalenas_segmentation"),
        ({"scoring": {"metric": "ap"}}, "scoring.metric: found ap, expected miou for segmentation"),
        ({"data": "masks:nowhere"}, "nowhere"),
        ({"search": {"parents": 1}}, "search.parents: found 1, expected greater than or equal to 2"),
        ({"baselines": ["compound"]}, "baselines.0: found 'compound', expected 'random' or 'ageing'"),
    ],
)
def test_an_invalid_run_fails_in_one_line_and_leaves_nothing(
    changes: dict[str, Any],
    complaint: str,
    run: Run,
    tmp_path: Path,
) -> None:
    code, line = run.error("search", write_config(tmp_path, **changes), "--output", tmp_path / "run", *HERE)
    assert code == 1
    assert complaint in line
    assert not (tmp_path / "run").exists()


def test_masks_without_a_labelled_pixel_are_refused(run: Run, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    for path in (tmp_path / "data" / "masks").iterdir():
        with Image.open(path) as mask:
            void = np.full_like(np.asarray(mask), 11)
        Image.fromarray(void).save(path)
    code, line = run.error("search", config, "--output", tmp_path / "run", *HERE)
    assert code == 1
    assert "found no labelled pixel in 6 masks of val, expected some" in line
    assert not (tmp_path / "run" / "supernet").exists()


def test_a_run_with_another_configuration_is_refused(run: Run, tmp_path: Path) -> None:
    config, folder = write_config(tmp_path), tmp_path / "run"
    with open_run(load_config(config), folder, RunOptions(cpu=True, workers=0)).at_work():
        pass
    for name in ("supernet", "search"):
        (folder / name).mkdir()
    _, line = run.error("search", config, "--output", folder, "--macs", "150M", *HERE)
    assert f"{folder}: limits.macs: found None in this run, expected '150M', as now given" in line
    _, line = run.error("search", write_config(tmp_path, scoring={"bn_images": 5}), "--output", folder, *HERE)
    assert f"{folder}: scoring.bn_images: found 4 in this run, expected 5, as now given" in line


def test_both_methods_are_loaded() -> None:
    for name, kind in (
        ("digits", ScaleNetConfig),
        ("imagenet", ScaleNetConfig),
        ("cityscapes", ScaleNASConfig),
        ("coco-pose", ScaleNASConfig),
    ):
        config = load_config(name)
        assert type(config) is kind
        assert config.open_space().name


def test_the_default_method_may_be_given(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("{name: x, method: scalenet, data: digits, space: small}")
    assert load_config(path) == ScaleNetConfig.load(path) == ScaleNetConfig(name="x", data="digits", space="small")
