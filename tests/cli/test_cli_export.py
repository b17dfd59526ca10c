"""`export`, `predict` and `profile` on the command line: what they write, and what they refuse."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from scalenet_zoo.core.errors import ZooError
from scalenet_zoo.data.image_files import sample_photographs
from scalenet_zoo.export.metadata import Metadata
from scalenet_zoo.export.tensorrt.record import read_engine
from scalenet_zoo.models.opening import open_model
from scalenet_zoo.zoo.sources import check_model, is_exported
from scalenet_zoo.zoo.weights import save_weights
from tests.helpers.command import Run
from tests.helpers.networks import random_model, shallow

PHOTOGRAPHS = sample_photographs()[0].parent


@pytest.fixture
def network(tmp_path: Path) -> list[str]:
    """A part of S0 with telling weights, as arguments."""
    spec = shallow("scalenet_s0").replace(name="mine")
    spec.save(tmp_path / "mine.json")
    save_weights(random_model(spec), tmp_path / "mine.safetensors")
    return ["mine.json", "--weights", "mine.safetensors"]


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def shapes(path: Path) -> list[list[Any]]:
    graph = onnx.load(path).graph
    return [
        [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (graph.input[0], graph.output[0])
    ]


@pytest.mark.slow
def test_size_batch_preprocessing_and_probabilities(run: Run, network: list[str], tmp_path: Path) -> None:
    printed = run.json(
        "export",
        *network,
        "--size",
        "64",
        "--batch",
        "1:2:4",
        "--with-preprocess",
        "--with-softmax",
        "--output",
        "a.onnx",
    )
    assert shapes(tmp_path / "a.onnx") == [["batch", 64, 64, 3], ["batch", 1000]]
    assert printed["verification"]["batch_sizes"] == [1, 2, 4]
    assert printed["files"] == {"onnx": "a.onnx"}
    options = Metadata.read(tmp_path / "a.onnx").options
    assert (options.batch, options.preprocess, options.output) == ((1, 2, 4), True, "softmax")
    rows = run.json("predict", PHOTOGRAPHS / "china.jpg", "--model", "a.onnx")
    best = rows[str(PHOTOGRAPHS / "china.jpg")]
    torch_best = printed["verification"]["torch"]["predictions"]
    assert [row["class"] for row in best] == [row["class"] for row in torch_best]
    assert best[0]["probability"] == pytest.approx(torch_best[0]["probability"], rel=1e-3)


def test_a_fixed_batch_is_filled_up_in_predict(run: Run, network: list[str], tmp_path: Path) -> None:
    run.json("export", *network, "--batch", "3", "--precision", "fp16", "--io", "fp16", "--output", "three.onnx")
    assert shapes(tmp_path / "three.onnx") == [[3, 3, 64, 96], [3, 1000]]
    fixed = run.json("predict", PHOTOGRAPHS / "china.jpg", "--model", "three.onnx")
    direct = run.json("predict", PHOTOGRAPHS / "china.jpg", "--model", *network)
    (ours,), (theirs,) = fixed.values(), direct.values()
    assert ours[0]["class"] == theirs[0]["class"]


@pytest.mark.parametrize(
    ("name", "flag", "keys"),
    [
        ("hrnet_w18", "--with-argmax", {"class", "share"}),
        pytest.param("hrnet_w18_pose", "--with-joints", {"person", "joint", "x", "y", "score"}, marks=pytest.mark.slow),
    ],
)
def test_dense_networks_decide_in_the_graph(run: Run, name: str, flag: str, keys: set[str], tmp_path: Path) -> None:
    model = random_model(shallow(name))
    shallow(name).save(tmp_path / "dense.json")
    save_weights(model, tmp_path / "dense.safetensors")
    run.json("export", "dense.json", "--weights", "dense.safetensors", flag, "--output", "dense.onnx")
    (rows,) = run.json("predict", PHOTOGRAPHS / "china.jpg", "--model", "dense.onnx").values()
    (direct,) = run.json(
        "predict", PHOTOGRAPHS / "china.jpg", "--model", "dense.json", "--weights", "dense.safetensors"
    ).values()
    assert set(rows[0]) == keys
    if flag == "--with-joints":
        for ours, theirs in zip(rows, direct, strict=True):
            assert ours["x"] == pytest.approx(theirs["x"], abs=0.02)
            assert ours["score"] == pytest.approx(theirs["score"], rel=1e-3)


def test_int8_needs_images_and_reports_agreement(run: Run, network: list[str], tmp_path: Path) -> None:
    code, message = run.error("export", *network, "--precision", "int8")
    assert code == 2
    assert message.endswith("found int8 without --calibration, expected a folder of images with it")
    photos = tmp_path / "photos"
    photos.mkdir()
    code, message = run.error("export", *network, "--precision", "int8", "--calibration", photos)
    assert message == f"{photos}: found no image files, expected some, such as .jpg or .png"
    (photos / "broken.jpg").write_bytes(b"no picture")
    code, message = run.error("export", *network, "--precision", "int8", "--calibration", photos)
    assert (
        "found 1 of 1 images that cannot be read, expected at most 1 and at least one that can; the first: " in message
    )
    assert message.endswith("broken.jpg: cannot be read as an image: its format is unknown")
    for path in sample_photographs():
        shutil.copy(path, photos)
    code, out, err = run(
        "export", *network, "--precision", "int8", "--calibration", photos, "--min-agreement", 0, "--output", "q.onnx"
    )
    assert code == 0, err
    assert "1 images cannot be read and are left out: broken.jpg" in err
    assert "agreement with the network: top-1" in out
    assert "on 2 images" in out
    assert (tmp_path / "q.onnx").stat().st_size < 0.35 * (tmp_path / "mine.safetensors").stat().st_size


def test_engines_for_gpus_that_are_not_here(run: Run, network: list[str], tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    flags = ["--to", "tensorrt-rtx", "--compute-capability", "8.9,12.0", "--batch", "1:2:4", "--output", "a.engine"]
    code, out, err = run("export", *network, *flags)
    assert code == 0, err
    assert names(tmp_path) == ["a.engine", "a.engine.json", "a.onnx", "mine.json", "mine.safetensors"]
    assert "batches 1:2:4\nfor compute capability 8.9, 12.0, not run here" in out
    record, _ = read_engine(tmp_path / "a.engine")
    assert record.batch == (1, 2, 4)
    # From the file it is the same engine, which stays; another one is refused until --rebuild.
    stamp = (tmp_path / "a.engine").stat().st_mtime_ns
    assert run.json("export", "a.onnx", *flags)["engine"]["precision"] == "fp32"
    assert (tmp_path / "a.engine").stat().st_mtime_ns == stamp
    code, message = run.error("export", "a.onnx", *flags, "--level", 2)
    assert "a.engine: is stale: level was" in message
    assert "--rebuild" in message
    assert run.json("export", "a.onnx", *flags, "--level", 2, "--rebuild")["engine"]["options"]["level"] == 2
    code, message = run.error("predict", PHOTOGRAPHS / "china.jpg", "--model", "a.engine")
    assert code == 1


def test_openvinos_ir(run: Run, network: list[str], tmp_path: Path) -> None:
    printed = run.json("export", *network, "--to", "openvino", "--with-softmax")
    assert printed["files"] == {"openvino": "mine.xml", "openvino_weights": "mine.bin"}
    assert names(tmp_path) == ["mine.bin", "mine.json", "mine.safetensors", "mine.xml"]
    check = printed["verification"]
    assert check["relative_difference"] < 1e-4
    assert check["openvino"]["latency_ms"] > 0
    photograph = str(PHOTOGRAPHS / "china.jpg")
    (found,) = run.json("predict", photograph, "--model", "mine.xml", "--top", 1)[photograph]
    best = check["openvino"]["predictions"][0]
    assert (found["class"], found["name"]) == (best["class"], best["name"])
    timing = ["--seconds", 0, "--warmup", 0, "--runs", 2, "--repeats", 2, "--threads", 1]
    (result,) = run.json("benchmark", "mine.xml", "--on", "openvino", *timing)["results"]
    assert (result["model"], result["backend"], result["device"]) == ("mine.xml", "openvino", "CPU")
    # What is asked for from files that cannot give it.
    _, message = run.error("export", "mine.xml", "--to", "tensorrt")
    assert "--to: found tensorrt for the file mine.xml, expected a network's name" in message
    _, message = run.error("show", "mine.xml")
    assert message.startswith(
        "mine.xml: is XML, maybe OpenVINO's IR, expected a spec (JSON) or a model folder; `predict"
    )
    _, message = run.error("predict", photograph, "--model", "none.xml")
    assert message.startswith("none.xml: cannot be read: No such file")
    (tmp_path / "mine.bin").unlink()
    _, message = run.error("predict", photograph, "--model", "mine.xml")
    assert message == "mine.bin: cannot be read: No such file or directory; mine.xml needs this file for its weights"


def test_a_model_repository(run: Run, network: list[str], tmp_path: Path) -> None:
    printed = run.json("export", *network, "--to", "triton", "--output", "repository")
    assert printed["files"] == {"triton": "repository/mine"}
    assert names(tmp_path / "repository") == ["mine/1/model.onnx", "mine/config.pbtxt", "mine/labels.txt"]
    assert names(tmp_path) == sorted(
        ["mine.json", "mine.safetensors", *(f"repository/{name}" for name in names(tmp_path / "repository"))]
    )


def test_operators_that_no_graph_has(run: Run, network: list[str], tmp_path: Path) -> None:
    _, found = run.error("export", *network, "--precision", "fp16", "--keep-fp32", "Nonsense")
    assert found.startswith("keep_fp32: found 'Nonsense', expected some of Conv, Gemm")
    assert names(tmp_path) == ["mine.json", "mine.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch", "0"], "--batch: found '0', expected a number of images such as 8"),
        (["--batch", "8:1:32"], "--batch: found '8:1:32', expected a number of images"),
        (["--batch", "1:8"], "--batch: found '1:8', expected a number of images"),
        (["--size", "10x"], "--size: found '10x', expected pixels such as 288"),
        (["--precision", "fp8"], "--precision: found 'fp8', expected fp32, fp16 or int8"),
        (["--io", "int8", "--precision", "fp16"], "--io: found 'int8', expected fp32 or fp16"),
        (["--with-softmax", "--with-argmax"], "found --with-softmax and --with-argmax, expected at most one"),
        (["--with-argmax"], "output: found argmax for scalenet_s0"),
        (["--on", "ort-cpu"], "--on: found it with --precision fp32, expected it with int8"),
        (["--auto", "--precision", "fp16"], "--auto: found it with --precision fp16, expected it with int8"),
        (["--io", "fp16"], "precision: found fp32 with io, expected fp16"),
        (["--keep-fp32", "Softmax"], "precision: found fp32 with keep_fp32, expected fp16 or int8"),
        (["--level", "3"], "--level: found it with --to onnx, expected it with --to tensorrt or tensorrt-rtx"),
        (["--rebuild", "--to", "triton"], "--rebuild: found it with --to triton"),
        (["--to", "tensorrt-rtx", "--compute-capability", "1.0"], "compute capability: found '1.0', expected some of"),
        (
            ["--to", "tensorrt-rtx", "--compute-capability", "x"],
            "compute capability: found 'x', expected a number such as 8.9",
        ),
        (["--to", "tensorrt-rtx", "--output", "a.onnx"], "--output: found a.onnx, expected a name for the engine"),
        (["--calibration", "nowhere", "--precision", "int8"], "nowhere: found no such folder"),
        (["--output", "/dev/null/a.onnx"], "/dev/null/a.onnx: cannot be written: "),
        (["--to", "openvino", "--output", "a"], "--output: found a, expected a name for OpenVINO's IR, NAME.xml"),
        (["--to", "openvino", "--output", "/dev/null/a.xml"], "/dev/null/a.xml: cannot be written: "),
        (["--to", "triton", "--output", "/dev/null"], "/dev/null/config.pbtxt: cannot be written: "),
        (["--weights", "none.safetensors"], "none.safetensors: cannot be read: No such file"),
    ],
)
def test_flags_that_make_no_sense(run: Run, arguments: list[str], message: str, tmp_path: Path) -> None:
    if "tensorrt-rtx" in arguments:
        pytest.importorskip("tensorrt_rtx")
    size = [] if "--size" in arguments else ["--size", "64"]
    code, found = run.error("export", "scalenet_s0", *size, *arguments)
    assert code in (1, 2)
    assert message in found
    assert names(tmp_path) == []


MODELS = [
    ("scalnet_s0", "scalnet_s0: found no such entry in the zoo and no such file; did you mean scalenet_s0, "),
    ("none.json", "none.json: cannot be read: No such file"),
    ("none.onnx", "none.onnx: cannot be read: No such file"),
    ("none.ONNX", "none.ONNX: cannot be read: No such file"),
    ("none.engine", "none.engine: cannot be read: No such file"),
    ("~/none.onnx", "/none.onnx: cannot be read: No such file"),
    ("folder.onnx", "folder.onnx: is a directory, expected a file"),
    ("pipe.onnx", "pipe.onnx: is not a regular file, expected one"),
    ("folder", "folder: found no config.json in it, expected a folder that `train` or `pull` wrote"),
    ("local-dir:none", "none: found no such folder, expected a folder that `train` or `pull` wrote"),
    ("hf-hub:a/b/c", "hf-hub:a/b/c: found 'a/b/c', expected org/name or org/name@revision after hf-hub:"),
    ("hf-hub:", "hf-hub:: found '', expected org/name or org/name@revision after hf-hub:"),
]


@pytest.mark.parametrize(("model", "complaint"), MODELS)
def test_names_of_models_that_lead_nowhere(run: Run, model: str, complaint: str, tmp_path: Path) -> None:
    for folder in ("folder", "folder.onnx"):
        (tmp_path / folder).mkdir()
    os.mkfifo(tmp_path / "pipe.onnx")
    code, found = run.error("export", model, *(["--to", "triton"] if is_exported(model) else []))
    assert code == 1
    assert complaint in found
    with pytest.raises(ZooError, match=re.escape(complaint)):
        check_model(model)
    with pytest.raises(ZooError, match=re.escape(complaint)):
        open_model(model)


def test_what_stands_before_a_file_of_the_same_name(run: Run, network: list[str], tmp_path: Path) -> None:
    """A name of the zoo comes first; an ONNX file is one whatever it is called."""
    run.json("export", *network, "--output", "a.ONNX")
    shutil.copy(tmp_path / "a.ONNX", tmp_path / "a")
    shutil.copy(tmp_path / "a.ONNX", tmp_path / "scalenet_s0")
    assert [is_exported(name) for name in ("a", "a.ONNX", "scalenet_s0", "mine.json")] == [True, True, False, False]
    rows = [run.json("predict", PHOTOGRAPHS / "china.jpg", "--model", name) for name in ("a", "a.ONNX")]
    assert rows[0] == rows[1]


WITHOUT_TORCH = """
import sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "timm", "onnxruntime"):
            raise RuntimeError(f"{name} was imported")
sys.meta_path.insert(0, Refused())
from scalenet_zoo.cli import main
main()
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scalnet_s0"], "scalnet_s0: found no such entry in the zoo"),
        (["none.onnx", "--to", "triton"], "none.onnx: cannot be read: No such file"),
        (["scalenet_s0", "--calibration", "nowhere"], "nowhere: found no such folder"),
        (["scalenet_s0", "--with-argmax"], "output: found argmax for scalenet_s0"),
        (["scalenet_s0", "--output", "/dev/null/a.onnx"], "/dev/null/a.onnx: cannot be written"),
        (["scalenet_s0", "--to", "tensorrt", "--compute-capability", "8"], "compute capability: found '8', expected"),
    ],
)
def test_names_paths_and_quantities_are_looked_at_before_torch_is_imported(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, "export", *arguments]
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert found.stderr.startswith(f"error: {message}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--to: found onnx for the file a.onnx, expected a network's name"),
        (["--to", "tensorrt-rtx", "--precision", "fp16"], "--precision: found it with the file a.onnx"),
        (
            ["--to", "triton", "--batch", "8"],
            "--batch: found it with the file a.onnx, expected none, since the file has its own",
        ),
        (["--to", "tensorrt-rtx", "--compute-capability", "8.9"], "a.onnx: cannot be read"),
        (["--to", "triton"], "a.onnx: cannot be read"),
    ],
)
def test_files_that_make_no_sense(run: Run, arguments: list[str], message: str, tmp_path: Path) -> None:
    if "tensorrt-rtx" in arguments:
        pytest.importorskip("tensorrt_rtx")
    (tmp_path / "a.onnx").write_bytes(b"\x08\x0a\x12 truncated")
    code, found = run.error("export", "a.onnx", *arguments)
    assert code in (1, 2)
    assert message in found
    assert names(tmp_path) == ["a.onnx"]


def test_tensorrt_says_what_is_missing(run: Run, network: list[str], tmp_path: Path) -> None:
    try:
        import tensorrt  # noqa: F401
    except Exception:
        code, message = run.error("export", *network, "--to", "tensorrt", "--output", "a.engine")
        assert code == 1
        assert message.startswith("tensorrt: cannot be used on this machine: no package tensorrt: pip install")
        assert names(tmp_path) == ["mine.json", "mine.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--on", "abacus"], "abacus"),
        (["--on", "ort-cpu", "--precision", "int4"], "--precision: found 'int4', expected fp32, fp16 or int8"),
        (["--on", "torch", "--precision", "int8"], "--precision: found int8 for a network on torch, expected it on"),
        (
            ["--on", "ort-cpu", "--output", "model.txt"],
            "--output: found model.txt, expected a file that ends with .json",
        ),
        (["--on", "ort-cpu", "--family", "resnet"], "resnet: found no such family"),
    ],
)
def test_profile_refuses(run: Run, arguments: list[str], message: str, tmp_path: Path) -> None:
    code, found = run.error("profile", *arguments)
    assert code in (1, 2)
    assert message in found
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--latency", "4ms"], "found one of --latency and --on, expected both"),
        (["--flops", "600M", "--on", "ort-cpu"], "found one of --latency and --on, expected both"),
        (["--flops", "600M", "--latency", "4ms"], "found none or several of SPEC, --flops, --params and --latency"),
        (["--flops", "600M", "--threads", "2"], "found --threads, --batch or --precision without --latency"),
        (
            ["--latency", "4", "--on", "ort-cpu"],
            "--latency: found '4', expected a positive number with a unit us, ms or s",
        ),
        (["--latency", "4ms", "--on", "abacus"], "abacus"),
        (["--latency", "4ms", "--on", "torch", "--size", "64"], "found --size with a classifier's budget"),
        (
            ["--latency", "4ms", "--on", "torch", "--precision", "int8"],
            "--precision: found int8 for a network on torch, expected it on ort-cpu or openvino",
        ),
    ],
)
def test_build_at_a_latency_refuses(run: Run, arguments: list[str], message: str, tmp_path: Path) -> None:
    code, found = run.error("build", *arguments)
    assert code in (1, 2)
    assert message in found
    assert names(tmp_path) == []


def test_truncated_pictures_are_told_by_name(run: Run, network: list[str], tmp_path: Path) -> None:
    content = (PHOTOGRAPHS / "china.jpg").read_bytes()
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(3):
        (photos / f"cut{i}.jpg").write_bytes(content[: len(content) // 2])
    Image.fromarray(np.zeros((40, 40, 3), dtype=np.uint8)).save(photos / "black.png")
    code, message = run.error("export", *network, "--precision", "int8", "--calibration", photos)
    assert code == 1
    assert (
        "found 3 of 4 images that cannot be read, expected at most 1 and at least one that can; the first: " in message
    )
    assert "cut0.jpg: cannot be read as an image: " in message
    assert json.dumps(names(tmp_path)).count("onnx") == 0
