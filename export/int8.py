"""The choice of an int8 graph that decides as its network does: its calibrator and fp32 layers, by measurement."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from scalenet_zoo.core.errors import ExportError
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.core.quoting import quoted
from scalenet_zoo.export.metadata import Calibrator, Metadata
from scalenet_zoo.export.onnx_network import OnnxNetwork, open_session
from scalenet_zoo.export.quantisation import CALIBRATORS, WEIGHTED, Quantiser

ENOUGH = 0.98
"""The agreement of minmax with the network from which no other calibrator is tried."""
GOOD = 0.95
"""The agreement of percentile from which entropy is not tried: entropy is slowest, and did worse in every such case."""
MOST_KEPT = 5
"""The most layers that `auto` leaves in fp32."""
LEAST_GAIN = 0.05
"""The share of the noise that a layer in fp32 must remove to stay in fp32."""
AUTO_IMAGES = 16
"""The most images on which layers are judged."""


@dataclass(frozen=True)
class Int8Graph:
    """An int8 graph, and how it was made.

    Attributes:
        graph: the graph in int8.
        calibrator: how its ranges were found.
        kept: the layers that `auto` left in fp32, by their names in the network, the costliest first.
    """

    graph: onnx.ModelProto
    calibrator: Calibrator
    kept: tuple[str, ...] = ()


def make_int8(
    graph: onnx.ModelProto,
    metadata: Metadata,
    batches: Sequence[np.ndarray],
    whole: Collection[str] = (),
    agreement: Callable[[OnnxNetwork], float] | None = None,
    auto: bool = False,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Int8Graph:
    """Quantise a graph with the calibrator that agrees best with the network.

    Args:
        graph: a simplified fp32 graph.
        metadata: the metadata of the future file; its options name the target, the calibrator and what stays in fp32.
        batches: inputs of the graph, from which the activations' ranges are found.
        whole: the names of nodes outside the network.
        agreement: measures how often an int8 graph decides as the network does, from 0 to 1; None: do not compare,
            and take minmax unless the options name a calibrator.
        auto: find the layers whose rounding costs most, and leave them in fp32.
        on_progress: reports the layers that were judged.

    Raises:
        ExportError: a layer or operator that should stay in fp32 does not exist, or the options' calibrator fails.
    """
    options = metadata.options
    assert options.target is not None
    whole = [*whole, *kept_nodes(graph, options.keep_fp32)]
    with Quantiser(graph, batches, options.target, options.activation_bits, whole) as quantiser:
        wanted: Sequence[Calibrator] = ["minmax"]
        if options.calibrator or agreement:
            wanted = [options.calibrator] if options.calibrator else list(CALIBRATORS)
        tried: dict[Calibrator, tuple[float, onnx.ModelProto]] = {}
        for calibrator in wanted:
            try:
                made = quantiser.quantise(calibrator)
            except ExportError:
                if options.calibrator:
                    raise
                continue  # minmax came first, and needs no histogram
            share = agreement(OnnxNetwork.open(made.SerializeToString(), metadata)) if agreement else 1.0
            tried[calibrator] = share, made
            if share >= (ENOUGH if calibrator == "minmax" else GOOD):
                break
        best: Calibrator = max(tried, key=lambda calibrator: tried[calibrator][0])
        if not auto:
            return Int8Graph(tried[best][1], best)
        kept = _costly_layers(graph, quantiser, best, whole, on_progress)
    if not kept:
        return Int8Graph(tried[best][1], best)
    whole += _nodes_of(graph, kept)  # correct the biases again, since the kept layers are exact now
    with Quantiser(graph, batches, options.target, options.activation_bits, whole) as quantiser:
        return Int8Graph(quantiser.quantise(best), best, tuple(kept))


def layer_name(node: onnx.NodeProto) -> str:
    """Return the name of a convolution or linear layer in its network, such as `stages.1.0.depthwise`."""
    return node.input[1].removesuffix("/fp32").removesuffix(".weight").removesuffix(".conv")


def kept_nodes(graph: onnx.ModelProto, names: Collection[str]) -> list[str]:
    """Find the nodes that stay in fp32: nodes of the named operators, and nodes in the named layers.

    Args:
        graph: the fp32 graph.
        names: names of operators (`Add`) or layers (`stages.1.0`).

    Raises:
        ExportError: the graph has neither a layer nor an operator of such a name.
    """
    nodes: list[str] = []
    for name in names:
        found = [node.name for node in graph.graph.node if is_kept(node, [name])]
        if not found:
            layers = [layer_name(node) for node in graph.graph.node if node.op_type in WEIGHTED]
            raise ExportError(
                f"keep_fp32: found {quoted(name)}, expected layers such as {layers[0]} or {layers[-1]},"
                " or operators such as Add"
            )
        nodes += found
    return nodes


def is_kept(node: onnx.NodeProto, names: Collection[str]) -> bool:
    """Tell whether a node that is not quantised belongs to one of these operators or layers."""
    layer = f"{layer_name(node)}." if node.op_type in WEIGHTED else ""
    return any(node.op_type == name or layer.startswith(f"{name}.") for name in names)


def _nodes_of(graph: onnx.ModelProto, layers: Collection[str]) -> list[str]:
    return [node.name for node in graph.graph.node if node.op_type in WEIGHTED and layer_name(node) in layers]


def _costly_layers(
    graph: onnx.ModelProto,
    quantiser: Quantiser,
    calibrator: Calibrator,
    whole: Collection[str],
    on_progress: OnProgress,
) -> list[str]:
    """Find the few layers that bring the outputs closest to fp32's when they are not rounded."""
    some = quantiser.batches[: max(1, AUTO_IMAGES // len(quantiser.batches[0]))]
    expected = _run(graph, some)

    def noise(layers: Collection[str]) -> float:
        found = _run(quantiser.quantise(calibrator, _nodes_of(graph, layers)), some, quantiser.target != "ort-cpu")
        return float(np.sqrt(np.mean((found - expected) ** 2, dtype=np.float64)))

    layers = [layer_name(node) for node in graph.graph.node if node.op_type in WEIGHTED and node.name not in whole]
    left = noise([])
    alone: dict[str, float] = {}
    for i, layer in enumerate(layers):
        on_progress("judging layers", i, len(layers))
        alone[layer] = noise([layer])
    kept: list[str] = []
    for layer in sorted(alone, key=lambda layer: alone[layer])[:MOST_KEPT]:
        with_it = noise([*kept, layer])
        if with_it > (1 - LEAST_GAIN) * left:
            break
        kept.append(layer)
        left = with_it
    return kept


def _run(graph: onnx.ModelProto, batches: Sequence[np.ndarray], literal: bool = False) -> np.ndarray:
    """Run a graph on all batches, and join its outputs."""
    session = open_session(graph.SerializeToString(), literal)
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: batch})[0] for batch in batches])
