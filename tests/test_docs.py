"""docs/*.md: their commands and programs run, in their order, and print and leave what the texts say.

Commands in `console` blocks run. Those in `sh` blocks need data, hardware or the Hub: they are parsed alone.
"""

import importlib.util
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import onnx
import pytest
import typer
import yaml

from scalenet_zoo.cli import app, main
from scalenet_zoo.data.image_files import sample_photographs
from scalenet_zoo.search.scalenas.config import ScaleNASConfig
from scalenet_zoo.search.scalenet.config import ScaleNetConfig
from scalenet_zoo.search.scalenet.limits import Limits
from scalenet_zoo.spaces.scalenet import Space
from tests.helpers.command import Run
from tests.helpers.docs import DOCS, PAGES, blocks, other_commands, page, run_commands


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the commands run: it has photos."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "photos").mkdir()
    for path in sample_photographs():
        shutil.copy(path, tmp_path / "photos")
    return tmp_path


def follow(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Run a page's commands in turn; each prints the lines that the page shows, in their order."""
    printed = []
    for shown in run_commands(page(name)):
        monkeypatch.setattr(sys, "argv", shlex.split(shown.command, comments=True))
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        assert not caught.value.code, f"{shown.command}: {err}"
        lines = iter(" ".join(line.split()) for line in out.splitlines())
        for line in shown.output:
            assert " ".join(line.split()) in lines, f"{shown.command}: {line!r} is not printed there:\n{out}"
        printed.append(out)
    assert printed
    return printed


@pytest.mark.slow
def test_the_quick_start_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert len(follow("index.md", monkeypatch, capsys)) == 3


@pytest.mark.nightly
def test_the_commands_of_choose_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    follow("choose.md", monkeypatch, capsys)
    assert (folder / "scalenet_1.2g.safetensors").exists()
    assert (folder / "tiny.html").exists()


@pytest.mark.nightly
def test_the_commands_of_deploy_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    pytest.importorskip("tensorrt_rtx")
    assert len(follow("deploy.md", monkeypatch, capsys)) >= 9
    (program,) = blocks(page("deploy.md"), "python")
    exec(compile(program, "deploy.md", "exec"), {})
    assert capsys.readouterr().out.strip()
    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {
        "s0.onnx",
        "s0-int8.onnx",
        "s0.engine",
        "s0.engine.json",
        "s0-int8.engine",
        "model_repository/scalenet_s0/config.pbtxt",
        "model_repository/scalenet_s0/labels.txt",
        "model_repository/scalenet_s0/1/model.onnx",
    } <= written


@pytest.mark.nightly
def test_the_commands_of_train_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    printed = follow("train.md", monkeypatch, capsys)
    assert len(printed) == 6
    assert float(re.search(r"top1 (0\.9\d+)", printed[0])[1]) > 0.95  # type: ignore[index]
    assert all((folder / "runs" / "digits" / name).exists() for name in ("best", "curves.png", "log.jsonl"))
    assert all("top-1 accuracy" in evaluated for evaluated in (printed[1], printed[3]))
    assert "china.jpg" in printed[4]


@pytest.mark.nightly
def test_the_commands_of_search_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    printed = follow("search.md", monkeypatch, capsys)
    assert len(printed) == 6
    assert all(f"digits_s{stage}" in printed[0] for stage in range(5))
    assert "digits_s1: classification" in printed[2]
    assert (folder / "runs" / "digits" / "report" / "index.html").exists()


@pytest.mark.slow
def test_the_first_program_of_python_runs(folder: Path) -> None:
    (program,) = blocks(page("python.md"), "python")
    known: dict[str, object] = {}
    exec(compile(program, "python.md", "exec"), known)
    assert len(known["branches"].feature_info.channels()) == 2  # type: ignore[attr-defined]


def test_the_examples_of_search_are_valid(capsys: pytest.CaptureFixture[str]) -> None:
    config, space, limits, inherit, streets = (yaml.safe_load(text) for text in blocks(page("search.md"), "yaml"))
    assert ScaleNetConfig.model_validate_json(json.dumps(config)).limits.macs == ("3M",)
    assert ScaleNetConfig.model_validate_json(json.dumps(config | inherit)).supernet.inherit == "tf_efficientnet_lite0"
    assert Space.from_values(space, "docs").resolutions == (32, 40, 48, 56)
    assert Limits.model_validate_json(json.dumps(limits["limits"])).amounts("latency", [0, 1, 2])[2] == 8.0
    multipath = ScaleNASConfig.model_validate_json(json.dumps(streets))
    assert multipath.supernet.make_recipe("segmentation").epochs == 200
    assert multipath.open_space().head == "segmentation"
    (program,) = blocks(page("search.md"), "python")
    exec(compile(program, "search.md", "exec"), {})
    assert float(capsys.readouterr().out) < 1e-5


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(DOCS)))
def test_every_command_of_a_page_can_be_parsed(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for line in other_commands(text) + [shown.command for shown in run_commands(text)]:
        words = shlex.split(line, comments=True)
        words = words[words.index("scalenet_zoo" if "scalenet_zoo" in words else words[0]) :]
        if words[0] in ("scalenet-zoo", "scalenet_zoo"):
            parse(words[1:])
    for name in re.findall(r"python -m (benchmarks\.\w+)", re.sub(r"\s+", " ", text)):
        assert importlib.util.find_spec(name), f"{path.name}: {name}"


def foreign(path: Path) -> None:
    """Write an ONNX file that is not of this package."""
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3]) for name in ("x", "y")]
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "made", values[:1], values[1:])), path)


def parse(words: list[str]) -> None:
    """Read a command's arguments and flags as the command line does, and run nothing."""
    group = typer.main.get_command(app)
    context = group.make_context("scalenet-zoo", list(words))
    while hasattr(group, "resolve_command"):
        name, group, rest = group.resolve_command(context, [*context._protected_args, *context.args])
        context = group.make_context(name, rest, parent=context)


def test_parsing_refuses_what_there_is_not() -> None:
    for words in (["build", "--flop", "600M"], ["explain"], ["train", "scalenet_s0"], ["supernet", "extracts", "a"]):
        with pytest.raises(typer.TyperException):
            parse(words)


def test_troubleshooting_shows_the_messages_as_they_are(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    foreign(tmp_path / "model.onnx")
    entries = [shown for shown in run_commands(page("troubleshooting.md")) if shown.output]
    assert len(entries) >= 15
    for shown in entries:
        _, message = run.error(*shlex.split(shown.command)[1:])
        assert shown.output == (f"error: {message}",), shown.command
