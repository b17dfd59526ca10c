"""Bias correction: rounded weights shift a layer's mean output, and its bias takes the shift back.

Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction (ICCV 2019), section 4.2. Here the
shift is measured on images, layer by layer: each layer is corrected for inputs that come from corrected layers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

AVERAGED = 16
"""The most images over which shifts are averaged."""
PIXELS = AVERAGED * 256 * 256
"""The most pixels of these images together: memory holds every activation that is still to be read."""
LARGEST_BYTE = 127
"""The largest magnitude of int8 weights without zero points."""

Floats = NDArray[np.float32]


def correct_biases(
    graph: onnx.ModelProto, batches: Sequence[np.ndarray], operators: Collection[str], whole: Collection[str] = ()
) -> onnx.ModelProto:
    """Correct a graph's biases, so that rounding the weights to int8 leaves the mean output of each channel unchanged.

    Args:
        graph: a simplified fp32 graph.
        batches: inputs of the graph; only the first few are used.
        operators: the operators whose weights will be rounded, with one scale per output channel and no zero points.
        whole: the names of nodes whose weights will not be rounded.

    Returns:
        A corrected copy of the graph.
    """
    corrected = onnx.ModelProto()
    corrected.CopyFrom(graph)
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in corrected.graph.initializer}
    images = _first(batches)
    exact, rounded = ({graph.graph.input[0].name: images} for _ in range(2))
    readers = Counter(name for node in graph.graph.node for name in node.input)
    for node in corrected.graph.node:
        run = _Node(node, graph.opset_import)
        before = run(values, exact)
        if node.op_type in operators and node.name not in whole:
            after = run(values | {node.input[1]: rounded_weights(values[node.input[1]])}, rounded)
            shift = _means(after[0]) - _means(before[0])
            after[0] -= shift.reshape(-1, *[1] * (after[0].ndim - 2))
            _add_to_bias(corrected, node, values, -shift)
        else:
            after = run(values, rounded)
        exact.update(zip(node.output, before, strict=True))
        rounded.update(zip(node.output, after, strict=True))
        readers.subtract(node.input)
        for name in {name for name in node.input if name in exact and not readers[name]}:
            del exact[name], rounded[name]
    return corrected


def rounded_weights(weights: Floats) -> Floats:
    """Round weights (outputs, ...) as int8 does: with one scale per output, whose largest weight becomes 127."""
    flat = weights.reshape(len(weights), -1)
    scale = np.abs(flat).max(axis=1, keepdims=True) / LARGEST_BYTE
    scale[scale == 0] = 1
    near: Floats = (np.round(flat / scale) * scale).astype(np.float32).reshape(weights.shape)
    return near


class _Node:
    """A node of a graph that can be run on its own."""

    def __init__(self, node: onnx.NodeProto, opsets: Sequence[onnx.OperatorSetIdProto]) -> None:
        self.node, self.opsets = node, opsets
        self.session: onnxruntime.InferenceSession | None = None

    def __call__(self, weights: dict[str, np.ndarray], activations: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Run the node, and return its outputs."""
        known = {name: activations.get(name, weights.get(name)) for name in self.node.input if name}
        inputs = {name: np.ascontiguousarray(value) for name, value in known.items() if value is not None}
        if self.session is None:
            given = [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
                for name, value in inputs.items()
            ]
            made = [helper.make_empty_tensor_value_info(name) for name in self.node.output]
            alone = helper.make_model(
                helper.make_graph([self.node], "node", given, made), opset_imports=self.opsets, ir_version=10
            )
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            self.session = onnxruntime.InferenceSession(
                alone.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        return list(self.session.run(None, inputs))


def _first(batches: Sequence[np.ndarray]) -> np.ndarray:
    """Take images from the first batches: as many as `AVERAGED` and `PIXELS` allow, but at least one."""
    shape = batches[0].shape
    most = max(1, min(AVERAGED, PIXELS * min(shape[1:]) // math.prod(shape[1:])))  # few channels, first or last
    count = min(len(batches), -(-most // shape[0]))
    return np.concatenate([batches[i] for i in range(count)])[: max(most, shape[0])]


def _means(output: np.ndarray) -> Floats:
    """Compute the mean of each channel of (n, channels, ...)."""
    means: Floats = output.mean(axis=(0, *range(2, output.ndim)), dtype=np.float64).astype(np.float32)
    return means


def _add_to_bias(graph: onnx.ModelProto, node: onnx.NodeProto, values: dict[str, np.ndarray], shift: Floats) -> None:
    """Shift a node's bias, or give the node one; the result is a new tensor, since layers may share a bias."""
    if len(node.input) > 2 and node.input[2]:
        shift = values[node.input[2]] + shift
    bias = numpy_helper.from_array(shift, f"{node.name}/bias")
    graph.graph.initializer.append(bias)
    del node.input[2:]
    node.input.append(bias.name)
