"""Recipes: the settings of a training run, as YAML files in `recipes/` and as flags of `train`, with timm's names."""

import difflib
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from scalenet_zoo.core.bounds import INTEGER, QUOTED_CHARACTERS
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.packaged import packaged_names, read_packaged
from scalenet_zoo.core.quoting import elide

if TYPE_CHECKING:
    from scalenet_zoo.arch.spec import Task

CLASSIFICATION, SEGMENTATION, POSE = "classification", "segmentation", "pose"
DENSE = (SEGMENTATION, POSE)


_POLICY = re.compile(
    r"(original|originalr|v0|v0r|3a)(-mstd\d+(\.\d+)?)?"
    r"|rand(-(m|n|mmax|inc)\d{1,2}|-(mstd|p)\d+(\.\d+)?|-t(weights|3aw?|default))*"
    r"|augmix(-[mwdb]\d{1,2}|-(mstd|a)\d+(\.\d+)?)*"
)
"""The augmentation policies that timm knows."""


def _value(
    default: object, about: str, ge: float | None = None, le: float | None = None, tasks: Iterable[str] = ()
) -> Any:  # noqa: ANN401 - as Field
    """Make a field from its default, its meaning, its range, and the tasks that it applies to (none: all)."""
    lt = INTEGER if ge is not None and le is None else None
    return Field(default, description=about, ge=ge, le=le, lt=lt, json_schema_extra={"tasks": [*tasks]})


def _as_pair(value: object) -> object:
    """Turn the two values of a YAML list into a tuple."""
    if value is not None and not (isinstance(value, list | tuple) and len(value) == 2):
        raise ValueError("expected two numbers")
    return value if value is None else tuple(value)


def _ascending(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError("expected the smaller number first")
    return value


def _as_precision(value: object) -> object:
    """Turn False back into text, because YAML reads a bare `no` as False."""
    return "no" if value is False else value


def _known_policy(value: str | None) -> str | None:
    if value is not None and not _POLICY.fullmatch(value):
        raise ValueError("expected one such as rand-m9-mstd0.5 or augmix-m3")
    return value


_Pair = BeforeValidator(_as_pair)
_Ascending = AfterValidator(_ascending)
_Epochs = Annotated[float, Field(ge=0, lt=INTEGER)]
_Area = Annotated[float, Field(ge=1e-3, le=1)]
_Ratio = Annotated[float, Field(ge=1e-3, lt=INTEGER)]
_Zoom = Annotated[float, Field(ge=1e-2, lt=INTEGER)]
_Pixels = Annotated[int, Field(ge=1, le=65_536)]


class Recipe(BaseModel):
    """The settings of a training run. Each field is a flag of `train`, and its description is the flag's help."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)

    epochs: int = _value(100, "Passes over the training images.", ge=1)
    batch_size: int = _value(128, "Images per optimiser step, over all processes.", ge=1)
    grad_accum_steps: int = _value(1, "Parts into which the images of a step are split, to save memory.", ge=1)
    opt: str = _value("adamw", "The optimiser, by timm's name.")
    opt_eps: float | None = _value(None, "Epsilon of the optimiser; if not given, its own default.", ge=0)
    lr: float = _value(1e-3, "The highest learning rate.", ge=0)
    weight_decay: float = _value(0.05, "Weight decay; biases and norms have none.", ge=0)
    momentum: float = _value(0.9, "Momentum, for optimisers that have one.", ge=0, le=1)
    layer_decay: float | None = _value(None, "Learning rate of a layer as a share of the next layer's.", ge=0, le=1)
    clip_grad: float | None = _value(None, "Clip the gradient to this norm.", ge=0)
    sched: str = _value("cosine", "The schedule of the learning rate, by timm's name.")
    warmup_epochs: float = _value(0.0, "Epochs of warm-up, in which the learning rate rises.", ge=0)
    warmup_lr: float = _value(1e-6, "The learning rate at the start of the warm-up.", ge=0)
    min_lr: float = _value(0.0, "The learning rate at the end.", ge=0)
    decay_epochs: float = _value(30.0, "Epochs between decays, for step schedules.", ge=1e-3)
    decay_milestones: Annotated[tuple[_Epochs, _Epochs], _Pair, _Ascending] = _value(
        (30.0, 60.0), "Epochs at which the schedule multistep decays."
    )
    decay_rate: float = _value(0.1, "Factor of each decay; for the schedule poly, the power.", ge=0)
    amp: Annotated[Literal["no", "bf16", "fp16"], BeforeValidator(_as_precision)] = _value("no", "Mixed precision.")
    channels_last: bool = _value(True, "Use the channels-last memory format.")
    torchcompile: bool = _value(False, "Compile the network with torch.compile.")
    model_ema_decay: float | None = _value(None, "Keep a moving average of the weights, with this decay.", ge=0, le=1)
    drop: float = _value(0.0, "Dropout before the classifier.", ge=0, le=1)
    drop_path: float = _value(0.0, "Stochastic depth at the last layer.", ge=0, le=1)
    distill_weight: float = _value(1.0, "Weight of the teacher's loss, if there is a teacher.", ge=0)
    distill_temperature: float = _value(1.0, "Temperature of distillation.", ge=1e-3, tasks=[CLASSIFICATION])
    smoothing: float = _value(0.0, "Label smoothing.", ge=0, le=0.999, tasks=[CLASSIFICATION])
    mixup: float = _value(0.0, "Mixup's alpha.", ge=0, tasks=[CLASSIFICATION])
    cutmix: float = _value(0.0, "CutMix's alpha.", ge=0, tasks=[CLASSIFICATION])
    aa: Annotated[str | None, AfterValidator(_known_policy)] = _value(
        None, "Augmentation policy, by timm's name, such as rand-m9-mstd0.5.", tasks=[CLASSIFICATION]
    )
    reprob: float = _value(0.0, "Probability that a part of an image is erased.", ge=0, le=1, tasks=[CLASSIFICATION])
    color_jitter: float = _value(0.0, "Changes of brightness, contrast and saturation.", ge=0)
    train_size: Annotated[tuple[_Pixels, _Pixels] | None, _Pair] = _value(
        None, "Height and width of the training images, if not those of the network's input."
    )
    hflip: float = _value(0.5, "Probability that an image is mirrored.", ge=0, le=1)
    scale: Annotated[tuple[_Area, _Area], _Pair, _Ascending] = _value(
        (0.08, 1.0), "Area of a crop, as a share of the image's.", tasks=[CLASSIFICATION]
    )
    ratio: Annotated[tuple[_Ratio, _Ratio], _Pair, _Ascending] = _value(
        (0.75, 4 / 3), "Aspect ratio of a crop: width / height.", tasks=[CLASSIFICATION]
    )
    resize: Annotated[tuple[_Zoom, _Zoom], _Pair, _Ascending] = _value(
        (0.75, 1.25), "Size of an image or person after scaling, relative to its own.", tasks=DENSE
    )
    own_resolution: bool = _value(
        False,
        "Train on crops at the images' own resolution, as --tile uses them, instead of whole, resized images.",
        tasks=[SEGMENTATION],
    )
    rotation: float = _value(0.0, "Largest rotation, in degrees.", ge=0, le=180, tasks=DENSE)
    ohem_threshold: float | None = _value(
        None,
        "OHEM: ignore pixels whose true class has a higher probability than this.",
        ge=0,
        le=1,
        tasks=[SEGMENTATION],
    )
    ohem_keep: float = _value(0.0625, "OHEM: the least share of pixels to keep.", ge=0, le=1, tasks=[SEGMENTATION])
    heatmap_sigma: float = _value(
        2.0, "Standard deviation of a joint's target, in pixels of the heatmap.", ge=1e-3, tasks=[POSE]
    )
    broken_limit: int = _value(100, "Images that may be unreadable before training gives up.", ge=0)
    seed: int = _value(0, "Seed of initial weights, image order, augmentation and dropout.", ge=0, le=2**31 - 1)

    def replace(self, values: Mapping[str, Any], source: str = "recipe") -> Self:
        """Return a copy with other values, after checking them; `source` names their origin in errors.

        Raises:
            InputError: a field is unknown, of the wrong type or out of range.
        """
        fields = type(self).model_fields
        for name in values:
            if name not in fields:
                near = difflib.get_close_matches(name.lower(), fields, n=3)
                hint = f"; did you mean {', '.join(near)}?" if near else ""
                raise InputError(
                    f"{source}: {elide(name, QUOTED_CHARACTERS)}: found no such field, expected one that"
                    f" `train --help` shows{hint}"
                )
        try:
            return type(self)(**{**vars(self), **values})
        except ValidationError as error:
            from scalenet_zoo.core.documents import first_complaint  # not for `train --help`

            raise InputError(f"{source}: {first_complaint(error)}") from None

    def check_task(self, task: "Task", given: Iterable[str], source: str = "recipe") -> None:
        """Check that the given fields apply to a task.

        Raises:
            InputError: a field among `given` applies to other tasks only.
        """
        for name in given:
            tasks = tasks_of(name)
            if tasks and task not in tasks:
                raise InputError(f"{source}: {name}: found it for {task}, expected it for {' or '.join(tasks)}")

    def to_dict(self, task: "Task | None" = None) -> dict[str, Any]:
        """Return plain values for YAML and JSON; if a task is given, only the values that apply to it."""
        names = {name for name in type(self).model_fields if task is None or task in (tasks_of(name) or (task,))}
        return self.model_dump(mode="json", include=names)


def tasks_of(name: str) -> list[str]:
    """Return the tasks that a field applies to; an empty list means all tasks."""
    return cast("dict[str, list[str]]", Recipe.model_fields[name].json_schema_extra)["tasks"]


_FOLDER = Path(str(files("scalenet_zoo.training"))) / "recipes"


def recipe_names() -> list[str]:
    """Return the names of the packaged recipes."""
    return packaged_names(_FOLDER)


def load_recipe(source: str | Path) -> Recipe:
    """Load a packaged recipe by its name, or a recipe from a YAML file.

    Raises:
        InputError: there is no such recipe or file, the file is not YAML, or a value is not valid.
    """
    return Recipe().replace(read_recipe(source), str(source))


def read_recipe(source: str | Path) -> dict[str, Any]:
    """Read the fields that a recipe sets, without checking their values; the other fields keep their defaults.

    Raises:
        InputError: there is no such recipe or file, or the file is not YAML with fields.
    """
    _, values = read_packaged(_FOLDER, source, "recipe")
    if not isinstance(values, dict):
        raise InputError(f"{source}: found no fields with values, expected a recipe such as `epochs: 10`")
    return values


@cache
def packaged_recipe(source: str) -> Recipe:
    """Load a packaged recipe by its name or path; its file is read once."""
    return load_recipe(source)
