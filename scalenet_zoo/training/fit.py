"""Training by name: from the names of a network and a data set to a folder with the trained network."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalenet_zoo.arch.spec import spec_of, unwrapped
from scalenet_zoo.core.distributed import is_launched_first, rank_and_world
from scalenet_zoo.core.errors import UsageError
from scalenet_zoo.core.file_kinds import user_path
from scalenet_zoo.core.outputs import check_writable
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.data.forms import check_source
from scalenet_zoo.training.log import RUN_FILE, holds_run
from scalenet_zoo.training.recipe import Recipe, load_recipe
from scalenet_zoo.zoo.interface import Interface
from scalenet_zoo.zoo.kinship import check_inheritance
from scalenet_zoo.zoo.sources import NetworkSource, check_model, file_stem, has_weights, is_exported, load_spec

if TYPE_CHECKING:
    from torch import nn

    from scalenet_zoo.arch.labels import Labels
    from scalenet_zoo.arch.spec import ArchSpec
    from scalenet_zoo.data.examples import Examples
    from scalenet_zoo.data.streams import Stream
    from scalenet_zoo.training.trainer import EpochReport, Fitted

_log = logging.getLogger(__name__)


def fit(
    model: "NetworkSource | nn.Module",
    data: "str | Examples | Stream",
    *,
    validation: "Examples | Stream | None" = None,
    output: str | Path | None = None,
    recipe: str | Path | Recipe = "quick",
    train_split: str = "train",
    val_split: str = "val",
    img_size: int | tuple[int, int] | None = None,
    num_classes: int | None = None,
    pretrained: bool = False,
    weights: str | Path | None = None,
    inherit: NetworkSource | None = None,
    teacher: "str | Path | nn.Module | None" = None,
    resume: bool = False,
    ignore_index: int | None = None,
    joints: str | Path | None = None,
    limit: int | None = None,
    workers: int = 2,
    keep: int = 2,
    save_every: int | None = None,
    log_interval: int = 50,
    val_interval: int = 1,
    cpu: bool = False,
    about: Mapping[str, Any] | None = None,
    on_progress: OnProgress = lambda what, done, total: None,
    on_epoch: "Callable[[EpochReport], None]" = lambda report: None,
    **values: Any,  # noqa: ANN401 - the recipe's
) -> "Fitted":
    """Train a network: `fit("scalenet_s0", "imagefolder:pets", output="runs/pets", recipe="finetune", epochs=20)`.

    The network gets the classes or joints of the data, with their names. If its last layer knows the same names, it
    keeps their weights; if it knows other names, it starts from scratch. `create_model(output)` builds the best network
    of the run. If torchrun or accelerate launch starts several processes, each of them calls this function.

    Args:
        model: what `create_model` takes, or a network. A network is trained in place, without the recipe's dropout. If
            the data have another number of classes, an untrained layer replaces its last layer, in place.
        data: the data, named as in the commands, such as `imagefolder:PATH`; or the training examples, from
            `open_data`.
        validation: the examples that choose the best epoch, if `data` are examples.
        output: the folder to write to; None: runs/NAME.
        recipe: the name of a packaged recipe, a YAML file, or a `Recipe`.
        train_split: the split to learn from.
        val_split: the split that chooses the best epoch.
        img_size: the size of the network's input in pixels: one side, or height and width; None: the spec's.
        num_classes: the number of classes, if the data do not state it.
        pretrained: start from published weights.
        weights: start from the weights in this file.
        inherit: start from the weights of another architecture, as `scalenet_zoo.inherit` does: an entry with published
            weights, `hf-hub:org/name` or a folder. Weights of classes and joints that both know are kept, too.
        teacher: a network whose outputs the network also learns from; or `hf-hub:org/name`, or a folder that `fit`
            wrote.
        resume: continue from the newest intact checkpoint in the folder.
        ignore_index: ignore pixels with this value in masks; None: 255, or the value in `classes.json`.
        joints: for pose: a YAML file about the joints, see `data.joints`.
        limit: use at most this many images of each split.
        workers: processes that load images.
        keep: the number of checkpoints to keep.
        save_every: steps between checkpoints, in addition to those after each epoch.
        log_interval: steps between lines of the log.
        val_interval: epochs between evaluations.
        cpu: train on the CPU, even if there is a GPU.
        about: details to add to the provenance in the spec.
        on_progress: called with what is being done, the number of steps done, and the total.
        on_epoch: called after each epoch with its figures.
        **values: values of `Recipe` fields, which override those of `recipe`.

    Returns:
        The outcome: the folder of the run, the metrics, and the epoch with the best value.

    Raises:
        UsageError: arguments do not fit together, or do not fit the data.
        InputError: recipe, data and network do not fit together, or too many images cannot be read.
        ModelNotFoundError, SpecError, WeightsError: a network cannot be opened, or a checkpoint is damaged.
        TrainingError: the loss is not finite, the folder holds another run, or another process works in it.
        OutputError: a file cannot be written.
    """
    # Checks that take no time come first, in this order: quantities, names, paths, outputs.
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    chosen = chosen.replace(values, "flags")
    if not isinstance(model, NetworkSource):
        made_with = {"img_size": img_size, "pretrained": pretrained, "weights": weights, "inherit": inherit}
        for argument, given in (made_with | {of: values.get(of) for of in ("drop", "drop_path")}).items():
            if given:
                raise UsageError(f"`{argument}`: found it with a network that is built, expected it with a name")
    if isinstance(teacher, str | Path) and (is_exported(teacher) or not has_weights(teacher)):
        raise UsageError(f"`teacher`: found {teacher}, expected hf-hub:org/name or a folder with weights")
    if isinstance(data, str):
        check_source(data)
        if validation is not None:
            raise UsageError(f"`validation`: found it with the data {data}, expected `val_split`")
    elif validation is None:
        raise UsageError("`validation`: found none with examples as `data`, expected some to choose the best epoch")
    opened = check_model(model, weights=weights)
    if inherit is not None:
        if pretrained or weights or has_weights(opened):
            raise UsageError("`inherit`: found it with other initial weights, expected one or the other")
        check_inheritance(inherit, _spec(opened))
    taught_by = None if teacher is None else check_model(teacher)
    named = isinstance(model, str | Path)
    folder = user_path(output) if output else Path("runs") / (file_stem(str(model)) if named else _spec(opened).name)
    holds_run(folder, resume)
    if is_launched_first():
        check_writable(folder / RUN_FILE)
    task = _spec(opened).task
    if isinstance(data, str):
        check_source(data, task)
    chosen.check_task(task, values, "flags")

    from scalenet_zoo.data.sources import open_data
    from scalenet_zoo.training.trainer import Options, train_network
    from scalenet_zoo.zoo.create import create_seeded, with_seed

    if isinstance(data, str):
        source, joints = data, Path(joints) if joints else None
        data, validation = (
            open_data(source, task, split, ignore_index=ignore_index, joints=joints, limit=limit)
            for split in (train_split, val_split)
        )
    assert validation is not None
    found = len(data.labels.names)
    if num_classes and found not in (0, num_classes):
        raise UsageError(f"found `num_classes` {num_classes}, expected {found}, as {data.source} has")
    if isinstance(opened, NetworkSource):
        network = create_seeded(
            opened,
            chosen.seed,
            pretrained=pretrained,
            num_classes=found or num_classes,
            img_size=img_size,
            weights=weights,
            drop_rate=chosen.drop,
            drop_path_rate=chosen.drop_path,
        )
        if inherit is not None:
            _inherit(network, inherit, data.labels)
    else:
        network = opened
        with with_seed(chosen.seed):
            _fit_class_count(network, found or num_classes, data.source)
    options = Options(
        workers=workers,
        keep=keep,
        save_every=save_every,
        log_interval=log_interval,
        val_interval=val_interval,
        cpu=cpu,
        about=about or {},
        on_epoch=on_epoch,
    )
    if isinstance(taught_by, NetworkSource):
        taught_by = create_seeded(taught_by)
    return train_network(network, chosen, data, validation, folder, options, taught_by, resume, on_progress)


def _spec(model: "NetworkSource | nn.Module") -> "ArchSpec":
    return load_spec(model) if isinstance(model, NetworkSource) else spec_of(model)


def _inherit(network: "nn.Module", source: NetworkSource, labels: "Labels") -> None:
    """Load the weights of a source, including those of the classes or joints that both know by name."""
    from scalenet_zoo.zoo.inherit import inherit

    spec = spec_of(network)
    interface = Interface.of_network(network).model_copy(update={"labels": labels})
    network.pretrained_cfg = interface.to_timm(spec)  # type: ignore[assignment]
    inherited = inherit(network, source)
    if rank_and_world()[0] == 0:
        _log.warning("%s: starts from weights of %s", spec.name, inherited)


def _fit_class_count(network: "nn.Module", classes: int | None, source: str) -> None:
    """Replace the last layer of a network that has another number of classes."""
    spec = spec_of(network)
    if classes in (None, spec.classes):
        return
    unwrapped(network).reset_classifier(classes)  # type: ignore[operator]
    if rank_and_world()[0] == 0:
        _log.warning(
            "%s: has %d classes, not the %d of %s: its last layer starts from scratch",
            spec.name,
            spec.classes,
            classes,
            source,
        )
