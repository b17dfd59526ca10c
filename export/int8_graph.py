"""Rewriting of operators that have no integer kernels in ONNX Runtime's CPU provider, with operators that have them.

    ReduceMean over all pixels   -> GlobalAveragePool
    x * sigmoid(x)               -> QuickGelu, a single operator of ONNX Runtime, in fp32
    hard-swish                   -> x * hard-sigmoid(x)
    hard-sigmoid between bytes   -> x / 6 + 1/2 as a sum of bytes, which saturates at 0 and 1

The first three are exact and come before quantisation; the last one comes after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

MICROSOFT = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""
LOWEST = "lowest"
"""The name of the lowest number of fp32 in a graph."""
BYTE = 255
HALF = 0.5
"""The value of hard-sigmoid at 0. ONNX allows other values; torch does not."""


def rewrite_for_kernels(graph: onnx.ModelProto, whole: Collection[str] = ()) -> onnx.ModelProto:
    """Rewrite a simplified fp32 graph with operators that can be quantised; it computes the same.

    Args:
        graph: the graph, with the shapes of its values.
        whole: the names of nodes to leave unchanged.

    Returns:
        A rewritten copy of the graph.
    """
    rewritten = onnx.ModelProto()
    rewritten.CopyFrom(graph)
    g = rewritten.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in g.initializer}
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in (*g.input, *g.value_info)}
    gates = _lone_sigmoids(g)
    nodes: list[onnx.NodeProto] = []
    for node in g.node:
        if node.name in whole:
            nodes.append(node)
        elif node.op_type == "ReduceMean" and _over_pixels(node, constants, ranks):
            nodes += _pool(node)
        elif node.op_type == "HardSwish":
            nodes += _gated(node)
        elif node.op_type == "Mul" and (gate := next((gates[i] for i in node.input if i in gates), None)):
            if gate.input[0] in node.input:
                nodes.remove(gate)
                node = helper.make_node(
                    "QuickGelu", list(gate.input), list(node.output), node.name, domain=MICROSOFT, alpha=1.0
                )
            nodes.append(node)
        else:
            nodes.append(node)
    if any(node.domain == MICROSOFT for node in nodes):
        rewritten.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    del g.node[:]
    g.node.extend(nodes)
    return onnx.shape_inference.infer_shapes(rewritten)


def _lone_sigmoids(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """Find sigmoids whose output has only one reader, by the name of the output."""
    readers = Counter(name for node in graph.node for name in node.input)
    return {node.output[0]: node for node in graph.node if node.op_type == "Sigmoid" and readers[node.output[0]] == 1}


def _over_pixels(node: onnx.NodeProto, constants: Mapping[str, np.ndarray], ranks: Mapping[str, int]) -> bool:
    axes = constants[node.input[1]].tolist() if len(node.input) > 1 and node.input[1] in constants else []
    return sorted(axis % 4 for axis in axes) == [2, 3] and ranks.get(node.input[0]) == 4


def _attribute(node: onnx.NodeProto, name: str, otherwise: float) -> float:
    found = (helper.get_attribute_value(attribute) for attribute in node.attribute if attribute.name == name)
    return float(next(found, otherwise))


def _pool(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    if _attribute(node, "keepdims", 1):
        yield helper.make_node("GlobalAveragePool", [node.input[0]], list(node.output), node.name)
        return
    pooled = f"{node.output[0]}/pooled"
    yield helper.make_node("GlobalAveragePool", [node.input[0]], [pooled], node.name)
    yield helper.make_node("Flatten", [pooled], list(node.output), f"{node.name}/flatten")


def _gated(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    gate = f"{node.output[0]}/gate"
    yield helper.make_node("HardSigmoid", [node.input[0]], [gate], f"{node.name}/gate", alpha=1 / 6, beta=HALF)
    yield helper.make_node("Mul", [node.input[0], gate], list(node.output), node.name)


def saturate_gates(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Replace the hard-sigmoids between bytes in a quantised graph with sums of bytes; the result is a copy.

    A byte q with scale s and zero point z stands for x = s (q - z); with the scale s/6, it stands for x/6. The sum with
    1/2 is written as a byte with scale 1/255 and zero point 0, so it can be neither below 0 nor above 1.
    """
    saturated = onnx.ModelProto()
    saturated.CopyFrom(graph)
    g = saturated.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in g.initializer}
    makers = {name: node for node in g.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in g.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    scale, zero, half = "gate/scale", "gate/zero", "gate/half"
    nodes: list[onnx.NodeProto] = []
    found = False
    for node in g.node:
        source = makers.get(node.input[0]) if node.op_type == "HardSigmoid" else None
        after = readers.get(node.output[0], []) if node.output else []
        between = source is not None and source.op_type == "DequantizeLinear"
        if source is None or not between or [reader.op_type for reader in after] != ["QuantizeLinear"]:
            nodes.append(node)
            continue
        if _attribute(node, "beta", HALF) != HALF:
            nodes.append(node)
            continue
        found = True
        sixth = f"{node.name}/scale"
        slope = np.asarray(constants[source.input[1]] * _attribute(node, "alpha", 0.2), np.float32)
        g.initializer.append(numpy_helper.from_array(slope, sixth))
        part, offset = f"{node.name}/part", f"{node.name}/half"
        nodes += [
            helper.make_node("DequantizeLinear", [source.input[0], sixth, source.input[2]], [part], part),
            helper.make_node("DequantizeLinear", [half, f"{half}/scale", zero], [offset], offset),
            helper.make_node("Add", [part, offset], list(node.output), node.name),
        ]
        for user in (after[0], *readers[after[0].output[0]]):
            user.input[1:] = [scale, zero]
    if found:
        for name, value in (
            (scale, np.float32(1 / BYTE)),
            (zero, np.uint8(0)),
            (half, np.uint8(BYTE)),
            (f"{half}/scale", np.float32(HALF / BYTE)),
        ):
            g.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    del g.node[:]
    g.node.extend(nodes)
    return saturated


def shield_kept(graph: onnx.ModelProto, operators: Collection[str]) -> onnx.ModelProto:
    """Make the fp32 layers of a quantised graph stay in fp32 in ONNX Runtime, too; the result is a copy.

    If a layer lies between bytes, ONNX Runtime quantises its weights on its own, coarsely, with one scale for all
    channels ("WeightBiasQuantization", in 1.31). A maximum with the lowest fp32 number before the layer changes no
    value, but hides the bytes from ONNX Runtime.

    Args:
        graph: the quantised graph.
        operators: the operators of the layers.
    """
    shielded = onnx.ModelProto()
    shielded.CopyFrom(graph)
    g = shielded.graph
    floats = {tensor.name for tensor in g.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    dequantised = {node.output[0] for node in g.node if node.op_type == "DequantizeLinear"}
    nodes: list[onnx.NodeProto] = []
    for node in g.node:
        if node.op_type in operators and node.input[1] in floats and node.input[0] in dequantised:
            same = f"{node.name}/same"
            nodes.append(helper.make_node("Max", [node.input[0], LOWEST], [same], same))
            node.input[0] = same
        nodes.append(node)
    if any(LOWEST in node.input for node in nodes):
        g.initializer.append(numpy_helper.from_array(np.array(np.finfo(np.float32).min), LOWEST))
    del g.node[:]
    g.node.extend(nodes)
    return shielded
