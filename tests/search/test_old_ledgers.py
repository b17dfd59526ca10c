"""Searches of version 0.1: a report refuses them in one line; a search resumes with their measurements."""

import json
from pathlib import Path
from typing import Any

import pytest

from scalenet_zoo.core.errors import SpecError
from scalenet_zoo.search.ledger import Ledger, load_earlier
from scalenet_zoo.search.scalenet.ledger import ScaleNetLedger
from tests.helpers.searching import SMALL, joint_search, make_record, same_but_for_time
from tests.search.test_mcea import Loop


def version_1(ledger: ScaleNetLedger) -> dict[str, Any]:
    """The file that version 0.1 would have written for a joint search."""
    values = ledger.model_dump(mode="json")
    kept = ("format", "name", "half_steps", "seconds", "scoring_seconds", "ended", "drawn", "wasted")
    rounds = []
    for each in ledger.latency_rounds:
        networks = []
        for network in each.networks:
            stages, _, scaling = network.key.partition("@")
            depth, width, resolution = scaling.split("x")
            networks.append(
                {
                    "kernels": [[int(kernel) for kernel in stage.split(".")] for stage in stages.split("-")],
                    "scaling": {
                        "stage": 0,
                        "depth": float(depth),
                        "width": float(width),
                        "resolution": int(resolution),
                    },
                    "predicted": network.predicted,
                    "measured": network.measured,
                }
            )
        rounds.append({"round": each.round, "networks": networks})
    old = {name: values[name] for name in kept} | {"version": 1, "method": "joint", "latency_rounds": rounds}
    return old | {"space": SMALL.name, "space_hash": SMALL.hash, "settings": values["settings"], "stages": [1, 2]}


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    loop = Loop()
    whole = joint_search(tmp_path, judged=loop.bounds(), latency=loop)
    (tmp_path / "joint.json").write_text(json.dumps(version_1(whole.model_copy(update={"seconds": 1000.0}))))
    loop = Loop()
    again = joint_search(tmp_path, judged=loop.bounds(), latency=loop)
    assert loop.asked == []
    assert same_but_for_time(again) == same_but_for_time(whole)
    assert again.seconds > 1000
    assert ScaleNetLedger.load(tmp_path / "joint.json") == again


@pytest.mark.parametrize("kind", ["scalenet-zoo/search", "scalenet-zoo/topology-search"])
def test_the_version_is_reported_in_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "evolution.json"
    path.write_text(json.dumps({"format": kind, "version": 1, "method": "evolution"}))
    with pytest.raises(SpecError, match="found 1, written by scalenet-zoo 0.1, expected 2") as told:
        Ledger.load(path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("rounds", [3, [3], [{"round": 1, "networks": [{"kernels": [[3]]}]}], [{"round": 1}]])
def test_rounds_that_cannot_be_read_are_measured_again(rounds: Any, tmp_path: Path) -> None:
    path = tmp_path / "joint.json"
    path.write_text(json.dumps({"format": "scalenet-zoo/search", "version": 1, "latency_rounds": rounds}))
    assert load_earlier(path, make_record(tmp_path / "new").ledger) is None
