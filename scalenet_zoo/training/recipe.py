"""Recipes: how a network is trained, as YAML files in `recipes/` and as flags of `train`; names are timm's."""

import dataclasses
import difflib
import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from scalenet_zoo.core.bounds import INTEGER, QUOTED_CHARACTERS
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.quoting import elide, quoted

if TYPE_CHECKING:
    from scalenet_zoo.arch.spec import Task

CLASSIFICATION, SEGMENTATION, POSE = "classification", "segmentation", "pose"
DENSE = (SEGMENTATION, POSE)


_POLICY = re.compile(
    r"(original|originalr|v0|v0r|3a)(-mstd\d+(\.\d+)?)?"
    r"|rand(-(m|n|mmax|inc)\d{1,2}|-(mstd|p)\d+(\.\d+)?|-t(weights|3aw?|default))*"
    r"|augmix(-[mwdb]\d{1,2}|-(mstd|a)\d+(\.\d+)?)*"
)
"""Policies of augmentation that timm knows."""


def _value(
    default: object,
    about: str,
    low: float | None = None,
    high: float | None = None,
    tasks: Iterable[str] = (),
    pattern: re.Pattern[str] | None = None,
) -> Any:  # noqa: ANN401 - as dataclasses.field
    """A field: its default, what it means, its range, the tasks that it is for (none: all), and the form of a text."""
    metadata = {"about": about, "low": low, "high": high, "tasks": tuple(tasks), "pattern": pattern}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; each field is a flag of `train`, and its metadata say what it means."""

    epochs: int = _value(100, "Times that every image is seen.", low=1)
    batch_size: int = _value(128, "Images of a step, over all processes.", low=1)
    grad_accum_steps: int = _value(1, "Parts that a step's images are worked on in.", low=1)
    opt: str = _value("adamw", "The optimiser, by timm's name.")
    opt_eps: float | None = _value(None, "The optimiser's epsilon; the optimiser's own if not given.", low=0)
    lr: float = _value(1e-3, "The highest learning rate.", low=0)
    weight_decay: float = _value(0.05, "Of weights; biases and norms have none.", low=0)
    momentum: float = _value(0.9, "Of optimisers that have one.", low=0, high=1)
    layer_decay: float | None = _value(
        None, "The learning rate of a layer, as a share of the next one's.", low=0, high=1
    )
    clip_grad: float | None = _value(None, "The largest norm of the gradient.", low=0)
    sched: str = _value("cosine", "The schedule of the learning rate, by timm's name.")
    warmup_epochs: float = _value(0.0, "Epochs in which the learning rate rises.", low=0)
    warmup_lr: float = _value(1e-6, "Where it starts to rise.", low=0)
    min_lr: float = _value(0.0, "Where it ends.", low=0)
    decay_epochs: float = _value(30.0, "Epochs between decays, of schedules in steps.", low=1e-3)
    decay_milestones: tuple[float, float] = _value(
        (30.0, 60.0), "Epochs of the decays of the schedule multistep.", low=0
    )
    decay_rate: float = _value(0.1, "The factor of a decay; the power of the schedule poly.", low=0)
    amp: Literal["no", "bf16", "fp16"] = _value("no", "Mixed precision.")
    channels_last: bool = _value(True, "Keep images with their channels innermost.")
    torchcompile: bool = _value(False, "Compile the network with torch.compile.")
    model_ema_decay: float | None = _value(
        None, "Keep a moving average of the weights, with this decay.", low=0, high=1
    )
    drop: float = _value(0.0, "Dropout before the classifier.", low=0, high=1)
    drop_path: float = _value(0.0, "Stochastic depth at the last layer.", low=0, high=1)
    distill_weight: float = _value(1.0, "Of the teacher in the loss, where there is one.", low=0)
    distill_temperature: float = _value(1.0, "Of a classifier's teacher.", low=1e-3, tasks=[CLASSIFICATION])
    smoothing: float = _value(0.0, "Label smoothing.", low=0, high=0.999, tasks=[CLASSIFICATION])
    mixup: float = _value(0.0, "Mixup's alpha.", low=0, tasks=[CLASSIFICATION])
    cutmix: float = _value(0.0, "CutMix's alpha.", low=0, tasks=[CLASSIFICATION])
    aa: str | None = _value(
        None,
        "Policy of RandAugment or another of timm's, as rand-m9-mstd0.5.",
        tasks=[CLASSIFICATION],
        pattern=_POLICY,
    )
    reprob: float = _value(0.0, "Probability that a part of an image is erased.", low=0, high=1, tasks=[CLASSIFICATION])
    color_jitter: float = _value(0.0, "Changes of brightness, contrast and saturation.", low=0)
    train_size: tuple[int, int] | None = _value(
        None, "Height and width that are trained on, if not those of the network's input.", low=1, high=65_536
    )
    hflip: float = _value(0.5, "Probability that an image is mirrored.", low=0, high=1)
    scale: tuple[float, float] = _value(
        (0.08, 1.0), "Area of a crop, as a share of the image's.", low=1e-3, high=1, tasks=[CLASSIFICATION]
    )
    ratio: tuple[float, float] = _value(
        (0.75, 4 / 3), "Width of a crop / its height.", low=1e-3, tasks=[CLASSIFICATION]
    )
    resize: tuple[float, float] = _value(
        (0.75, 1.25), "Size of an image or person, as a share of its own.", low=1e-2, tasks=DENSE
    )
    own_resolution: bool = _value(
        False,
        "Learn from parts of images at their own resolution, as --tile shows them, not from whole ones at the input's.",
        tasks=[SEGMENTATION],
    )
    rotation: float = _value(0.0, "Largest turn, in degrees.", low=0, high=180, tasks=DENSE)
    ohem_threshold: float | None = _value(
        None, "Leave out pixels that are right with a higher probability (OHEM).", low=0, high=1, tasks=[SEGMENTATION]
    )
    ohem_keep: float = _value(
        0.0625, "The share of a step's pixels that OHEM keeps at least.", low=0, high=1, tasks=[SEGMENTATION]
    )
    heatmap_sigma: float = _value(
        2.0, "Deviation of a joint's target, in pixels of the heatmap.", low=1e-3, tasks=[POSE]
    )
    broken_limit: int = _value(100, "Images that may be unreadable before training gives up.", low=0)
    seed: int = _value(0, "Of initial weights, order, augmentation and dropout.", low=0, high=2**31 - 1)

    def replace(self, values: Mapping[str, Any], source: str = "recipe") -> "Recipe":
        """The same with other values, checked; `source` names them in errors.

        Raises:
            InputError: a field is unknown, of the wrong type or out of range.
        """
        for name in values:
            if name not in FIELDS:
                near = difflib.get_close_matches(name.lower(), FIELDS, n=3)
                hint = f"did you mean {', '.join(near)}? " if near else ""
                raise InputError(
                    f"{source}: {elide(name, QUOTED_CHARACTERS)}: found no such field; {hint}`train --help` shows them"
                )
        checked = {name: _checked(f"{source}: {name}", value, name) for name, value in values.items()}
        return dataclasses.replace(self, **checked)

    def check_task(self, task: "Task", given: Iterable[str], source: str = "recipe") -> None:
        """Refuse values that were given for another task.

        Raises:
            InputError: a field among `given` is not for this task.
        """
        for name in given:
            tasks = FIELDS[name].metadata["tasks"]
            if tasks and task not in tasks:
                raise InputError(f"{source}: {name}: found it for {task}, expected it for {' or '.join(tasks)}")

    def to_dict(self, task: "Task | None" = None) -> dict[str, Any]:
        """Plain values, for YAML and JSON; those that matter for a task alone, if one is given."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
            if task is None or task in (FIELDS[name].metadata["tasks"] or (task,))
        }


FIELDS: Mapping[str, "dataclasses.Field[Any]"] = {field.name: field for field in dataclasses.fields(Recipe)}
HINTS: Mapping[str, Any] = get_type_hints(Recipe)


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    from importlib.resources import files

    return sorted(
        path.name.removesuffix(".yaml")
        for path in (files("scalenet_zoo.training") / "recipes").iterdir()
        if path.name.endswith(".yaml")
    )


def load_recipe(source: str | Path) -> Recipe:
    """A recipe of the package by its name, or a YAML file of one.

    Raises:
        InputError: there is no such recipe or file, it is no YAML, or a value is not valid.
    """
    from importlib.resources import files

    from scalenet_zoo.core.files import read_yaml

    path = Path(str(files("scalenet_zoo.training") / "recipes")) / f"{source}.yaml"
    if str(source) not in recipe_names():
        path = Path(source)
        if path.suffix not in (".yaml", ".yml"):
            raise InputError(f"{source}: found no such recipe, expected {', '.join(recipe_names())} or a YAML file")
    try:
        values = read_yaml(path)
    except ValueError as error:
        raise InputError(f"{source}: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{source}: found no fields with values, expected a recipe such as `epochs: 10`")
    return Recipe().replace(values, str(source))


def _checked(where: str, value: Any, name: str) -> Any:  # noqa: ANN401 - a field's value
    hint, metadata = HINTS[name], FIELDS[name].metadata
    optional = get_origin(hint) is types.UnionType
    if value is None and optional:
        return None
    kind = next(arg for arg in get_args(hint) if arg is not types.NoneType) if optional else hint
    if get_origin(kind) is Literal:
        value = "no" if value is False else value  # so YAML reads a bare `no`
        if value not in get_args(kind):
            raise InputError(f"{where}: found {quoted(value)}, expected one of {', '.join(get_args(kind))}")
        return value
    if get_origin(kind) is tuple:
        if not (isinstance(value, (list, tuple)) and len(value) == 2):
            raise InputError(f"{where}: found {quoted(value)}, expected two numbers")
        first, second = (_number(where, number, get_args(kind)[0], metadata) for number in value)
        if name != "train_size" and first > second:
            raise InputError(f"{where}: found {quoted(value)}, expected the smaller number first")
        return first, second
    if kind in (bool, str):
        if not isinstance(value, kind):
            expected = "true or false" if kind is bool else "a text"
            raise InputError(f"{where}: found {quoted(value)}, expected {expected}")
        if metadata["pattern"] and not metadata["pattern"].fullmatch(value):
            raise InputError(f"{where}: found {quoted(value)}, expected one such as rand-m9-mstd0.5 or augmix-m3")
        return value
    return _number(where, value, kind, metadata)


def _number(where: str, value: Any, kind: type, metadata: Mapping[str, Any]) -> Any:  # noqa: ANN401 - int or float
    low, high = metadata["low"], metadata["high"]
    of_kind = isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)
    if (
        not of_kind
        or not -INTEGER < value < INTEGER  # nor is it infinite, or no number
        or (low is not None and value < low)
        or (high is not None and value > high)
    ):
        span = f"{low:,} to {high:,}" if high is not None else f"{low:,} or more"
        if of_kind and abs(value) >= INTEGER:
            span += f", below {float(INTEGER):.2g}"
        raise InputError(
            f"{where}: found {quoted(value)}, expected {'a number' if kind is float else 'a whole number'}, {span}"
        )
    return kind(value)
