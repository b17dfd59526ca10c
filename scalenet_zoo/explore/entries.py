"""The zoo's entries, with the accuracy that is reported for each of them, and its licence.

Nothing here needs torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from scalenet_zoo.arch.spec import ArchSpec, Task
from scalenet_zoo.core.errors import ModelNotFoundError
from scalenet_zoo.zoo.catalog import FAMILIES, list_models
from scalenet_zoo.zoo.published import is_of_weights, origin_of, published_entry
from scalenet_zoo.zoo.sources import load_spec

TOP1, IMAGENET = "top-1 accuracy, %", "ImageNet-1k validation"
_NEXT_TO_TOP1 = "top-5 accuracy, %"


@dataclass(frozen=True)
class QuotedEntry:
    """An entry of the zoo with its reported accuracy.

    Attributes:
        spec: the entry's spec.
        metric: what `value` is, such as `top-1 accuracy, %`. If no accuracy is reported, it is empty, as are `data` and
            `origin`.
        value: the accuracy in percent; None: none is reported.
        data: what it was measured on.
        origin: whose figure it is.
        weights: timm's name of the weights that `pretrained` loads and that the figure belongs to; None: the figure
            belongs to weights that are not published.
        license: licence of the weights or, if there are none, of the architecture, in lower case; empty: not known.
    """

    spec: ArchSpec
    metric: str = ""
    value: float | None = None
    data: str = ""
    origin: str = ""
    weights: str | None = None
    license: str = ""


def quoted_entry(spec: ArchSpec) -> QuotedEntry:
    """Find the accuracy reported for an entry.

    It is that of its default weights near its resolution or, if there are no published weights, the paper's.
    """
    published = published_entry(spec)
    if published is not None:
        weights = published.default
        if result := weights.result_at(published.pixels):
            origin = origin_of(weights, result)
            return QuotedEntry(spec, TOP1, result.top1, IMAGENET, origin, weights.timm, weights.license.lower())
    told = spec.provenance
    terms = (told.license or "").lower()
    results = [each for each in told.results if not is_of_weights(each) and each.metric != _NEXT_TO_TOP1]
    if not results:
        return QuotedEntry(spec, license=terms)
    first = results[0]
    return QuotedEntry(spec, first.metric, first.value, first.data, first.origin, None, terms)


def quoted_entries(
    tasks: Sequence[Task] = ("classification",), pretrained: bool = False, models: str = "*"
) -> tuple[QuotedEntry, ...]:
    """List the entries for some tasks, in the order of the tasks and then the cheapest first.

    Args:
        tasks: what the networks are for.
        pretrained: list only entries with published weights whose accuracy is reported.
        models: a shell pattern for the names.

    Raises:
        ModelNotFoundError: there is no such task, or no entry matches.
    """
    for task in tasks:
        if task not in FAMILIES:
            raise ModelNotFoundError(f"{task}: found no such task, expected one of {', '.join(FAMILIES)}")
    entries = [quoted_entry(load_spec(name)) for task in dict.fromkeys(tasks) for name in list_models(models, task)]
    order = list(tasks)
    found = tuple(
        sorted(
            (each for each in entries if each.weights or not pretrained),
            key=lambda each: (order.index(each.spec.task), each.spec.cost.macs, each.spec.name),
        )
    )
    if not found:
        raise ModelNotFoundError(
            f"{models}: found no such entry for {', '.join(tasks)}, expected a pattern that some entry's name matches"
        )
    return found


def command_for(entry: QuotedEntry, backend: str, precision: str) -> str:
    """The command that builds or exports an entry for a back end."""
    name = f"{entry.spec.name}{' --pretrained' if published_entry(entry.spec) else ''}"
    if backend.startswith("torch"):
        return f"scalenet-zoo build {name}"
    to = backend if backend in ("openvino", "tensorrt", "tensorrt-rtx") else "onnx"
    words = ["scalenet-zoo export", name]
    words += [f"--to {to}"] if to != "onnx" else []
    words += [f"--precision {precision}"] if precision != "fp32" else []
    if precision == "int8":
        words += [f"--on {backend}"] if to == "onnx" else []
        words += ["--calibration IMAGES"]
    return " ".join(words)
