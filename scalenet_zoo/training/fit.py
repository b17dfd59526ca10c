"""Training by name: from a network's and a data set's names to a folder with the trained network."""

import logging
from collections.abc import Mapping
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
    from scalenet_zoo.data.classification import Stream
    from scalenet_zoo.data.examples import Examples
    from scalenet_zoo.training.trainer import Fitted

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
    **values: Any,  # noqa: ANN401 - the recipe's
) -> "Fitted":
    """Train a network: `fit("scalenet_s0", "imagefolder:pets", output="runs/pets", recipe="finetune", epochs=20)`.

    The network gets the classes or joints of the data, with their names. What its last layer knows of them stays; where
    it knows others, the layer begins anew. `create_model(output)` builds the best network of the run. On several
    processes (torchrun, accelerate launch) each calls this.

    Args:
        model: what `create_model` takes; or a network, which is trained in place, without the recipe's dropout, and
            whose last layer begins anew in place if the data have another number of classes.
        data: as the commands take it, `imagefolder:PATH` say; or examples of `open_data` to learn from.
        validation: examples to choose the best epoch by, if `data` are examples.
        output: the folder to write to; None: runs/NAME.
        recipe: how to train: the name of a recipe of the package, a YAML file, or a recipe.
        train_split: the part of the data to learn from.
        val_split: the part to choose the best epoch by.
        img_size: the network's input: pixels of its sides, or height and width; None: the spec's.
        num_classes: classes, where the data do not tell how many there are.
        pretrained: begin with published weights.
        weights: begin with the weights in this file.
        inherit: begin with what another architecture knows, as `scalenet_zoo.inherit` gives it: an entry with published
            weights, `hf-hub:org/name` or a folder. Classes and joints that it knows by name are taken over, too.
        teacher: a network to learn from, too; or `hf-hub:org/name`, or a folder of `fit`.
        resume: go on from the newest checkpoint in the folder.
        ignore_index: pixels of this value in masks count for nothing; None: 255, or as `classes.json` says.
        joints: a YAML file about the joints of persons.
        limit: use so many images of each part.
        workers: processes that load images.
        keep: checkpoints to keep.
        save_every: steps between checkpoints, besides those after each epoch.
        log_interval: steps between lines of the log.
        val_interval: epochs between evaluations.
        cpu: train on the CPU, GPU or not.
        about: what else to say of the run in its spec's provenance.
        on_progress: told what is being done, how many steps are done, and of how many.
        **values: fields of `Recipe`, which the recipe's give way to.

    Raises:
        UsageError: arguments do not go together, or not with the data.
        InputError: recipe, data and network do not fit, or too many images cannot be read.
        ModelNotFoundError, SpecError, WeightsError: a network cannot be opened, or a checkpoint is damaged.
        TrainingError: the loss is not finite, the folder holds another run, or another process is at work in it.
        OutputError: a file cannot be written.
    """
    # What takes no time is looked at first, in this order: quantities, names, paths, where the files go.
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    chosen = chosen.replace(values, "flags")
    if not isinstance(model, NetworkSource):
        made_with = {"img_size": img_size, "pretrained": pretrained, "weights": weights, "inherit": inherit}
        for argument, given in (made_with | {of: values.get(of) for of in ("drop", "drop_path")}).items():
            if given:
                raise UsageError(f"`{argument}`: found it with a network that is built, expected it with a name")
    if isinstance(teacher, str | Path) and (is_exported(teacher) or not has_weights(teacher)):
        raise UsageError(f"`teacher`: found {teacher}, expected hf-hub:org/name or a folder, which have weights")
    if isinstance(data, str):
        check_source(data)
        if validation is not None:
            raise UsageError(f"`validation`: found it with the data {data}, expected `val_split`")
    elif validation is None:
        raise UsageError("`validation`: found none with examples to learn from, expected some to choose an epoch by")
    opened = check_model(model, weights=weights)
    if inherit is not None:
        if pretrained or weights or has_weights(opened):
            raise UsageError("`inherit`: found it with other weights to begin with, expected one or the other")
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
    from scalenet_zoo.zoo.create import create_model, create_seeded

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
            _inherit(network, inherit, data.labels, chosen.seed)
    else:
        network = opened
        _fit_class_count(network, found or num_classes, data.source)
    options = Options(
        workers=workers,
        keep=keep,
        save_every=save_every,
        log_interval=log_interval,
        val_interval=val_interval,
        cpu=cpu,
        about=about or {},
    )
    if isinstance(taught_by, NetworkSource):
        taught_by = create_model(taught_by)
    return train_network(network, chosen, data, validation, folder, options, taught_by, resume, on_progress)


def _spec(model: "NetworkSource | nn.Module") -> "ArchSpec":
    return load_spec(model) if isinstance(model, NetworkSource) else spec_of(model)


def _inherit(network: "nn.Module", source: NetworkSource, labels: "Labels", seed: int) -> None:
    """Begin with what a source knows, of classes or joints of these names, too."""
    from scalenet_zoo.zoo.create import with_seed
    from scalenet_zoo.zoo.inherit import inherit

    spec = spec_of(network)
    interface = Interface.of_network(network).model_copy(update={"labels": labels})
    network.pretrained_cfg = interface.to_timm(spec)  # type: ignore[assignment]
    with with_seed(seed):
        inherited = inherit(network, source)
    if rank_and_world()[0] == 0:
        _log.warning("%s: begins with weights from %s", spec.name, inherited)


def _fit_class_count(network: "nn.Module", classes: int | None, source: str) -> None:
    """Give a network of another number of classes a new last layer."""
    spec = spec_of(network)
    if classes in (None, spec.classes):
        return
    unwrapped(network).reset_classifier(classes)  # type: ignore[operator]
    if rank_and_world()[0] == 0:
        _log.warning(
            "%s: has %d classes, not the %d of %s: its last layer begins anew", spec.name, spec.classes, classes, source
        )
