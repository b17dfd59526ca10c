"""docs/deploy.md: its commands and its program run, in their order, and leave what the text says."""

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from scalenet_zoo.cli import main
from scalenet_zoo.images import sample_photographs

TEXT = (Path(__file__).parents[1] / "docs" / "deploy.md").read_text(encoding="utf-8")
COMMANDS = [line.removeprefix("$ ") for line in TEXT.splitlines() if line.startswith("$ ") and "not run" not in line]
PROGRAM = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.slow
def test_the_commands_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for path in sample_photographs():
        shutil.copy(path, tmp_path / "photos")
    assert len(COMMANDS) >= 9
    for command in COMMANDS:
        monkeypatch.setattr(sys, "argv", shlex.split(command, comments=True))
        with pytest.raises(SystemExit) as caught:
            main()
        assert not caught.value.code, f"{command}: {capsys.readouterr().err}"
    capsys.readouterr()
    assert PROGRAM is not None
    exec(compile(PROGRAM[1], "deploy.md", "exec"), {})
    assert capsys.readouterr().out.strip()
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
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
