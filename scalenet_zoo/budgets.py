"""Networks at a budget of MACs, of parameters, or of latency on this machine."""

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
    """Find the spec at a budget of MACs or of parameters; give exactly one of the two.

    For classification, a network of the family is worked out at 97% to 100% of the budget. With `pretrained`, it is one
    that a network of the family with published weights can be grown into, if the budget allows that. For segmentation
    and pose, the largest entry of the zoo within the budget is taken.

    Args:
        flops: MACs, as `"600M"` or a number.
        params: number of parameters, as `"5M"` or a number.
        task: what the network is for.
        family: one of `FAMILIES[task]` or, for classification, a family's JSON file; None: the first of them for
            classification, any of them for segmentation and pose.
        divisor: a classifier's channels are multiples of it; 1: rounded up to whole channels, as in the papers.
        num_classes: number of classes or joints; None: the family's, or the entry's.
        in_chans: channels of the image.
        img_size: for segmentation and pose, height and width of the image in pixels; None: each entry's own.
        pretrained: whether the network is going to inherit published weights.

    Raises:
        QuantityError: the budget cannot be read.
        BudgetError: neither or both budgets are given, or the budget is outside the range that the message states.
        ModelNotFoundError: there is no such task, or the task has no such family.
    """
    if (flops is None) == (params is None):
        raise BudgetError("found neither or both of flops and params, expected exactly one")
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
            f"{' at their own image sizes; --size sets another' if measure == 'macs' and img_size is None else ''}"
        )
    return max((spec for spec in entries if costs[spec.name] <= budget), key=lambda spec: costs[spec.name])


def _growable(family: Family, spec: ArchSpec, fit: Callable[[Strategy], ArchSpec]) -> ArchSpec:
    """Find a network at the same budget into which a network with published weights can be grown.

    Args:
        family: the family of all these networks.
        spec: the network at the budget; it is returned if a network with published weights can be grown into it, or if
            the budget allows no such network.
        fit: gives the network at the budget that is at least as deep and as wide as under a scaling strategy.
    """
    published = []
    for strategy in family.strategies:
        source = apply_strategy(family, strategy, in_channels=spec.input.channels)
        if published_entry(source) is not None:
            if not hindrances(spec, source):
                return spec
            published.append((source.cost.macs, strategy))
    for _, strategy in sorted(published, key=lambda each: each[0]):  # the smallest departs least from the scaling law
        with suppress(BudgetError):
            return fit(strategy)
    return spec


def _which(task: Task, family: str | None) -> str:
    if family:
        return f" of the family {family}"
    return " that see one person (--family higherhrnet: several)" if task == "pose" else ""


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

    For classification, networks of the family are worked out, and their latency is predicted and measured. The back
    end's latency model comes from the cache; if there is none, a quick one is made first, which takes minutes. For
    segmentation and pose, the zoo's entries are measured; if `profile` made a model for exactly these settings, only
    those that may be taken.

    Args:
        latency: the budget, as `"4ms"` or in milliseconds.
        on: the back end.
        task: what the network is for.
        family: one of `FAMILIES[task]`; None: as in `spec_for`.
        divisor: a classifier's channels are multiples of it.
        num_classes: number of classes or joints; None: the family's, or the entry's.
        in_chans: channels of the image.
        img_size: for segmentation and pose, height and width of the image in pixels; None: each entry's own.
        threads: CPU threads; None: as many as torch uses.
        batch: images per batch.
        precision: fp32, fp16 or, on ort-cpu and openvino, int8. For int8, networks are quantised for the back end, with
            ranges taken from noise.
        on_progress: called with what is being done, how much of it is done, and how much there is.

    Raises:
        QuantityError: the budget cannot be read.
        UsageError: networks do not run in this precision on the back end.
        BudgetError: the budget is out of range, or no measured network meets it.
        ModelNotFoundError: there is no such task, or the task has no such family.
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
    """Choose the classifier with published weights and the highest quoted accuracy that meets a latency budget here.

    Only as many entries are measured as the choice needs. Their figures are kept, and figures that `explore` measured
    are used.

    Args:
        latency: the budget, as `"4ms"` or in milliseconds.
        on: the back end.
        precision: fp32, fp16, int8, several of them, or `any`: those that may be fast on the back end. The quoted
            accuracy is always that of fp32. If a network meets the budget in several precisions, fp32 is preferred to
            fp16, and fp16 to int8.
        threads: CPU threads; None: as many as torch uses.
        batch: images per batch.
        on_progress: called with what is being done, how much of it is done, and how much there is at most.

    Raises:
        QuantityError: the budget cannot be read.
        UsageError: networks do not run in this precision on the back end.
        BudgetError: no entry meets the budget.
        BackendError: the back end cannot run here.
        TrainingError: another process is measuring.
        OutputError: figures cannot be written.
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

    Give exactly one budget. With `pretrained`, the network inherits from the entry with published weights that
    `zoo.inherit.find_source` finds for it. With `pretrained` and a latency, but no family, a classifier is the
    published network that `choose_published` chooses, with its weights.

    Args:
        flops: at most this many MACs, as `"600M"` or a number.
        params: at most this many parameters, as `"5M"` or a number.
        latency: at most this latency on this machine, as `"4ms"` or in milliseconds; requires `on`.
        on: the back end of `latency`, such as `"ort-cpu"`.
        task: what the network is for.
        family: as in `spec_for`.
        divisor: a classifier's channels are multiples of it; 1: rounded up to whole channels, as in the papers.
        num_classes: number of classes or joints; None: the family's, or the entry's.
        in_chans: channels of the image.
        img_size: for segmentation and pose, height and width of the image in pixels; None: each entry's own.
        pretrained: start from published weights.
        precision: what the latency is measured in: fp32, fp16 or, on ort-cpu and openvino, int8.
        **kwargs: further arguments of `create_model`.

    Returns:
        The network; `model.spec` is its architecture.

    Raises:
        UsageError: `pretrained` is given with `inherit` or `weights`, or networks do not run in this precision there.
        QuantityError, BudgetError: the budgets do not go together, or one cannot be read or kept.
        ModelNotFoundError, WeightsError: there is no such network or family, or its weights cannot be loaded.
        BackendError: the back end cannot run here.
    """
    if (latency is None) != (on is None):
        raise BudgetError("found one of latency and on, expected both")
    if pretrained and (kwargs.get("inherit") is not None or kwargs.get("weights") is not None):
        raise UsageError("found `pretrained` with `inherit` or `weights`, expected one of them")
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
        network: the network, with initial weights if it has no trained ones.
        spec: its spec.
        trained: whether its weights are trained or inherited from trained ones.
        files: paths by kind of file: spec, weights, onnx.
        found: the networks that were tried for a latency budget; None: there was no such search.
        chosen: the published networks that were compared for a latency budget; None: none were compared.
        verification: how the ONNX file compares with the network; None: there is no such file.
        inherited: what the network took from another one; None: nothing.
        gain: how much faster than fp32 the int8 file is; None: there is no such file.
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
    """Build a network at a budget or from a spec, and write its spec, its weights and, on request, an ONNX file.

    All files appear together, or none.

    Args:
        source: what `create_model` takes; None: a budget is given.
        output: the folder to write to.
        flops, params, latency, on, family: as in `spec_for` and `find_at_latency`.
        threads, batch, precision: what the latency budget holds for, as in `find_at_latency`.
        task: what the network at a budget is for; None: classification.
        img_size: side of the image in pixels, or its height and width; with a source, or for tasks other than
            classification.
        divisor: channels of a classifier at a budget are multiples of it; None: 8.
        num_classes: number of classes or joints; None: the family's or the source's.
        in_chans: channels of the image; None: 3, or the source's.
        pretrained: load published weights. At a budget, inherit from the entry that `zoo.inherit.find_source` finds; at
            a classifier's latency budget without `family` and `divisor`, take what `choose_published` chooses.
        weights: a file of weights to load.
        inherit: another network to start from: an entry with published weights, a folder or a repository.
        export: also write an ONNX file, and check it. For a latency budget on ONNX Runtime, the file is written in any
            case; in int8 only with `calibration`.
        calibration: a folder of images from which the ranges of an int8 file are taken.
        calibration_images: the most images to use of that folder.
        seed: seed of the weights that are not loaded.
        on_progress: called with what is being done, how much of it is done, and how much there is.

    Raises:
        UsageError: the arguments do not go together.
        QuantityError, BudgetError: a budget cannot be read, or cannot be met.
        ModelNotFoundError, SpecError, WeightsError: there is no such network or family, or weights do not fit.
        BackendError: a back end cannot run here.
        ExportError, VerificationError: the network cannot be exported, or the file does not compute the same.
        OutputError: a file cannot be written.
    """
    if [source, flops, params, latency].count(None) != 3:
        raise UsageError("found none or several of `source`, `flops`, `params` and `latency`, expected exactly one")
    if source is not None and (task or family or divisor):
        raise UsageError("found `task`, `family` or `divisor` with `source`, expected them with a budget")
    if divisor and task not in (None, "classification"):
        raise UsageError(f"found `divisor` with `task` {task}, expected it only for classification")
    if img_size and source is None and task in (None, "classification"):
        raise UsageError("found `img_size` with a classifier's budget, expected no size: the budget determines it")
    if (latency is None) != (on is None):
        raise UsageError("found one of `latency` and `on`, expected both")
    if latency is None and (threads or batch or precision):
        raise UsageError("found `threads`, `batch` or `precision` without `latency`, expected them only with it")
    if inherit is not None and (pretrained or weights or (source is not None and has_weights(source))):
        raise UsageError("found `inherit` with other weights to load, expected only one of them")
    if pretrained and weights and source is None:
        raise UsageError("found `pretrained` with `weights`, expected one of them")
    published = latency is not None and pretrained and not family and not divisor and task in (None, "classification")
    int8 = latency is not None and precision == "int8"
    may_be_int8 = int8 or (published and precision == ANY)
    if calibration is not None and not may_be_int8:
        raise UsageError("found `calibration` without `latency` and `precision` int8, expected it only with them")
    if may_be_int8 and export and calibration is None:
        raise UsageError(
            f"found `export` and `precision` {precision} without `calibration`, expected a folder of images"
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
        find_images(user_path(calibration), calibration_images)  # fail before minutes of measuring
    folder = user_path(output)
    check_writable(folder / f"{arch.name if arch else 'network'}.json")

    from scalenet_zoo.zoo.weights import save_weights

    found = chosen = None
    if latency is not None and on is not None and published:
        chosen = choose_published(latency, on, precision or "fp32", threads, batch or 1, on_progress)
        arch, int8 = chosen.spec, chosen.taken.precision == "int8"
        export = calibration is not None if int8 else export or on.startswith("ort")
    elif latency is not None and on is not None:
        export = calibration is not None if int8 else export or on.startswith("ort")  # an ONNX file is what is measured
        with with_seed(seed):
            found = find_at_latency(latency, on, *wanted, threads, batch or 1, precision or "fp32", on_progress)
        arch = found.taken.spec
    assert arch is not None
    if export:  # imported before there is anything to clean up: an interrupt during a native import may crash
        from scalenet_zoo.export.formats import export_model
        from scalenet_zoo.export.onnx import export_onnx
    on_progress(f"building {arch.name}", 0, 0)
    made = {"weights": weights, "num_classes": num_classes, "in_chans": in_chans, "img_size": img_size}
    inherited = None
    if source is not None:
        network = create_seeded(source, seed, pretrained=pretrained, **made)  # a model folder brings its weights
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
                    min_agreement=None if trained else 0.0,  # an untrained network gives nearly equal scores to all
                    on_progress=on_progress,
                )
                verification, gain = done.verification, done.gain
            else:
                verification = export_onnx(network, onnx)
    return Built(network, spec, trained, files, found, verification, inherited, chosen, gain)


def _inherit(network: "nn.Module", source: NetworkSource | None, seed: int) -> "Inherited":
    """Start a network from another; a `source` of None stands for the published weights that fit best."""
    from scalenet_zoo.zoo.inherit import find_source, inherit

    with with_seed(seed):
        return inherit(network, find_source(spec_of(network)) if source is None else source)


def _check_latency(latency: str | float, on: str, precision: str | None, published: bool) -> None:
    """Check that the arguments of a latency budget can be understood, before anything slow is imported."""
    if isinstance(latency, str):
        parse_ms(latency, "--latency")
    check_backend(on)
    if published:
        check_precisions(precision or "fp32", on)
    else:
        check_precision(precision or "fp32", on)
