"""Networks at a budget: of MACs, of parameters, or of latency on this machine."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalenet_zoo.arch.constraints import Constraint, Macs, Params, check_budget
from scalenet_zoo.arch.family import Family, Strategy
from scalenet_zoo.arch.scaling import apply_strategy, fit_budget
from scalenet_zoo.arch.spec import ArchSpec, Task, spec_of
from scalenet_zoo.core.backends import check_backend
from scalenet_zoo.core.errors import BudgetError, UsageError
from scalenet_zoo.core.file_kinds import user_path
from scalenet_zoo.core.files import replacing
from scalenet_zoo.core.outputs import check_writable
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.core.quantities import format_count, format_range, parse_count, parse_ms, whole_count
from scalenet_zoo.data.image_files import find_images
from scalenet_zoo.explore.entries import quoted_entries
from scalenet_zoo.explore.precisions import ANY, check_precisions, precisions_on
from scalenet_zoo.latency.precisions import check_precision
from scalenet_zoo.zoo.catalog import Entries, find_networks, latency_name
from scalenet_zoo.zoo.create import create_model, create_seeded, with_seed
from scalenet_zoo.zoo.kinship import check_inheritance, hindrances
from scalenet_zoo.zoo.published import published_entry
from scalenet_zoo.zoo.sources import NetworkSource, has_weights, load_spec

if TYPE_CHECKING:
    from torch import nn

    from scalenet_zoo.explore.choice import Choice
    from scalenet_zoo.export.gain import Gain
    from scalenet_zoo.export.verify import Verification
    from scalenet_zoo.latency.budget import LatencyChoice
    from scalenet_zoo.zoo.inheritance import Inherited


def spec_for(
    flops: str | float | None = None,
    params: str | float | None = None,
    task: Task = "classification",
    family: str | None = None,
    divisor: int = 8,
    num_classes: int | None = None,
    in_chans: int = 3,
    img_size: int | Sequence[int] | None = None,
    pretrained: bool = False,
) -> ArchSpec:
    """The spec at a budget of MACs or parameters; exactly one of the two is given.

    For classification a network of the family at 97% to 100% of the budget is worked out; one that shall inherit, with
    `pretrained`, so that one of the family's networks with published weights can be grown into it, if the budget
    allows. For segmentation and pose the largest entry of the zoo within the budget is taken.

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
        pretrained: whether it shall inherit published weights.

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
        spec = fit_budget(networks, constraint, divisor, num_classes, in_chans)
        if not pretrained:
            return spec
        fit = partial(fit_budget, networks, constraint, divisor, num_classes, in_chans)
        return _growable(networks, spec, lambda strategy: fit(at_least=strategy))

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


def _growable(family: Family, spec: ArchSpec, fit: Callable[[Strategy], ArchSpec]) -> ArchSpec:
    """A network that one of a family's with published weights can be grown into, at the same budget as another.

    Args:
        family: of both.
        spec: the other; it is given back if it is such itself, or if the budget allows none.
        fit: the network at the budget that is at least as deep and as wide as under a strategy.
    """
    published = []
    for strategy in family.strategies:
        source = apply_strategy(family, strategy, in_channels=spec.input.channels)
        if published_entry(source) is not None:
            if not hindrances(spec, source):
                return spec
            published.append((source.cost.macs, strategy))
    for _, strategy in sorted(published, key=lambda each: each[0]):  # the smallest leads least away from the law
        with suppress(BudgetError):
            return fit(strategy)
    return spec


def _which(task: Task, family: str | None) -> str:
    if family:
        return f" of the family {family}"
    return " of one person (--family higherhrnet finds several)" if task == "pose" else ""


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
    on_progress: OnProgress = lambda what, done, total: None,
) -> "LatencyChoice":
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
        precision: fp32, fp16 or, on ort-cpu and openvino, int8: quantised for the back end with ranges of noise.
        on_progress: told what is being done, how much of it is done, and how much there is.

    Raises:
        QuantityError: the budget cannot be read.
        UsageError: networks do not run in this precision there.
        BudgetError: the budget is out of range, or no network met it when measured.
        ModelNotFoundError: there is no such task, or it has no such family.
        BackendError: the back end cannot run here.
    """
    budget = parse_ms(latency, "--latency") if isinstance(latency, str) else float(latency)
    check_budget(budget, "latency")
    check_backend(on)
    timed = check_precision(precision, on)
    networks = find_networks(task, family, num_classes, in_chans, img_size)

    import torch

    from scalenet_zoo.core.backends import require_backend
    from scalenet_zoo.latency.budget import choose_at_latency, find_latency_model, search_at_latency
    from scalenet_zoo.latency.model import LatencyModel, model_path
    from scalenet_zoo.latency.profile import Settings

    require_backend(on)
    settings = Settings(
        family=latency_name(networks),
        backend=on,
        precision=timed,
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


def choose_published(
    latency: str | float,
    on: str,
    precision: str | Sequence[str] = "fp32",
    threads: int | None = None,
    batch: int = 1,
    on_progress: OnProgress = lambda what, done, total: None,
) -> "Choice":
    """Choose the classifier with published weights of the highest quoted accuracy that meets a latency on this machine.

    Entries are measured as far as that needs, and their figures kept; those that `explore` measured are taken.

    Args:
        latency: `"4ms"`, or milliseconds.
        on: the back end.
        precision: fp32, fp16, int8, several of them, or `any`: those that may be fast there. The accuracy is that of
            fp32 in any case; of a network that meets the budget in several, fp32 is taken before fp16 before int8.
        threads: CPU threads; None: as many as torch uses.
        batch: images at once.
        on_progress: told what is being done, how much of it is done, and how much there is at most.

    Raises:
        QuantityError: the budget cannot be read.
        UsageError: networks do not run in this precision there.
        BudgetError: no entry meets it.
        BackendError: the back end cannot run here.
        TrainingError: another process is measuring.
        OutputError: figures cannot be kept.
    """
    budget = parse_ms(latency, "--latency") if isinstance(latency, str) else float(latency)
    check_budget(budget, "latency")
    check_backend(on)
    check_precisions(precision, on)

    import torch

    from scalenet_zoo.explore.bench import open_bench
    from scalenet_zoo.explore.choice import choose_entry
    from scalenet_zoo.explore.figures import Setting

    setting = Setting(backend=on, threads=threads or torch.get_num_threads(), batch=batch)
    with open_bench(setting) as bench:
        entries = quoted_entries(pretrained=True)
        return choose_entry(budget, entries, precisions_on(precision, on), bench, on_progress)


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
    pretrained: bool = False,
    precision: str = "fp32",
    **kwargs: Any,  # noqa: ANN401 - create_model's
) -> "nn.Module":
    """Build the network at a budget: `build(flops="600M")` or `build(latency="4ms", on="ort-cpu")`.

    Arguments as `spec_for`, `find_at_latency` and `create_model`; with `pretrained` the network inherits from the entry
    with published weights that `zoo.inherit.find_source` finds for it. For a classifier's latency without a family,
    with `pretrained`, it is the published network that `choose_published` chooses, with its weights.
    """
    if (latency is None) != (on is None):
        raise BudgetError("found one of latency and on, expected both")
    if pretrained and (kwargs.get("inherit") is not None or kwargs.get("weights") is not None):
        raise UsageError("`pretrained`: found it with `inherit` or `weights`, expected one of them")
    if latency is None or on is None:
        spec = spec_for(flops, params, task, family, divisor, num_classes, in_chans, img_size, pretrained)
    elif flops is not None or params is not None:
        raise BudgetError("found two budgets, expected one of flops, params and latency")
    elif pretrained and family is None and divisor == 8 and task == "classification":
        find_networks(task, None, num_classes, in_chans, img_size)
        chosen = choose_published(latency, on, precision).spec
        return create_model(chosen, pretrained=True, num_classes=num_classes, in_chans=in_chans, **kwargs)
    else:
        wanted = (task, family, divisor, num_classes, in_chans, img_size)
        spec = find_at_latency(latency, on, *wanted, precision=precision).taken.spec
    if not pretrained:
        return create_model(spec, **kwargs)
    from scalenet_zoo.zoo.inherit import find_source

    return create_model(spec, **kwargs, inherit=find_source(spec))


@dataclass(frozen=True)
class Built:
    """What `build_files` built and wrote.

    Attributes:
        network: with initial weights, if nobody trained it.
        spec: of it.
        trained: whether its weights are ones that somebody trained, or began with some.
        files: by their kind: spec, weights, onnx.
        found: the networks that were tried for a latency; None: it was no budget.
        chosen: the published networks that were compared for a latency; None: no such was chosen.
        verification: how the ONNX file compares with the network; None: there is none.
        inherited: what the network took from another; None: nothing.
        gain: how much faster than fp32 an int8 file is; None: there is none.
    """

    network: "nn.Module"
    spec: ArchSpec
    trained: bool
    files: Mapping[str, Path]
    found: "LatencyChoice | None" = None
    verification: "Verification | None" = None
    inherited: "Inherited | None" = None
    chosen: "Choice | None" = None
    gain: "Gain | None" = None


def build_files(
    source: NetworkSource | None = None,
    output: str | Path = ".",
    *,
    flops: str | float | None = None,
    params: str | float | None = None,
    latency: str | float | None = None,
    on: str | None = None,
    threads: int | None = None,
    batch: int | None = None,
    precision: str | None = None,
    task: Task | None = None,
    family: str | None = None,
    img_size: int | tuple[int, int] | None = None,
    divisor: int | None = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
    pretrained: bool = False,
    weights: str | Path | None = None,
    inherit: NetworkSource | None = None,
    export: bool = False,
    calibration: str | Path | None = None,
    calibration_images: int = 128,
    seed: int = 0,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Built:
    """Build a network at a budget, or from a spec; write its spec, its weights and, if asked for, an ONNX file.

    All files appear together, or none.

    Args:
        source: what `create_model` takes; None: a budget is given.
        output: the folder to write to.
        flops, params, latency, on, family: as `spec_for` and `find_at_latency`.
        threads, batch, precision: of a latency.
        task: what the network at a budget is for; None: classification.
        img_size: pixels of the image's sides, or height and width, with a source or for tasks but classification.
        divisor: channels of a classifier at a budget are multiples of it; None: 8.
        num_classes: classes or joints; None: the family's or the source's.
        in_chans: channels of the image; None: 3, or the source's.
        pretrained: load published weights; at a budget, inherit from the entry that `zoo.inherit.find_source` finds;
            at a classifier's latency without `family` and `divisor`, take what `choose_published` chooses.
        weights: a file of weights to load.
        inherit: what else the network starts from: an entry with published weights, a folder, a repository.
        export: write an ONNX file, too, and check it; a latency on ONNX Runtime has one in any case, unless it is of
            int8, which needs `calibration`.
        calibration: a folder of images: an int8 file takes its ranges from them.
        calibration_images: of that folder, at most.
        seed: of weights that are not loaded.
        on_progress: told what is being done, how much of it is done, and how much there is.

    Raises:
        UsageError: arguments do not go together.
        QuantityError, BudgetError: a budget cannot be read, or kept.
        ModelNotFoundError, SpecError, WeightsError: there is no such network or family, or weights do not fit.
        BackendError: a back end cannot run here.
        ExportError, VerificationError: the network cannot be exported.
        OutputError: a file cannot be written.
    """
    if [source, flops, params, latency].count(None) != 3:
        raise UsageError("found none or several of `source`, `flops`, `params` and `latency`, expected one of them")
    if source is not None and (task or family or divisor):
        raise UsageError("found `task`, `family` or `divisor` with `source`, expected them with a budget")
    if divisor and task not in (None, "classification"):
        raise UsageError(f"found `divisor` with `task` {task}, expected it for classification alone")
    if img_size and source is None and task in (None, "classification"):
        raise UsageError("found `img_size` with a classifier's budget, which decides on it")
    if (latency is None) != (on is None):
        raise UsageError("found one of `latency` and `on`, expected both")
    if latency is None and (threads or batch or precision):
        raise UsageError("found `threads`, `batch` or `precision` without `latency`, for which they are")
    if inherit is not None and (pretrained or weights or (source is not None and has_weights(source))):
        raise UsageError("found `inherit` with other weights to load, expected one or the other")
    if pretrained and weights and source is None:
        raise UsageError("found `pretrained` with `weights`, expected one of them")
    published = latency is not None and pretrained and not family and not divisor and task in (None, "classification")
    int8 = latency is not None and precision == "int8"
    may_be_int8 = int8 or (published and precision == ANY)
    if calibration is not None and not may_be_int8:
        raise UsageError("found `calibration` without `latency` and `precision` int8, for which it is")
    if may_be_int8 and export and calibration is None:
        raise UsageError(
            f"found `export` and `precision` {precision} without `calibration`, expected a folder of images with it"
        )
    wanted = (task or "classification", family, divisor or 8, num_classes, in_chans or 3, img_size)
    arch = None
    if latency is not None and on is not None:
        _check_latency(latency, on, precision, published)
        find_networks(wanted[0], family, num_classes, in_chans or 3, img_size)
    elif source is None:
        arch = spec_for(flops, params, *wanted, pretrained=pretrained)
    else:
        arch = load_spec(source)
    if inherit is not None:
        check_inheritance(inherit, arch)
    if calibration is not None:
        find_images(user_path(calibration), calibration_images)  # before minutes of measuring
    folder = user_path(output)
    check_writable(folder / f"{arch.name if arch else 'network'}.json")

    from scalenet_zoo.zoo.weights import save_weights

    found = chosen = None
    if latency is not None and on is not None and published:
        chosen = choose_published(latency, on, precision or "fp32", threads, batch or 1, on_progress)
        arch, int8 = chosen.spec, chosen.taken.precision == "int8"
        export = calibration is not None if int8 else export or on.startswith("ort")
    elif latency is not None and on is not None:
        export = calibration is not None if int8 else export or on.startswith("ort")  # what was measured is such a file
        with with_seed(seed):
            found = find_at_latency(latency, on, *wanted, threads, batch or 1, precision or "fp32", on_progress)
        arch = found.taken.spec
    assert arch is not None
    if export:  # imported before there is anything to clean up: an interrupt within a native import may crash
        from scalenet_zoo.export.formats import export_model
        from scalenet_zoo.export.onnx import export_onnx
    on_progress(f"building {arch.name}", 0, 0)
    made = {"weights": weights, "num_classes": num_classes, "in_chans": in_chans, "img_size": img_size}
    inherited = None
    if source is not None:
        network = create_seeded(source, seed, pretrained=pretrained, **made)  # a folder has weights
    elif chosen:
        network = create_seeded(arch, seed, pretrained=True, **made)
    else:
        network = create_seeded(arch, seed, **made)
    if inherit is not None or (source is None and pretrained and not chosen):
        inherited = _inherit(network, inherit, seed)
    trained = bool(pretrained or weights or inherited or (source is not None and has_weights(source)))
    spec = spec_of(network)
    path = folder / f"{spec.name}.json"
    files = {"spec": path, "weights": path.with_suffix(".safetensors")}
    verification = gain = None
    with replacing(path) as temporary:
        spec.save(temporary)
        save_weights(network, temporary.with_suffix(".safetensors"))
        if export:
            files["onnx"] = path.with_suffix(".onnx")
            on_progress(f"exporting {files['onnx']}", 0, 0)
            onnx = temporary.with_suffix(".onnx")
            if int8:
                done = export_model(
                    network,
                    onnx,
                    precision="int8",
                    on=on,
                    calibration=calibration,
                    calibration_images=calibration_images,
                    min_agreement=None if trained else 0.0,  # an untrained network's outputs are nearly equal
                    on_progress=on_progress,
                )
                verification, gain = done.verification, done.gain
            else:
                verification = export_onnx(network, onnx)
    return Built(network, spec, trained, files, found, verification, inherited, chosen, gain)


def _inherit(network: "nn.Module", source: NetworkSource | None, seed: int) -> "Inherited":
    """Start a network from another; None: from the published weights that fit best."""
    from scalenet_zoo.zoo.inherit import find_source, inherit

    with with_seed(seed):
        return inherit(network, find_source(spec_of(network)) if source is None else source)


def _check_latency(latency: str | float, on: str, precision: str | None, published: bool) -> None:
    """See that the words of a latency budget can be understood, before anything slow is imported."""
    if isinstance(latency, str):
        parse_ms(latency, "--latency")
    check_backend(on)
    if published:
        check_precisions(precision or "fp32", on)
    else:
        check_precision(precision or "fp32", on)
