"""Recipes: files, flags, and values that are not valid."""

import subprocess
import sys
from pathlib import Path

import pytest
from timm.optim import list_optimizers

from scalenet_zoo.core.errors import InputError
from scalenet_zoo.training.recipe import Recipe, load_recipe, recipe_names


def test_the_package_has_the_recipes_that_the_help_names() -> None:
    assert recipe_names() == ["cityscapes", "coco-pose", "finetune", "imagenet", "quick", "tiles"]


@pytest.mark.parametrize("name", ["cityscapes", "coco-pose", "finetune", "imagenet", "quick", "tiles"])
def test_recipes_of_the_package_are_valid(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe != Recipe()
    assert recipe.opt in list_optimizers()


def test_a_recipe_survives_its_yaml(tmp_path: Path) -> None:
    import yaml

    recipe = Recipe(scale=(0.2, 0.9), train_size=(96, 128), clip_grad=1.0, aa="rand-m5")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(recipe.to_dict()))
    assert load_recipe(path) == recipe


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("lr: fast", "lr: found 'fast', expected a valid number"),
        ("epochs: 0", "epochs: found 0, expected greater than or equal to 1"),
        ("epochs: 2.5", "epochs: found 2.5, expected a valid integer"),
        ("lr: .nan", "lr: found nan, expected a finite number"),
        ("hflip: 2", "hflip: found 2, expected less than or equal to 1"),
        ("scale: 0.5", "scale: found 0.5, expected two numbers"),
        ("scale: [1.0]", "scale: found [1.0], expected two numbers"),
        ("scale: [small, 1.0]", "scale.0: found 'small', expected a valid number"),
        ("scale: [1.0, 0.5]", "scale: found [1.0, 0.5], expected the smaller number first"),
        ("ratio: [0, 0.5]", "ratio.0: found 0, expected greater than or equal to 0.001"),
        ("clip_grad: some", "clip_grad: found 'some', expected a valid number"),
        ("lr: -1\nepochs: 0", "epochs: found 0, expected greater than or equal to 1 (and 1 more)"),
        ("amp: fp8", "amp: found 'fp8', expected 'no', 'bf16' or 'fp16'"),
        ("channels_last: 1", "channels_last: found 1, expected a valid boolean"),
        ("opt: 3", "opt: found 3, expected a valid string"),
        ("epoch: 3", "epoch: found no such field, expected one that `train --help` shows; did you mean epochs"),
        (
            "Batch-Size: 3",
            "Batch-Size: found no such field, expected one that `train --help` shows; did you mean batch_size",
        ),
        (f"{'x' * 300}: 1", "found no such field, expected one that `train --help` shows"),
        ("seed: -1", "seed: found -1, expected greater than or equal to 0"),
        ("- 3", "found no fields with values"),
        ("3: 4", "found 3 as the name of a value, expected text"),
        ("a: [", "is not valid YAML"),
        ("lr: .inf", "lr: found inf"),
        ("lr: 1.0e400", "lr: found inf"),
        (f"epochs: {'9' * 400}", "expected a float or a 64-bit integer"),
        (f"lr: {'9' * 300}.0", "lr: found 1e+300, expected less than 18446744073709552000"),
        ("train_size: [100000, 32]", "train_size.0: found 100000, expected less than or equal to 65536"),
        ("name: &a [*a]", "found an anchor that contains itself"),
        ("2024-01-01: 3", "2024-01-01: found no such field"),
        ("lr: 2024-01-01", "lr: found '2024-01-01', expected a valid number"),
        ("lr: 1.0\nlr: 2.0", "found the name 'lr' twice"),
        ("aa: rand-m9-x3", "aa: found 'rand-m9-x3', expected one such as rand-m9-mstd0.5"),
        (f"opt: [{', '.join(['x' * 100] * 100)}]", "opt: found ['xxx"),
        ("!!python/object/apply:os.system ['true']", "is not valid YAML"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    assert complaint in str(caught.value)
    assert "bad.yaml" in str(caught.value)


def test_a_recipe_is_read_as_people_write_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("amp: no\nlr: 1e-3\nscale: [5e-1, 1]\naa: augmix-m5-w4-d2\nclip_grad: null\n", encoding="utf-8-sig")
    recipe = load_recipe(path)
    assert (recipe.lr, recipe.scale, recipe.aa, recipe.clip_grad) == (0.001, (0.5, 1.0), "augmix-m5-w4-d2", None)


@pytest.mark.parametrize("value", [10**400, -(10**400), 2**64, float("inf"), float("nan"), True, "3", None])
@pytest.mark.parametrize("name", ["epochs", "lr"])
def test_numbers_beyond_all_bounds_are_refused(name: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"recipe: {name}: found .{{1,80}}, expected (a|less|greater) ") as caught:
        Recipe().replace({name: value})
    assert len(str(caught.value)) < 250


def test_a_recipe_says_what_matters_for_a_task() -> None:
    whole, of_pose = Recipe().to_dict(), Recipe().to_dict("pose")
    assert set(whole) - set(of_pose) == {
        *("distill_temperature", "smoothing", "mixup", "cutmix", "aa", "reprob", "scale", "ratio"),
        *("ohem_threshold", "ohem_keep", "own_resolution"),
    }
    assert of_pose.items() <= whole.items()


def test_missing_recipes_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: found no such recipe, expected cityscapes, .* or a YAML file"):
        load_recipe("nowhere")
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read: No such file"):
        load_recipe(tmp_path / "none.yaml")


def test_values_for_another_task_are_refused() -> None:
    with pytest.raises(
        InputError, match="flags: rotation: found it for classification, expected it for segmentation or pose"
    ):
        Recipe().check_task("classification", ["epochs", "rotation"], "flags")


def test_every_field_says_what_it_means() -> None:
    assert all(str(field.description).endswith(".") for field in Recipe.model_fields.values())


def test_a_recipe_is_read_without_torch_and_numpy() -> None:
    program = "import sys, scalenet_zoo.training.recipe as r; r.load_recipe('quick');"
    program += "print([name for name in ('torch', 'timm', 'numpy') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
