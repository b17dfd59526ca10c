"""Build networks at budgets or from specs, and write their files: what `scalenet-zoo build` does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scalenet_zoo.arch.spec import ArchSpec, Task, spec_of
from scalenet_zoo.budgets import choose_published, find_at_latency, spec_for
from scalenet_zoo.core.backends import check_backend
from scalenet_zoo.core.errors import UsageError
from scalenet_zoo.core.file_kinds import user_path
from scalenet_zoo.core.files import replacing
from scalenet_zoo.core.outputs import check_writable
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.core.quantities import parse_ms
from scalenet_zoo.data.image_files import find_images
from scalenet_zoo.explore.precisions import ANY, check_precisions
from scalenet_zoo.latency.precisions import check_precision
from scalenet_zoo.zoo.catalog import find_networks
from scalenet_zoo.zoo.create import create_seeded
from scalenet_zoo.zoo.kinship import check_inheritance
from scalenet_zoo.zoo.sources import NetworkSource, has_weights, load_spec

if TYPE_CHECKING:
    from torch import nn

    from scalenet_zoo.explore.choice import Choice
    from scalenet_zoo.export.gain import Gain
    from scalenet_zoo.export.verify import Verification
    from scalenet_zoo.latency.budget import LatencyChoice
    from scalenet_zoo.zoo.inheritance import Inherited


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
    _check_network(source, (flops, params, latency), task, family, divisor, img_size)
    _check_conditions(latency, on, (threads, batch, precision))
    _check_weights(source, pretrained, weights, inherit)
    published = latency is not None and pretrained and not family and not divisor and task in (None, "classification")
    int8 = latency is not None and precision == "int8"
    _check_calibration(int8 or (published and precision == ANY), precision, export, calibration)
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
    if latency is not None and on is not None:
        if published:
            chosen = choose_published(latency, on, precision or "fp32", threads, batch or 1, on_progress)
            arch, int8 = chosen.spec, chosen.taken.precision == "int8"
        else:
            found = find_at_latency(latency, on, *wanted, threads, batch or 1, precision or "fp32", on_progress)
            arch = found.taken.spec
        export = calibration is not None if int8 else export or on.startswith("ort")  # an ONNX file is what is measured
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
        inherited = _inherit(network, inherit)
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


def _inherit(network: "nn.Module", source: NetworkSource | None) -> "Inherited":
    """Start a network from another; a `source` of None stands for the published weights that fit best."""
    from scalenet_zoo.zoo.inherit import find_source, inherit

    return inherit(network, find_source(spec_of(network)) if source is None else source)


def _check_network(
    source: NetworkSource | None,
    budgets: Sequence[str | float | None],
    task: Task | None,
    family: str | None,
    divisor: int | None,
    img_size: int | tuple[int, int] | None,
) -> None:
    """Check that there is one source or one budget, and that what describes the network goes with it."""
    if [source, *budgets].count(None) != len(budgets):
        raise UsageError("found none or several of `source`, `flops`, `params` and `latency`, expected exactly one")
    if source is not None and (task or family or divisor):
        raise UsageError("found `task`, `family` or `divisor` with `source`, expected them with a budget")
    if divisor and task not in (None, "classification"):
        raise UsageError(f"found `divisor` with `task` {task}, expected it only for classification")
    if img_size and source is None and task in (None, "classification"):
        raise UsageError("found `img_size` with a classifier's budget, expected no size: the budget determines it")


def _check_conditions(latency: str | float | None, on: str | None, conditions: Sequence[object]) -> None:
    """Check that a latency budget says where it holds, and that nothing else does."""
    if (latency is None) != (on is None):
        raise UsageError("found one of `latency` and `on`, expected both")
    if latency is None and any(conditions):
        raise UsageError("found `threads`, `batch` or `precision` without `latency`, expected them only with it")


def _check_weights(
    source: NetworkSource | None, pretrained: bool, weights: str | Path | None, inherit: NetworkSource | None
) -> None:
    """Check that weights come from one place."""
    if inherit is not None and (pretrained or weights or (source is not None and has_weights(source))):
        raise UsageError("found `inherit` with other weights to load, expected only one of them")
    if pretrained and weights and source is None:
        raise UsageError("found `pretrained` with `weights`, expected one of them")


def _check_calibration(may_be_int8: bool, precision: str | None, export: bool, calibration: str | Path | None) -> None:
    """Check that there are images to calibrate with if and only if the file may become an int8 file."""
    if calibration is not None and not may_be_int8:
        raise UsageError("found `calibration` without `latency` and `precision` int8, expected it only with them")
    if may_be_int8 and export and calibration is None:
        raise UsageError(
            f"found `export` and `precision` {precision} without `calibration`, expected a folder of images"
        )


def _check_latency(latency: str | float, on: str, precision: str | None, published: bool) -> None:
    """Check that the arguments of a latency budget can be understood, before anything slow is imported."""
    if isinstance(latency, str):
        parse_ms(latency, "--latency")
    check_backend(on)
    if published:
        check_precisions(precision or "fp32", on)
    else:
        check_precision(precision or "fp32", on)
