"""The teacher of ScaleNAS's supernet: one of its networks, trained before it (AutoML-Conf 2022, section 3)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from scalenet_zoo.arch.spec import spec_of
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.file_kinds import user_path
from scalenet_zoo.inference.evaluate import check_labels
from scalenet_zoo.networks import MultipathNet
from scalenet_zoo.training.trainer import train_network
from scalenet_zoo.zoo.create import create_seeded
from scalenet_zoo.zoo.inherit import inherit
from scalenet_zoo.zoo.interface import Interface
from scalenet_zoo.zoo.sources import load_spec, open_folder

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from scalenet_zoo.arch.labels import Labels
    from scalenet_zoo.arch.spec import ArchSpec
    from scalenet_zoo.core.progress import OnProgress
    from scalenet_zoo.data.examples import Examples
    from scalenet_zoo.supernet.scalenas.network import ScaleNASSupernet
    from scalenet_zoo.supernet.scalenas.settings import TeacherSettings
    from scalenet_zoo.training.recipe import Recipe
    from scalenet_zoo.training.trainer import Options

_log = logging.getLogger(__name__)


def make_teacher(
    supernet: ScaleNASSupernet,
    settings: TeacherSettings,
    source: str | None,
    recipe: Recipe,
    training: Examples,
    validation: Examples,
    run: Path,
    options: Options,
    on_step: OnProgress,
) -> MultipathNet:
    """Open or train the teacher of a supernet.

    Args:
        supernet: the supernet to teach.
        settings: where the teacher comes from.
        source: the network whose weights the teacher begins with, if it is the largest network and not trained yet;
            None: it begins with random weights.
        recipe: the recipe of the teacher's training, from `TeacherSettings.make_recipe`.
        training: images to learn from.
        validation: images to choose the best epoch by.
        run: the folder of the teacher's training, a run of `train`; a stopped run resumes, a finished one stays.
        options: where to train, and how often to save and to log.
        on_step: called at every step of the teacher's training.

    Raises:
        InputError: the network is not part of the supernet, or is for other classes or joints; or recipe and data do
            not fit together.
        ModelNotFoundError: there is no such folder or name.
        WeightsError: weights cannot be fetched, or do not fit.
        TrainingError: the loss is not finite, or the folder holds another run.
    """
    largest = supernet.largest.spec
    if settings.weights is not None:
        given = _open(settings.weights, largest)
        _check(supernet, given.spec)
        check_labels(given.spec, Interface.of_network(given).labels, training)
        return given
    spec = largest
    if settings.pretrained is not None:
        image = largest.input
        spec = load_spec(settings.pretrained)
        spec = spec.replace(classes=largest.classes, channels=image.channels, height=image.height, width=image.width)
        _check(supernet, spec)
    student = create_seeded(
        spec,
        recipe.seed,
        pretrained=settings.pretrained is not None,
        drop_rate=recipe.drop,
        drop_path_rate=recipe.drop_path,
    )
    if source is not None and settings.pretrained is None:
        inherit_labelled(student, source, training.labels)
    train_network(student, recipe, training, validation, run, options, resume=True, on_step=on_step)
    trained = create_seeded(run)
    assert isinstance(trained, MultipathNet)
    return trained


def inherit_labelled(network: nn.Module, source: str, labels: Labels) -> None:
    """Let a network inherit the weights of another; classes and joints are matched by name.

    Args:
        network: the network, changed in place.
        source: the other network, as `inherit` takes it.
        labels: the labels of the network's classes or joints.

    Raises:
        ModelNotFoundError, SpecError, WeightsError: as for `inherit`.
    """
    cfg = Interface.of_network(network).model_copy(update={"labels": labels}).to_timm(spec_of(network))
    network.pretrained_cfg = cfg  # type: ignore[assignment]
    _log.warning("supernet: weights from %s", inherit(network, source))


def _open(source: str, largest: ArchSpec) -> MultipathNet:
    """Open a teacher with its weights."""
    if source.endswith((".safetensors", ".pth")) or user_path(source).is_file():
        network = create_seeded(largest, weights=source)
    elif (folder := open_folder(source)) is not None:
        network = create_seeded(folder)
    else:
        raise InputError(
            f"supernet: teacher: weights: found {source}, expected a folder that `train` wrote, hf-hub:org/name,"
            " or a file of weights"
        )
    if not isinstance(network, MultipathNet):
        raise InputError(f"supernet: teacher: weights: found a classifier in {source}, expected a multipath network")
    return network


def _check(supernet: ScaleNASSupernet, spec: ArchSpec) -> None:
    try:
        supernet.check(spec)
    except InputError as error:
        raise InputError(f"supernet: teacher: {error}") from None
