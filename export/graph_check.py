"""Checks of what an exported file holds against its spec."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import TensorProto

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.errors import InputError, VerificationError
from scalenet_zoo.core.quoting import printable
from scalenet_zoo.export.int8 import is_kept
from scalenet_zoo.export.metadata import Metadata, OnnxOptions
from scalenet_zoo.export.onnx_file import OnnxFile
from scalenet_zoo.export.quantisation import SCHEMES, WEIGHTED


def check_graph(path: Path, metadata: Metadata) -> int:
    """Check that a file is valid ONNX, and that its graph and parameters are those that its metadata describe.

    Args:
        path: the ONNX file.
        metadata: the file's own.

    Returns:
        The number of parameters in the file.

    Raises:
        VerificationError: the file is not valid ONNX, or its graph or parameters differ from its metadata.
        BackendError: the file's external data do not fit into memory.
    """
    name = metadata.spec.name
    try:
        file = OnnxFile.read(path)  # before anything reads its external data
        onnx.checker.check_model(str(path), full_check=True)
        metadata.check_graph(file)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise VerificationError(f"{name}: found invalid ONNX: {str(error).splitlines()[0]}") from error
    except InputError as error:
        raise VerificationError(f"{name}: {error}") from None
    found = 0
    for node, weight, bias in _weighted(file.model.graph):
        for tensor in filter(None, (weight, bias)):
            expected_type = _type(metadata.options, node, tensor is bias)
            if tensor.data_type != expected_type:
                types = TensorProto.DataType.Name(tensor.data_type), TensorProto.DataType.Name(expected_type)
                raise VerificationError(f"{name}: found {tensor.name} of type {types[0]}, expected {types[1]}")
        # torch leaves out a bias of zeros, which an untrained network has.
        found += math.prod(weight.dims) + (math.prod(bias.dims) if bias else _outputs(node, weight))
    expected = folded_params(metadata.spec)
    if found != expected:
        raise VerificationError(
            f"{name}: found {found:,} parameters in the file, expected {expected:,}, as in the spec with batch norms"
            " folded"
        )
    return found


def folded_params(spec: ArchSpec) -> int:
    """Count the parameters that an exported graph of a spec's network holds.

    A batch norm that is folded into its convolution leaves one bias per channel, in place of its weight and bias and
    of the convolution's own bias. Layers that no output depends on are left out.
    """
    total = 0
    for op in spec.trace.live_ops:
        if op.kind in ("conv", "linear"):
            (_, *before), (channels, *after) = (spec.trace.shapes[tensor] for tensor in (op.inputs[0], op.output))
            weights = op.macs // min(math.prod(before), math.prod(after))  # a transposed convolution reads fewer pixels
            total += weights + (channels if op.params > weights else 0)
    return total


def _weighted(graph: onnx.GraphProto) -> Iterator[tuple[onnx.NodeProto, TensorProto, TensorProto | None]]:
    """Yield convolutions and linear layers, each with its weight and bias."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    sources = {
        output: node.input[0]
        for node in graph.node
        if node.op_type in ("Cast", "QuantizeLinear", "DequantizeLinear")
        for output in node.output
    }

    def source(name: str) -> TensorProto:
        while name in sources:
            name = sources[name]
        if name not in tensors:
            raise VerificationError(f"{printable(name)}: found a computed value, expected a stored weight")
        return tensors[name]

    for node in graph.node:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm"):
            yield node, source(node.input[1]), source(node.input[2]) if len(node.input) > 2 else None


def _outputs(node: onnx.NodeProto, weight: TensorProto) -> int:
    """Count the output channels of a convolution, transposed or not, or of a linear layer."""
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return weight.dims[0 if node.op_type == "Conv" or transposed else 1]


def _type(options: OnnxOptions, node: onnx.NodeProto, is_bias: bool) -> int:
    if options.precision == "fp16" and node.op_type not in options.keep_fp32:
        return TensorProto.FLOAT16
    if options.precision != "int8" or node.op_type not in WEIGHTED or is_kept(node, options.keep_fp32):
        return TensorProto.FLOAT
    if is_bias:
        return TensorProto.INT32 if SCHEMES[options.target or "tensorrt"].integer_biases else TensorProto.FLOAT
    return TensorProto.INT8
