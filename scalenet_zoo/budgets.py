"""Networks at a budget of MACs, of parameters, or of latency on this machine."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from scalenet_zoo.arch.constraints import Constraint, Macs, Params, check_budget
from scalenet_zoo.arch.family import Family, Strategy
from scalenet_zoo.arch.scaling import apply_strategy, fit_budget
from scalenet_zoo.arch.spec import ArchSpec, Task
from scalenet_zoo.core.backends import check_backend
from scalenet_zoo.core.errors import BudgetError, UsageError
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.core.quantities import format_count, format_range, parse_count, parse_ms, whole_count
from scalenet_zoo.explore.entries import quoted_entries
from scalenet_zoo.explore.precisions import check_precisions, precisions_on
from scalenet_zoo.latency.precisions import check_precision
from scalenet_zoo.zoo.catalog import Entries, find_networks, latency_name
from scalenet_zoo.zoo.create import create_model
from scalenet_zoo.zoo.kinship import hindrances
from scalenet_zoo.zoo.published import published_entry

if TYPE_CHECKING:
    from torch import nn

    from scalenet_zoo.explore.choice import Choice
    from scalenet_zoo.latency.budget import LatencyChoice


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
