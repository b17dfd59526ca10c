"""Quantisation of an fp32 graph to int8 with explicit Q/DQ nodes, for one back end.

graph, images --correct_biases--> graph --rewrite_for_kernels--> graph --ONNX Runtime's quantize_static--> int8 graph

Back ends have integer kernels for different operators, so there is a `Scheme` for each target. A network that is made
for one target runs on the others too, but may be slower than fp32 there.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Literal, Self

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from scalenet_zoo.core.backends import TargetBackend
from scalenet_zoo.core.errors import ExportError
from scalenet_zoo.export.bias_correction import correct_biases
from scalenet_zoo.export.int8_graph import rewrite_for_kernels, saturate_gates, shield_kept
from scalenet_zoo.export.metadata import Calibrator

WEIGHTED = ("Conv", "Gemm")
"""Operators whose weights become int8 for every target. No back end has integer kernels for transposed convolutions."""
CALIBRATORS: Mapping[Calibrator, CalibrationMethod] = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}
PERCENTILE = 99.99
"""The percentage of an activation's values within its range; outliers are clipped, so that the others stay fine."""
HISTOGRAM_IMAGES = 16
"""Images for percentile and entropy. Their histograms take ten times as long as the extremes that minmax needs."""


@dataclass(frozen=True)
class Scheme:
    """How a graph is quantised for a target.

    Attributes:
        operators: the operators whose inputs become bytes.
        unsigned: activations are uint8 with zero points; otherwise they are int8, and every zero point is 0.
        outputs: the operators' outputs become bytes too; otherwise values are rounded after the activation function.
        integer_biases: biases are int32; otherwise fp32.
        rewritten: the graph is rewritten for ONNX Runtime's kernels first.
    """

    operators: tuple[str, ...]
    unsigned: bool
    outputs: bool
    integer_biases: bool
    rewritten: bool


_TENSORRT = Scheme(WEIGHTED, unsigned=False, outputs=True, integer_biases=False, rewritten=False)
SCHEMES: Mapping[TargetBackend, Scheme] = {
    "ort-cpu": Scheme(
        (*WEIGHTED, "Add", "Mul", "Clip", "Relu", "GlobalAveragePool", "Resize", "Sigmoid", "HardSigmoid"),
        unsigned=True,
        outputs=True,
        integer_biases=True,
        rewritten=True,
    ),
    "openvino": Scheme(WEIGHTED, unsigned=True, outputs=False, integer_biases=False, rewritten=False),
    "tensorrt": _TENSORRT,
    "tensorrt-rtx": _TENSORRT,
}


@dataclass
class Quantiser:
    """A quantiser of one graph for one target, which can be used many times; it measures ranges once per calibrator.

        with Quantiser(graph, batches, "ort-cpu") as quantiser:
            int8 = quantiser.quantise("percentile", keep_nodes=["node_conv_1"])

    Attributes:
        graph: a simplified fp32 graph with the shapes of its values.
        batches: inputs of the graph, from which the activations' ranges are found; a batch may be made on demand.
        target: the back end that the int8 graph will run on.
        activation_bits: 8; 16 for networks that lose too much in 8 bits. ONNX Runtime computes 16 bits in fp32.
        whole: the names of nodes that are never quantised.
        corrected: correct the biases for the rounding of the weights; this is not needed if only latency matters.
    """

    graph: onnx.ModelProto
    batches: Sequence[np.ndarray]
    target: TargetBackend
    activation_bits: Literal[8, 16] = 8
    whole: Collection[str] = ()
    corrected: bool = True
    _folder: TemporaryDirectory[str] = field(default_factory=TemporaryDirectory, repr=False)

    def __post_init__(self) -> None:
        self.scheme = SCHEMES[self.target]
        prepared = copy.deepcopy(self.graph)
        self._inputs = {node.name: list(node.input) for node in prepared.graph.node}
        if self.corrected:
            prepared = correct_biases(prepared, self.batches, WEIGHTED, self.whole)
        if self.scheme.rewritten:
            prepared = rewrite_for_kernels(prepared, self.whole)
        prepared.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")  # avoids a warning
        self._prepared = prepared

    def __enter__(self) -> Self:
        """Return the quantiser itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Delete the measured ranges."""
        self._folder.cleanup()

    def quantise(self, calibrator: Calibrator = "minmax", keep_nodes: Collection[str] = ()) -> onnx.ModelProto:
        """Quantise the graph to int8.

        Args:
            calibrator: how the ranges of activations are found: minmax takes the extremes, the others clip rare values.
            keep_nodes: the names of nodes that stay in fp32.

        Raises:
            ExportError: an activation has nearly constant values, of which percentile and entropy make no histogram.
        """
        scheme, wide = self.scheme, self.activation_bits == 16
        unsigned, signed = (QuantType.QUInt16, QuantType.QInt16) if wide else (QuantType.QUInt8, QuantType.QInt8)
        batches = self.batches
        if calibrator != "minmax":
            batches = batches[: -(-HISTOGRAM_IMAGES // max(1, len(batches[0])))]
        path = Path(self._folder.name) / "int8.onnx"
        prepared = copy.deepcopy(self._prepared)  # ONNX Runtime moves the weights of its argument into a file
        for node in prepared.graph.node:
            if node.name in keep_nodes and node.op_type in WEIGHTED:  # weights stay exact: undo the bias correction
                node.input[:] = self._inputs[node.name]
        with contextlib.redirect_stdout(io.StringIO()), _no_root_handler(), _histograms(calibrator):
            quantize_static(
                prepared,
                path,
                _Batches(self.graph.graph.input[0].name, batches),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(scheme.operators),
                per_channel=True,
                activation_type=unsigned if scheme.unsigned else signed,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=[*self.whole, *keep_nodes],
                calibrate_method=CALIBRATORS[calibrator],
                calibration_cache_path=Path(self._folder.name) / f"{calibrator}.json",
                extra_options={
                    "ActivationSymmetric": not scheme.unsigned,
                    "WeightSymmetric": True,
                    "QuantizeBias": scheme.integer_biases,
                    "OpTypesToExcludeOutputQuantization": [] if scheme.outputs else list(scheme.operators),
                    "CalibPercentile": PERCENTILE,
                    # Histograms take one batch at a time, since its activations are held in memory; extremes take all.
                    "CalibStridedMinMax": None if calibrator == "minmax" else 1,
                },
            )
        quantised = onnx.load(path)
        del quantised.metadata_props[:]
        if scheme.rewritten:
            quantised = shield_kept(quantised if wide else saturate_gates(quantised), WEIGHTED)
        return quantised


@contextlib.contextmanager
def _histograms(calibrator: Calibrator) -> Iterator[None]:
    """Explain NumPy's error if values lie too near each other for a histogram."""
    try:
        yield
    except ValueError as error:
        if calibrator == "minmax" or "bins" not in str(error):
            raise
        raise ExportError(
            f"calibrator: found {calibrator} for an activation with nearly constant values, which has no histogram,"
            " expected minmax"
        ) from error


@contextlib.contextmanager
def _no_root_handler() -> Iterator[None]:
    """Give the root logger a quiet handler: ONNX Runtime would otherwise add one that prints our messages twice."""
    root, quiet = logging.getLogger(), logging.NullHandler()
    root.addHandler(quiet)
    try:
        yield
    finally:
        root.removeHandler(quiet)


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    """Batches for ONNX Runtime's calibrator, which reads a range of them at a time."""

    def __init__(self, name: str, batches: Sequence[np.ndarray]) -> None:
        self.name, self.batches = name, batches
        self.due: Iterator[int] = iter(range(len(batches)))

    def __len__(self) -> int:
        return len(self.batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        self.due = iter(range(start_index, min(end_index, len(self.batches))))

    def get_next(self) -> dict[str, np.ndarray] | None:
        if (place := next(self.due, None)) is None:
            return None
        return {self.name: self.batches[place]}
