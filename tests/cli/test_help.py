"""Help: commands in the order of work, options in groups, and the recipe that `train` uses."""

import re
from pathlib import Path

import pytest
import yaml

from scalenet_zoo.cli import COMMANDS
from scalenet_zoo.cli.recipe import PANELS
from scalenet_zoo.training.recipe import Recipe, load_recipe, read_recipe
from tests.helpers.command import Run

ALL = [name for group in COMMANDS.values() for name in group if name != "supernet"]
ALL += ["supernet train", "supernet extract"]


def test_the_order_of_work(run: Run) -> None:
    lines = run("--help")[1].splitlines()
    headings = [line.rstrip(":") for line in lines if re.fullmatch(r"\S.*:", line)]
    assert headings == [*COMMANDS, "Options"]
    shown = [found[1] for line in lines if (found := re.match(r"  ([a-z]+)  ", line))]
    assert shown == [name for group in COMMANDS.values() for name in group]
    described = [line.split(maxsplit=1)[1] for line in lines if re.match(r"  [a-z]+  ", line)]
    assert all(text.endswith(".") and not text.endswith("...") for text in described)


@pytest.mark.parametrize("command", ["", "supernet", *ALL])
def test_help_begins_with_one_sentence_and_fits(run: Run, command: str) -> None:
    code, out, _ = run(*command.split(), "--help")
    assert code == 0
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    first = " ".join(out.split("\n\n")[1].split())
    assert re.fullmatch(r"[A-Z][^.]*\.", first)
    assert len(re.findall(rf"^  Example: scalenet-zoo {command}.*$", out, re.MULTILINE)) == 1


@pytest.mark.parametrize(
    ("command", "headings"),
    [
        ("train", ["Data", "Weights", "The run", "Recipe", *PANELS]),
        ("export", ["The file", "Inputs and outputs of the file", "fp16 and int8", "TensorRT", "Weights"]),
        ("build", ["Budget", "Where latency is measured", "The network", "Weights", "Files"]),
        ("search", ["The run", "Budget", "Where latency is measured"]),
    ],
)
def test_options_are_in_groups(run: Run, command: str, headings: list[str]) -> None:
    found = re.findall(r"^(\S.*):$", run(command, "--help")[1], re.MULTILINE)
    assert found == ["Arguments", *headings, "Options"]


# --- the recipe -----------------------------------------------------------------------------------


def test_each_field_of_a_recipe_is_in_one_group() -> None:
    assert sorted(field for fields in PANELS.values() for field in fields) == sorted(Recipe.model_fields)


def test_help_has_the_values_of_the_default_recipe(run: Run) -> None:
    text = " ".join(run("train", "--help")[1].split())
    assert re.search(r"--lr <float> [^\[]*\[quick: 0\.002\]", text)
    assert re.search(r"--opt-eps VALUE\|none [^\[]*\[quick: none\]", text)


def test_show_recipe_prints_a_recipe_that_train_takes(run: Run, tmp_path: Path) -> None:
    arguments = (
        "train",
        "scalenet_s0",
        "--data",
        "digits",
        "--recipe",
        "imagenet",
        "--lr",
        0.25,
        "--clip-grad",
        "none",
    )
    code, out, err = run(*arguments, "--show-recipe")
    assert (code, err) == (0, "")
    shown = yaml.safe_load(out)
    (tmp_path / "mine.yaml").write_text(out)
    expected = load_recipe("imagenet").replace({"lr": 0.25, "clip_grad": None})
    assert load_recipe(tmp_path / "mine.yaml").to_dict("classification") == expected.to_dict("classification")
    assert shown.keys() == expected.to_dict("classification").keys()
    origins = {line.split(":")[0]: line.split("# ")[1] for line in out.splitlines()}
    assert {name for name, origin in origins.items() if origin.startswith("--")} == {"lr", "clip_grad"}
    stated = set(read_recipe("imagenet")) - {"lr", "clip_grad"}
    assert {name for name, origin in origins.items() if origin == "recipe imagenet"} == stated & shown.keys()
    assert run.json(*arguments, "--show-recipe")["lr"] == {"value": 0.25, "origin": "--lr"}
    assert not Path("runs").exists()


def test_show_recipe_refuses_what_train_refuses(run: Run) -> None:
    arguments = ("train", "scalenet_s0", "--data", "digits", "--show-recipe")
    assert run.error(*arguments, "--rotation", 10)[1].startswith("flags: rotation: found it for classification")
    assert run.error(*arguments, "--recipe", "slow")[1].startswith("slow: found no such recipe")
