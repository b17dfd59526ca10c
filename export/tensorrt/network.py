"""Engines, open on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scalenet_zoo.arch.spec import ArchSpec
from scalenet_zoo.core.errors import BackendError, EngineError
from scalenet_zoo.export.inference import file_inference
from scalenet_zoo.export.metadata import Metadata
from scalenet_zoo.export.tensorrt.library import TensorRT, find_gpu, open_library, require_gpu
from scalenet_zoo.export.tensorrt.record import EngineRecord, read_engine
from scalenet_zoo.export.tensorrt.summary import EngineSummary
from scalenet_zoo.inference.prepare import Inference

_DTYPES = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "INT8": torch.int8,
    "UINT8": torch.uint8,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "BOOL": torch.bool,
}


def check_engine(path: str | Path) -> EngineRecord:
    """Read an engine's record, and check it against the engine and, if present, the library and the GPU here.

    Raises:
        EngineError: the engine or its record is missing, damaged or changed, or the engine cannot run here; the message
            gives the reason.
    """
    return _checked(Path(path))[0]


def _checked(path: Path) -> tuple[EngineRecord, bytes]:
    record, plan = read_engine(path)
    try:
        version = open_library(record.library).version
    except BackendError:
        version = None
    if reasons := record.mismatches(version, find_gpu()):
        raise EngineError(f"{path}: cannot run here: {'; '.join(reasons)}: build it again, with --rebuild")
    return record, plan


def _current_device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device())


@dataclass(frozen=True)
class EngineNetwork:
    """An engine, open on the GPU that torch uses.

    Attributes:
        record: the engine's record.
        library: the library that runs it.
        engine: TensorRT's object.
        device: the GPU.
    """

    record: EngineRecord
    library: TensorRT
    engine: Any
    device: torch.device
    _bound: dict[int, tuple[torch.Tensor, Callable[[], torch.Tensor]]] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, path: str | Path) -> EngineNetwork:
        """Check an engine that `build_engine` wrote, and open it.

        A version-compatible engine contains code that TensorRT runs, so open only engines that you trust.

        Raises:
            EngineError: as for `check_engine`, or TensorRT cannot open the engine.
            BackendError: there is no GPU, or the library is missing.
        """
        path = Path(path)
        record, plan = _checked(path)
        library = open_library(record.library)
        require_gpu(library.name)
        return cls.open(record, plan, library, str(path))

    @classmethod
    def open(cls, record: EngineRecord, plan: bytes, library: TensorRT, name: str) -> EngineNetwork:
        """Open the bytes of an engine; `name` names it in errors.

        Raises:
            EngineError: TensorRT cannot open them.
        """
        with library.listening():
            runtime = library.module.Runtime(library.logger)
            if record.options.version_compatible:
                runtime.engine_host_code_allowed = True
            engine = runtime.deserialize_cuda_engine(plan)
            if engine is None:
                raise EngineError(f"{name}: cannot be opened by {library.name}: {library.complaint}")
        return cls(record, library, engine, _current_device())

    @property
    def metadata(self) -> Metadata:
        """The network's spec, preprocessing and class names, and the options with the engine's own batch sizes.

        Raises:
            InputError: as for `EngineRecord.metadata`.
        """
        metadata = self.record.metadata
        return replace(metadata, options=metadata.options.model_copy(update={"batch": self.record.batch}))

    @property
    def spec(self) -> ArchSpec:
        """The network's spec; it raises the errors of `metadata`."""
        return self.metadata.spec

    def inference(self) -> Inference:
        """Make the engine ready for `predict` and `evaluate`.

        Raises:
            InputError: as for `EngineRecord.metadata`, or the network takes neither 1 nor 3 channels.
        """
        return file_inference(self.metadata, self)

    def summary(self) -> EngineSummary:
        """Read the layers and the memory from the engine's inspector."""
        return EngineSummary.inspect(self.library.module, self.engine)

    def bind(self, images: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Prepare the engine to run on one batch repeatedly, in fixed memory.

        Args:
            images: the batch, in the form that the engine takes. If it is on the engine's GPU and has its type, it is
                used in place, so that other images can be copied into it; otherwise it is copied there now.

        Returns:
            A function that enqueues one inference on torch's current stream, which a CUDA graph can capture, and
            returns the output, which is always the same tensor.

        Raises:
            EngineError: the engine was not built for the shape of the batch, or cannot run.
        """
        self._check_shape(tuple(images.shape))
        source, target = self._tensor(0), self._tensor(1)
        images = images.to(self.device, self._dtype(source)).contiguous()
        context = self._context()
        context.set_input_shape(source, tuple(images.shape))
        output = torch.empty(tuple(context.get_tensor_shape(target)), dtype=self._dtype(target), device=self.device)
        context.set_tensor_address(source, images.data_ptr())
        context.set_tensor_address(target, output.data_ptr())

        def run() -> torch.Tensor:
            images.data_ptr()  # the context has only the address: this function keeps the images alive
            stream = torch.cuda.current_stream(self.device).cuda_stream if self.device.type == "cuda" else 0
            if not context.execute_async_v3(stream):
                raise EngineError(f"{self.library.name}: cannot run the engine: execute_async_v3 failed")
            return output

        run()  # the first run sets up what a CUDA graph could not capture
        return run

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Run the engine on a batch of images, as its ONNX file takes them, and return its output; floats are float32.

        Raises:
            EngineError: as for `bind`.
        """
        batch = torch.from_numpy(images)
        self._check_shape(tuple(batch.shape))
        if len(batch) not in self._bound:
            static = torch.empty(batch.shape, dtype=self._dtype(self._tensor(0)), device=self.device)
            self._bound[len(batch)] = static, self.bind(static)
        static, run = self._bound[len(batch)]
        static.copy_(batch)
        output = run()
        dtype = torch.float32 if output.dtype.is_floating_point else output.dtype
        return output.to("cpu", dtype, copy=True).numpy()  # the engine's own memory holds the next output

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        profile = self.record.profiles[0]
        low, high = profile.smallest, profile.largest
        if len(shape) != len(low) or not all(a <= size <= b for a, size, b in zip(low, shape, high, strict=True)):
            raise EngineError(f"images: found the shape {shape}, expected {low} to {high}, which the engine is for")

    def _context(self) -> Any:  # noqa: ANN401 - TensorRT has no types
        if self.library.name == "tensorrt":
            return self.engine.create_execution_context()
        config = self.engine.create_runtime_config()
        # The kernels for this batch are compiled now, not during the first inferences.
        config.dynamic_shapes_kernel_specialization_strategy = (
            self.library.module.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        return self.engine.create_execution_context(config)

    def _tensor(self, index: int) -> str:
        """Return the name of the input (0) or the output (1)."""
        name: str = self.engine.get_tensor_name(index)
        return name

    def _dtype(self, tensor: str) -> torch.dtype:
        return _DTYPES[self.engine.get_tensor_dtype(tensor).name]
