"""How good a model is on a data set: a network, or its exported file with all that it lost."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from scalenet_zoo.core.errors import UsageError
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.data.forms import check_source
from scalenet_zoo.models.opening import open_model
from scalenet_zoo.models.options import tile_overlap
from scalenet_zoo.zoo.sources import UNTRAINED, NetworkSource, check_model, has_weights, is_exported

if TYPE_CHECKING:
    import torch
    from torch import nn

    from scalenet_zoo.data.classification import Stream
    from scalenet_zoo.data.examples import Examples
    from scalenet_zoo.inference.evaluate import Evaluation, OnOutputs
    from scalenet_zoo.inference.prepare import ExportedFile

_log = logging.getLogger(__name__)


def evaluate(
    model: "NetworkSource | nn.Module | ExportedFile",
    data: "str | Examples | Stream",
    *,
    split: str = "val",
    pretrained: bool = False,
    weights: str | Path | None = None,
    batch_size: int = 32,
    workers: int = 2,
    flip: bool = False,
    tile: bool = False,
    overlap: float | None = None,
    limit: int | None = None,
    ignore_index: int | None = None,
    joints: str | Path | None = None,
    boxes: str | Path | None = None,
    box_score: float = 0.0,
    broken_limit: int = 100,
    device: str | None = None,
    amp: bool = False,
    seed: int = 0,
    on_progress: OnProgress = lambda what, done, total: None,
    on_outputs: "OnOutputs" = lambda output, targets: None,
) -> "Evaluation":
    """Measure accuracy, IoU or AP on a data set: `evaluate("scalenet_s0.onnx", "imagefolder:imagenet")`.

    Classes and joints are found by their names; what speaks against the figures is logged as a warning.

    Args:
        model: what `create_model` takes, a file of `export` (ONNX, OpenVINO's IR, engine), or a network.
        data: as the commands take it, `imagefolder:PATH` say; or examples of `open_data`, to which `split`, `limit`,
            `ignore_index`, `joints`, `boxes` and `box_score` do not apply.
        split: the part of the data.
        pretrained: load published weights.
        weights: a file of weights to load.
        batch_size: images at once; a file gets no more than it takes.
        workers: processes that load images.
        flip: take the mean of the outputs for each image and its mirror image.
        tile: show a segmentation network images at their own resolution, in overlapping tiles of its input.
        overlap: of tiles, as a share of a tile; None: 0.25.
        limit: take so many images.
        ignore_index: pixels of this value in masks count for nothing; None: 255, or as `classes.json` says.
        joints: a YAML file about the joints of persons.
        boxes: a file with a detector's boxes of persons; None: the data's own.
        box_score: boxes of lower scores are left out.
        broken_limit: images that may be unreadable.
        device: where a network runs; None: a network stays where it is, what is opened runs on a GPU if there is one.
        amp: compute in bfloat16 where that is safe.
        seed: of weights that are not loaded.
        on_progress: told what is being done, how much of it is done, and how much there is.
        on_outputs: told each batch's outputs, in the order of the data's classes or joints, and its targets.

    Raises:
        UsageError: arguments do not go together, or there is no such device.
        ModelNotFoundError, SpecError, WeightsError, BackendError, EngineError: the model cannot be opened.
        InputError: the data cannot be opened or do not fit the model, or too many images are broken.
    """
    if amp and is_exported(model):
        raise UsageError(f"`amp`: found it with the file {model}, whose precision is its own")
    if device and is_exported(model):
        raise UsageError(f"`device`: found {device} with the file {model}, which runs where it can")
    share = tile_overlap(tile, overlap)
    if isinstance(data, str):
        check_source(data)
    opened = check_model(model, pretrained, weights)

    import torch
    from torch import nn

    from scalenet_zoo.data.sources import open_data
    from scalenet_zoo.inference.evaluate import evaluate_network
    from scalenet_zoo.inference.prepare import prepare_inference
    from scalenet_zoo.inference.tiling import doubt_resolution

    place = _device(device)
    network = open_model(opened, pretrained, weights, seed)
    if isinstance(network, nn.Module) and (device or network is not model):
        network.to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    spec = prepare_inference(network).spec
    if spec.task == "segmentation" and (doubt := doubt_resolution(spec, tile)):
        _log.warning("%s", doubt)
    if isinstance(data, str):
        data = open_data(
            data,
            spec.task,
            split,
            ignore_index=ignore_index,
            joints=Path(joints) if joints else None,
            boxes=Path(boxes) if boxes else None,
            box_score=box_score,
            limit=limit,
        )
    found = evaluate_network(
        network,
        data,
        batch_size,
        workers,
        dtype=torch.bfloat16 if amp else None,
        flip=flip,
        overlap=share,
        broken_limit=broken_limit,
        on_progress=on_progress,
        on_outputs=on_outputs,
    )
    if not (pretrained or weights or has_weights(model)):
        _log.warning("%s (`pretrained`, `weights`)", UNTRAINED)
    return found


def _device(device: str | None) -> "torch.device":
    """The device of this name, which is there."""
    import torch

    try:
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise UsageError(f"`device`: found {device}, expected one of this machine, such as cpu") from error
    return place
