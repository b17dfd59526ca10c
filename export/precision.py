"""Conversion of an fp32 graph to fp16."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from scalenet_zoo.core.errors import ExportError

FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16
HALF_MAX = float(np.finfo(np.float16).max)
ALWAYS_FP32 = {("Resize", 2)}
"""Inputs for which ONNX requires fp32, as pairs of an operator and the input's position. Here: scales."""


def to_half(
    graph: onnx.ModelProto,
    keep_fp32: Collection[str] = (),
    keep_nodes: Collection[str] = (),
    io_type: Literal["fp32", "fp16"] = "fp32",
) -> onnx.ModelProto:
    """Convert a graph to fp16, with casts at the borders of nodes that stay in fp32.

    Libraries for this exist, but onnxconverter_common converts the scales of Resize, for which ONNX requires fp32, and
    onnxruntime.transformers rounds between neighbours that both stay in fp32 and gives several casts the same name.

    Args:
        graph: a simplified fp32 graph with the types of its values.
        keep_fp32: the operators that stay in fp32.
        keep_nodes: the names of nodes that stay in fp32.
        io_type: the type of the graph's float inputs and outputs.

    Returns:
        A converted copy of the graph.

    Raises:
        ExportError: the graph has no operator that `keep_fp32` names, or a weight is too large for fp16.
    """
    operators = {node.op_type for node in graph.graph.node}
    if unknown := [name for name in keep_fp32 if name not in operators]:
        raise ExportError(f"keep_fp32: found {unknown[0]!r}, expected some of {', '.join(sorted(operators))}")
    half = onnx.ModelProto()
    half.CopyFrom(graph)
    g = half.graph
    outside = TensorProto.FLOAT16 if io_type == "fp16" else TensorProto.FLOAT
    values = {v.name: v for v in (*g.input, *g.value_info, *g.output) if v.type.tensor_type.elem_type == FLOAT}
    weights = {tensor.name: tensor for tensor in g.initializer if tensor.data_type == FLOAT}
    types: dict[str, int] = {value.name: outside for value in g.input if value.name in values}
    new_weights = {tensor.name: tensor for tensor in g.initializer if tensor.data_type != FLOAT}
    nodes: list[onnx.NodeProto] = []

    def as_type(name: str, wanted: int) -> str:
        """Return the name of a float value or weight in this type; add a cast or a converted weight if necessary."""
        if name in weights:
            converted = name if wanted == FLOAT16 else f"{name}/fp32"
            new_weights.setdefault(converted, _converted(weights[name], converted, wanted))
        elif types[name] == wanted:
            return name
        elif (converted := f"{name}/{'fp16' if wanted == FLOAT16 else 'fp32'}") not in types:
            nodes.append(helper.make_node("Cast", [name], [converted], f"{converted}/cast", to=wanted))
            types[converted] = wanted
            g.value_info.add().CopyFrom(values[name])
            g.value_info[-1].name = converted
        return converted

    for node in g.node:
        kept = node.op_type in keep_fp32 or node.name in keep_nodes
        for i, name in enumerate(node.input):
            if name in weights or name in types:
                node.input[i] = as_type(name, FLOAT if kept or (node.op_type, i) in ALWAYS_FP32 else FLOAT16)
        if node.op_type == "Cast" and not kept and node.attribute[0].i == FLOAT:
            node.attribute[0].i = FLOAT16
        nodes.append(node)
        types |= {name: FLOAT if kept else FLOAT16 for name in node.output if name in values}
    for value in g.output:
        if types.get(value.name, outside) != outside:
            for node in nodes:
                for names in (node.input, node.output):
                    names[:] = [f"{value.name}/inside" if name == value.name else name for name in names]
            nodes.append(
                helper.make_node("Cast", [f"{value.name}/inside"], [value.name], f"{value.name}/cast", to=outside)
            )
            g.value_info.add().CopyFrom(value)
            g.value_info[-1].name = f"{value.name}/inside"
            types |= {f"{value.name}/inside": types[value.name], value.name: outside}
    for value in (*g.input, *g.value_info, *g.output):
        if value.name in types:
            value.type.tensor_type.elem_type = types[value.name]
    del g.node[:], g.initializer[:]
    g.node.extend(nodes)
    g.initializer.extend(new_weights.values())
    return half


def _converted(weight: TensorProto, name: str, wanted: int) -> TensorProto:
    values = numpy_helper.to_array(weight)
    if wanted == FLOAT16:
        if np.abs(values).max(initial=0) > HALF_MAX:
            raise ExportError(
                f"{weight.name}: found a weight of {np.abs(values).max():g}, expected at most {HALF_MAX:g} in fp16"
            )
        values = values.astype(np.float16)
    return numpy_helper.from_array(values, name)


def rounded(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Convert an fp16 graph to an fp32 graph with the same rounding: each float16 value is cast to float16 and back.

    ONNX Runtime's CPU provider computes fp16 graphs in fp32 and does not round between operators. There, only the
    weights lose precision, and nothing overflows. The converted graph shows the errors of real fp16 hardware.
    """
    exact = onnx.ModelProto()
    exact.CopyFrom(graph)
    halves = set()
    for value in (*exact.graph.input, *exact.graph.value_info, *exact.graph.output):
        if value.type.tensor_type.elem_type == FLOAT16:
            halves.add(value.name)
            value.type.tensor_type.elem_type = FLOAT
    for tensor in exact.graph.initializer:
        if tensor.data_type == FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    nodes = []
    for node in exact.graph.node:
        nodes.append(node)
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == FLOAT16:
                attribute.i = FLOAT
        for i, name in enumerate(node.output):
            if name in halves:
                node.output[i] = f"{name}/exact"
                nodes.append(helper.make_node("Cast", [f"{name}/exact"], [f"{name}/half"], to=FLOAT16))
                nodes.append(helper.make_node("Cast", [f"{name}/half"], [name], to=FLOAT))
    del exact.graph.node[:]
    exact.graph.node.extend(nodes)
    return exact
