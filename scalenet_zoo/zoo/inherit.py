"""`inherit`: a network starts from what another architecture knows; see `inheritance.py` for how."""

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from scalenet_zoo.arch.spec import ArchSpec, spec_of
from scalenet_zoo.core.errors import WeightsError
from scalenet_zoo.zoo.create import source_network
from scalenet_zoo.zoo.kinship import best_source
from scalenet_zoo.zoo.sources import NetworkSource, load_spec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from scalenet_zoo.zoo.inheritance import Inherited

_log = logging.getLogger(__name__)


def find_source(target: ArchSpec) -> str:
    """The entry that a network had best start from (`kinship.best_source`), of those whose weights can be had.

    Where the Hub does not give the best one's, it is the best of those that are made of the same parts and that an
    installed package has weights of, which is logged.

    Args:
        target: the spec of the network.

    Raises:
        WeightsError: no published weights are of its task and type, or none can be had.
    """
    from scalenet_zoo.zoo.pretrained import open_pretrained

    best = best_source(target)
    try:
        open_pretrained(load_spec(best))
    except WeightsError as error:
        try:
            other = best_source(target, installed=True)
        except WeightsError:
            raise WeightsError(
                f"{error} (of all published weights, those of {best} fit best; inherit=NAME, --inherit on the command"
                " line, takes others)"
            ) from None
        _log.warning("%s: %s; an installed package has those of %s: they are taken", target.name, error, other)
        return other
    return best


def inherit(
    model: "nn.Module", source: "nn.Module | NetworkSource", images: "Tensor | Iterable[Tensor] | None" = None
) -> "Inherited":
    """Give a network what another one of its type knows: `inherit(model, "efficientnet_b0")`.

    Every dimension may grow or shrink separately: layers, channels, hidden and squeeze channels, kernels, stem, head,
    classes; of multipath networks blocks, paths, modules and width. Where everything grows, the network computes the
    source's function (`exact`), which is checked by running both. Where something shrinks, the channels that matter
    most are kept. What is in the way of the same function, such as another activation, is said in `hindrances`.

    Args:
        model: one of ours, changed in place; where the source gives nothing, its weights stay. Images are then prepared
            for it as for the source, and its spec's provenance says what came from where.
        source: a network of ours, which stays as it is; or what `create_model` makes one of, with its published weights
            or those of its folder or repository.
        images: one batch or several, (n, channels, height, width), prepared for the source: where the function is
            another one, the statistics of batch norm are estimated anew on them.

    Raises:
        ModelNotFoundError, SpecError: there is no such entry, file or folder, or it cannot be read.
        UsageError: the source is an exported file.
        WeightsError: the source is of another type or task, or its weights do not exist or cannot be had.
        BackendError: the source does not fit into memory.
        TypeError: a network is not one of ours.
    """
    from scalenet_zoo.zoo.inheritance import inherit_network

    network, name = source_network(source, spec_of(model))
    return inherit_network(model, network, name, images)
