"""The study of families that inherit: its peers have equal MACs, its data share no image, a stopped run is resumed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import inherited_family
from benchmarks.imagenette import FOLDER
from benchmarks.inherited_family import Plan, compound, drawn, split_data, tables, work
from scalenet_zoo import load_spec

TINY: dict[str, Any] = {
    "search": {
        "limits": {"macs": ["20M", "50M", "125M"], "tolerance": 0.1, "growth": None},
        "supernet": {"recipe": {"epochs": 1, "batch_size": 4}, "inherit": "tf_efficientnet_lite0"},
        "scoring": {"bn_images": 4, "val_images": 10, "batch_size": 10},
        "search": {"population": 3, "generations": 1, "rounds": 1, "keep": 2, "first_bases": 2},
    },
    "held_out": 1,
    "searches": [0],
    "random": 1,
    "seeds": [0, 1],
    "fine_tuning": {"epochs": 1, "batch_size": 4, "warmup_epochs": 0},
}


def write_images(folder: Path, train: int, val: int) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for number in range(10):
            (folder / split / f"class{number}").mkdir(parents=True)
            for place in range(count):
                pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / f"class{number}" / f"{place}.png")


@pytest.mark.parametrize("macs", [20e6, 50e6, 125e6])
def test_the_compound_rule_uses_the_budget(macs: float) -> None:
    spec, source = compound(macs), load_spec("tf_efficientnet_lite0")
    assert 0.9 * macs <= spec.cost.macs <= macs
    assert spec.input.height < source.input.height
    assert spec.network.head == source.network.head  # Lite's head is never scaled


def test_random_networks_have_the_macs_of_their_stage() -> None:
    plan = Plan.load()
    networks = drawn(plan)
    assert len({spec.hash for spec in networks}) == len(networks) == 9
    for spec in networks:
        budget = (20e6, 50e6, 125e6)[int(spec.name[8])]
        assert 0.95 * budget <= spec.cost.macs <= 1.05 * budget
    assert [spec.hash for spec in drawn(plan)] == [spec.hash for spec in networks]


def test_the_parts_share_no_image(tmp_path: Path) -> None:
    write_images(tmp_path / "imagenette", 4, 2)
    split_data(tmp_path / "imagenette", tmp_path / "data", 1)
    parts = {
        name: [p.read_bytes() for p in (tmp_path / "data" / name).rglob("*.png")] for name in ("train", "val", "test")
    }
    assert {name: len(images) for name, images in parts.items()} == {"train": 30, "val": 10, "test": 20}
    assert len({image for images in parts.values() for image in images}) == 60


@pytest.mark.nightly
def test_a_stopped_run_is_resumed_to_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_images(tmp_path / FOLDER, 3, 1)
    values = {**Plan.load().model_dump(mode="json"), **TINY}
    values["search"] = {**Plan.load().search, **TINY["search"]}
    plan = Plan.model_validate_json(json.dumps(values))
    monkeypatch.setattr(Plan, "load", lambda *_: plan)
    results = tmp_path / "results.jsonl"
    monkeypatch.setattr(inherited_family, "RESULTS", results)
    work(plan, tmp_path, tmp_path / "run", 2)
    lines = results.read_text().splitlines()
    assert len(lines) == 1 + 2 * 9  # a search; three stages of found, scaled and random networks with two seeds
    (tmp_path / "run" / "results.jsonl").write_text("\n".join(lines[:-3]) + "\n" + lines[-3][:20])
    work(plan, tmp_path, tmp_path / "run", 1)
    again = results.read_text().splitlines()
    assert sorted(again) == sorted(lines)  # what was repeated gave the same
    assert "| 2 | found | 1 |" in tables(results)
    assert "| random | 3 |" in tables(results)
