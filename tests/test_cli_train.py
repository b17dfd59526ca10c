"""From `train` to the evaluated export on the command line, as README's tour goes, and what `train` refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits

from scalenet_zoo import create_model
from scalenet_zoo.labels import Labels
from scalenet_zoo.model_folder import save_model
from tests.data_files import JOINTS, write_coco
from tests.shapes import SPECS
from tests.test_cli import Run, run  # noqa: F401 - a fixture


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.json"
    SPECS["classification"].save(path)
    return path


FAST = ("--data", "digits", "--workers", "0", "--cpu")


def test_from_training_to_the_evaluated_export(run: Run, spec: Path, tmp_path: Path) -> None:  # noqa: F811
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


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_flags_override_the_recipe_and_are_kept(run: Run, spec: Path, tmp_path: Path) -> None:  # noqa: F811
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
        (["--lr", "-1"], "flags: lr: found -1.0, expected a number, 0 or more"),
        (["--clip-grad", "some"], "flags: clip_grad: found 'some', expected a number"),
        (["--rotation", "10"], "flags: rotation: found it for classification, expected it for segmentation or pose"),
        (["--classes", "7"], "found --classes 7, expected 10, as digits has"),
        (["--size", "big"], "--size: found 'big', expected pixels such as 288"),
        (["--train-size", "1x"], "--size: found '1x', expected pixels"),
        (["--data", "nowhere"], "nowhere"),
        (["--val-split", "exam"], "found no split exam, expected one of train, val"),
        (["--batch-size", "4000"], "digits: found 64 images of train, expected at least a batch of 4000"),
        (["--teacher", "efficientnet_b0"], "--teacher: found efficientnet_b0, expected hf-hub:org/name or a folder"),
        (["--amp", "fp16"], "amp: found fp16 without a GPU"),
        (["--amp", "fp8"], "flags: amp: found 'fp8', expected one of no, bf16, fp16"),
    ],
)
def test_what_train_refuses(run: Run, spec: Path, tmp_path: Path, arguments: list[str], complaint: str) -> None:  # noqa: F811
    code, err = run.error("train", spec, *FAST, "--limit", 64, "--output", tmp_path / "run", *arguments)
    assert code in (1, 2)
    assert complaint in err
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_run_teaches_another_and_is_not_overwritten(run: Run, spec: Path, tmp_path: Path) -> None:  # noqa: F811
    arguments = ("train", spec, *FAST, "--limit", 64, "--output", tmp_path / "run", "--epochs", 1)
    assert run(*arguments)[0] == 0
    taught = ("train", spec, *FAST, "--limit", 64, "--output", tmp_path / "taught", "--epochs", 1, "--seed", 1)
    assert run(*taught, "--teacher", tmp_path / "run")[0] == 0
    assert json.loads((tmp_path / "taught" / "run.json").read_text())["teacher"]
    code, err = run.error(*arguments)
    assert code == 1
    assert "found a run, expected a new folder, or --resume to go on with it" in err


@pytest.mark.parametrize("same", [True, False])
def test_a_pose_network_that_knows_other_joints_has_a_new_head(run: Run, tmp_path: Path, same: bool) -> None:  # noqa: F811
    for split in ("train", "val"):
        write_coco(tmp_path / "data", split)
    network: Any = create_model(SPECS["pose"], num_classes=len(JOINTS))
    with torch.no_grad():
        network.classifier.weight.fill_(7.0)
    names = JOINTS if same else JOINTS[::-1]
    network.pretrained_cfg["labels"] = Labels(names=names).to_cfg()
    (tmp_path / "other").mkdir()
    save_model(network, tmp_path / "other")
    data = ("--data", tmp_path / "data", "--size", "32", "--batch-size", 2, "--workers", "0", "--cpu")
    arguments = (*data, "--epochs", 1, "--lr", 1e-9, "--output", tmp_path / "run")
    code, _, err = run("train", tmp_path / "other", *arguments)
    assert code == 0, err
    assert ("knows other joints than" in err) is not same
    trained: Any = create_model(tmp_path / "run")
    assert Labels.of(trained.pretrained_cfg).names == JOINTS
    assert bool((trained.classifier.weight > 6).all()) is same
