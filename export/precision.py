"""Other precisions for an fp32 graph: fp16, and int8 with explicit quantisation (Q/DQ) nodes."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Iterable, Iterator
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from scalenet_zoo.core.errors import ExportError
from scalenet_zoo.core.files import scratch_folder

FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16
HALF_MAX = float(np.finfo(np.float16).max)
ALWAYS_FP32 = {("Resize", 2)}
"""Inputs that ONNX wants in fp32: operators, and the inputs' positions. Here: scales."""
QUANTISED = ("Conv", "Gemm")
"""Operators whose inputs, weights and outputs become int8.

Leaving the outputs alone would be more exact, but ONNX Runtime's CPU provider then finds no integer kernels; quantising
activation functions, pools, products and sums too is less exact and gains no time.
For transposed convolutions it has no integer kernels.
"""
PERCENTILE = 99.999
"""Of an activation's values lie within its range; the rest is cut off, so that outliers do not coarsen all others."""


def to_half(
    graph: onnx.ModelProto,
    keep_fp32: Collection[str] = (),
    keep_nodes: Collection[str] = (),
    io_type: Literal["fp32", "fp16"] = "fp32",
) -> onnx.ModelProto:
    """Convert a graph to fp16, with casts where it meets what stays in fp32.

    There are libraries for this, but onnxconverter_common halves the scales of Resize, which ONNX wants in fp32, and
    onnxruntime.transformers rounds between neighbours that both stay in fp32 and gives several casts one name.

    Args:
        graph: a simplified fp32 graph with the types of its values.
        keep_fp32: operators that stay in fp32.
        keep_nodes: names of nodes that do.
        io_type: of the graph's input and output, where they are floats.

    Raises:
        ExportError: there is no such operator in the graph, or a weight is too large for fp16.
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
        """The name of a float value or weight in this type; it is made where it is missing."""
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
    """A graph in fp32 that computes what an fp16 graph does: each half is cast to one, and back.

    ONNX Runtime's CPU provider executes halves in fp32 and rounds nothing in between: run by it, an
    fp16 graph neither overflows nor loses anything but its weights' precision. This one does.
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


def quantise(
    graph: onnx.ModelProto, batches: Iterable[np.ndarray], count: int, keep_nodes: Collection[str] = ()
) -> onnx.ModelProto:
    """Convert a graph to int8 by static quantisation, in the form that ONNX Runtime and TensorRT 10 and 11 take.

    That is: symmetric bytes (every zero point is 0), weights with a scale a channel, activations with one a
    tensor, biases in fp32.

    Args:
        graph: an fp32 graph with the shapes of its values.
        batches: inputs of the graph, to find the activations' ranges; one at a time is held in memory.
        count: of the batches.
        keep_nodes: names of nodes to leave alone.
    """
    prepared = onnx.ModelProto()
    prepared.CopyFrom(graph)
    prepared.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")  # it is; else a warning
    with scratch_folder() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = folder / "int8.onnx"
        quantize_static(
            prepared,
            path,
            _Batches(graph.graph.input[0].name, iter(batches), count),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(keep_nodes),
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "CalibPercentile": PERCENTILE,
                "CalibStridedMinMax": 1,  # one batch at a time: its activations are held in memory
            },
        )
        quantised = onnx.load(path)
    del quantised.metadata_props[:]
    return quantised


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    """Batches for the quantiser, which asks for each of `count` in turn."""

    def __init__(self, name: str, batches: Iterator[np.ndarray], count: int) -> None:
        self.name, self.batches, self.count = name, batches, count
        self.due = 0

    def __len__(self) -> int:
        return self.count

    def set_range(self, start_index: int, end_index: int) -> None:
        self.due = end_index - start_index

    def get_next(self) -> dict[str, np.ndarray] | None:
        if not self.due:
            return None
        self.due -= 1
        return {self.name: next(self.batches)}
