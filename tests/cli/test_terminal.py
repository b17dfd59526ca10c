"""What commands print in a terminal of 80 columns: every name and every number is whole."""

import json
import re
from pathlib import Path

import pytest
import torch

from scalenet_zoo import create_model, list_models, load_spec
from scalenet_zoo.arch.layer_table import layer_table
from scalenet_zoo.core.quantities import format_count
from scalenet_zoo.latency.comparison.cells import figure_text
from scalenet_zoo.zoo.model_folder import save_model
from scalenet_zoo.zoo.published import published_entries
from tests.helpers.command import Run
from tests.helpers.shapes import SPECS
from tests.helpers.terminal import WIDTH, Terminal


@pytest.fixture
def terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    return Terminal(monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small classifier for digits, with initial weights."""
    torch.manual_seed(0)
    model = create_model(SPECS["classification"].replace(name="a_small_classifier_of_digits", classes=10))
    folder = tmp_path_factory.mktemp("models") / "a_small_classifier_of_digits"
    save_model(model, folder)
    return folder


def check_widths(lines: list[str]) -> None:
    assert max(map(len, lines)) <= WIDTH
    assert not any("…" in line for line in lines)


def test_list(terminal: Terminal) -> None:
    lines = terminal("list")
    check_widths(lines)
    rows = {line.split()[0]: line.split() for line in lines[1:] if line[:1].strip()}
    published = published_entries()
    for name in list_models():
        spec = load_spec(name)
        size = f"{spec.input.height}x{spec.input.width}"
        assert rows[name][1:4] == [size, format_count(spec.cost.macs), format_count(spec.cost.params)]
        if name in published:
            assert rows[name][5].rstrip(",") == published[name].default.tag
    assert lines[-1] == "columns left out at 80 characters: reported, task; --json has all"


@pytest.mark.parametrize("name", ["scalenet_s0", "efficientnet_b0", "scalenas_p1", "hrnet_w48"])
def test_show(terminal: Terminal, name: str) -> None:
    lines, spec = terminal("show", name), load_spec(name)
    check_widths(lines)
    printed = [line.split() for line in lines]
    for layer in layer_table(spec):
        size = "x".join(map(str, layer.output))
        row = next(words for words in printed if words[:1] == [layer.name])
        assert row[-3:] == [size, f"{layer.macs:,}", f"{layer.params:,}"]
    assert ["=", "total", f"{spec.cost.macs:,}", f"{spec.cost.params:,}"] in printed
    assert ["hash", spec.hash] in printed


def test_evaluate(terminal: Terminal, run: Run, folder: Path) -> None:
    arguments = ("evaluate", folder, "--data", "digits", "--workers", "0", "--limit", "50")
    expected = run.json(*arguments)["metrics"]
    lines = terminal(*arguments)
    check_widths(lines)
    assert lines[0].startswith("a_small_classifier_of_digits on digits val: 50 images, ")
    for name, value in (("top-1 accuracy", "top1"), ("top-5 accuracy", "top5"), ("calibration error", "ece")):
        assert [*name.split(), f"{expected[value]:.2%}"] in [line.split() for line in lines]


def test_export_and_benchmark(terminal: Terminal, folder: Path) -> None:
    file = "a_small_classifier_of_digits.onnx"
    lines = terminal("export", folder)
    check_widths(lines)
    assert re.fullmatch(rf"wrote {file} \([\d,]+ bytes\)", lines[0])
    text = " ".join(" ".join(lines).split())
    figure = r"\d(\.\d+)?(e-\d+)?"
    assert re.search(rf"largest difference {figure}, {figure} of the largest output; root mean square {figure} ", text)
    header = next(line for line in lines if "PyTorch" in line)
    assert header.split() == ["PyTorch", "ONNX", "Runtime"]
    latency = next(line for line in lines if line.startswith("latency"))
    assert len(re.findall(r"\d+\.\d\d ms", latency)) == 2
    check_benchmark(terminal, file, "--on", "ort-cpu")


def check_benchmark(terminal: Terminal, *models: object) -> None:
    quick = ("--warmup", "0", "--seconds", "0", "--runs", "1", "--repeats", "2", "--output", "results.json")
    lines = terminal("benchmark", *models, "--threads", "1", "--batch", "1,2", *quick)
    check_widths(lines)
    results = json.loads(Path("results.json").read_text())["results"]
    assert len(results) > 1
    rows = [line.split() for line in lines if line.startswith(results[0]["model"])]
    for result, row in zip(results, rows, strict=True):
        assert {result["model"], str(result["batch"]), f"{result['ratio']['median']:.3f}"} <= set(row)
        assert figure_text(result["latency"]["median"]) in row
    assert any(line.startswith("columns left out at 80 characters: p99") for line in lines)


@pytest.mark.slow
def test_benchmark_on_two_back_ends(terminal: Terminal, folder: Path) -> None:
    check_benchmark(terminal, folder, "--on", "torch,ort-cpu")


@pytest.mark.nightly
def test_benchmark_with_data(terminal: Terminal, folder: Path) -> None:
    quick = ("--warmup", "0", "--seconds", "0", "--runs", "1", "--repeats", "2", "--output", "table.json")
    lines = terminal("benchmark", folder, "--on", "torch,ort-cpu", "--data", "digits", "--limit", "64", *quick)
    check_widths(lines)
    text = "\n".join(lines)
    rows = [row for row in json.loads(Path("table.json").read_text())["rows"] if row["latency"]]
    assert len(rows) >= 3
    for row in rows:
        for figure in (figure_text(row["latency"]["median"]), f"{row['ratio']['median']:.3f}"):
            assert re.search(rf"(?<!\S){re.escape(figure)}(?!\S)", text)


@pytest.mark.parametrize("width", [20, 40, 200])
def test_other_widths_lose_no_name(run: Run, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    lines = Terminal(monkeypatch, width)("list", "scalenet*")
    assert [line.split()[0] for line in lines[1:7]] == list_models("scalenet*")[:6]
    assert {format_count(load_spec(name).cost.macs) for name in list_models("scalenet*")} <= set(
        " ".join(lines).split()
    )


def test_nothing_is_left_out_of_a_pipe(run: Run) -> None:
    code, out, _ = run("list")
    assert code == 0
    for entry in run.json("list"):
        line = next(line for line in out.splitlines() if line.startswith(f"{entry['name']} "))
        assert entry["task"] in line.split()
    assert "left out" not in out
