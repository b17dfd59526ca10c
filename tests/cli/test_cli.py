"""The command line: what it prints, what it writes, and how it fails."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from scalenet_zoo import ArchSpec, list_models, load_spec
from scalenet_zoo.core.version import __version__
from scalenet_zoo.data.image_files import sample_photographs
from scalenet_zoo.export.onnx import OnnxNetwork
from tests.helpers.bad_specs import BAD_MBCONV, BAD_MULTIPATH, corrupt
from tests.helpers.command import COMMAND, Run
from tests.helpers.networks import shallow

PHOTOGRAPH = str(sample_photographs()[1])
COMMANDS = [
    "list",
    "show",
    "build",
    "train",
    "evaluate",
    "export",
    "predict",
    "benchmark",
    "profile",
    "supernet train",
    "supernet extract",
    "search",
    "report",
    "pull",
    "push",
    "doctor",
]


# --- help -----------------------------------------------------------------------------------------


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"scalenet-zoo {__version__}\n", "")


def test_help_lists_the_commands(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert all(f"\n  {command.split()[0]} " in out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_and_json(run: Run, command: str) -> None:
    code, out, _ = run(*command.split(), "--help")
    assert code == 0
    assert out.count(f"Example: scalenet-zoo {command}") == 1
    assert "--json" in out


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_the_installed_command_starts_without_torch(flag: str) -> None:
    program = f"import sys, runpy; sys.argv = ['scalenet-zoo', '{flag}']\n"
    program += f"try: runpy.run_path('{COMMAND}', run_name='__main__')\nexcept SystemExit: pass\n"
    program += "print('torch' in sys.modules, 'numpy' in sys.modules, 'rich' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "False False False"


# --- list and show --------------------------------------------------------------------------------


def test_list(run: Run) -> None:
    code, out, _ = run("list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == list_models()
    assert run.json("list", "hrnet_*", "--task", "pose")[0]["cost"] == {"macs": 3_188_385_792, "params": 9_318_215}
    assert [entry["name"] for entry in run.json("list", "--pretrained")] == list_models(pretrained=True)
    assert all(entry["pretrained"] for entry in run.json("list", "--pretrained"))


@pytest.mark.parametrize("name", ["scalenet_s0", "scalenas_p1"])
def test_show_adds_up_per_stage_and_in_total(run: Run, name: str) -> None:
    spec = load_spec(name)
    code, out, _ = run("show", name)
    assert code == 0
    assert spec.hash in out
    rows = [line.split() for line in out.splitlines() if line.startswith("=")]
    total = next(row for row in rows if row[:2] == ["=", "total"])
    assert [int(cell.replace(",", "")) for cell in total[2:]] == [spec.cost.macs, spec.cost.params]

    shown = run.json("show", name)
    assert sum(layer["macs"] for layer in shown["layers"]) == spec.cost.macs
    assert shown["peak_activation_bytes"] == spec.trace.peak_activation_bytes
    stage = rows[0]
    members = [layer for layer in shown["layers"] if layer["stage"] == stage[1]]
    assert int(stage[2].replace(",", "")) == sum(layer["macs"] for layer in members)


def test_show_prints_what_load_reads(run: Run, tmp_path: Path) -> None:
    shown = run.json("show", "scalenas_p1")
    for extra in ("hash", "layers", "peak_activation_bytes", "published", "pretrained"):
        del shown[extra]
    assert ArchSpec.from_dict(shown, source="show") == load_spec("scalenas_p1")


# --- build, export, predict -----------------------------------------------------------------------


def test_build_at_a_budget_exports_and_predicts(run: Run, tmp_path: Path) -> None:
    built = run.json("build", "--flops", "120M", "--classes", 10, "--export", "onnx", "--output", tmp_path / "out")
    assert 0.97 * 120e6 <= built["cost"]["macs"] <= 120e6
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "scalenet_120m.json",
        "scalenet_120m.onnx",
        "scalenet_120m.safetensors",
    ]
    check = built["verification"]
    assert check["relative_difference"] < 1e-4
    assert built["trained"] is False
    for engine in ("torch", "onnxruntime"):
        assert len(check[engine]["predictions"]) == 5
        assert check[engine]["latency_ms"] > 0

    onnx = run.json("predict", PHOTOGRAPH, "--model", built["files"]["onnx"], "--top", 3)
    torch = run.json(
        "predict", PHOTOGRAPH, "--model", built["files"]["spec"], "--weights", built["files"]["weights"], "--top", 3
    )
    (ours,), (theirs,) = onnx.values(), torch.values()
    assert [row["class"] for row in ours] == [row["class"] for row in theirs]
    assert ours[0]["probability"] == pytest.approx(theirs[0]["probability"], rel=1e-4)

    code, out, _ = run("predict", PHOTOGRAPH, "--model", built["files"]["onnx"])
    assert code == 0
    assert "probability" in out.splitlines()[1]


def test_build_prints_both_results_their_difference_and_latencies(run: Run) -> None:
    code, out, err = run("build", "--flops", "100M", "--export", "onnx")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].startswith("scalenet_100m: ")
    assert [line.split()[1] for line in lines[1:4]] == [
        "scalenet_100m.json",
        "scalenet_100m.safetensors",
        "scalenet_100m.onnx",
    ]
    assert "not trained" in lines[4]
    assert sum(line.startswith("china.jpg") for line in lines) == 5
    latency = next(line for line in lines if line.startswith("latency"))
    assert latency.count(" ms") == 2
    assert "largest difference" in lines[-1]


def test_build_from_an_entry_is_reproducible(run: Run, tmp_path: Path) -> None:
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        code, out, _ = run("build", "scalenet_s0", "--in-channels", 1, "--seed", seed, "--output", tmp_path / folder)
        assert code == 0
        assert "scalenet_s0: 345.5M MACs" in out
    files = [tmp_path / folder / "scalenet_s0.safetensors" for folder in "abc"]
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    assert digests[0] == digests[1] != digests[2]
    assert ArchSpec.load(tmp_path / "a" / "scalenet_s0.json").input.channels == 1


def test_build_by_parameters_family_divisor_and_task(run: Run) -> None:
    assert 4.85e6 <= run.json("build", "--params", "5M")["cost"]["params"] <= 5e6
    assert run.json("build", "--flops", "300M", "--family", "efficientnet")["name"] == "efficientnet_300m"
    assert run.json("build", "--flops", "300M", "--divisor", 1)["provenance"]["details"]["divisor"] == 1
    assert run.json("build", "--flops", "4G", "--task", "pose")["name"] == "hrnet_w18_pose"


def test_export_and_predict_joints(run: Run, tmp_path: Path) -> None:
    spec = shallow("hrnet_w18_pose").replace(name="tiny", height=64, width=64)
    spec.save(tmp_path / "tiny.json")
    exported = run.json("export", "tiny.json", "--to", "onnx")
    assert exported["files"] == {"onnx": "tiny.onnx"}
    assert OnnxNetwork.load("tiny.onnx").spec == spec
    joints = run.json("predict", PHOTOGRAPH, PHOTOGRAPH, "--model", "tiny.onnx")[PHOTOGRAPH]
    assert [joint["joint"] for joint in joints] == list(range(17))
    assert all(-0.13 < joint["x"] < 1.13 for joint in joints)  # the crop is a quarter larger than the picture

    code, out, err = run("export", "tiny.json", "--output", "elsewhere/x.onnx")
    assert code == 0, err
    assert out.startswith("wrote elsewhere/x.onnx (")
    assert "not trained" in out


def test_predicting_with_initial_weights_is_said(run: Run) -> None:
    code, out, err = run("predict", PHOTOGRAPH, "--model", "scalenet_s0")
    assert code == 0
    assert "the weights are initial, not trained" in err
    assert run("predict", PHOTOGRAPH, "--model", "scalenet_s0") == (code, out, err)
    assert out.startswith(PHOTOGRAPH)


def test_doctor_tells_what_is_there_and_what_to_install(run: Run) -> None:
    found = run.json("doctor")
    assert found["versions"]["scalenet-zoo"] == __version__
    backends = found["backends"]
    assert list(backends) == [
        "torch",
        "torch-compile",
        "ort-cpu",
        "ort-cuda",
        "ort-tensorrt",
        "openvino",
        "tensorrt",
        "tensorrt-rtx",
    ]
    assert backends["torch"]["ready"]
    assert backends["ort-cpu"]["ready"]
    for backend in backends.values():
        assert backend["ready"] or "install" in backend["about"]
    code, out, _ = run("doctor")
    assert code == 0
    assert all(f"\n{name} " in out for name in backends)


def test_doctor_names_the_extra_of_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides the packages, which no machine of ours can have or lack at will."""
    from scalenet_zoo.core import backends

    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    found = {backend.name: backend for backend in backends.find_backends()}
    assert found["openvino"].about == "no package openvino: pip install 'scalenet-zoo[openvino]'"
    assert found["tensorrt"].about == "no package tensorrt: pip install 'scalenet-zoo[tensorrt]'"
    assert found["tensorrt-rtx"].about == "no package tensorrt_rtx: pip install 'scalenet-zoo[tensorrt-rtx]'"
    assert "pip install 'tensorrt<11'" in found["ort-tensorrt"].about
    assert found["torch-compile"].about == "no C++ compiler, which torch.compile needs: install g++"
    assert not any(found[name].ready for name in ("openvino", "tensorrt", "tensorrt-rtx", "torch-compile"))


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["600", "600X", "-5M", "nan"])
@pytest.mark.parametrize("flag", ["--flops", "--params"])
def test_budgets_that_cannot_be_read(run: Run, flag: str, text: str) -> None:
    code, message = run.error("build", f"{flag}={text}")
    assert code == 1
    assert message == f"{flag}: found {text!r}, expected a positive number with a unit K, M, G or T, such as 600M"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["show", "scalenet_s9"], 1, "scalenet_s9: found no such entry in the zoo and no such file; did you mean"),
        (
            ["build", "efficientnet_b9"],
            1,
            "efficientnet_b9: found no such entry in the zoo and no such file; did you mean",
        ),
        (["export", "hrnet_w64"], 1, "hrnet_w64: found no such entry"),
        (["predict", PHOTOGRAPH, "--model", "resnet50"], 1, "resnet50: found no such entry"),
        (["predict", "missing.jpg", "--model", "scalenet_s0"], 1, "missing.jpg: found no such file, expected an image"),
        (
            ["predict", PHOTOGRAPH, "--model", "missing.onnx"],
            1,
            "missing.onnx: cannot be read: No such file or directory",
        ),
        (["build", "scalenet_s0", "--pretrained"], 1, "scalenet_s0: found no published weights"),
        (
            ["build", "scalenet_s0", "--weights", "missing.safetensors"],
            1,
            "missing.safetensors: expected a file of weights",
        ),
        (["build", "--flops", "1M"], 1, "macs: found 1M, expected 100M to 20G for the family scalenet"),
        (["build", "--flops", "600M", "--family", "resnet"], 1, "resnet: found no such family for classification"),
        (["build", "--flops", "300G", "--task", "pose", "--divisor", "8"], 2, "Invalid value: found --divisor with"),
        (["build", "scalenet_s0", "--seed", "-1"], 2, "Invalid value for '--seed'"),
        (["build"], 2, "Invalid value: found none or several of SPEC, --flops, --params and --latency, expected"),
        (["build", "scalenet_s0", "--flops", "600M"], 2, "Invalid value: found none or several of SPEC"),
        (["build", "scalenet_s0", "--divisor", "1"], 2, "Invalid value: found --task, --family or --divisor with SPEC"),
        (["build", "--flops", "600M", "--export", "coreml"], 2, "Invalid value for '--export': "),
        (["build", "--flops", "600M", "--divisor", "0"], 2, "Invalid value for '--divisor': "),
        (["predict", PHOTOGRAPH], 2, "Missing option '--model'"),
        (
            ["predict", PHOTOGRAPH, "--model", "x.onnx", "--pretrained"],
            2,
            "Invalid value: found --pretrained or --weights",
        ),
        (["bild"], 2, "No such command 'bild'"),
        (["list", "--colour"], 2, "No such option"),
    ],
    ids=lambda x: " ".join(x)[-40:] if isinstance(x, list) else "",
)
def test_errors_are_one_line(run: Run, arguments: list[str], code: int, message: str, tmp_path: Path) -> None:
    found_code, found = run.error(*arguments)
    assert found_code == code
    assert found.startswith(message)
    assert list(tmp_path.iterdir()) == []  # nothing half-written stays behind


@pytest.mark.parametrize(
    "name",
    [
        "missing",
        "truncated",
        "empty",
        "binary",
        "duplicate",
        "nan",
        "endless",
        "deep",
        "deep_field",
        "huge",
        "directory",
        "pipe",
    ],
)
@pytest.mark.parametrize("command", ["show", "build", "export"])
def test_bad_spec_files_are_one_line(run: Run, tmp_path: Path, name: str, command: str) -> None:
    path = corrupt(tmp_path, name)
    code, message = run.error(command, path)
    assert code == 1
    assert message.startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("entry", "change", "complaint"),
    [("scalenet_s0", *case) for case in BAD_MBCONV] + [("scalenas_s1", *case) for case in BAD_MULTIPATH],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_bad_fields_are_one_line(run: Run, tmp_path: Path, entry: str, change: Any, complaint: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(change(json.loads(load_spec(entry).to_json()))))
    code, message = run.error("show", path)
    assert code == 1
    assert message.startswith(f"{path}: ")
    assert complaint.rstrip(" ") in message or "Infinity" in message


def test_a_spec_that_lies_about_its_cost_is_refused(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "lie.json"
    path.write_text(load_spec("scalenet_s0").to_json().replace("352691328", "300000000"))
    assert run.error("show", path) == (
        1,
        f"{path}: cost.macs: found 300000000, expected 352691328, the cost of this network",
    )


def test_output_that_cannot_be_written_is_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder.onnx").mkdir()
    assert run.error("build", "scalenet_s0", "--output", "file")[1].startswith(
        "file/scalenet_s0.json: cannot be written"
    )
    assert run.error("export", "scalenet_s0", "--output", "folder.onnx")[1].startswith("folder.onnx: is a directory")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.onnx"]


def test_without_arguments_help_is_printed(run: Run) -> None:
    assert run()[1] == run("--help")[1]


def test_a_name_of_two_lines_is_one_line(run: Run) -> None:
    assert run.error("show", "two\nlines")[1].startswith(r"two\nlines: found no such entry")


@pytest.mark.parametrize("stop", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupted_build_leaves_nothing_behind(tmp_path: Path, stop: signal.Signals) -> None:
    command = [str(COMMAND), "build", "--flops", "150M", "--export", "onnx", "--output", str(tmp_path)]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".*/files/*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(stop)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "error: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_a_full_standard_output_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run([COMMAND, "list"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.splitlines()[0] == "error: input or output: No space left on device"


def test_debug_shows_the_traceback(run: Run) -> None:
    code, _, err = run("show", "scalenet_s9", "--debug")
    assert code == 1
    assert err.startswith("Traceback (most recent call last)")
    assert err.splitlines()[-1].startswith("error: scalenet_s9: found no such entry")


def test_a_bug_is_one_line_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import scalenet_zoo.zoo.sources

    def broken(*_: object) -> None:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr(scalenet_zoo.zoo.sources, "load_spec", broken)
    assert run.error("show", "scalenet_s0") == (
        1,
        "unexpected ZeroDivisionError: two lines (a bug; --debug shows where)",
    )


def test_a_reader_that_stops_early_is_no_error() -> None:
    command = f"{COMMAND} list | head -1"
    result = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert result.stdout.startswith("name")
    assert result.stderr == ""


def test_what_files_say_does_nothing_to_a_terminal(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from scalenet_zoo.cli.console import print_table
    from scalenet_zoo.cli.progress import progress, progress_bar

    name = "a\x1b[31m\nb [/red] [bold]"
    with monkeypatch.context() as watched:
        watched.setattr("sys.stderr.isatty", lambda: True)
        with progress(name), progress_bar() as advance:
            advance(name, 1, 2)
        print_table(("class",), [(name,)], align="l")
    shown, drawn = capsys.readouterr()
    for text in (shown, drawn):
        assert r"a\x1b[31m\nb [/red] [bold]" in text

    spec = json.loads(load_spec("scalenet_s0").to_json())
    spec["provenance"]["source"] = name
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    assert r"source    a\x1b[31m\nb" in run("show", "spec.json")[1]
