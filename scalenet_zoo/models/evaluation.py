"""Evaluation of a model on a data set: a network, or an exported file, which may be less accurate."""

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

    from scalenet_zoo.data.examples import Examples
    from scalenet_zoo.data.streams import Stream
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

    Classes and joints are matched by name. Doubts about the figures are logged as warnings.

    Args:
        model: what `create_model` takes, a file that `export` wrote (ONNX, OpenVINO's IR, engine), or a network.
        data: a data set in the form that the commands take, such as `imagefolder:PATH`; or examples from `open_data`,
            to which `split`, `limit`, `ignore_index`, `joints`, `boxes` and `box_score` do not apply.
        split: the split of the data to use, such as `val`.
        pretrained: load published weights.
        weights: a file of weights to load.
        batch_size: the number of images per batch; an exported file gets at most as many as it takes.
        workers: the number of processes that load images.
        flip: take the mean of the outputs for each image and its mirror image.
        tile: show a segmentation network images at their own resolution, in overlapping tiles of its input.
        overlap: the overlap of tiles, as a share of a tile; None: 0.25.
        limit: use at most this many images, spread evenly; None: all.
        ignore_index: ignore pixels of this value in masks; None: 255, or the value in `classes.json`.
        joints: a YAML file that describes the joints.
        boxes: a file with a detector's boxes of persons; None: the data's own boxes.
        box_score: ignore boxes with lower scores.
        broken_limit: the most images that may be unreadable.
        device: where a network runs; None: an open network stays where it is, and any other runs on a GPU if there is
            one.
        amp: compute in bfloat16 where that is safe.
        seed: the seed of the initial weights, if none are loaded.
        on_progress: called with what is being done, how much of it is done, and the total.
        on_outputs: called with each batch's outputs, in the order of the data's classes or joints, and its targets.

    Raises:
        UsageError: arguments do not fit together, or this machine has no such device.
        ModelNotFoundError, SpecError, WeightsError, BackendError, EngineError: the model cannot be opened.
        InputError: the data cannot be opened or do not fit the model, or too many images are broken.
    """
    if amp and is_exported(model):
        raise UsageError(f"`amp`: found it with the file {model}, expected a network: a file has its own precision")
    if device and is_exported(model):
        raise UsageError(f"`device`: found {device} with the file {model}, expected a network: a file picks its device")
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
    """Return the device of this name; None: a GPU if there is one, else the CPU.

    Raises:
        UsageError: this machine has no such device.
    """
    import torch

    try:
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:  # without CUDA, torch fails an assertion
        raise UsageError(f"`device`: found {device}, expected a device of this machine, such as cpu") from error
    return place
