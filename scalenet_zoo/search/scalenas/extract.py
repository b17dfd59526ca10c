"""A network with the weights of the supernet that it was found in: a model folder, usable without training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.errors import InputError
from scalenet_zoo.core.file_kinds import user_path
from scalenet_zoo.core.files import replacing_folder
from scalenet_zoo.data.examples import Part
from scalenet_zoo.search.images import cached_images
from scalenet_zoo.search.scalenas.method import ScaleNASMethod
from scalenet_zoo.search.scoring import Calibrated
from scalenet_zoo.supernet.summary import trained_supernet
from scalenet_zoo.zoo.interface import Interface
from scalenet_zoo.zoo.model_folder import save_model

if TYPE_CHECKING:
    from scalenet_zoo.search.driver import Run


def find_spec(run: Path, name: str) -> ArchSpec:
    """The spec of a network that a run found, by its name, or of a file.

    Raises:
        InputError: there is none.
        SpecError: the file is damaged.
    """
    folders = [run / "specs", *sorted((run / "baselines").glob("*"))]
    files = [*(folder / f"{name}.json" for folder in folders), user_path(name)]
    path = next((path for path in files if path.is_file()), None)
    if path is None:
        found = sorted(path.stem for path in folders[0].glob("*.json"))
        raise InputError(f"{name}: found no such network in {run}, expected {', '.join(found) or 'one'} or a file")
    return ArchSpec.load(path)


def extract_network(run: Run, spec: ArchSpec, folder: Path) -> None:
    """Write a network with the supernet's weights, as it was scored.

    Args:
        run: of ScaleNAS, whose supernet is trained.
        spec: of a network of the space.
        folder: to write, or to replace.

    Raises:
        InputError: there is no trained supernet, the network is not one of the space's, or the data are unfit.
        OutputError: the folder cannot be written.
    """
    trained_supernet(run.folder)
    run.check()
    run.load_supernet()
    assert isinstance(run.method, ScaleNASMethod)
    network = run.method.supernet.extract(spec)
    settings = run.method.config.scoring
    part = Part(run.training, settings.bn_images)
    images = cached_images(part, spec, run.folder / "images", run.options.workers, run.recipe.broken_limit)
    Calibrated(network, spec, images, settings, fold=False)
    interface = Interface.of(spec).model_copy(update={"labels": run.training.labels})
    network.pretrained_cfg = interface.to_timm(spec)  # type: ignore[assignment]
    with replacing_folder(folder) as new:
        save_model(network.cpu().to(memory_format=torch.contiguous_format), new)
