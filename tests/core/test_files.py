"""Files appear whole or not at all; modules can be waited for."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scalenet_zoo import create_model
from scalenet_zoo.core.bounds import JSON_BYTES, MESSAGE_CHARACTERS, NESTING, YAML_BYTES
from scalenet_zoo.core.errors import EngineError, InputError, OutputError, TrainingError, ZooError
from scalenet_zoo.core.files import (
    SCRATCH,
    clear_leftovers,
    read_json,
    read_json_lines,
    read_lines,
    read_yaml,
    replacing,
    replacing_folder,
    scratch_folder,
)
from scalenet_zoo.core.import_hook import when_imported
from scalenet_zoo.core.quoting import printable, quoted
from scalenet_zoo.core.run_folder import LOCK, hold
from scalenet_zoo.zoo.weights import save_weights
from tests.helpers.processes import other_process


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
    """This process may write files of 1 MB at most for a while: every larger one meets a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
    try:
        with pytest.raises(OutputError, match="large: cannot be written: .*File too large"):
            save_weights(create_model("scalenet_s0"), tmp_path / "large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_files_beside_it_move_along(tmp_path: Path) -> None:
    with replacing(tmp_path / "model.onnx") as temporary:
        temporary.write_text("graph")
        temporary.with_name("model.onnx.data").write_text("weights")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]


def test_an_action_runs_once_its_module_is_imported() -> None:
    program = """
import sys
from scalenet_zoo.core.import_hook import when_imported
from scalenet_zoo.core.errors import OutputError
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


WAIT = "print('ready', flush=True); time.sleep(100)"
IMPORTS = (
    "import os, time; from pathlib import Path; from scalenet_zoo.core.files import *; "
    "from scalenet_zoo.core.locks import *; from scalenet_zoo.core.run_folder import *"
)


def test_a_folder_is_held_by_one_process_until_it_dies(tmp_path: Path) -> None:
    program = f"{IMPORTS}\nwith hold(Path({str(tmp_path / 'run')!r})):\n    {WAIT}"
    with other_process(program) as process:
        message = f"{tmp_path / 'run'}: found another process at work in it, expected one at a time"
        with pytest.raises(TrainingError, match=message), hold(tmp_path / "run"):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        with hold(tmp_path / "run"):
            assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK]
    assert list((tmp_path / "run").iterdir()) == []


def test_children_that_outlive_a_killed_holder_do_not_hold(tmp_path: Path) -> None:
    child = "print('ready', flush=True), time.sleep(100), os._exit(0)"
    program = f"{IMPORTS}\nwith hold(Path({str(tmp_path)!r})):\n    os.fork() or ({child}); time.sleep(100)"
    with other_process(program) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
        process.wait()
        try:
            with hold(tmp_path):
                assert [Path("/proc", child).exists() for child in children] == [True]
        finally:
            for child in children:
                os.kill(int(child), signal.SIGKILL)


@pytest.mark.parametrize("writer", ["replacing", "replacing_folder", "scratch_folder"])
@pytest.mark.parametrize("cleared_by", ["the next file", "the next run"])
def test_what_a_killed_process_left_is_removed_and_what_a_live_one_writes_is_not(
    writer: str, cleared_by: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    path = folder if writer == "scratch_folder" else folder / "model.onnx"
    begin = f"{IMPORTS}\nwith {writer}(Path({str(path)!r})) as new:\n    {WAIT}"
    with other_process(begin) as dead, other_process(begin):
        assert len(list(folder.glob(f"{SCRATCH}*"))) == 2
        dead.kill()
        dead.wait()
        if cleared_by == "the next run":
            clear_leftovers(tmp_path)
        else:
            with replacing(folder / "other.txt") as temporary:
                temporary.write_text("whole")
        assert len(list(folder.glob(f"{SCRATCH}*"))) == 1  # the folder of the live process
    clear_leftovers(tmp_path)
    assert not list(folder.glob(f"{SCRATCH}*"))


def test_a_writer_within_a_writer(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "model") as new, replacing(new / "weights") as temporary:
        temporary.write_text("whole")
    with scratch_folder() as scratch, replacing(scratch / "file") as outer, replacing(outer) as inner:
        inner.write_text("whole")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["weights"]


def test_errors_within_a_new_folder_name_the_folder(tmp_path: Path) -> None:
    def fail(path: Path, folder: Path) -> None:
        with replacing_folder(folder) as new, replacing(new / path):
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=f"^{tmp_path / 'model' / 'weights'}: cannot be written: No space left"):
        fail(Path("weights"), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def laughs(value: str) -> str:
    """YAML of 9^9 values in about 400 bytes, through anchors."""
    lines = [f"a0: &a0 [{', '.join([value] * 9)}]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("read", "content", "complaint"),
    [
        (read_json, b"[1, 2", "is not valid JSON"),
        (read_json, b'{"a": 1, "b": [2.5, 1e999]}', "b.1: found '1e999', expected a finite number"),
        (read_json, b'{"a": [1, {"b c": NaN}]}', "a.1.'b c': found NaN, expected a finite number"),
        (read_json, b"-Infinity", "the whole: found -Infinity, expected a finite number"),
        (read_json, b'{"a": [1, ' + b"9" * 400 + b"]}", "a.1: found an integer of 400 digits, expected one of 64 bits"),
        (read_json, b'{"a": 1, "a": 2}', "found the key 'a' twice in one object"),
        (read_json, b'{"a": "\xff"}', "is not UTF-8 text: found the byte 0xff"),
        (read_json, b"[" * 100_000, "is nested too deeply to be read"),
        (read_json, b"[" * (NESTING + 1) + b"]" * (NESTING + 1), "is nested too deeply to be read, expected at most"),
        (read_json, b" " * (JSON_BYTES + 1), "bytes, expected at most 8,388,608"),
        (read_yaml, b"name: &a [*a]", "found an anchor that contains itself"),
        (read_yaml, laughs("lr").encode(), "values with anchors expanded, expected at most 100,000"),
        (read_yaml, b"[" * 5000, "is nested too deeply to be read"),
        (read_yaml, b"a: 1\na: 2", "found the name 'a' twice"),
        (read_yaml, b"2024: 1", "found 2024 as the name of a value, expected text"),
        (read_yaml, b"a: 1\nepochs: " + b"9" * 400, "line 2: found '999"),
        (read_yaml, b"a: !!python/name:os.system", "is not valid YAML: could not determine a constructor"),
        (read_yaml, b"a: !!bool maybe", "is not valid YAML"),
        (read_yaml, b"a: \xff", "is not UTF-8 text"),
        (read_yaml, b" " * (YAML_BYTES + 1), "bytes, expected at most 1,048,576"),
        (read_json_lines, b'{"a": 1}\n3.5\n{"a": 2}\n', "line 2: found 3.5, expected an object"),
        (read_json_lines, b'{"a": 1}\n{"a": \xff}\n', "line 2: is not UTF-8 text"),
        (read_json_lines, b'{"a": 1\n{"a": 2}\n', "line 1: is not valid JSON"),
        (read_lines, b"a\n\xe9\n", "is not UTF-8 text: found the byte 0xe9"),
    ],
)
def test_files_that_readers_refuse_in_one_line(
    read: Callable[[Path], Any], content: bytes, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=".") as caught:
        read(path)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("read", [read_json, read_yaml, read_json_lines, read_lines])
def test_devices_and_pipes_are_not_opened(read: Callable[[Path], Any], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer, for ever
    for path, complaint in (
        (tmp_path / "pipe", "is not a regular file, expected one"),
        (Path("/dev/zero"), "is not a regular file, expected one"),
        (tmp_path, "is a directory, expected a file"),
        (tmp_path / "nothere", "cannot be read: No such file or directory"),
    ):
        with pytest.raises(ValueError, match=complaint):
            read(path)


@pytest.mark.parametrize(
    ("read", "content", "value"),
    [
        (read_json, b'\xef\xbb\xbf{"a": 18446744073709551615}', {"a": 2**64 - 1}),
        (read_yaml, b"\xef\xbb\xbflr: 1e-3", {"lr": 0.001}),
        (read_yaml, b"a: 1.5E+3\nb: .5\nc: -3\nd: 1_000", {"a": 1500.0, "b": 0.5, "c": -3, "d": 1000}),
        (read_yaml, b"a: 2024-01-01\nb: 1:30\nc: 010", {"a": "2024-01-01", "b": "1:30", "c": 10}),
        (read_yaml, b"a: &x {b: 1}\nc: {<<: *x, d: 2}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
        (read_json_lines, b'{"a": 1}\r\n{"a": 2}\n{"a": ', [{"a": 1}, {"a": 2}]),
        (read_lines, b"\xef\xbb\xbfa\r\n\r\n b \nc", ["a", "b", "c"]),
    ],
)
def test_files_that_readers_take(read: Callable[[Path], Any], content: bytes, value: object, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert read(path) == value


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mred", r"a\x1b[31mred"),
        ("two\nlines\r\x85\u2028", r"two\nlines\r\x85\u2028"),
        ("\u202eevil\udcff\x00", r"\u202eevil\udcff\x00"),
        (
            "Café, 犬, \U0001f468\u200d\U0001f469\u200d\U0001f467",
            "Café, 犬, \U0001f468\u200d\U0001f469\u200d\U0001f467",
        ),
    ],
)
def test_errors_show_what_controls_terminals(text: str, shown: str) -> None:
    assert printable(text) == shown
    for kind in (ZooError, InputError, OutputError, EngineError):  # one of them is an OSError, too
        assert str(kind(f"{text}: found it")) == f"{shown}: found it"


def test_quotations_and_errors_have_an_end() -> None:
    assert quoted([1, "a"]) == "[1, 'a']"
    assert len(quoted(["x" * 1000] * 1000)) <= 120
    message = str(InputError("file: " + "x" * 10**6 + ", expected less"))
    assert len(message) == MESSAGE_CHARACTERS
    assert message.startswith("file: xxx")
    assert message.endswith("xxx, expected less")
