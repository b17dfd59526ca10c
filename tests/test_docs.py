"""docs/*.md: their commands and programs run, in their order, and leave what the texts say."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from scalenet_zoo.cli import main
from scalenet_zoo.data.image_files import sample_photographs
from scalenet_zoo.search.scalenas.config import ScaleNASConfig
from scalenet_zoo.search.scalenet.config import ScaleNetConfig
from scalenet_zoo.search.scalenet.limits import Limits
from scalenet_zoo.spaces.scalenet import Space

DOCS = Path(__file__).parents[1] / "docs"
DEPLOY = (DOCS / "deploy.md").read_text(encoding="utf-8")
TRAIN = (DOCS / "train.md").read_text(encoding="utf-8")
SEARCH = (DOCS / "search.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(text: str) -> list[str]:
    return [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ") and "not run" not in line]


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the commands run: it has photos."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for path in sample_photographs():
        shutil.copy(path, tmp_path / "photos")
    return tmp_path


def run(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", shlex.split(command, comments=True))
    with pytest.raises(SystemExit) as caught:
        main()
    printed = capsys.readouterr()
    assert not caught.value.code, f"{command}: {printed.err}"
    return printed.out


@pytest.mark.nightly
def test_the_commands_of_deploy_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    pytest.importorskip("tensorrt_rtx")
    assert len(commands(DEPLOY)) >= 9
    for command in commands(DEPLOY):
        run(command, monkeypatch, capsys)
    (program,) = blocks(DEPLOY, "python")
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
    printed = [run(command, monkeypatch, capsys) for command in commands(TRAIN)]
    assert len(printed) == 6
    assert printed[0].startswith("best top1 0.9")
    assert all((folder / "runs" / "digits" / name).exists() for name in ("best", "curves.png", "log.jsonl"))
    assert all("top-1 accuracy" in evaluated for evaluated in (printed[2], printed[4]))
    assert "china.jpg" in printed[5]


@pytest.mark.nightly
def test_the_commands_of_search_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    printed = [run(command, monkeypatch, capsys) for command in commands(SEARCH)]
    assert len(printed) == 6
    assert all(f"digits_s{stage}" in printed[0] for stage in range(5))
    assert "digits_s1: classification" in printed[2]
    assert printed[3].startswith("best top1")
    assert (folder / "runs" / "digits" / "report" / "index.html").exists()


def test_the_examples_of_search_are_valid(capsys: pytest.CaptureFixture[str]) -> None:
    config, space, limits, streets = (yaml.safe_load(text) for text in blocks(SEARCH, "yaml"))
    assert ScaleNetConfig.model_validate_json(json.dumps(config)).limits.macs == ("3M",)
    assert Space.from_values(space, "docs").resolutions == (32, 40, 48, 56)
    assert Limits.model_validate_json(json.dumps(limits["limits"])).amounts("latency", [0, 1, 2])[2] == 8.0
    multipath = ScaleNASConfig.model_validate_json(json.dumps(streets))
    assert multipath.supernet.make_recipe("segmentation").epochs == 200
    assert multipath.open_space().head == "segmentation"
    (program,) = blocks(SEARCH, "python")
    exec(compile(program, "search.md", "exec"), {})
    assert float(capsys.readouterr().out) < 1e-5
