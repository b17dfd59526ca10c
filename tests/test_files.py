"""Files appear whole or not at all; modules can be waited for."""

import subprocess
import sys
from pathlib import Path

import pytest

from scalenet_zoo._files import replacing
from scalenet_zoo._import_hook import when_imported


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"
    with replacing(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
        assert temporary.suffix == ".txt"
    assert target.read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")

    def fail() -> None:
        with replacing(target) as temporary:
            temporary.write_text("new")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_files_beside_it_move_along(tmp_path: Path) -> None:
    with replacing(tmp_path / "model.onnx") as temporary:
        temporary.write_text("graph")
        temporary.with_name("model.onnx.data").write_text("weights")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]


def test_an_action_runs_once_its_module_is_imported() -> None:
    program = """
import sys
from scalenet_zoo._import_hook import when_imported
done = []
before = list(sys.meta_path)
when_imported("colorsys", lambda: done.append(sys.modules["colorsys"].rgb_to_hsv(0, 0, 1)))
when_imported("no_such_module", lambda: done.append("never"))
import json.decoder, fractions
assert done == [] and "colorsys" not in sys.modules
import colorsys
import colorsys
assert done == [colorsys.rgb_to_hsv(0, 0, 1)], done
try:
    import no_such_module
except ModuleNotFoundError:
    pass
when_imported("colorsys", lambda: done.append("at once"))
assert done[1:] == ["at once"]
assert [f for f in sys.meta_path if f not in before and f.name == "colorsys"] == []
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_action_runs_at_once_for_a_module_that_is_there() -> None:
    done: list[str] = []
    when_imported("sys", lambda: done.append("done"))
    assert done == ["done"]
