"""The first searches on real data: their figures are those that the kept files of the runs give."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.interleave import RESULTS
from benchmarks.real_scalenas.figures import Figures as ScaleNASFigures
from benchmarks.real_scalenas.plan import CONFIGS
from benchmarks.real_scalenas.plan import Plan as ScaleNASPlan
from benchmarks.real_search.figures import Figures
from benchmarks.real_search.plan import Plan

IMAGES = 1000
"""The number of images that Imagenette's networks were judged by."""
CLASSES = {"camvid": 11, "leeds": 14}


def committed(name: str) -> dict[str, Any]:
    measured: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())["measured"]
    return measured


def as_json(figures: dict[str, Any]) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(json.dumps(figures))
    return read


@pytest.mark.parametrize("part", ["rank", "samplers", "family", "costs"])
def test_the_figures_of_scalenets_search_follow_from_its_files(part: str) -> None:
    figures = Figures(Plan.load(), RESULTS / "real_search", IMAGES)
    assert as_json(getattr(figures, part)()) == committed("real_search")[part]


@pytest.mark.parametrize("part", ["without_retraining", "samplers"])
@pytest.mark.parametrize("config", sorted(CONFIGS))
def test_the_figures_of_scalenas_search_follow_from_its_files(config: str, part: str) -> None:
    wanted = committed(f"real_{config}")
    kept = RESULTS / f"real_{config}"
    figures = ScaleNASFigures(ScaleNASPlan.load(CONFIGS[config]), kept, CLASSES[config], wanted["metric"])
    assert as_json(getattr(figures, part)()) == wanted[part]


def test_a_run_that_was_stopped_names_the_files_that_it_lacks(tmp_path: Path) -> None:
    figures = Figures(Plan.load(), tmp_path, IMAGES).summary()
    assert figures["samplers"] == {"not_run": "RUN/samplers.json is not there"}
    assert len(figures) == 6
