"""The zoo: names -> specs -> networks. Torch is imported only when a network is made."""

import difflib
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalenet_zoo.constraints import Constraint, Macs, Params, check_budget
from scalenet_zoo.errors import BudgetError, ModelNotFoundError, SpecError
from scalenet_zoo.family import Family
from scalenet_zoo.file_kinds import no_network, user_path
from scalenet_zoo.memory import FLOAT, check_memory
from scalenet_zoo.model_folder import HUB_PREFIX, ModelFolder, first_conv, open_source, shown_as
from scalenet_zoo.quantities import format_count, format_range, parse_count, parse_ms, whole_count
from scalenet_zoo.quoting import quoted
from scalenet_zoo.scaling import fit_budget
from scalenet_zoo.spec import ArchSpec, Task

if TYPE_CHECKING:
    from torch import nn

    from scalenet_zoo.export.latency_budget import Found
    from scalenet_zoo.weights import Weights

FAMILIES: Mapping[Task, tuple[str, ...]] = {
    "classification": ("scalenet", "efficientnet"),
    "segmentation": ("scalenas", "hrnet"),
    "pose": ("scalenas", "hrnet", "higherscalenas", "higherhrnet"),
}
"""Families of each task, the default first; names of entries for dense tasks begin with theirs."""

TIMM_NAMES: Mapping[str, str] = {
    **{name: name for name in (f"efficientnet_b{i}" for i in range(5))},
    **{f"{name}{suffix}": name for name in ("hrnet_w18", "hrnet_w32", "hrnet_w48") for suffix in ("", "_pose")},
    **{f"higher{name}": name for name in ("hrnet_w32", "hrnet_w48")},
}
"""Entries with published weights, and the timm models whose weights these are; see `pretrained.py`."""


@dataclass(frozen=True)
class Entries:
    """Entries of the zoo for a dense task, to choose from; see `find_networks`.

    Attributes:
        name: of the choice, for messages and files.
        specs: the cheapest first.
    """

    name: str
    specs: tuple[ArchSpec, ...]


@cache
def _paths() -> dict[str, Path]:
    root = Path(str(files("scalenet_zoo.searched_archs")))
    return {path.name.removesuffix(".json"): path for path in sorted(root.glob("*/*.json"))}


@cache
def _entries() -> dict[str, ArchSpec]:
    return {name: ArchSpec.load(path) for name, path in _paths().items() if not name.endswith(".family")}


def list_models(pattern: str = "*", task: Task | None = None, pretrained: bool = False) -> list[str]:
    """Names of the zoo's entries, sorted.

    Args:
        pattern: a shell pattern, such as `scalenet_*`.
        task: only entries for this task.
        pretrained: only entries with published weights.
    """
    return sorted(
        name
        for name, spec in _entries().items()
        if fnmatch(name, pattern) and task in (None, spec.task) and (name in TIMM_NAMES or not pretrained)
    )


def load_spec(source: str | Path | ArchSpec, revision: str | None = None) -> ArchSpec:
    """The spec of a zoo entry's name, a JSON file, `hf-hub:org/name`, `local-dir:path` or a folder of `train`.

    Raises:
        ModelNotFoundError: no entry and no file has this name; the message suggests the nearest.
        SpecError: the file is not a valid spec.
        WeightsError: the Hub cannot be reached, or does not have the file.
    """
    opened = _open(source, revision, with_weights=False)
    return opened.spec if isinstance(opened, ModelFolder) else opened


def _open(
    source: str | Path | ArchSpec | ModelFolder, revision: str | None, with_weights: bool
) -> ArchSpec | ModelFolder:
    if isinstance(source, (ArchSpec, ModelFolder)):
        return source
    name = str(source)
    if revision is not None and not name.startswith(HUB_PREFIX):
        raise ModelNotFoundError(f"{name}: found the revision {revision} for it, expected it for hf-hub:org/name")
    path = _paths().get(name)
    if path and not name.endswith(".family"):
        return ArchSpec.load(path)
    if folder := open_source(name, revision, with_weights):
        return folder
    file = user_path(name)
    if about := no_network(file):
        raise SpecError(f"{name}: {about}")
    if name.endswith(".json") or os.path.exists(file):  # noqa: PTH110 - Path raises for names that are too long
        return ArchSpec.load(file)
    near = difflib.get_close_matches(name, list_models(), n=3)
    hint = f"did you mean {', '.join(near)}?" if near else "`scalenet-zoo list` shows the names"
    raise ModelNotFoundError(f"{name}: found no such entry in the zoo and no such file; {hint}")


def load_family(name: str) -> Family:
    """A family of the zoo that has a base model, `scalenet` or `efficientnet`, or a family's JSON file.

    Raises:
        ModelNotFoundError: there is no such family.
        SpecError: the file is not a valid family.
    """
    path = _paths().get(f"{name}.family")
    if path is None and name.endswith(".json"):
        path = user_path(name)
    if path is None:
        expected = " or ".join((*FAMILIES["classification"], "a JSON file"))
        raise ModelNotFoundError(f"{name}: found no such family, expected {expected}")
    return Family.load(path)


def find_networks(
    task: Task,
    family: str | None = None,
    num_classes: int | None = None,
    in_chans: int = 3,
    img_size: int | Sequence[int] | None = None,
) -> Family | Entries:
    """What a budget chooses from: a family with a base model for classification, else the zoo's entries for a task.

    Args:
        task: what the networks are for.
        family: one of `FAMILIES[task]`, or for classification a family's JSON file; None: the first, or for
            segmentation and pose any; of those for pose that find one person in a crop.
        num_classes: classes or joints of the entries; None: their own.
        in_chans: channels of their image.
        img_size: its height and width in pixels; None: their own.

    Raises:
        ModelNotFoundError: there is no such task, or it has no such family.
        BudgetError: a size is given for classification.
        SpecError: a size is not valid.
    """
    if task not in FAMILIES:
        raise ModelNotFoundError(f"{task}: found no such task, expected one of {', '.join(FAMILIES)}")
    is_file = task == "classification" and family is not None and family.endswith(".json")
    if family is not None and family not in FAMILIES[task] and not is_file:
        raise ModelNotFoundError(f"{family}: found no such family for {task}, expected {' or '.join(FAMILIES[task])}")
    if task == "classification":
        if img_size is not None:
            raise BudgetError(f"img_size: found {img_size}, expected none: the budget decides on a classifier's")
        return load_family(family or FAMILIES[task][0])
    height, width = _height_and_width(img_size)
    chosen = (
        spec.replace(classes=num_classes, channels=in_chans, height=height, width=width)
        for spec in _entries().values()
        if spec.task == task and (spec.name.startswith(family) if family else not spec.bottom_up)
    )
    name = "-".join(filter(None, (family, task, f"{height}x{width}" if height else None)))
    return Entries(name, tuple(sorted(chosen, key=lambda spec: spec.cost.macs)))


def _which(task: Task, family: str | None) -> str:
    if family:
        return f" of the family {family}"
    return " of one person (--family higherhrnet finds several)" if task == "pose" else ""


def latency_name(networks: Family | Entries) -> str:
    """What latency models are kept under: the name, with a hash if a family is not the zoo's."""
    if isinstance(networks, Entries):
        return networks.name
    if networks.name in FAMILIES["classification"] and networks == load_family(networks.name):
        return networks.name
    return f"{networks.name[:80]}-{hashlib.sha256(networks.model_dump_json().encode()).hexdigest()[:12]}"


def _height_and_width(img_size: int | Sequence[int] | None) -> tuple[int | None, int | None]:
    if img_size is None or isinstance(img_size, int | str) or not hasattr(img_size, "__len__"):
        return img_size, img_size  # type: ignore[return-value] # a number, or what the spec refuses
    size = tuple(img_size)
    if len(size) != 2:
        raise SpecError(f"img_size: found {quoted(img_size)}, expected a number of pixels, or height and width")
    return size[0], size[1]


def timm_name(spec: ArchSpec) -> str | None:
    """Look up the timm model that has published weights for this very architecture, whatever its name here."""
    return next((theirs for name, theirs in TIMM_NAMES.items() if _entries()[name].hash == spec.hash), None)


def pretrained_cfg(spec: ArchSpec) -> dict[str, Any]:
    """How images are prepared for a network and where its weights are, in timm's terms."""
    from timm import get_pretrained_cfg

    cfg: dict[str, Any] = {"crop_pct": 0.875, "interpolation": "bicubic"}
    if published := timm_name(spec):
        theirs = get_pretrained_cfg(published).to_dict()
        kept = ("hf_hub_id", "mean", "std", "crop_pct", "interpolation", "license", "origin_url")
        cfg |= {key: theirs[key] for key in kept if key in theirs}
    return shown_as(spec, cfg) | {
        "architecture": spec.name,
        "input_size": (spec.input.channels, spec.input.height, spec.input.width),
        "num_classes": spec.classes,
        "first_conv": first_conv(spec),
        "classifier": "classifier",
    }


def create_model(
    source: str | Path | ArchSpec | ModelFolder,
    pretrained: bool = False,
    num_classes: int | None = None,
    in_chans: int | None = None,
    img_size: int | Sequence[int] | None = None,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    weights: str | Path | None = None,
    revision: str | None = None,
    **kwargs: Any,  # noqa: ANN401 - the network's own
) -> "nn.Module":
    """Build a network; it has `.spec` and `.pretrained_cfg`, and timm's model interface.

    Args:
        source: a name of the zoo, a spec, or a spec's file; or, with its weights, `hf-hub:org/name`, `local-dir:path`,
            or a folder of `train` or `pull`.
        pretrained: load published weights from the Hugging Face Hub; folders and repositories have their own.
        num_classes: classes or joints; 0: no classifier; None: the spec's.
        in_chans: channels of the image; None: the spec's.
        img_size: height and width in pixels that the cost is stated for; None: the spec's.
        features_only: return a network whose output is the list of features at several strides.
        out_indices: which of them, in which order, -1 the last; a number: the last so many; None: all.
        weights: a safetensors file with weights for this network, or for the same with another class count or other
            input channels: the classifier then starts untrained, the first convolution is adapted.
        revision: a branch, tag or commit of `hf-hub:org/name`.
        **kwargs: `drop_rate`, `drop_path_rate`, `global_pool`.

    Raises:
        ModelNotFoundError: no entry, file or folder has this name.
        SpecError: a file, a changed size or `out_indices` is not valid.
        WeightsError: weights are not published, cannot be had, or do not fit.
        BackendError: the network does not fit into memory.
    """
    from timm.models._features import FeatureGetterNet

    from scalenet_zoo.layers import take_indices
    from scalenet_zoo.networks import network_of

    if out_indices is not None and not features_only:
        raise SpecError(f"out_indices: found {quoted(out_indices)}, expected none without features_only")
    for name in ("drop_rate", "drop_path_rate"):
        rate = kwargs.get(name, 0.0)
        if not isinstance(rate, int | float) or not 0 <= rate <= 1:
            raise SpecError(f"{name}: found {quoted(rate)}, expected a number from 0 to 1")
    opened = _open(source, revision, with_weights=weights is None)
    spec = opened.spec if isinstance(opened, ModelFolder) else opened
    height, width = _height_and_width(img_size)
    if any(change is not None for change in (num_classes, in_chans, height)):
        adapt = opened.adapted if isinstance(opened, ModelFolder) else opened.replace
        spec = adapt(classes=num_classes, channels=in_chans, height=height, width=width)
    trained = _trained(opened, spec, weights)
    check_network_memory(spec)
    model: nn.Module = network_of(spec, **kwargs)
    if trained is not None:
        trained.load_into(model)
    elif pretrained:
        from scalenet_zoo.pretrained import load_pretrained

        load_pretrained(model)
    if features_only:
        model = FeatureGetterNet(model, out_indices=take_indices(len(model.feature_info), out_indices))  # type: ignore[arg-type]
    model.spec = spec  # type: ignore[assignment]
    cfg = opened.pretrained_cfg(spec) if isinstance(opened, ModelFolder) else pretrained_cfg(spec)
    model.pretrained_cfg = model.default_cfg = cfg  # type: ignore[assignment]
    return model


def _trained(opened: ArchSpec | ModelFolder, spec: ArchSpec, weights: str | Path | None) -> "Weights | None":
    """The weights for a network, checked before it is built; None: there are none, or published ones."""
    if weights is not None:
        from scalenet_zoo.weights import Weights

        return Weights.open(user_path(weights), spec)
    return opened.open_weights(spec) if isinstance(opened, ModelFolder) else None


def check_network_memory(spec: ArchSpec) -> None:
    """Refuse to build a network that is larger than this machine's memory; on other devices torch does.

    Raises:
        BackendError: it does not fit; the message has its size.
    """
    import torch

    if torch.get_default_device().type == "cpu":
        count = format_count(spec.cost.params)
        check_memory(FLOAT * spec.cost.params, f"{spec.name}: a network of {count} parameters")


def spec_for(
    flops: str | float | None = None,
    params: str | float | None = None,
    task: Task = "classification",
    family: str | None = None,
    divisor: int = 8,
    num_classes: int | None = None,
    in_chans: int = 3,
    img_size: int | Sequence[int] | None = None,
) -> ArchSpec:
    """The spec at a budget of MACs or parameters; exactly one of the two is given.

    For classification a network of the family at 97% to 100% of the budget is worked out. For
    segmentation and pose the largest entry of the zoo within the budget is taken.

    Args:
        flops: MACs, as `"600M"` or a number.
        params: parameters, likewise.
        task: what the network is for.
        family: one of `FAMILIES[task]`, or for classification a family's JSON file; None: the first of them, or any for
            segmentation and pose.
        divisor: channels of a classifier are multiples of it; 1: the papers' ceil.
        num_classes: None: the family's, or the entry's.
        in_chans: channels of the image.
        img_size: for segmentation and pose, its height and width in pixels; None: each entry's.

    Raises:
        QuantityError: a budget cannot be read.
        BudgetError: no or two budgets are given, or it is out of the range that the message states.
        ModelNotFoundError: there is no such task, or it has no such family.
    """
    if (flops is None) == (params is None):
        raise BudgetError("found no budget or two, expected either flops or params")
    flag, amount = ("--flops", flops) if params is None else ("--params", params)
    budget = parse_count(amount, flag) if isinstance(amount, str) else whole_count(amount or 0, flag)
    constraint: Constraint = Macs(budget) if params is None else Params(budget)
    networks = find_networks(task, family, num_classes, in_chans, img_size)
    if isinstance(networks, Family):
        return fit_budget(networks, constraint, divisor, num_classes, in_chans)

    entries = networks.specs
    measure = constraint.measure_name
    costs = {spec.name: int(getattr(spec.cost, measure)) for spec in entries}
    low, high = min(costs.values()), max(costs.values())
    if not low <= budget <= high:
        raise BudgetError(
            f"{measure}: found {format_count(budget)}, expected {format_range(low, high)}"
            f" for the zoo's {task} networks{_which(task, family)}"
            f"{' at the images they are for; --size gives others' if measure == 'macs' and img_size is None else ''}"
        )
    return max((spec for spec in entries if costs[spec.name] <= budget), key=lambda spec: costs[spec.name])


def find_at_latency(
    latency: str | float,
    on: str,
    task: Task = "classification",
    family: str | None = None,
    divisor: int = 8,
    num_classes: int | None = None,
    in_chans: int = 3,
    img_size: int | Sequence[int] | None = None,
    threads: int | None = None,
    batch: int = 1,
    precision: str = "fp32",
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> "Found":
    """Find the best network of a family that meets a latency budget on this machine.

    For classification networks of the family are worked out, predicted and measured. The back end's latency model
    comes from the cache; where there is none, a quick one is made first, in minutes. For segmentation and pose the
    zoo's entries are measured, only those that may be taken if `profile` made a model for just these settings.

    Args:
        latency: `"4ms"`, or milliseconds.
        on: the back end.
        task: what the network is for.
        family: one of `FAMILIES[task]`; None: as `spec_for`.
        divisor: channels of a classifier are multiples of it.
        num_classes: None: the family's, or the entry's.
        in_chans: channels of the image.
        img_size: for segmentation and pose, its height and width in pixels; None: each entry's.
        threads: CPU threads; None: as many as torch uses.
        batch: images at once.
        precision: fp32 or fp16.
        on_progress: told what is being done, how much of it is done, and how much there is.

    Raises:
        QuantityError: the budget cannot be read.
        BudgetError: the budget is out of range, or no network met it when measured.
        ModelNotFoundError: there is no such task, or it has no such family.
        BackendError: the back end cannot run here.
    """
    budget = parse_ms(latency, "--latency") if isinstance(latency, str) else float(latency)
    check_budget(budget, "latency")
    if precision not in ("fp32", "fp16"):
        raise BudgetError(f"--precision: found {quoted(precision)}, expected fp32 or fp16")
    networks = find_networks(task, family, num_classes, in_chans, img_size)

    import torch

    from scalenet_zoo.backends import require_backend
    from scalenet_zoo.export.latency_budget import choose_at_latency, find_latency_model, search_at_latency
    from scalenet_zoo.export.latency_model import LatencyModel, model_path
    from scalenet_zoo.export.profile import Settings

    require_backend(on)
    settings = Settings(
        family=latency_name(networks),
        backend=on,
        precision="fp16" if precision == "fp16" else "fp32",
        threads=threads or torch.get_num_threads(),
        batch=batch,
        divisor=divisor,
    )
    if isinstance(networks, Entries):
        path = model_path(settings)
        model = LatencyModel.load(path) if path.exists() else None
        return choose_at_latency(budget, networks, settings, model, on_progress)
    model = find_latency_model(networks, settings, on_progress)
    return search_at_latency(budget, networks, model, num_classes, in_chans, on_progress)


def build(
    flops: str | float | None = None,
    params: str | float | None = None,
    latency: str | float | None = None,
    on: str | None = None,
    task: Task = "classification",
    family: str | None = None,
    divisor: int = 8,
    num_classes: int | None = None,
    in_chans: int = 3,
    img_size: int | Sequence[int] | None = None,
    **kwargs: Any,  # noqa: ANN401 - create_model's
) -> "nn.Module":
    """Build the network at a budget: `build(flops="600M")` or `build(latency="4ms", on="ort-cpu")`.

    Arguments as `spec_for`, `find_at_latency` and `create_model`.
    """
    if (latency is None) != (on is None):
        raise BudgetError("found one of latency and on, expected both")
    if latency is None or on is None:
        return create_model(spec_for(flops, params, task, family, divisor, num_classes, in_chans, img_size), **kwargs)
    if flops is not None or params is not None:
        raise BudgetError("found two budgets, expected one of flops, params and latency")
    found = find_at_latency(latency, on, task, family, divisor, num_classes, in_chans, img_size)
    return create_model(found.taken.spec, **kwargs)
