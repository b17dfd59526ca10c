"""From `train` to the evaluated export on the command line, as README's tour goes, and what `train` refuses."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from scalenet_zoo import create_model
from scalenet_zoo.arch.labels import Labels
from scalenet_zoo.zoo.model_folder import save_model
from tests.helpers.command import Run
from tests.helpers.data_files import JOINTS, write_coco, write_image_folder
from tests.helpers.shapes import SPECS


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.json"
    SPECS["classification"].save(path)
    return path


FAST = ("--data", "digits", "--workers", "0", "--cpu")


def test_from_training_to_the_evaluated_export(run: Run, spec: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    trained = run.json("train", spec, *FAST, "--epochs", 4, "--lr", 1e-2, "--output", folder)
    assert trained["metric"] == "top1"
    assert trained["best"] > 0.6
    assert trained["best"] == pytest.approx(max(line["top1"] for line in log(folder) if line["kind"] == "val"))
    assert log(folder)[-1]["epoch"] == 4

    evaluated = run.json("evaluate", folder, "--data", "digits", "--workers", "0")
    assert evaluated["metrics"]["top1"] == pytest.approx(trained["best"])

    import PIL.Image

    digits = load_digits()
    picture = tmp_path / "three.png"
    PIL.Image.fromarray((digits.images[3] * 255 / 16).astype("uint8")).save(picture)
    predicted = run.json("predict", picture, "--model", folder)
    assert {row["name"] for row in predicted[str(picture)]} <= set("0123456789")

    onnx = tmp_path / "tiny.onnx"
    code, _, err = run("export", folder, "--output", onnx)
    assert code == 0, err
    exported = run.json("evaluate", onnx, "--data", "digits", "--workers", "0")
    assert exported["metrics"]["top1"] == pytest.approx(trained["best"], abs=1e-6)
    assert run.json("predict", picture, "--model", onnx)[str(picture)][0]["name"] == predicted[str(picture)][0]["name"]


def test_train_prints_a_line_per_epoch_and_the_next_commands(run: Run, spec: Path, tmp_path: Path) -> None:
    arguments = ("train", spec, *FAST, "--limit", 64, "--batch-size", 32, "--epochs", 3, "--output", "runs/my run")
    code, out, err = run(*arguments, "--val-interval", 2)
    assert code == 0, err
    folder = Path("runs/my run")
    epochs = [line for line in err.splitlines() if line.startswith("epoch ")]
    assert [line.split()[1] for line in epochs] == ["1/3", "2/3", "3/3"]
    assert ["top1" in line for line in epochs] == [False, True, True]
    means = {n: [x["loss"] for x in log(folder) if x["kind"] == "train" and n - 1 < x["epoch"] <= n] for n in (1, 2, 3)}
    for number, line in enumerate(epochs, 1):
        assert f"loss {sum(means[number]) / len(means[number]):.3g}" in line
        assert line.endswith(" images/s")
    best = max(line["top1"] for line in log(folder) if line["kind"] == "val")
    assert f"best {best:.4f}" in epochs[-1]
    assert out.startswith(f"best top1 {best:.4g} after epoch ")
    assert f"weights   {folder / 'best' / 'model.safetensors'}\n" in out
    assert (folder / "best" / "model.safetensors").is_file()
    following = [shlex.split(line)[1:] for line in out.split("next:\n")[1].splitlines()]
    assert [words[0] for words in following] == ["evaluate", "export", "predict"]
    Image.new("RGB", (20, 20), "white").save("IMAGE", "PNG")
    for words in following:
        code, _, err = run(*words)
        assert code == 0, err
    assert Path("drawn/IMAGE.png").is_file()


@pytest.mark.slow
def test_the_export_of_a_trained_network_is_checked_on_its_data(run: Run, spec: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run("train", spec, *FAST, "--limit", 64, "--epochs", 1, "--output", folder)[0] == 0
    exported = run.json("export", folder, "--output", tmp_path / "a.onnx")
    assert exported["verification"]["photograph"] == "val_0.png"
    (folder / "run.json").unlink()  # the spec still says that the data were the digits
    exported = run.json("export", folder / "best", "--output", tmp_path / "b.onnx")
    assert exported["verification"]["photograph"] == "val_0.png"
    pictures = write_image_folder(tmp_path / "pictures")
    source = f"imagefolder:{pictures}"
    command = ("train", spec, "--data", source, "--workers", 0, "--cpu", "--epochs", 1, "--batch-size", 2)
    code, _, err = run(*command, "--output", tmp_path / "own")
    assert code == 0, err
    exported = run.json("export", tmp_path / "own", "--output", tmp_path / "c.onnx")
    assert exported["verification"]["photograph"] == "val_0.png"
    pictures.rename(tmp_path / "elsewhere")
    exported = run.json("export", tmp_path / "own", "--output", tmp_path / "d.onnx")
    assert exported["verification"]["photograph"] == "china.jpg"  # the data are gone


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_flags_override_the_recipe_and_are_kept(run: Run, spec: Path, tmp_path: Path) -> None:
    import yaml

    arguments = (
        "train",
        spec,
        *FAST,
        "--limit",
        64,
        "--output",
        tmp_path / "run",
        "--epochs",
        1,
        "--clip-grad",
        "none",
    )
    code, _, err = run(
        *arguments, "--scale", 0.5, 0.9, "--train-size", "24x32", "--no-channels-last", "--aa", "rand-m3"
    )
    assert code == 0, err
    kept = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert kept["scale"] == [0.5, 0.9]
    assert kept["train_size"] == [24, 32]
    assert (kept["clip_grad"], kept["channels_last"], kept["aa"]) == (None, False, "rand-m3")
    assert kept["weight_decay"] == 0.02  # of the recipe `quick`
    code, out, _ = run(*arguments[:-4], "--recipe", tmp_path / "run" / "recipe.yaml", "--resume")
    assert code == 0
    assert "best top1" in out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--recipe", "slow"], "slow: found no such recipe, expected cityscapes, coco-pose"),
        (["--lr", "-1"], "flags: lr: found -1.0, expected greater than or equal to 0"),
        (["--clip-grad", "some"], "flags: clip_grad: found 'some', expected a valid number"),
        (["--rotation", "10"], "flags: rotation: found it for classification, expected it for segmentation or pose"),
        (["--classes", "7"], "found --classes 7, expected 10, as digits has"),
        (["--size", "big"], "--size: found 'big', expected pixels such as 288"),
        (["--train-size", "1x"], "--size: found '1x', expected pixels"),
        (["--data", "nowhere"], "nowhere"),
        (["--val-split", "exam"], "found no split exam, expected one of train, val"),
        (["--batch-size", "4000"], "digits: found 64 images of train, expected at least a batch of 4000"),
        (["--teacher", "efficientnet_b0"], "--teacher: found efficientnet_b0, expected hf-hub:org/name or a folder"),
        (["--amp", "fp16"], "amp: found fp16 without a GPU"),
        (["--amp", "fp8"], "flags: amp: found 'fp8', expected 'no', 'bf16' or 'fp16'"),
    ],
)
def test_what_train_refuses(run: Run, spec: Path, tmp_path: Path, arguments: list[str], complaint: str) -> None:
    code, err = run.error("train", spec, *FAST, "--limit", 64, "--output", tmp_path / "run", *arguments)
    assert code in (1, 2)
    assert complaint in err
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_run_teaches_another_and_is_not_overwritten(run: Run, spec: Path, tmp_path: Path) -> None:
    arguments = ("train", spec, *FAST, "--limit", 64, "--output", tmp_path / "run", "--epochs", 1)
    assert run(*arguments)[0] == 0
    taught = ("train", spec, *FAST, "--limit", 64, "--output", tmp_path / "taught", "--epochs", 1, "--seed", 1)
    assert run(*taught, "--teacher", tmp_path / "run")[0] == 0
    assert json.loads((tmp_path / "taught" / "run.json").read_text())["teacher"]
    code, err = run.error(*arguments)
    assert code == 1
    assert "found a run, expected a new folder, or --resume to continue it" in err


@pytest.mark.parametrize(
    ("names", "said", "kept"),
    [
        (JOINTS, "", [0, 1, 2, 3]),
        (JOINTS[::-1], "knows the joints of", [3, 2, 1, 0]),
        (("paw", *JOINTS[1:]), "knows other joints than", None),
    ],
)
def test_a_pose_network_keeps_what_it_knows_of_the_joints(
    run: Run,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    names: tuple[str, ...],
    said: str,
    kept: list[int] | None,
) -> None:
    for split in ("train", "val"):
        write_coco(tmp_path / "data", split)
    network: Any = create_model(SPECS["pose"], num_classes=len(JOINTS))
    with torch.no_grad():
        network.classifier.weight.copy_(torch.arange(4.0)[:, None, None, None].expand_as(network.classifier.weight))
    network.pretrained_cfg["labels"] = Labels(names=names).to_cfg()
    (tmp_path / "other").mkdir()
    save_model(network, tmp_path / "other")
    data = ("--data", tmp_path / "data", "--size", "32", "--batch-size", 2, "--workers", "0", "--cpu")
    arguments = (*data, "--epochs", 1, "--lr", 1e-9, "--warmup-epochs", 0, "--output", tmp_path / "run")
    code, _, err = run("train", tmp_path / "other", *arguments)
    assert code == 0, err
    assert ("its last layer" in caplog.text) is bool(said)
    assert said in caplog.text
    trained: Any = create_model(tmp_path / "run")
    assert Labels.of(trained.pretrained_cfg).names == JOINTS
    first = trained.classifier.weight[:, 0, 0, 0].tolist()
    assert (first == pytest.approx(kept, abs=1e-3)) is (kept is not None)
    if kept is None:  # the new layer depends on the seed alone
        torch.manual_seed(7)
        run("train", tmp_path / "other", *arguments[:-1], tmp_path / "again")
        again: Any = create_model(tmp_path / "again")
        assert torch.equal(again.classifier.weight, trained.classifier.weight)


def test_what_was_done_is_told_without_paths_of_this_machine(run: Run, spec: Path, tmp_path: Path) -> None:
    root = write_image_folder(tmp_path / "somewhere" / "pets")
    data = ("--data", f"imagefolder:{root}", "--batch-size", 4, "--workers", 0, "--cpu", "--epochs", 1)
    code, _, err = run("train", spec, *data, "--output", tmp_path / "run")
    assert code == 0, err
    told = (tmp_path / "run" / "best" / "spec.json").read_text()
    assert str(tmp_path) not in told
    provenance = json.loads(told)["provenance"]
    assert provenance["details"]["training"]["data"] == "imagefolder:pets"
    assert {result["data"] for result in provenance["results"]} == {"imagefolder:pets val"}
    assert " --data imagefolder:pets " in provenance["details"]["training"]["command"]
    assert provenance["details"]["training"]["command"].endswith(" --output run")
    kept = json.loads((tmp_path / "run" / "run.json").read_text())
    assert kept["training"][0] == f"imagefolder:{root}"  # what a run that goes on is compared with


EARLY = {
    "a recipe": (["--recipe", "nothere.yaml"], "nothere.yaml: cannot be read: No such file"),
    "a value": (["--epochs", "0"], "flags: epochs: found 0, expected greater than or equal to 1"),
    "a size": (["--size", "0"], "--size: found '0', expected pixels"),
    "a network": (["nothere"], "nothere: found no such entry in the zoo"),
    "a folder of data": (["--data", "imagefolder:nothere"], "imagefolder:nothere: found nothing at nothere"),
    "a file's data": (["--data", "torch:cifar10:~/nothere"], "torch:cifar10:~/nothere: found nothing at /"),
    "a kind of data": (["--data", "images:nothere"], "images:nothere: found no such data, expected a folder or digits"),
    "data of another task": (["hrnet_w32"], "digits: found no such data for segmentation"),
    "a value for another task": (["--rotation", "3"], "flags: rotation: found it for classification"),
    "weights": (["--weights", "nothere.safetensors"], "nothere.safetensors: cannot be read: No such file"),
    "a teacher": (["--teacher", "nothere"], "--teacher: found nothere, expected hf-hub:org/name or a folder"),
    "a run": (["--output", "run"], "run: found a run, expected a new folder, or --resume"),
    "what is left of a run": (["--output", "left"], "left: found checkpoints without run.json"),
    "a file to write to": (["--output", "file"], "file: is a file, expected a folder to write"),
}

EACH = """
import json, sys
from contextlib import redirect_stderr
from io import StringIO
from scalenet_zoo.cli import main
told = {}
for name, arguments in json.loads(sys.argv[1]).items():
    sys.argv = ["scalenet-zoo", "train", *arguments]
    with redirect_stderr(StringIO()) as told[name]:
        try:
            main()
        except SystemExit as stopped:
            assert stopped.code
    assert "torch" not in sys.modules, name
print(json.dumps({name: text.getvalue() for name, text in told.items()}))
"""


@pytest.fixture(scope="module")
def told_early(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a process without torch says to each command of `EARLY`."""
    folder = tmp_path_factory.mktemp("early")
    (folder / "run").mkdir()
    (folder / "run" / "run.json").write_text("{}")
    (folder / "left" / "checkpoints" / "00000001").mkdir(parents=True)
    (folder / "file").write_text("")
    commands = {}
    for name, (arguments, _) in EARLY.items():
        given = arguments if not arguments[0].startswith("--") else ["scalenet_s0", *arguments]
        commands[name] = given + [
            part
            for flag, value in (("--data", "digits"), ("--output", "new"))
            if flag not in arguments
            for part in (flag, value)
        ]
    done = subprocess.run(
        [sys.executable, "-c", EACH, json.dumps(commands)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not (folder / "new").exists()
    told: dict[str, str] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize("what", EARLY)
def test_what_takes_no_time_is_looked_at_before_torch_is_imported(what: str, told_early: dict[str, str]) -> None:
    assert EARLY[what][1] in told_early[what]
    assert told_early[what].startswith("error: ")
    assert told_early[what].count("\n") == 1
