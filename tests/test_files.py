"""Files appear whole or not at all; modules can be waited for."""

import subprocess
import sys
from pathlib import Path

import pytest

from scalenet_zoo._files import replacing
from scalenet_zoo._import_hook import when_imported
from scalenet_zoo.errors import OutputError


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


def test_files_that_cannot_be_written_are_one_line(tmp_path: Path) -> None:
    def write(path: Path, text: str = "new") -> None:
        with replacing(path) as temporary:
            temporary.write_text(text)

    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="folder: is a directory, expected a file to write"):
        write(tmp_path / "folder")
    with pytest.raises(OutputError, match="file/below: cannot be written: Not a directory|File exists"):
        write(tmp_path / "file" / "below")
    with pytest.raises(OutputError, match="cannot be written: File name too long"):
        write(tmp_path / ("long" * 100))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that can be made small")
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    """A process of its own may write files of 1 MB at most: to it every larger one meets a full disk."""
    program = f"""
import resource, signal
from pathlib import Path
from scalenet_zoo import create_model
from scalenet_zoo.errors import OutputError
from scalenet_zoo.export.onnx import export_onnx
from scalenet_zoo.weights import save_weights
model = create_model("scalenet_s0", img_size=32)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
for write in (save_weights, export_onnx):
    try:
        write(model, Path({str(tmp_path)!r}) / "large")
    except OutputError as error:
        print(error)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    lines = [line for line in result.stdout.splitlines() if "large: cannot be written: " in line]
    assert len(lines) == 2, result.stdout
    assert all("File too large" in line for line in lines)
    assert list(tmp_path.iterdir()) == []


def test_files_beside_it_move_along(tmp_path: Path) -> None:
    with replacing(tmp_path / "model.onnx") as temporary:
        temporary.write_text("graph")
        temporary.with_name("model.onnx.data").write_text("weights")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]


def test_an_action_runs_once_its_module_is_imported() -> None:
    program = """
import sys
from scalenet_zoo._import_hook import when_imported
from scalenet_zoo.errors import OutputError
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
