"""`inherit`: start a network from the weights of another architecture; `inheritance.py` explains how."""

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
    """Return the best entry to start a network from (`kinship.best_source`), among those with available weights.

    If the Hub does not provide the weights of the best entry, the result is the best entry that consists of the same
    parts and whose weights come with an installed package. The log says so.

    Args:
        target: the spec of the network.

    Returns:
        The name of the entry.

    Raises:
        WeightsError: no published weights fit its task and type, or none are available.
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
                f"{error}; of all published weights, those of {best} fit best: choose others with inherit=NAME"
                " (--inherit on the command line)"
            ) from None
        _log.warning("%s: %s; an installed package has weights of %s: using them instead", target.name, error, other)
        return other
    return best


def inherit(
    model: "nn.Module", source: "nn.Module | NetworkSource", images: "Tensor | Iterable[Tensor] | None" = None
) -> "Inherited":
    """Copy the weights of another network of the same type into a network: `inherit(model, "efficientnet_b0")`.

    Each dimension may grow or shrink separately: layers, channels, hidden and squeeze channels, kernels, stem, head and
    classes; in multipath networks blocks, paths, modules and width. If no dimension shrinks, the network computes the
    source's function (`exact`); this is checked by running both networks. If a dimension shrinks, the most important
    channels are kept. `hindrances` lists what prevents the same function, such as a different activation.

    Args:
        model: one of our networks, changed in place. Weights that the source does not provide stay unchanged. Images
            are then prepared for it as for the source, and the provenance in its spec records what it inherited.
        source: one of our networks, which is not changed; or what `create_model` builds one from, with its published
            weights or those of its folder or repository.
        images: one or several batches of float32 (n, channels, height, width), prepared for the source. If the function
            is not the same, the statistics of batch norm are re-estimated on them.

    Returns:
        What the network inherited, and whether its function is the source's.

    Raises:
        ModelNotFoundError, SpecError: there is no such entry, file or folder, or it cannot be read.
        UsageError: the source is an exported file.
        WeightsError: the source is of another type or task, or its weights do not exist or are not available.
        BackendError: the source does not fit into memory.
        TypeError: a network is not one of ours.
    """
    from scalenet_zoo.zoo.inheritance import inherit_network

    network, name = source_network(source, spec_of(model))
    return inherit_network(model, network, name, images)
