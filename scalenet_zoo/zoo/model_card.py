"""Model cards: the template `model_card.md`, filled in from a model folder. The Hub reads its header."""

import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from scalenet_zoo.arch.layer_table import layer_table
from scalenet_zoo.arch.provenance import public_spec
from scalenet_zoo.arch.spec import Result, Task
from scalenet_zoo.core.quantities import format_count
from scalenet_zoo.core.quoting import printable
from scalenet_zoo.zoo.model_folder import ModelFolder

PIPELINES: Mapping[Task, str] = {
    "classification": "image-classification",
    "segmentation": "image-segmentation",
    "pose": "keypoint-detection",
}
"""The Hub's names of the tasks."""

HUB_METRICS = {"top1": "accuracy", "miou": "mean_iou"}
"""The Hub's names of our metrics, where it has one."""

_SHARES = re.compile(r"(top\d|miou|iou|pixel_accuracy|accuracy|ece|ap|ar|pck)([._@]?\w+)*")
"""Names of our metrics whose values are shares from 0 to 1; the card shows them in percent."""


def render_card(folder: ModelFolder, repository: str, license: str | None = None) -> str:  # noqa: A002 - the Hub's name
    """Fill in the template: README.md, with the YAML header that the Hub reads.

    Args:
        folder: the network. The provenance in its spec holds the figures and how the network was trained. Paths on
            this machine are shortened to their last name.
        repository: as `org/name`.
        license: the licence of the weights, by the Hub's name; None: the card says that none is stated.

    Returns:
        The whole text of the card.
    """
    spec = public_spec(folder.spec)
    provenance = spec.provenance
    shown = folder.interface
    measured = [result for result in provenance.results if result.origin == "measured"]
    training = provenance.details.get("training")
    training = dict(training) if isinstance(training, dict) else {}
    recipe, command = training.pop("recipe", None), training.pop("command", None)
    recipe = recipe if isinstance(recipe, dict) else {}
    data = training.get("data")
    names = folder.config.label_names
    image = f"{spec.input.channels}x{spec.input.height}x{spec.input.width}"
    what = "joints" if spec.task == "pose" else "classes"
    header = ModelCardData(
        license=license,
        library_name="timm",
        pipeline_tag=PIPELINES[spec.task],
        tags=["timm", "scalenet-zoo", PIPELINES[spec.task]],
        datasets=_hub_datasets(data),
        metrics=sorted({HUB_METRICS.get(result.metric, _line(result.metric)) for result in measured}) or None,
        model_name=_line(repository.rpartition("/")[2]),
        eval_results=[_eval_result(spec.task, result) for result in measured] or None,
    )
    layers = [
        (row.name, row.what, "x".join(map(str, row.output)), f"{row.macs:,}", f"{row.params:,}")
        for row in layer_table(spec)
    ]
    card = ModelCard.from_template(
        header,
        template_str=files("scalenet_zoo.zoo").joinpath("model_card.md").read_text(encoding="utf-8"),
        name=_text(spec.name),
        task=spec.task,
        macs=format_count(spec.cost.macs),
        params=format_count(spec.cost.params),
        image=image,
        outputs=f"{spec.classes} {what}" if spec.classes else "no classifier",
        repository=repository,
        measured=_results(measured),
        reported=_results(result for result in provenance.results if result.origin != "measured"),
        chosen=_text(_chosen(training, measured)),
        training=_rows(training),
        command=_line(command) if command else "",
        recipe=_rows(recipe),
        origin=_rows(
            {
                "source": provenance.source,
                "method": provenance.method,
                "paper": provenance.paper,
                "licence of the architecture": provenance.license,
                "hash": spec.hash,
                "MACs": f"{spec.cost.macs:,}",
                "parameters": f"{spec.cost.params:,}",
            }
        ),
        layers=[*layers, ("total", "", "", f"{spec.cost.macs:,}", f"{spec.cost.params:,}")],
        preparation=_rows(
            {
                "input": image,
                "mean": shown.mean,
                "standard deviation": shown.std,
                "interpolation": shown.interpolation,
                "crop": f"{100 * shown.crop_pct:g}%",
                what: ", ".join(names[:100]) + (", ..." if len(names) > 100 else ""),
            }
        ),
        licence=f"The weights: {_text(license)}." if license else "No licence of the weights is stated.",
    )
    return str(card)


def _chosen(training: Mapping[str, Any], measured: Iterable[Result]) -> str:
    """Return the data that the best epoch was chosen on; empty: no figure was measured on them."""
    source = training.get("data")
    return next((r.data for r in measured if "epochs" in training and r.data.startswith(f"{source} ")), "")


def _hub_datasets(data: object) -> list[str] | None:
    """Return the training data set's name on the Hub, if it is one of the Hub's."""
    match = re.fullmatch(r"hf(?:ds|ids):([\w.-]+/[\w.-]+)", str(data))
    return [match[1]] if match else None


def _eval_result(task: Task, result: Result) -> EvalResult:
    return EvalResult(
        task_type=PIPELINES[task],
        dataset_type=re.sub(r"[^\w.-]+", "-", result.data).strip("-") or "unknown",
        dataset_name=_line(result.data),
        metric_type=HUB_METRICS.get(result.metric, _line(result.metric)),
        metric_name=_line(result.metric),
        metric_value=result.value,
    )


def _results(results: Iterable[Result]) -> list[tuple[str, str, str, str]]:
    return [(_text(r.metric), _value(r), _text(r.data), _text(r.origin)) for r in results]


def _value(result: Result) -> str:
    """Format a figure for people; a figure that others reported keeps their unit."""
    if result.origin == "measured" and _SHARES.fullmatch(result.metric) and 0 <= result.value <= 1:
        return f"{100 * result.value:.1f}%"
    return f"{result.value:.4g}"


def _rows(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Format the fields that have a value as rows of a table."""
    return [(_text(field), _text(value)) for field, value in values.items() if value not in (None, "")]


def _text(value: object) -> str:
    """Format a value as the text of one Markdown table cell: one line, with all markup escaped."""
    if isinstance(value, Mapping):
        value = ", ".join(f"{key} {item}" for key, item in value.items())
    elif isinstance(value, (list, tuple)):
        value = ", ".join(map(str, value))
    return re.sub(r"([\\`*_\[\]<>|~$])", r"\\\1", _line(value))


def _line(value: object) -> str:
    """Format a value on one line, without control characters."""
    return printable(" ".join(str(value).split()))
