"""The recipe of `train` in the terminal: the groups of its flags, and what `--show-recipe` prints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scalenet_zoo.arch.spec import Task

DEFAULT = "quick"
"""The recipe that `train` uses if none is given; help shows its values."""
PANELS: Mapping[str, tuple[str, ...]] = {
    "Recipe, schedule": (
        "epochs",
        "batch_size",
        "grad_accum_steps",
        "sched",
        "lr",
        "warmup_epochs",
        "warmup_lr",
        "min_lr",
        "decay_epochs",
        "decay_milestones",
        "decay_rate",
    ),
    "Recipe, optimiser": (
        "opt",
        "opt_eps",
        "weight_decay",
        "momentum",
        "layer_decay",
        "clip_grad",
        "model_ema_decay",
    ),
    "Recipe, computation": (
        "amp",
        "channels_last",
        "torchcompile",
        "broken_limit",
        "seed",
    ),
    "Recipe, loss and regularisation": (
        "drop",
        "drop_path",
        "smoothing",
        "distill_weight",
        "distill_temperature",
        "ohem_threshold",
        "ohem_keep",
        "heatmap_sigma",
    ),
    "Recipe, augmentation": (
        "mixup",
        "cutmix",
        "aa",
        "reprob",
        "color_jitter",
        "hflip",
        "scale",
        "ratio",
        "resize",
        "rotation",
        "train_size",
        "own_resolution",
    ),
}
"""The fields of `Recipe` under the headings that `train --help` shows."""


def panel_of(field: str) -> str:
    """Return the heading of a recipe's field."""
    return next(panel for panel, fields in PANELS.items() if field in fields)


def default_of(field: str) -> str:
    """Format the value of a field in the recipe that `train` uses if none is given."""
    value = _default().to_dict()[field]
    return "none" if value is None else _text(value)


@dataclass(frozen=True)
class RecipeValue:
    """A value of a recipe.

    Attributes:
        field: the field of `Recipe`.
        value: its value, as in YAML.
        origin: the source of the value: a flag, the recipe, or the field's default.
    """

    field: str
    value: Any
    origin: str


def recipe_values(source: str | Path, flags: Mapping[str, Any], task: "Task") -> list[RecipeValue]:
    """List the values of the recipe that a training would use, in the order of `train --help`.

    Args:
        source: the recipe, by name or as a YAML file.
        flags: the fields that flags override.
        task: the task of the network; fields for other tasks are left out.

    Raises:
        InputError: there is no such recipe, a value is not valid, or a flag is for another task.
    """
    from scalenet_zoo.training.recipe import load_recipe, read_recipe

    recipe = load_recipe(source).replace(flags, "flags")
    recipe.check_task(task, flags, "flags")
    stated, values = read_recipe(source), recipe.to_dict(task)

    def origin(field: str) -> str:
        if field in flags:
            return f"--{field.replace('_', '-')}"
        return f"recipe {source}" if field in stated else "default"

    fields = [field for panel in PANELS.values() for field in panel if field in values]
    return [RecipeValue(field, values[field], origin(field)) for field in fields]


def recipe_text(values: Sequence[RecipeValue]) -> str:
    """Format a recipe as YAML; a comment after each value states its origin."""
    return "\n".join(f"{f'{each.field}: {_text(each.value)}':<32}  # {each.origin}" for each in values)


@cache
def _default() -> Any:  # noqa: ANN401 - a Recipe, whose module is imported late
    from scalenet_zoo.training.recipe import load_recipe

    return load_recipe(DEFAULT)


def _text(value: object) -> str:
    """Format a value of a recipe as YAML in one line."""
    import yaml

    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()
