"""The report of a search of topologies: that the page holds what the run's files say, and needs nothing else."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scalenet_zoo.core.errors import SpecError
from scalenet_zoo.core.quantities import format_count
from scalenet_zoo.search.ledger import LatencyRound, Ledger, TimedNetwork
from scalenet_zoo.search.report.drawing import draw_topologies
from scalenet_zoo.search.report.page import write_report
from scalenet_zoo.search.report.scalenas import closest_groups, hypervolumes
from scalenet_zoo.search.standalone import Standalone, StandaloneRow
from tests.helpers.pages import Page
from tests.helpers.search_runs import write_supernet
from tests.helpers.topologies import CLASSES, SPACE, search_topologies

SEARCHES = ("evolution", "random", "ageing")
FIGURES = {
    *("scores_macs", "scores_latency", "scores_standalone", "hypervolume", "depths", "topologies"),
    *("latency_prediction", "rank_correlation", "supernet_training"),
}


def write_run(run: Path) -> Path:
    """A whole run, with made-up latencies."""
    write_supernet(run)
    rows = []
    for search in SEARCHES:
        state = search_topologies(run / "search" / f"{search}.json", search=search)
        if search == "evolution":
            times = {network.key: network.macs / 1e6 for network in state.found}
            networks = tuple(TimedNetwork(key=key, predicted=ms * 1.1, measured=ms) for key, ms in times.items())
            timed = [
                network.model_copy(update={"latency_ms": 1.1 * network.macs / 1e6, "measured_ms": times[network.key]})
                if network.key in times
                else network
                for network in state.networks
            ]
            rounds = (LatencyRound(round=1, networks=networks),)
            state = state.model_copy(update={"networks": tuple(timed), "latency_rounds": rounds})
            state.save(run / "search" / "evolution.json")
            for number, network in enumerate(state.found):
                name = f"tiny_{number}"
                SPACE.spec(SPACE.from_keys([network.key])[0], CLASSES, name).save(run / "specs" / f"{name}.json")
        rows += [
            StandaloneRow.model_validate(
                {
                    "group": "found" if search == "evolution" else search,
                    "name": f"tiny_{number}" if search == "evolution" else f"tiny_{search}_{number}",
                    "seed": seed,
                    "macs": network.macs,
                    "params": network.params,
                    "reached": round((network.score or 0.0) / 2 + 0.01 * seed, 4),
                    "epochs": 3,
                    "score": network.score,
                }
            )
            for number, network in enumerate(state.found)
            for seed in (0, 1)
        ]
    Standalone(rows=tuple(rows)).save(run / "standalone.json")
    (run / "config.yaml").write_text("name: tiny\nmethod: scalenas\n", encoding="utf-8")
    (run / "run.json").write_text(json.dumps({"config": {"method": "scalenas"}, "machine": {}}), encoding="utf-8")
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("whole"))
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(whole: Path) -> Page:
    return Page(whole / "report" / "index.html")


def evolution(folder: Path) -> Ledger:
    return Ledger.load(folder / "search" / "evolution.json")


def test_the_front_is_what_the_files_say(whole: Path, page: Page) -> None:
    (table,) = page.tables["front"]
    found = evolution(whole).found
    assert len(table) == len(found) + 1
    for number, (row, network) in enumerate(zip(table[1:], found, strict=True)):
        score = network.score or 0.0
        assert row[:3] == [f"tiny_{number}", format_count(network.macs), format_count(network.params)]
        assert row[3:6] == [
            f"{1.1 * network.macs / 1e6:.3f}",
            f"{network.macs / 1e6:.3f}",
            f"{score:.2%}".removesuffix("%"),
        ]
        assert row[6].startswith(f"{score / 2 + 0.005:.2%}".removesuffix("%")[:4])
        assert row[6].endswith("(2)")


def test_hypervolumes_rise_to_that_of_all_networks(whole: Path, page: Page) -> None:
    states = [Ledger.load(whole / "search" / f"{search}.json") for search in SEARCHES]
    most = max(network.macs for state in states for network in state.networks)
    (table,) = page.tables["hypervolume"]
    for state, row in zip(states, table[1:], strict=True):
        volumes = hypervolumes(state, most)
        assert (np.diff(volumes[:, 1]) >= 0).all()
        assert row[1:] == [str(len(state.networks)), str(len(state.chosen)), f"{volumes[-1, 1]:.4f}"]
        corners = [
            (n.macs / most, n.score or 0.0) for n in state.found
        ]  # rectangles under the front, from the cheapest
        edges = [*(x for x, _ in corners), 1.0]
        area = sum((edges[i + 1] - x) * score for i, (x, score) in enumerate(corners))
        assert volumes[-1, 1] == pytest.approx(area)


def test_networks_are_assigned_to_their_groups() -> None:
    rng = np.random.default_rng(0)
    groups = SPACE.groups.all
    for g, group in enumerate(groups):
        closest = closest_groups(SPACE, SPACE.sample_group(rng, group, 100))
        assert np.bincount(closest, minlength=len(groups)).argmax() == g


def test_costs_and_provenance(whole: Path, page: Page) -> None:
    _, searches = page.tables["costs"]
    assert [row[1:3] for row in searches[1:]] == [["60", "600"]] * 3
    rows = dict(page.tables["provenance"][0])
    assert rows["search.evaluations"] == "60"
    assert rows["supernet"] == "weights"
    assert rows["space's sha256"] == SPACE.hash
    assert "method: scalenas" in page.text["provenance"]


def test_drawings_show_every_block_and_path() -> None:
    spec = SPACE.spec(SPACE.sample(np.random.default_rng(0), 1)[0], CLASSES)
    assert spec.network.type == "multipath"
    (axes,) = draw_topologies([spec]).axes
    blocks = sum(np.size(line.get_xdata()) for line in axes.lines if line.get_marker() == "s")
    assert blocks == sum(sum(module.depth) for module in spec.network.modules)
    branches = sum(len(module.depth) for module in spec.network.modules)
    paths = len(axes.lines) - 2 * branches
    assert paths == sum(
        int(fed)
        for module in spec.network.modules
        for to, steps in enumerate(module.fusion)
        for origins in steps
        for origin, fed in enumerate(origins)
        if origin != to
    )


def test_the_page_has_all_figures_and_needs_nothing_else(whole: Path, page: Page) -> None:
    assert {path.stem for path in (whole / "report").glob("*.png")} == FIGURES
    for path in (whole / "report").glob("*.png"):
        with Image.open(path) as image:
            assert min(image.size) > 100
    assert all(re.match(r"#|data:", address) for address in page.addresses)


def _without(*names: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return remove


@pytest.mark.parametrize(
    ("prepare", "missing"),
    [
        (_without("standalone.json"), {"ranks"}),
        (_without("search/random.json", "search/ageing.json"), set()),
        (_without("search/evolution.json"), {"front", "topologies", "architectures", "prediction"}),
        (_without("supernet/log.jsonl", "supernet/summary.json"), {"supernet"}),
    ],
)
def test_missing_parts_are_left_out(
    prepare: Callable[[Path], None], missing: set[str], whole: Path, page: Page, tmp_path: Path
) -> None:
    folder = shutil.copytree(whole, tmp_path / "run", ignore=shutil.ignore_patterns("report"))
    prepare(folder)
    made = set(Page(write_report(folder)).text)
    assert set(page.text) - made == missing
    assert made <= set(page.text)


def test_the_headline_names_the_ends_of_the_front(whole: Path, page: Page) -> None:
    found = evolution(whole).found
    text = " ".join(page.text[""].split())
    for number in (0, len(found) - 1):
        network = found[number]
        assert f"tiny_{number} ({format_count(network.macs)} MACs, {100 * (network.score or 0):.2f}%)" in text


def test_a_search_that_has_just_begun(tmp_path: Path) -> None:
    class Stopped(Exception):  # noqa: N818
        pass

    def stop(state: Ledger) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        search_topologies(tmp_path / "run" / "search" / "evolution.json", on_save=stop)
    page = Page(write_report(tmp_path / "run"))
    assert "has not ended" in page.source
    assert page.tables["costs"][-1][1][0] == "topology evolution (not ended)"


def test_a_run_of_an_earlier_version(tmp_path: Path) -> None:
    path = tmp_path / "search" / "evolution.json"
    path.parent.mkdir()
    path.write_text('{"format": "scalenet-zoo/topology-search", "version": 1}')
    with pytest.raises(SpecError, match=r"evolution.json: version: found 1, written by scalenet-zoo 0.1, .* again"):
        write_report(tmp_path)
