"""ONNX files to build engines from."""

import math
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper


def tiny(path: Path, operators: tuple[str, ...] = ("Relu", "Neg"), batch: int | str = "batch") -> Path:
    """A chain of operators, as a file that is not one of ours."""
    names = ["image", *(f"t{i}" for i in range(len(operators) - 1)), "output"]
    nodes = [
        helper.make_node(
            op, [names[i]], [names[i + 1]], name=f"node_{i}", domain="" if op in ("Relu", "Neg") else "ours"
        )
        for i, op in enumerate(operators)
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 3, 4, 5]) for name in (names[0], names[-1])
    ]
    graph = helper.make_graph(nodes, "tiny", values[:1], values[1:])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ours", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


PLACES = ("initialiser", "sparse", "attribute", "subgraph", "function")
"""Where in a model a tensor may stand."""


def with_external_data(path: Path, place: str = "initialiser", **data: object) -> Path:
    """The same with four floats that lie where `data` say, as ONNX names it: location, offset, length."""
    tensor = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in data.items():
        tensor.external_data.add(key=key, value=str(value))
    constant = helper.make_node("Constant", [], ["c"], value=tensor)
    result = helper.make_tensor_value_info("c", TensorProto.FLOAT, [4])
    model = onnx.load(tiny(path))
    if place == "initialiser":
        model.graph.initializer.append(tensor)
    elif place == "sparse":
        model.graph.sparse_initializer.add(values=tensor, dims=[9])
    elif place == "attribute":
        model.graph.node.append(constant)
    elif place == "subgraph":
        inner = helper.make_graph([constant], "inner", [], [result])
        model.graph.node.append(helper.make_node("If", ["cond"], ["d"], then_branch=inner, else_branch=inner))
    else:
        opset = [helper.make_opsetid("", 20)]
        model.functions.append(helper.make_function("ours", "f", [], ["c"], [constant], opset))
    onnx.save(model, path)
    return path


def quantised_convolution(path: Path, **extra: bool) -> Path:
    """A convolution with a bias, quantised by ONNX Runtime in a form of one's choice."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Noise(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = [np.random.default_rng(0).uniform(-1, 3, (2, 3, 4, 5)).astype(np.float32)]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return {"image": self.batches.pop()} if self.batches else None

    model = onnx.load(tiny(path, ("Relu",)))
    model.graph.node[0].CopyFrom(helper.make_node("Conv", ["image", "weight", "bias"], ["output"], name="convolution"))
    for name, shape in (("weight", (3, 3, 1, 1)), ("bias", (3,))):
        values = np.linspace(-1, 1, num=math.prod(shape), dtype=np.float32).reshape(shape)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")  # it needs none: no warning
    quantize_static(
        model,
        path,
        Noise(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False} | extra,
    )
    return path
