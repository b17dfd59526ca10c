"""The report of a search: that the page holds what the run's files say, needs nothing else, and opens in a browser."""

import json
import re
import shlex
import shutil
from base64 import b64encode
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from plotly.graph_objects import Figure
from scipy.stats import kendalltau, spearmanr

from scalenet_zoo.arch.family import Family
from scalenet_zoo.arch.scaling import apply_strategy
from scalenet_zoo.core.errors import InputError, OutputError, SpecError, TrainingError, ZooError
from scalenet_zoo.core.quantities import format_count
from scalenet_zoo.search.report.charts import to_chart
from scalenet_zoo.search.report.data import read_run
from scalenet_zoo.search.report.drawing import KERNEL_COLOURS, draw_architectures
from scalenet_zoo.search.report.page import write_report
from scalenet_zoo.search.report.plots import STEPS, Curve, Plot, describe, log_ticks
from scalenet_zoo.search.report.scalenet import ScaleNetReport, _front
from scalenet_zoo.search.report.sections import Table
from scalenet_zoo.search.scalenet.ledger import ScaleNetLedger
from scalenet_zoo.search.standalone import Standalone, over_seeds
from scalenet_zoo.supernet.summary import SUPERNET_WEIGHTS
from tests.helpers.command import Run
from tests.helpers.pages import Page
from tests.helpers.search_runs import CLASSES, SPACE, joint_ledger, write_run, write_supernet
from tests.helpers.searching import baseline_search, joint_search

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from playwright.sync_api import Page as Tab

FIGURES = {
    *("accuracy_supernet", "accuracy_standalone", "latency_supernet", "latency_standalone", "progress", "strategies"),
    *("architectures", "latency_prediction", "rank_correlation", "supernet_training"),
}
DRAWINGS = {"architectures"}
"""Figures without an interactive chart."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything in it, and its report."""
    folder = write_run(tmp_path_factory.mktemp("runs") / "whole")
    assert write_report(folder) == folder / "report" / "index.html"
    return folder


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of which only the supernet is trained."""
    folder = tmp_path_factory.mktemp("runs") / "begun"
    write_supernet(folder)
    return folder


@pytest.fixture(scope="module")
def page(whole: Path) -> Page:
    return Page(whole / "report" / "index.html")


# --- what the page says ---------------------------------------------------------------------------


def test_the_family_is_what_the_files_say(whole: Path, page: Page) -> None:
    joint, family = ScaleNetLedger.load(whole / "search" / "joint.json"), Family.load(whole / "family.json")
    trained = [t for t in over_seeds(Standalone.load(whole / "standalone.json").rows) if t.first.group == "found"]
    head, *rows = page.tables["family"][0]
    assert len(rows) == len(family.strategies) == 5
    base = joint.found[0].macs
    for row, strategy in zip(rows, family.strategies, strict=True):
        cells = dict(zip(head, row, strict=True))
        cost = apply_strategy(family, strategy).cost
        assert cells["network"] == strategy.name
        assert cells["stage"] == f"{strategy.stage:g}"
        assert cells["origin"] == ("found" if strategy.stage <= 2 else "extrapolated")
        assert (float(cells["depth"]), float(cells["width"])) == pytest.approx(
            (strategy.depth, strategy.width), abs=1e-3
        )
        assert (cells["MACs"], cells["parameters"]) == (format_count(cost.macs), format_count(cost.params))
        assert float(cells["MACs / (2^s base)"]) == pytest.approx(cost.macs / base / 2**strategy.stage, abs=1e-3)
    for row, found, alone in zip(rows, joint.found, trained, strict=False):
        cells = dict(zip(head, row, strict=True))
        assert float(cells["supernet score (%)"]) == pytest.approx(100 * (found.score or 0), abs=0.01)
        assert float(cells["latency (ms)"]) == found.measured_ms
        assert cells["stand-alone accuracy (%)"] == f"{100 * alone.reached:.2f} ± {100 * alone.spread:.2f} (2)"
    assert rows[4][-3:] == ["-", "-", "-"]


def test_seeds_are_averaged(whole: Path) -> None:
    rows = Standalone.load(whole / "standalone.json").rows
    network = over_seeds(rows)[0]
    of_it = [row.reached for row in rows if row.name == network.first.name]
    assert (network.seeds, len(of_it)) == (2, 2)
    assert network.reached == pytest.approx(np.mean(of_it))
    assert network.spread == pytest.approx(np.std(of_it, ddof=1))
    assert over_seeds(rows[:1])[0].spread == 0


def test_half_steps_and_strategies(whole: Path, page: Page) -> None:
    joint = ScaleNetLedger.load(whole / "search" / "joint.json")
    (_, *steps), (_, *ranked) = page.tables["progress"][0], page.tables["strategies"][0]
    assert [(int(row[0]), row[1]) for row in steps] == [(step.round, step.kind) for step in joint.half_steps]
    assert float(steps[1][4]) == pytest.approx(100 * joint.half_steps[1].generations[-1].best, abs=0.01)
    best = [of_stage[0] for of_stage in joint.half_steps[-1].ranked]
    first = [row for row in ranked if row[1].startswith("1 of ")]
    assert [float(row[-1]) for row in first] == pytest.approx([100 * each.score for each in best], abs=0.01)
    assert [int(row[4]) for row in first] == [each.scaling.resolution for each in best]


def test_latency_errors_are_those_of_the_rounds(whole: Path, page: Page) -> None:
    joint = ScaleNetLedger.load(whole / "search" / "joint.json")
    _, *rows = page.tables["prediction"][0]
    for row, each in zip(rows, joint.latency_rounds, strict=True):
        predicted = np.array([network.predicted for network in each.networks])
        measured = np.array([network.measured for network in each.networks])
        assert (int(row[0]), int(row[1])) == (each.round, len(each.networks))
        assert float(row[2].rstrip("%")) == pytest.approx(
            100 * np.sqrt(np.mean((predicted / measured - 1) ** 2)), abs=0.1
        )
        assert float(row[4]) == pytest.approx(spearmanr(predicted, measured).statistic, abs=1e-3)


def test_rank_correlation_is_of_means_over_seeds(whole: Path, page: Page) -> None:
    networks = over_seeds(Standalone.load(whole / "standalone.json").rows)
    (_, overall, *by_stage), (_, *drawn) = page.tables["ranks"]
    expected = kendalltau([n.first.score for n in networks], [n.reached for n in networks])
    assert overall[:2] == ["all", str(len(networks))]
    assert float(overall[2]) == pytest.approx(expected.statistic, abs=1e-3)
    assert float(overall[3]) == pytest.approx(expected.pvalue, rel=0.06)
    assert sum(int(row[1]) for row in by_stage) == len(networks)
    assert {row[0] for row in drawn} == {f"rank{i}" for i in range(12)}


def test_costs_compare_joint_with_separate_searches(page: Page) -> None:
    training, searches, comparison = page.tables["costs"]
    assert ["images, forward and backward", "25,600"] in training
    joint = dict(zip(searches[0], searches[1], strict=True))
    assert (joint["networks scored"], joint["images, forward"], joint["wasted"]) == ("123", "456,789", "130 (6.5%)")
    assert float(joint["outside scoring (%)"]) == pytest.approx(1.5)
    totals = [int(row[-1].replace(",", "")) for row in comparison[1:]]
    assert totals == [3 * 25_600 + 456_789, 3 * 3 * 25_600 + 400_000]
    assert f"{totals[1] / totals[0]:.2f} times the joint search" in page.text["costs"]


def test_provenance(page: Page) -> None:
    cells = {row[0]: row[1] for row in page.tables["provenance"][0]}
    assert cells["space's sha256"] == SPACE.hash
    assert (cells["search.population"], cells["machine.versions.torch"]) == ("6", "2.9.0")
    assert cells["family.source"] == "a made-up search"
    assert "search: {population: 6}" in page.text["provenance"]


def test_a_real_search_is_reported(tmp_path: Path) -> None:
    joint = joint_search(tmp_path / "search")
    compound = baseline_search("compound", tmp_path / "search", evaluations=joint.evaluations)
    assert compound.found[1].score is None  # the rule need not stay in the space
    page = Page(write_report(tmp_path))
    assert {path.stem for path in (tmp_path / "report").glob("*.png")} == {"accuracy_supernet", "progress"}
    head, *rows = page.tables["costs"][0]
    told = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    for name, state in (("joint search", joint), ("base alone, compound rule", compound)):
        assert told[name]["networks scored"] == f"{state.evaluations:,}"
        assert told[name]["images, forward"] == f"{100 * state.evaluations:,}"
    assert len(page.tables["progress"][0]) == 1 + len(joint.half_steps)


def test_the_front_is_not_beaten(whole: Path) -> None:
    report = ScaleNetReport(read_run(whole))
    points = report.evolved()
    step = report.own.last_step("bases") if report.own else None
    assert step
    assert len(points) == len(step.bases) * 2
    last = step.bases[-1]
    kernels = np.zeros((3, 3), dtype=np.int64)
    for row, layers in zip(kernels, last.kernels, strict=True):
        row[: len(layers)] = layers
    assert points[-1, 0] == SPACE.spec(kernels, step.scalings[-1], CLASSES).cost.macs
    assert points[-1, 1] == 100 * last.scores[-1]
    front = _front(points)
    for macs, score in points:
        beaten = ((front[:, 0] <= macs) & (front[:, 1] >= score)).any()
        assert beaten  # by itself, if it is on the front
    assert (np.diff(front, axis=0) > 0).all()


def test_drawings_show_every_layer(whole: Path) -> None:
    family = Family.load(whole / "family.json")
    specs = [apply_strategy(family, strategy) for strategy in family.strategies]
    figure = draw_architectures(specs)
    for axes, spec in zip(figure.axes, specs, strict=True):
        assert spec.network.type == "mbconv"
        layers = [layer for stage in spec.network.stages for layer in stage]
        assert len(axes.patches) == len(layers)
        heights = [patch.get_height() for patch in axes.patches]  # type: ignore[attr-defined]
        assert np.argsort(heights).tolist() == np.argsort([layer.channels for layer in layers]).tolist()
        colours = {patch.get_facecolor(): layer.kernel for patch, layer in zip(axes.patches, layers, strict=True)}
        assert len(colours) == len({layer.kernel for layer in layers}) <= len(KERNEL_COLOURS)


# --- the files ------------------------------------------------------------------------------------


def test_the_page_needs_nothing_else(page: Page) -> None:
    assert len(page.addresses) > 20
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    ids = {values["id"] for _, values in page.tags if "id" in values}
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= ids
    style = page.source.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert not [tag for tag, _ in page.tags if tag in ("iframe", "object", "embed")]


def test_only_the_scripts_of_the_page_may_run(page: Page) -> None:
    scripts = re.findall(r"<script>(.*?)</script>", page.source, re.DOTALL)
    hashes = [b64encode(sha256(script.encode()).digest()).decode() for script in scripts]
    (policy,) = (v["content"] or "" for _, v in page.tags if v.get("http-equiv") == "Content-Security-Policy")
    allowed = [part.strip() for part in policy.split(";") if part.strip().startswith("script-src ")]
    assert allowed == ["script-src " + " ".join(f"'sha256-{each}'" for each in hashes)]
    assert [values for tag, values in page.tags if tag == "script"] == [
        {"type": "application/json", "id": "charts"},
        {},
        {},
    ]


def test_the_page_is_accessible(page: Page) -> None:
    tags = dict(reversed(page.tags))
    assert tags["html"] == {"lang": "en"}
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    images = [values for tag, values in page.tags if tag == "img"]
    assert len(images) == len(FIGURES)
    assert all(values["alt"] and values["width"] and values["height"] for values in images)
    charts = [values for _, values in page.tags if values.get("class") == "chart"]
    assert len(charts) == len(FIGURES - DRAWINGS)
    assert all(values["role"] == "img" and values["aria-label"] for values in charts)
    texts = {values["alt"] for values in images}
    assert {values["aria-label"] for values in charts} <= texts  # image and chart have the same text alternative
    assert len({values["id"] for _, values in page.tags if "id" in values}) == sum("id" in v for _, v in page.tags)


def test_text_alternatives_tell_the_figures(whole: Path, page: Page) -> None:
    joint = ScaleNetLedger.load(whole / "search" / "joint.json")
    (text,) = (
        v["alt"] or ""
        for tag, v in page.tags
        if tag == "img" and "each search found" in (v["alt"] or "") and "MACs" in (v["alt"] or "")
    )
    told = ", ".join(f"{100 * (found.score or 0):.4g} at {format_count(found.macs)}" for found in joint.found)
    assert f"joint search: {told}" in text


# --- interactive charts ---------------------------------------------------------------------------


def charts_of(page: Page) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="charts">(.*?)</script>', page.source, re.DOTALL)
    return dict(json.loads(text))


def test_charts_are_figures_of_plotly(page: Page) -> None:
    charts = charts_of(page)
    assert set(charts) == FIGURES - DRAWINGS
    for chart in charts.values():
        Figure(chart)  # refuses what Plotly does not know


def test_charts_name_the_networks(whole: Path, page: Page) -> None:
    joint = ScaleNetLedger.load(whole / "search" / "joint.json")
    traces = {trace["name"]: trace for trace in charts_of(page)["accuracy_supernet"]["data"]}
    trace = traces["joint search"]
    order = np.argsort([found.macs for found in joint.found])
    assert trace["text"] == [f"tiny_s{stage}" for stage in order]
    assert trace["customdata"] == [format_count(joint.found[stage].macs) for stage in order]
    assert trace["y"] == pytest.approx([100 * (joint.found[stage].score or 0) for stage in order], rel=1e-5)
    assert traces["random joint search"]["text"][0].startswith("tiny_random_random_s")
    assert "%{text}" in trace["hovertemplate"]
    (alone,) = (t for t in charts_of(page)["accuracy_standalone"]["data"] if t["name"] == "joint search")
    assert len(alone["error_y"]["array"]) == len(alone["text"]) == 3


def test_a_chart_shows_the_values_of_its_plot() -> None:
    points = np.array([[1.0, 2.0, 0.5], [3.0, np.nan, 0.0]])
    curve = Curve("a < b", points, {"color": "#0072B2", "marker": "s", "linestyle": "none"}, ["<b>x</b>", "y"])
    step = Curve("", points[:, :2], {"color": "#777777", **STEPS})
    plot = Plot(title="t", x="x", y="y", curves=[curve, step], scale="log", dotted=("ranked", [2.0]))
    line, first, second = to_chart(plot)["data"]
    assert (line["name"], to_chart(plot)["layout"]["shapes"][0]["x0"]) == ("ranked", 2.0)
    assert (first["name"], first["x"], first["y"]) == ("a &lt; b", [1.0, 3.0], [2.0, None])
    assert first["text"] == ["&lt;b&gt;x&lt;/b&gt;", "y"]
    assert (first["mode"], first["marker"]["symbol"], first["error_y"]["array"]) == ("markers", "square", [0.5, 0.0])
    assert (second["mode"], second["line"]["shape"], second["showlegend"]) == ("lines", "hv", False)
    assert describe(plot) == "t. y over x. a < b: 2 at 1."


def test_columns_without_values_are_left_out() -> None:
    table = Table.of("", [{"name": "a", "score": "1", "latency": "-"}, {"name": "b", "score": "-", "latency": "-"}])
    assert (table.columns, table.align) == (("name", "score"), "lr")
    assert table.rows == [("a", "1"), ("b", "-")]


@given(low=st.floats(1e-3, 1e12), span=st.floats(1.0, 1e6))
def test_an_axis_of_costs_has_two_ticks_at_least(low: float, span: float) -> None:
    ticks = log_ticks(low, low * span)
    assert len(ticks) >= 2
    assert all(0.999 * low <= tick <= 1.001 * low * span for tick in ticks)


# --- headline and commands ------------------------------------------------------------------------


def test_the_headline_comes_first(whole: Path, page: Page) -> None:
    joint = ScaleNetLedger.load(whole / "search" / "joint.json")
    text = " ".join(page.text[""].split())
    first, last = joint.found[0], joint.found[-1]
    assert f"tiny_s0 ({format_count(first.macs)} MACs, {100 * (first.score or 0):.2f}% with the supernet's" in text
    assert f"tiny_s2 ({format_count(last.macs)} MACs" in text
    assert "123 networks were scored with 456,789 images" in text
    assert page.source.index("Next commands") < page.source.index("<nav") < page.source.index("<table")


def test_the_commands_can_be_run(run: Run, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shutil.copytree(whole, tmp_path / "runs" / "my run", ignore=shutil.ignore_patterns("report"))
    (folder / "run.json").write_text(json.dumps({"config": {"data": "digits"}, "machine": {}}), encoding="utf-8")
    (folder / "supernet" / SUPERNET_WEIGHTS).touch()
    monkeypatch.chdir(tmp_path)
    report = ScaleNetReport(read_run(folder))
    commands = [shlex.split(each.command) for each in report.next_commands]
    assert [command[1] for command in commands] == ["supernet", "train", "show", "build"]
    assert commands[0] == ["scalenet-zoo", "supernet", "extract", "runs/my run", "tiny_s2", "--output", "tiny_s2"]
    assert commands[1][2:5] == ["runs/my run/specs/tiny_s2.json", "--data", "digits"]
    for command in commands[2:]:
        code, _, error = run(*command[1:])
        assert code == 0, error


def test_an_unended_search_is_resumed(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shutil.copytree(whole, tmp_path / "run", ignore=shutil.ignore_patterns("report"))
    _unended(folder)
    monkeypatch.chdir(tmp_path)
    report = ScaleNetReport(read_run(folder))
    assert [each.command for each in report.next_commands] == ["scalenet-zoo search run/config.yaml --output run"]
    assert "has not ended" in report.headline[0]


def test_figures_lie_beside_the_page(whole: Path) -> None:
    files = {path.name for path in (whole / "report").iterdir()}
    assert files == {"index.html", *(f"{name}.png" for name in FIGURES)}
    for name in FIGURES:
        with Image.open(whole / "report" / f"{name}.png") as picture:
            picture.load()
            assert picture.width > 700
            assert np.ptp(np.asarray(picture.convert("L"))) > 200


def test_the_same_run_gives_the_same_page(whole: Path, tmp_path: Path) -> None:
    again = write_report(whole, tmp_path / "again")
    assert again.read_bytes() == (whole / "report" / "index.html").read_bytes()


# --- parts of a run -------------------------------------------------------------------------------


def _keep(*kept: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        for path in [path for path in folder.rglob("*") if path.is_file()]:
            if not any(str(path.relative_to(folder)).startswith(each) for each in kept):
                path.unlink()

    return prepare


def _unended(folder: Path) -> None:
    _keep("config.yaml", "supernet")(folder)
    state = joint_ledger(rounds=1, ended=False, latency=False)
    halves = state.half_steps[:-1]  # in the middle of a round
    state.model_copy(update={"half_steps": halves}).save(folder / "search" / "joint.json")


def _just_begun(folder: Path) -> None:
    _unended(folder)
    state = ScaleNetLedger.load(folder / "search" / "joint.json")
    state.model_copy(update={"half_steps": ()}).save(folder / "search" / "joint.json")


def _one_network(folder: Path) -> None:
    _keep("search/joint", "family", "standalone")(folder)
    joint = ScaleNetLedger.load(folder / "search" / "joint.json")
    rounds = tuple(each.model_copy(update={"networks": each.networks[:1]}) for each in joint.latency_rounds)
    joint.model_copy(update={"latency_rounds": rounds}).save(folder / "search" / "joint.json")
    rows = Standalone.load(folder / "standalone.json").rows[:1]
    Standalone(rows=rows).save(folder / "standalone.json")


@pytest.mark.parametrize(
    ("prepare", "figures", "sections"),
    [
        (_keep("config.yaml", "supernet"), {"supernet_training"}, "costs supernet"),
        (_keep("supernet/log"), {"supernet_training"}, "supernet"),
        (_unended, {"supernet_training", "progress"}, "progress strategies costs supernet"),
        (_just_begun, {"supernet_training"}, "costs supernet"),
        (
            _keep("standalone"),
            {"accuracy_standalone", "latency_standalone", "rank_correlation"},
            "accuracy latency ranks",
        ),
        (_keep("family"), {"architectures", "strategies"}, "family strategies architectures"),
        (_keep("search/random"), {"accuracy_supernet", "latency_supernet"}, "accuracy latency costs"),
        (
            _one_network,
            FIGURES - {"supernet_training", "rank_correlation"},
            "family accuracy latency progress strategies architectures prediction costs",
        ),
    ],
)
def test_missing_parts_are_left_out(
    whole: Path, tmp_path: Path, prepare: Callable[[Path], None], figures: set[str], sections: str
) -> None:
    folder = shutil.copytree(whole, tmp_path / "run", ignore=shutil.ignore_patterns("report"))
    prepare(folder)
    page = Page(write_report(folder))
    assert {path.stem for path in (folder / "report").glob("*.png")} == figures
    made = [values["id"] for tag, values in page.tags if tag == "section"]
    assert made == [*sections.split(), "provenance"]
    assert [values["href"] for tag, values in page.tags if tag == "a"] == [f"#{each}" for each in made]
    assert "None" not in "".join(page.text.values())
    assert "nan" not in "".join(
        cell for tables in page.tables.values() for table in tables for r in table for cell in r
    )


def test_hostile_text_is_shown_not_run(whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "run", ignore=shutil.ignore_patterns("report"))
    evil = "</code></pre><script>alert('$x_{')</script><img src=//example.org onerror=alert(1)>"
    (folder / "config.yaml").write_text(f"name: {evil}\n", encoding="utf-8")
    (folder / "run.json").write_text(json.dumps({"config": {evil: [evil]}, "machine": {}}), encoding="utf-8")
    joint = ScaleNetLedger.load(folder / "search" / "joint.json")
    joint.model_copy(update={"settings": {evil: evil}}).save(folder / "search" / "joint.json")
    rows = Standalone.load(folder / "standalone.json").rows
    Standalone(rows=(rows[0].model_copy(update={"name": evil}), *rows)).save(folder / "standalone.json")
    page = Page(write_report(folder))
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 3  # the page's own
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert page.text["provenance"].count(evil) >= 4
    assert any(evil in row for row in page.tables["accuracy"][0])


# --- what is refused ------------------------------------------------------------------------------


def _no_run(folder: Path) -> Path:
    (folder / "recipe.yaml").write_text("epochs: 1\n")
    return folder


def _damaged(name: str, content: str | bytes) -> Callable[[Path], Path]:
    def prepare(folder: Path) -> Path:
        write_supernet(folder)
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder

    return prepare


def _spaceless(folder: Path) -> Path:
    joint_ledger(rounds=1).model_copy(update={"space": {}}).save(folder / "search" / "joint.json")
    return folder


@pytest.mark.parametrize(
    ("prepare", "error", "message"),
    [
        (lambda folder: folder / "missing", InputError, r"missing: found no folder, expected that of a search"),
        (_no_run, InputError, r"found nothing that a search writes, expected supernet/log.jsonl, .*"),
        (_damaged("search/joint.json", "{"), SpecError, r".*joint.json: is not valid JSON.*"),
        (_damaged("search/joint.json", "{}"), SpecError, r".*joint.json: method: is missing.*"),
        (
            _damaged("search/joint.json", '{"format": "scalenet-zoo/search", "version": 1}'),
            SpecError,
            r".*joint.json: version: found 1, written by scalenet-zoo 0.1, expected 2; run `scalenet-zoo search` .*",
        ),
        (_spaceless, SpecError, r".*joint.json: space: name: is missing.*"),
        (_damaged("run.json", "[1]"), SpecError, r".*run.json: .*expected a valid dictionary.*"),
        (_damaged("run.json", '{"config": []}'), SpecError, r".*run.json: config: found \[\], expected .*"),
        (_damaged("supernet/summary.json", '{"images": []}'), SpecError, r".*summary.json: space_hash: is missing.*"),
        (_damaged("supernet/log.jsonl", "3.5\n"), TrainingError, r".*log.jsonl: line 1: found 3.5, expected an object"),
        (_damaged("config.yaml", b"\xff"), InputError, r".*config.yaml: is not UTF-8 text: found the byte 0xff"),
        (_damaged("standalone.json", '{"rows": [3.5]}'), SpecError, r".*standalone.json: rows.0: found 3.5.*"),
        (_damaged("supernet/summary.json", "{"), SpecError, r".*summary.json: is not valid JSON.*"),
    ],
)
def test_bad_folders(tmp_path: Path, prepare: Callable[[Path], Path], error: type[ZooError], message: str) -> None:
    folder = prepare(tmp_path)
    with pytest.raises(error) as caught:
        write_report(folder)
    assert re.search(message + "$", str(caught.value))
    assert "\n" not in str(caught.value)
    assert not (folder / "report").exists()


def test_only_a_report_is_replaced(begun: Path, tmp_path: Path) -> None:
    output = tmp_path / "precious"
    output.mkdir()
    write_report(begun, output)  # an empty folder may be taken
    (output / "old.png").touch()
    write_report(begun, output)
    assert not (output / "old.png").exists()
    for folder in (begun, tmp_path):
        with pytest.raises(OutputError, match="expected a new one or that of a report"):
            write_report(begun, folder)
    assert (begun / "supernet" / "log.jsonl").exists()
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file, expected a folder"):
        write_report(begun, tmp_path / "file")


# --- the command ----------------------------------------------------------------------------------


def test_command(run: Run, begun: Path, tmp_path: Path) -> None:
    printed = run.json("report", begun, "--output", tmp_path / "out")
    assert printed["page"] == str(tmp_path / "out" / "index.html")
    assert {Path(path).stem for path in printed["figures"]} == {"supernet_training"}
    assert run("report", begun, "--output", tmp_path / "out") == (0, f"wrote {tmp_path / 'out' / 'index.html'}\n", "")
    assert run.error("report", tmp_path / "none") == (
        1,
        f"{tmp_path / 'none'}: found no folder, expected that of a search",
    )


# --- a browser ------------------------------------------------------------------------------------

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    playwright = pytest.importorskip("playwright.sync_api", reason="no package playwright: pip install playwright")
    if not BROWSER:
        pytest.skip("no Chromium here: chromium, chromium-browser or google-chrome on the path")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


def _open(browser: "Browser", page: Path, width: int, scripts: bool = True) -> tuple["Tab", list[str]]:
    """Open a page; what the browser complains of, and what the page loads from elsewhere, is added to the list."""
    tab, complaints = browser.new_page(viewport={"width": width, "height": 900}, java_script_enabled=scripts), []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: complaints.extend([] if request.url == page.as_uri() else [request.url[:80]]))
    tab.goto(page.as_uri())
    return tab, [each for each in complaints if not each.startswith("data:")]


@pytest.mark.slow
@pytest.mark.parametrize("width", [1400, 400])
def test_charts_take_the_place_of_images(whole: Path, browser: "Browser", width: int) -> None:
    tab, complaints = _open(browser, whole / "report" / "index.html", width)
    assert complaints == []
    tab.wait_for_function(f"document.querySelectorAll('.js-plotly-plot').length === {len(FIGURES - DRAWINGS)}")
    assert tab.title() == "tiny: report of a search"
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    shown = tab.evaluate("[...document.images].filter(i => i.offsetWidth > 0).map(i => i.naturalWidth)")
    assert len(shown) == len(DRAWINGS)
    chart = "document.querySelector('[data-chart=accuracy_supernet] .chart')"
    tab.evaluate(f"{chart}.scrollIntoView()")
    names = tab.evaluate(f"{chart}.data.map(trace => trace.name)")
    tab.evaluate(f"Plotly.Fx.hover({chart}, [{{curveNumber: {names.index('joint search')}, pointNumber: 0}}])")
    assert "tiny_s0" in tab.locator("[data-chart=accuracy_supernet] .hovertext").first.text_content()  # type: ignore[operator]
    tab.close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [1400, 400])
def test_the_page_works_without_javascript(whole: Path, browser: "Browser", tmp_path: Path, width: int) -> None:
    tab, complaints = _open(browser, whole / "report" / "index.html", width, scripts=False)
    assert complaints == []
    images = tab.locator("figure img")
    assert images.count() == len(FIGURES)
    for i in range(images.count()):
        box = images.nth(i).bounding_box()
        assert box
        assert box["width"] > 300
    tab.screenshot(path=tmp_path / "shot.png", full_page=True)
    with Image.open(tmp_path / "shot.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    assert pixels.shape[1] == width
    assert (pixels == 255).mean() > 0.5  # dark on white
    assert (pixels < 80).any(axis=1).mean() > 0.2
    tab.close()
