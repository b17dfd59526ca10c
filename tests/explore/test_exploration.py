"""`explore`: figures of the zoo on a made-up machine, its front, and the page that shows them, opened and clicked."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.errors import BackendError, ModelNotFoundError, UsageError
from scalenet_zoo.explore.exploration import Exploration, explore_zoo
from scalenet_zoo.explore.figures import Setting
from scalenet_zoo.explore.front import front, near_front
from scalenet_zoo.explore.prediction import MOST_OFF, SURE, predict_entries
from scalenet_zoo.latency.model import fit_latency_model, model_path
from scalenet_zoo.latency.profile import Settings
from scalenet_zoo.zoo.catalog import FAMILIES, list_models
from scalenet_zoo.zoo.sources import load_spec
from tests.helpers.bench import MadeUpMachine, law, pretend
from tests.helpers.command import Run
from tests.helpers.latency import made_up_profile
from tests.helpers.pages import Page

if TYPE_CHECKING:
    from playwright.sync_api import Page as Tab

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exploration]:
    """Networks of three tasks on the made-up machine, and their page."""
    folder = tmp_path_factory.mktemp("explore")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        pretend(patch, MadeUpMachine())
        tasks = ["classification", "segmentation", "pose"]
        yield explore_zoo("ort-cpu", "any", tasks, threads=1, output=folder / "zoo.html")


# --- the front ------------------------------------------------------------------------------------

POINTS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=30)


@given(points=POINTS)
def test_no_other_point_beats_the_front(points: list[tuple[int, int]]) -> None:
    kept = front([cost for cost, _ in points], [value for _, value in points])
    at = [points[i] for i in kept]
    assert at == sorted(at)
    assert len({value for _, value in at}) == len({cost for cost, _ in at}) == len(at)
    for cost, value in points:
        beaten = any(c <= cost and v >= value for c, v in at)
        assert beaten
    for cost, value in at:
        assert not any((c < cost and v >= value) or (c <= cost and v > value) for c, v in points)


@given(points=POINTS, error=st.floats(0, 0.8), seed=st.integers(0, 100))
def test_the_true_front_is_among_the_points_near_it(points: list[tuple[int, int]], error: float, seed: int) -> None:
    costs, values = [float(cost) for cost, _ in points], [float(value) for _, value in points]
    near = near_front(costs, values, [error] * len(points))
    true = np.array(costs) * (1 + error * np.random.default_rng(seed).uniform(-1, 1, len(points)))
    assert set(front(list(true), values)) <= set(near)
    exact = near_front(costs, values, [0.0] * len(points))
    assert set(front(costs, values)) <= set(exact)


# --- what is measured -----------------------------------------------------------------------------


def test_all_entries_are_there_and_the_front_is_true(whole: Exploration) -> None:
    by_task = {task: [p for p in whole.points if p.task == task] for task in ("classification", "segmentation", "pose")}
    assert {task: sorted({p.name for p in points}) for task, points in by_task.items()} == {
        task: list_models(task=task) for task in FAMILIES
    }
    assert whole.measured == len(whole.points) == 2 * len(list_models())
    assert whole.left_out == ()
    for point in whole.points:
        assert point.measured
        assert point.ms == pytest.approx(law(load_spec(point.name), point.precision))
        rivals = [p for p in whole.points if p.figure == point.figure and p.value is not None and p.ms < point.ms]
        if point.front:
            assert point.value is not None
            assert all(rival.value < point.value for rival in rivals if rival.value is not None)
    assert {p.precision for p in whole.points if p.front} == {"int8"}  # which takes half the time here
    assert len({p.figure for p in whole.points if p.front}) == 5  # AP of one person and of several, and PCKh


def test_what_is_kept_is_not_measured_again(made_up: MadeUpMachine, tmp_path: Path) -> None:
    stop = "tinynet_c"

    def takes(spec: ArchSpec, precision: str) -> float:
        if spec.name == stop:
            raise KeyboardInterrupt
        return law(spec, precision)

    made_up.takes = takes
    with pytest.raises(KeyboardInterrupt):
        explore_zoo(precision="fp32", models="tinynet_*", threads=1, output=tmp_path / "page.html")
    assert [name for name, _ in made_up.asked] == ["tinynet_e", "tinynet_d", "tinynet_c"]
    assert not (tmp_path / "page.html").exists()
    made_up.takes, made_up.asked[:] = law, []
    found = explore_zoo(precision="fp32", models="tinynet_*", threads=1, output=tmp_path / "page.html")
    assert [name for name, _ in made_up.asked] == ["tinynet_c", "tinynet_b", "tinynet_a"]
    assert (len(found.points), found.measured) == (5, 3)


def test_what_cannot_be_measured_is_reported(made_up: MadeUpMachine, tmp_path: Path) -> None:
    def takes(spec: ArchSpec, precision: str) -> float:
        if spec.name == "tinynet_a":
            raise BackendError("ort-cpu: <no room>")
        return law(spec, precision)

    made_up.takes = takes
    found = explore_zoo(precision="fp32", models="tinynet_*", threads=1, output=tmp_path / "page.html")
    assert found.left_out == ("tinynet_a in fp32 on ort-cpu: ort-cpu: <no room>",)
    assert "<li>tinynet_a in fp32 on ort-cpu: ort-cpu: &lt;no room&gt;</li>" in found.page.read_text("utf-8")
    with pytest.raises(BackendError, match="found that none of 1 entries runs, expected some: tinynet_a in fp32"):
        explore_zoo(precision="fp32", models="tinynet_a", threads=1, output=tmp_path / "page.html")


def test_a_latency_model_says_what_to_measure(made_up: MadeUpMachine, tmp_path: Path) -> None:
    """For EfficientNet, the entries near the front; for other families, all."""
    setting = Setting(backend="ort-cpu", threads=1)
    profile = made_up_profile()
    settings = Settings(family="efficientnet", backend="ort-cpu", threads=1)
    model = fit_latency_model(profile.model_copy(update={"settings": settings}))
    model.save(model_path(settings))
    specs = [load_spec(name) for name in ("efficientnet_b0", "tf_efficientnet_b0", "tinynet_e")]
    said = predict_entries(specs, setting, "fp32")
    assert set(said) == {"efficientnet_b0", "tf_efficientnet_b0"}
    assert said["efficientnet_b0"].ms == pytest.approx(model.predict_spec(specs[0]))
    assert said["efficientnet_b0"].error == min(MOST_OFF, SURE * model.held_out.rms)
    assert predict_entries(specs, setting, "int8") == {}

    found = explore_zoo(precision="fp32", models="*efficientnet_b[012]", threads=1, output=tmp_path / "page.html")
    predicted = {point.name: point.ms for point in found.points if not point.measured}
    assert {"efficientnet_b2", "tf_efficientnet_b2"} <= predicted.keys()  # efficientnet_b1 is quoted higher
    assert "efficientnet_b0" not in predicted
    assert {name for name, _ in made_up.asked} == {point.name for point in found.points} - predicted.keys()
    for name, ms in predicted.items():
        assert ms == pytest.approx(model.predict_spec(load_spec(name)))
    everything = explore_zoo(
        precision="fp32", models="*efficientnet_b[012]", threads=1, measure_all=True, output=tmp_path / "page.html"
    )
    assert all(point.measured for point in everything.points)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"on": "abacus"}, BackendError, "abacus: found no such back end"),
        ({"precision": "fp8"}, UsageError, "found 'fp8'"),
        ({"task": "knitting"}, ModelNotFoundError, "knitting: found no such task"),
        ({"models": "resnet*"}, ModelNotFoundError, r"resnet\*: found no such entry for classification"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], error: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        explore_zoo(**arguments, output=tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_the_command_measures_for_real(run: Run, tmp_path: Path, cache: Path) -> None:
    page = tmp_path / "page.html"
    flags = ["tinynet_e", "--threads", "1", "--precision", "fp32", "--quick", "--output", page]
    found = run.json("explore", *flags)
    (point,) = found["points"]
    assert (point["name"], point["precision"], point["front"], found["measured"]) == ("tinynet_e", "fp32", True, 1)
    assert 0.05 < point["ms"] < 1000
    assert len(list(cache.glob("ort-cpu-1-1-*.json"))) == 1
    code, out, err = run("explore", *flags)
    assert (code, err) == (0, "")
    assert "0 measured now, 1 before, 0 predicted\n" in out
    assert out.endswith(f"wrote {page} ({page.stat().st_size:,} bytes)\n")
    assert run.error("explore", "--on", "abacus")[0] == 1


@pytest.mark.slow
def test_two_back_ends_and_both_precisions_for_real(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    flags = ["tinynet_e", "--threads", "1", "--on", "ort-cpu,openvino", "--quick", "--output", tmp_path / "page.html"]
    found = run.json("explore", *flags)
    points = {(point["backend"], point["precision"]): point["ms"] for point in found["points"]}
    assert set(points) == {(backend, how) for backend in ("ort-cpu", "openvino") for how in ("fp32", "int8")}
    assert all(0.05 < ms < 1000 for ms in points.values())
    assert sum(point["front"] for point in found["points"]) == 1


# --- the page -------------------------------------------------------------------------------------


def test_the_page_needs_nothing_else_and_has_a_table(whole: Exploration) -> None:
    page = Page(whole.page)
    assert page.addresses == ["data:,"]
    assert dict(reversed(page.tags))["html"] == {"lang": "en"}
    policy = next(values["content"] or "" for _, values in page.tags if values.get("http-equiv"))
    assert policy.startswith("default-src 'none'; ")
    assert policy.count("'sha256-") == 2
    (table,) = page.tables["table-part"]
    assert len(table) == 1 + len(whole.points)
    for row, point in zip(table[1:], whole.points, strict=True):
        cells = [cell.strip() for cell in row]
        assert cells[:3] == [point.name, point.backend, point.precision]
        assert cells[3] == ("-" if point.value is None else f"{point.value:.2f}")
        assert float(cells[4]) == pytest.approx(point.ms, rel=1e-3)
        assert cells[-1] == ("yes" if point.front else "")


def test_hostile_text_stays_text(whole: Exploration, tmp_path: Path) -> None:
    from scalenet_zoo.explore.page import write_explorer

    told = whole.to_dict()
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    told["points"] = [{**told["points"][0], "name": evil, "license": evil, "command": evil}]
    write_explorer(told, tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    assert [tag for tag, _ in page.tags].count("script") == 3
    assert "img" not in {tag for tag, _ in page.tags}


@pytest.fixture
def tab(tmp_path: Path) -> Iterator["Tab"]:
    """A page in a browser; an error in it, or a request for anything, fails the test."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no package playwright: pip install playwright")
    if not BROWSER:
        pytest.skip("no Chromium here: chromium, chromium-browser or google-chrome on the path")
    said: list[str] = []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1300, "height": 1400})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if not request.url.startswith("file:") else None)
        yield page
        browser.close()
    assert said == []


MARK = "#chart .scatterlayer .point"


def click_mark(tab: "Tab", number: int) -> None:
    """Click a mark of the chart with the mouse, after hovering over it."""
    tab.locator("#chart").scroll_into_view_if_needed()
    box = tab.locator(MARK).nth(number).bounding_box()
    assert box
    at = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(at[0] - 40, at[1] - 40)
    tab.mouse.move(*at, steps=3)
    tab.wait_for_selector("#chart .hovertext", state="attached")
    tab.mouse.click(*at)
    tab.wait_for_selector("#command")


def rows_shown(tab: "Tab") -> list[str]:
    return tab.locator("#table tbody tr:not([hidden])").all_inner_texts()


def shown_names(tab: "Tab") -> list[tuple[str, str]]:
    return [(cells[0], cells[2]) for cells in (row.split("\t") for row in rows_shown(tab))]


def test_the_page_is_clicked_in_a_browser(whole: Exploration, tab: "Tab") -> None:
    tab.goto(whole.page.as_uri())
    assert tab.title().startswith("The zoo on ort-cpu: ")
    classifiers = [p for p in whole.points if p.task == "classification"]
    drawn = [p for p in classifiers if p.value is not None]
    assert tab.locator(MARK).count() == len(drawn)
    assert len(shown_names(tab)) == len(classifiers)

    # The front is the one that Python finds, and the label states it for screen readers.
    on_front = {(p.name, p.precision) for p in classifiers if p.front}
    rows = [row.split("\t") for row in rows_shown(tab)]
    assert {(cells[0], cells[2]) for cells in rows if cells[-1] == "yes"} == on_front
    label = tab.get_attribute("#chart", "aria-label") or ""
    assert all(name in label for name, _ in on_front)

    # A mark is hovered over and clicked: its figures and its command are shown, and the row marked.
    click_mark(tab, 0)
    hover = tab.locator("#chart .hovertext").first.text_content() or ""
    command = tab.inner_text("#command")
    name = re.sub(r"^scalenet-zoo export (\S+).*", r"\1", command)
    (point,) = [p for p in drawn if p.command == command]
    assert hover.startswith(name)
    assert f"{point.value:.2f}" in hover
    picked = tab.inner_text("#picked")
    assert f"{float(f'{point.ms:.4g}'):g} ms on ort-cpu, {point.precision}" in picked
    assert tab.locator("#table tr.picked").inner_text().split("\t")[0] == name
    tab.click("#copy")
    assert tab.evaluate("getSelection().toString()") == command

    # Against MACs, both precisions of a network lie on one another.
    places = tab.locator(MARK).first.bounding_box()
    tab.check("input[name=x][value=macs]")
    assert tab.locator("#chart .xtitle").text_content() == "MACs"
    assert tab.locator(MARK).first.bounding_box() != places

    # Filters: a precision, published weights alone, a licence.
    tab.uncheck("#precisions input[value=int8]")
    assert set(shown_names(tab)) == {(p.name, "fp32") for p in classifiers if p.precision == "fp32"}
    tab.check("#published")
    assert {name for name, _ in shown_names(tab)} == {p.name for p in classifiers if p.weights}
    first = tab.locator("#licenses input").first
    terms = first.get_attribute("value")
    first.uncheck()
    assert {name for name, _ in shown_names(tab)} == {p.name for p in classifiers if p.weights and p.license != terms}
    first.check()
    tab.uncheck("#published")

    # One task at a time.
    tab.select_option("#figure", label="segmentation: mIoU, %, Cityscapes validation")
    assert {name for name, _ in shown_names(tab)} == {p.name for p in whole.points if p.task == "segmentation"}
    assert tab.locator(MARK).count() == 3
    tab.select_option("#figure", index=0)

    # The table sorts both ways, says so, and picks by its buttons.
    for way, sign in (("ascending", 1), ("descending", -1)):
        tab.click("#table th button[data-key=ms]")
        assert tab.locator("#table th[aria-sort]").get_attribute("aria-sort") == way
        ms = [sign * float(row.split("\t")[4]) for row in rows_shown(tab)]
        assert ms == sorted(ms)
    tab.locator("#table tbody tr:not([hidden]) .pick").first.press("Enter")
    assert tab.inner_text("#picked strong") == shown_names(tab)[0][0]


def test_the_page_fits_a_telephone(whole: Exploration, tab: "Tab") -> None:
    tab.set_viewport_size({"width": 400, "height": 800})
    tab.goto(whole.page.as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") <= 400
    assert tab.locator(MARK).count() > 50
