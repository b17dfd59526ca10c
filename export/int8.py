"""An int8 graph that decides as its network does: with which ranges, and which layers in fp32, is measured."""

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
"""Agreement with the network from which on no other calibrator is tried."""
GOOD = 0.95
"""And from which on entropy is not tried, which takes longest: it agreed far less wherever these two agreed so well."""
MOST_KEPT = 5
"""Layers that `auto` leaves in fp32, at most."""
LEAST_GAIN = 0.05
"""Share of the noise that a layer must take away to be left in fp32."""
AUTO_IMAGES = 16
"""That layers are judged by, at most."""


@dataclass(frozen=True)
class Int8Graph:
    """What was made of an fp32 graph.

    Attributes:
        graph: in int8.
        calibrator: that its ranges were found with.
        kept: layers that `auto` left in fp32, by their names in the network, the costliest first.
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
        metadata: of the file to be; its options say for which target, and what is asked for.
        batches: inputs of the graph, to find the activations' ranges with.
        whole: names of nodes outside of the network.
        agreement: measures the share of the network's decisions that a graph shares; None: there is nothing to
            compare, and minmax is taken if the options name no calibrator.
        auto: find the layers that cost most, and leave them in fp32.
        on_progress: told of the layers that were judged.

    Raises:
        ExportError: there is no such layer or operator to leave in fp32, or the calibrator that is asked for fails.
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
                continue  # minmax, which came first, can always be taken
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
    whole += _nodes_of(graph, kept)  # biases are corrected again: what feeds them is exact now
    with Quantiser(graph, batches, options.target, options.activation_bits, whole) as quantiser:
        return Int8Graph(quantiser.quantise(best), best, tuple(kept))


def layer_name(node: onnx.NodeProto) -> str:
    """What a convolution or linear layer is called in its network: `stages.1.0.depthwise`, say."""
    return node.input[1].removesuffix("/fp32").removesuffix(".weight").removesuffix(".conv")


def kept_nodes(graph: onnx.ModelProto, names: Collection[str]) -> list[str]:
    """The nodes that stay in fp32: those of the operators named, and of the layers named and all inside them.

    Raises:
        ExportError: there is neither a layer nor an operator of this name.
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
    """Whether a node that is not quantised is one of these operators, or lies in one of these layers."""
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
    """Layers without whose rounding the outputs are nearest to fp32's, as many as are worth it."""
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
    """A graph's output for all batches."""
    session = open_session(graph.SerializeToString(), literal)
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: batch})[0] for batch in batches])
