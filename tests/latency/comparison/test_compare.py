"""The table: its contents, rows that cannot be made, the results after an interrupt, the page, the command."""

import json
import logging
import shutil
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from scalenet_zoo import compare, create_model, evaluate
from scalenet_zoo.core.backends import find_backend
from scalenet_zoo.core.errors import BackendError, UsageError, ZooError
from scalenet_zoo.core.timing import MeasuredLatency
from scalenet_zoo.export.metadata import Metadata, OnnxOptions
from scalenet_zoo.export.onnx import export_onnx
from scalenet_zoo.latency.comparison import comparing, judging
from scalenet_zoo.latency.comparison.cells import best_rows
from scalenet_zoo.latency.comparison.page import write_table_page
from scalenet_zoo.latency.comparison.peak_memory import measure_here, peak_memory
from scalenet_zoo.latency.comparison.table import ComparedNetwork, ComparisonTable
from scalenet_zoo.zoo.model_folder import save_model
from tests.helpers.command import Run
from tests.helpers.data_files import picture, write_image_folder
from tests.helpers.networks import randomise
from tests.helpers.pages import Page
from tests.helpers.shapes import SPECS, Shapes

TINY = SPECS["classification"]
TASKS = ("classification", "pose")
LIMIT = 40
FAST: dict[str, Any] = {"threads": 1, "workers": 0, "warmup": 0, "seconds": 0, "runs": 2, "repeats": 2}
FLAGS = ("--threads", 1, "--workers", 0, "--warmup", 0, "--seconds", 0, "--runs", 2, "--repeats", 2, "--limit", LIMIT)
MEMORY = 3 * 2**20

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without a GPU")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache, which tests share, so that each finds what an earlier one exported."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Replace the measurement of memory, since a process that imports torch takes seconds."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(comparing, "peak_memory", lambda *arguments: MEMORY)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A network of random weights that calls its classes 0 to 9."""
    model: Any = randomise(create_model(TINY, num_classes=10))
    model.pretrained_cfg["labels"] = {"names": list("0123456789")}
    assert isinstance(model, nn.Module)
    return model.eval()


@pytest.fixture(scope="module")
def folder(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny"
    path.mkdir()
    save_model(network, path)
    return path


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photographs")
    for i in range(4):
        picture(i).save(path / f"{i}.png")
    return path


# --- what is in it --------------------------------------------------------------------------------


@without_gpu
@pytest.mark.slow
def test_a_table_of_every_precision_and_back_end(network: nn.Module, folder: Path, tmp_path: Path) -> None:
    seen: list[ComparisonTable] = []
    table = compare(
        folder,
        "digits",
        on=["torch", "ort-cpu", "ort-cuda"],
        precision=["fp32", "int8"],
        limit=LIMIT,
        output=tmp_path / "table.json",
        html=tmp_path / "table.html",
        on_results=seen.append,
        **FAST,
    )
    rows = {(row.precision, row.backend): row for row in table.rows}
    assert list(rows) == [(p, b) for p in ("fp32", "int8") for b in ("torch", "ort-cpu", "ort-cuda")]
    first, quantised = rows["fp32", "torch"], rows["int8", "ort-cpu"]
    expected = evaluate(network, "digits", limit=LIMIT, workers=0)
    assert first.accuracy == pytest.approx(expected.metrics["top1"])
    assert first.agreement is None  # others are compared with it
    for row in (first, rows["fp32", "ort-cpu"], quantised):
        assert row.error is None
        assert (row.images, row.memory_bytes, row.device, row.threads) == (LIMIT, MEMORY, "CPU", 1)
        assert row.latency is not None
        assert row.latency.median > 0
        assert row.accuracy is not None
        assert row.accuracy_error == pytest.approx((row.accuracy * (1 - row.accuracy) / LIMIT) ** 0.5)
        assert row.file is not None
    assert first.ratio is not None
    assert first.ratio.median == 1.0
    assert rows["fp32", "ort-cpu"].agreement == 1.0
    assert quantised.agreement is not None
    assert 0 < quantised.agreement <= 1
    metadata = Metadata.read(str(quantised.file))
    assert (metadata.options.precision, metadata.options.target) == ("int8", "ort-cpu")
    assert metadata.class_names == tuple("0123456789")
    assert quantised.file_bytes == Path(str(quantised.file)).stat().st_size
    assert first.file_bytes == (Path(str(first.file)) / "model.safetensors").stat().st_size
    assert rows["int8", "torch"].error == "`precision`: found int8, expected fp32 or fp16 with torch"
    for precision in ("fp32", "int8"):
        assert "no NVIDIA GPU" in str(rows[precision, "ort-cuda"].error) or "ONNX Runtime has no CUDA provider" in str(
            rows[precision, "ort-cuda"].error
        )
        assert rows[precision, "ort-cuda"].latency is None
    assert seen[-1] == table
    assert [sum(row.accuracy is not None for row in so_far.rows) for so_far in seen] == [0, 0, 1, 2, 3]
    written = json.loads((tmp_path / "table.json").read_text())
    assert written == json.loads(json.dumps(table.to_dict()))
    assert written["settings"]["data"] == "digits"
    page = Page(tmp_path / "table.html")
    assert [line[:3] for line in page.tables["table"][0][1:]] == [["tiny", p, b] for p, b in rows]


@pytest.mark.parametrize(
    "form",
    [
        {"batch": (1, 1, 1)},
        pytest.param({"preprocess": True, "output": "softmax"}, marks=pytest.mark.slow),
    ],
)
def test_files_have_rows_of_their_own(
    network: nn.Module, photographs: Path, tmp_path: Path, form: dict[str, Any]
) -> None:
    images = sorted(photographs.iterdir())
    int8: dict[str, Any] = {"precision": "int8", "target": "ort-cpu"}
    for name, options in {"whole.onnx": {}, "small.onnx": int8}.items():
        export_onnx(network, tmp_path / name, OnnxOptions(**form, **options), images, images)
    paths = [tmp_path / "whole.onnx", tmp_path / "small.onnx"]
    table = compare(paths, "digits", on=["torch", "ort-cpu"], precision="fp16", limit=LIMIT, **FAST)
    assert [(row.model, row.precision, row.backend) for row in table.rows] == [
        ("whole.onnx", "fp32", "ort-cpu"),
        ("small.onnx", "int8", "ort-cpu"),
    ]
    whole, small = table.rows
    assert whole.agreement is None
    assert small.agreement is not None
    assert 0.5 < small.agreement <= 1
    for row, path in zip(table.rows, paths, strict=True):
        assert row.file == str(path)
        assert row.accuracy == pytest.approx(evaluate(path, "digits", limit=LIMIT, workers=0).metrics["top1"])
    alone = compare(paths[1], "digits", on="torch", limit=LIMIT, **FAST).rows
    assert [(row.backend, row.agreement) for row in alone] == [("ort-cpu", None)]  # nothing to be compared with


@pytest.mark.slow
def test_openvino_is_a_back_end_like_others(folder: Path) -> None:
    if not find_backend("openvino").ready:
        pytest.skip(find_backend("openvino").about)
    made = compare(folder, "digits", on=["ort-cpu", "openvino"], precision=["fp32", "int8"], limit=LIMIT, **FAST).rows
    assert [row.error for row in made] == [None] * 4
    assert made[1].agreement == 1.0
    assert made[3].file is not None
    path = Path(made[3].file)
    assert made[3].file_bytes == sum(path.with_suffix(end).stat().st_size for end in (".xml", ".bin"))
    (given_row,) = compare(path, "digits", limit=LIMIT, **FAST).rows
    assert (given_row.backend, given_row.precision, given_row.error) == ("openvino", "int8", None)
    assert given_row.accuracy == made[3].accuracy


def test_without_a_row_in_fp32_the_network_itself_is_the_reference(network: nn.Module) -> None:
    (row,) = compare(network, "digits", on="torch", precision="fp16", limit=LIMIT, **FAST).rows
    assert row.agreement is not None
    assert row.agreement > 0.9


def test_a_network_that_does_not_know_the_classes_does_not_end_the_comparison(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        table = compare([TINY, folder], "digits", on="torch", precision="fp32", limit=8, **FAST)
    wrong, right = table.rows
    assert "digits: found 10 classes, expected 3 as tiny has" in str(wrong.error)
    assert wrong.latency is None
    assert right.error is None
    assert "the weights are initial, not trained" in caplog.text


def test_where_nothing_works_the_first_reason_is_the_error(tmp_path: Path) -> None:
    tables: list[ComparisonTable] = []
    with pytest.raises(BackendError) as caught:
        compare(TINY, "digits", on="torch", precision=["fp32", "int8"], on_results=tables.append, **FAST)
    assert "models: found none of 2 rows that can run here" in str(caught.value)
    assert "found 10 classes, expected 3" in str(caught.value)
    assert [bool(row.error) for row in tables[-1].rows] == [True, True]


def test_an_interrupt_leaves_what_was_measured(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[judging.Judgement] = []
    real = judging.judge

    def interrupted(*arguments: Any) -> Any:
        if judged:
            raise KeyboardInterrupt
        judged.append(real(*arguments))
        return judged[0]

    monkeypatch.setattr(comparing, "judge", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare(folder, "digits", precision="fp32", limit=8, output=tmp_path / "table.json", **FAST)
    first, second = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert first["accuracy"] == judged[0].accuracy
    assert second["latency"]["median"] > 0
    assert second["accuracy"] is None


def test_an_error_of_a_library_is_reported_in_its_row(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = judging.judge

    def failing(metadata: Any, opened: Any, *others: Any) -> Any:
        if opened.images.dtype == torch.float16:
            raise RuntimeError("\n  no kernel for halves\n  at line 3")
        return real(metadata, opened, *others)

    monkeypatch.setattr(comparing, "judge", failing)
    whole, half = compare(folder, "digits", on="torch", precision=["fp32", "fp16"], limit=8, **FAST).rows
    assert (whole.error, half.error) == (None, "RuntimeError: no kernel for halves")
    assert half.latency is not None


# --- calibration ----------------------------------------------------------------------------------


def test_images_to_calibrate_with_are_never_those_judged(folder: Path, tmp_path: Path) -> None:
    data = str(write_image_folder(tmp_path / "data", classes=("0", "1", "2"), count=3))
    with pytest.raises(BackendError, match=r"1/0\.png, which is in the split val|0\.png, which is in the split val"):
        compare(folder, data, on="ort-cpu", precision="int8", calibration=tmp_path / "data" / "val", **FAST)
    with pytest.raises(BackendError, match="found no training split besides train of"):
        compare(folder, data, on="ort-cpu", precision="int8", split="train", **FAST)
    examples = Shapes("classification", 4, "val")
    other: Any = randomise(create_model(TINY))
    other.pretrained_cfg["labels"] = examples.labels.to_cfg()
    with pytest.raises(BackendError, match="found no training split besides val of shapes"):
        compare(other, examples, on="ort-cpu", precision="int8", **FAST)


# --- memory ---------------------------------------------------------------------------------------


def test_memory_grows_with_the_weights(tmp_path: Path) -> None:
    wide = create_model(TINY, num_classes=400_000)  # 51 MB of weights: more than an allocator keeps of what was freed
    export_onnx(wide, tmp_path / "wide.onnx", OnnxOptions(batch=(1, 1, 1)))
    assert measure_here(tmp_path / "wide.onnx", "ort-cpu", "fp32", 1, 1) > 40 * 2**20


@pytest.mark.slow
def test_memory_is_that_of_a_fresh_process(network: nn.Module, folder: Path, tmp_path: Path) -> None:
    export_onnx(network, tmp_path / "tiny.onnx")
    for path, backend in ((tmp_path / "tiny.onnx", "ort-cpu"), (folder, "torch")):
        found = peak_memory(path, backend)
        assert found is not None
        assert 0 < found < 40 * 2**20
    (tmp_path / "tiny.onnx").write_bytes(b"nothing")
    assert peak_memory(tmp_path / "tiny.onnx", "ort-cpu") is None


# --- the page -------------------------------------------------------------------------------------


@pytest.fixture
def page(tmp_path: Path, network: nn.Module) -> Page:
    table = compare(network, "digits", on="torch", precision=["fp32", "fp16"], limit=8, **FAST)
    first, second = table.rows
    bad = ComparedNetwork("<b>&amp;</script>", "classification", "ort-cpu", "int8", 1, 8, 8, 10, 5, error="<i>why")
    rows = (first, replace(second, model="other"), bad)
    write_table_page(replace(table, rows=rows), tmp_path / "table.html")
    return Page(tmp_path / "table.html")


def test_the_page_is_self_contained_and_escaped(page: Page) -> None:
    header, *rows = page.tables["table"][0]
    assert header[:7] == ["model", "precision", "on", "best", "MACs", "top-1", "agreement"]
    assert [row[0] for row in rows] == ["tiny", "other", "<b>&amp;</script>"]
    assert rows[2][3:] == ["", "10", *["-"] * len(rows[2][5:])]
    assert "<i>why" in page.text["failures"]
    assert all(address.startswith("data:") for address in page.addresses)
    assert any(address.startswith("data:image/svg+xml") for address in page.addresses)
    script = page.source.rpartition("<script>")[2].partition("</script>")[0]
    policy = next(tag["content"] for name, tag in page.tags if tag.get("http-equiv") == "Content-Security-Policy")
    assert f"script-src 'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" in str(policy)
    assert "default-src 'none'" in str(policy)


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6), st.sampled_from(TASKS)), max_size=12))
def test_the_best_rows_are_those_that_no_other_beats(figures: list[tuple[int, int, Any]]) -> None:
    rows = [
        ComparedNetwork(
            f"{i}", task, "torch", "fp32", 1, 8, 8, 1, 1, latency=MeasuredLatency.of([[ms]]), accuracy=share / 6
        )
        for i, (ms, share, task) in enumerate(figures)
    ]
    unknown = ComparedNetwork("unknown", "pose", "torch", "int8", 1, 8, 8, 1, 1, error="no")
    best = best_rows([*rows, unknown])
    for row, (ms, share, task) in zip(rows, figures, strict=True):
        others = [(a, b) for a, b, other in figures if other == task and (a, b) != (ms, share)]
        assert (row in best) == (not any(a <= ms and b >= share for a, b in others))
    assert unknown not in best


@pytest.mark.slow
def test_rows_are_sorted_by_a_click(page: Page, tmp_path: Path) -> None:
    """In a browser, unknown values come last in both directions."""
    playwright = pytest.importorskip("playwright.sync_api")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no Chromium here")
    with playwright.sync_playwright() as started, started.chromium.launch(executable_path=browser) as opened:
        view = opened.new_page()
        complaints: list[str] = []
        view.on("console", lambda message: complaints.append(message.text))
        view.on("pageerror", lambda error: complaints.append(str(error)))
        view.goto((tmp_path / "table.html").as_uri())
        place = page.tables["table"][0][0].index("median ms")

        def column() -> list[str]:
            return [row.locator("td").nth(place).inner_text() for row in view.locator("tbody tr").all()]

        before = column()
        numbers = sorted((text for text in before if text != "-"), key=float)
        for expected in (numbers, numbers[::-1]):
            view.get_by_role("button", name="median ms").click()
            assert column() == [*expected, "-"]
        assert view.locator("th[aria-sort=descending]").inner_text().startswith("median ms")
        view.get_by_role("button", name="model").click()
        assert view.locator("tbody tr").first.locator("td").first.inner_text() == "<b>&amp;</script>"
        assert complaints == []


# --- the command ----------------------------------------------------------------------------------


def test_the_command_prints_the_table(run: Run, folder: Path, tmp_path: Path) -> None:
    code, out, err = run(
        "benchmark", folder, "--data", "digits", "--on", "torch", "--precision", "fp32,fp16,int8", *FLAGS,
        "--html", "page.html", "--output", "table.json",
    )  # fmt: skip
    assert code == 0, err
    assert "digits, split val, 40 images; weights: the models' own" in out
    lines = [line.split() for line in out.splitlines()]
    table = next(i for i, line in enumerate(lines) if line[:1] == ["model"])
    assert [line[:3] for line in lines[table + 1 : table + 4]] == [
        ["tiny", precision, "torch"] for precision in ("fp32", "fp16", "int8")
    ]
    assert "tiny int8 on torch: --precision: found int8, expected fp32 or fp16" in out
    assert f"wrote page.html ({(tmp_path / 'page.html').stat().st_size:,} bytes)" in out
    written = json.loads((tmp_path / "table.json").read_text())
    printed = run.json("benchmark", folder, "--data", "digits", "--on", "torch", "--precision", "fp32", *FLAGS)
    assert printed.keys() == written.keys()
    assert printed["rows"][0].keys() == written["rows"][0].keys()
    assert printed["rows"][0]["accuracy"] == written["rows"][0]["accuracy"]


def test_the_command_prints_what_an_interrupt_leaves(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(comparing, "judge", interrupted)
    code, out, _ = run("benchmark", folder, "--data", "digits", "--on", "torch", "--precision", "fp32", *FLAGS)
    assert code == 130
    assert [line.split()[:3] for line in out.splitlines()][-1] == ["tiny", "fp32", "torch"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--html", "a.html"), "--html: found it without --data, expected both"),
        (("--limit", "3"), "--limit: found it without --data, expected both"),
        (("--split", "val"), "--split: found it without --data, expected both"),
        (("--data", "digits", "--plot", "a.png"), "--plot: found it with --data, expected one of them"),
        (("--data", "digits", "--batch", "1,2"), "--batch: found 2 with --data, expected one"),
        (("--data", "digits", "--precision", "int4"), "--precision: found 'int4', expected fp32, fp16 or int8"),
        (("--data", "digits", "--calibration", "nowhere"), "--calibration: found no folder nowhere"),
        (("--data", "digits", "--on", "abacus"), "abacus: found no such back end"),
        (("--data", "nowhere"), "nowhere: found no such data"),
    ],
)
def test_what_the_command_refuses(run: Run, arguments: tuple[str, ...], message: str) -> None:
    _, error = run.error("benchmark", "scalenet_s0", *arguments)
    assert message in error


def test_what_the_function_refuses(tmp_path: Path, network: nn.Module) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    calls: dict[str, dict[str, Any]] = {
        "`models`: found none": {"models": []},
        "`batch`: found 0": {"batch": 0},
        "`warmup`: found nan": {"warmup": float("nan")},
        "`limit`: found it with open examples": {"data": Shapes("classification", 4), "limit": 2},
        "expected neither: a network has its own weights": {"models": network, "pretrained": True},
    }
    for message, arguments in calls.items():
        with pytest.raises(ZooError) as caught:
            compare(**{"models": TINY, "data": "digits", **arguments})
        assert message in str(caught.value)
        assert isinstance(caught.value, UsageError)
