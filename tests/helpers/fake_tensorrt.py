"""A fake of the `tensorrt` package, for machines without it: its builder, runtime and GPU are ONNX Runtime on the CPU.

Each version has the classes, members and enumerations that the real package of bindings has
(`tensorrt_signatures.json`), and no other: what the code uses but a version lacks is an AttributeError here too.
An engine is a line of JSON, which says how it was built, and the ONNX file.
"""

from __future__ import annotations

import ctypes
import enum
import json
import math
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime

from scalenet_zoo.export.tensorrt.record import Device
from tests.helpers.tensorrt_bindings import read_signatures

TYPES = {"FLOAT": np.float32, "HALF": np.float16, "INT32": np.int32, "INT64": np.int64, "UINT8": np.uint8}
ONNX_TYPES = {np.dtype(value): key for key, value in TYPES.items()}
HERE = Device(name="NVIDIA Fake 4000", compute_capability="8.9")


def fake_tensorrt(version: str, name: str = "tensorrt", members: dict[str, list[str]] | None = None) -> Any:
    """Make the package of a version.

    Args:
        version: one of `tensorrt_signatures.json`, or any with `members`.
        name: of the package.
        members: of its classes; as in `tensorrt_signatures.json` if not given.
    """
    members = read_signatures()[version] if members is None else members
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, loader=None)
    trt: Any = module
    trt.__version__ = version
    for kind, names in members.items():
        if {"name", "value"} <= set(names):
            values = [member for member in names if member not in ("name", "value")]
            setattr(trt, kind, enum.IntEnum(kind, values, start=0))
    for fake in _classes(trt):
        if fake.__name__ in members:
            fake.members = frozenset(members[fake.__name__])
            for attribute in [key for key in vars(fake) if not key.startswith("_") and key != "members"]:
                if attribute not in fake.members:
                    delattr(fake, attribute)
            setattr(trt, fake.__name__, fake)
    return trt


class Faithful:
    """An object that has, and can be given, the members of the real class alone."""

    members: frozenset[str] = frozenset()

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_") and name not in self.members:
            raise AttributeError(f"{type(self).__name__} has no attribute {name}")
        super().__setattr__(name, value)


def _classes(trt: Any) -> list[Any]:
    class ILogger(Faithful):
        class Severity(enum.IntEnum):
            INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

        def log(self, severity: Any, message: str) -> None:
            raise NotImplementedError

    class IProgressMonitor(Faithful):
        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            raise NotImplementedError

        def step_complete(self, phase: str, step: int) -> bool:
            raise NotImplementedError

        def phase_finish(self, phase: str) -> None:
            raise NotImplementedError

    # What users derive from takes any attribute, as Python classes do.
    ILogger.__setattr__ = IProgressMonitor.__setattr__ = object.__setattr__  # type: ignore[assignment, method-assign]

    class ITimingCache(Faithful):
        def __init__(self, content: bytes) -> None:
            self._timings: dict[str, float] = json.loads(content or b"{}")

        def serialize(self) -> bytes:
            return json.dumps(self._timings).encode()

    class IOptimizationProfile(Faithful):
        def set_shape(self, tensor: str, smallest: Any, optimal: Any, largest: Any) -> None:
            self._shapes = [tuple(smallest), tuple(optimal), tuple(largest)]

    class INetworkDefinition(Faithful):
        def __init__(self, flags: int) -> None:
            self._flags = flags
            self._onnx = b""

    class ParserError(Faithful):
        def __init__(self, node: onnx.NodeProto) -> None:
            self._node = node

        def desc(self) -> str:
            return "Plugin not found,\n are the plugin name, version, and namespace correct?"

        def node_name(self) -> str:
            return str(self._node.name)

        def node_operator(self) -> str:
            return str(self._node.op_type)

    class OnnxParser(Faithful):
        def __init__(self, network: Any, logger: Any) -> None:
            self._network, self._errors = network, list[Any]()

        def parse_from_file(self, path: str) -> bool:
            model = onnx.load(path)
            known = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
            self._errors = [ParserError(node) for node in model.graph.node if node.op_type not in known]
            self._network._onnx = model.SerializeToString()
            return not self._errors

        @property
        def num_errors(self) -> int:
            return len(self._errors)

        def get_error(self, index: int) -> Any:
            return self._errors[index]

    class IBuilderConfig(Faithful):
        def __init__(self) -> None:
            self._flags = {trt.BuilderFlag.TF32}
            self._profiles: list[Any] = []
            self._pools: dict[Any, int] = {}
            self._capabilities: list[Any] = []
            self._cache: Any = None
            self.progress_monitor = None
            self.builder_optimization_level = 3
            self.hardware_compatibility_level = trt.HardwareCompatibilityLevel.NONE
            self.profiling_verbosity = trt.ProfilingVerbosity.LAYER_NAMES_ONLY

        def set_flag(self, flag: Any) -> None:
            self._flags.add(flag)

        def clear_flag(self, flag: Any) -> None:
            self._flags.discard(flag)

        def set_memory_pool_limit(self, pool: Any, size: int) -> None:
            self._pools[pool] = size

        def add_optimization_profile(self, profile: Any) -> int:
            self._profiles.append(profile)
            return len(self._profiles) - 1

        @property
        def num_compute_capabilities(self) -> int:
            return len(self._capabilities)

        @num_compute_capabilities.setter
        def num_compute_capabilities(self, number: int) -> None:
            self._capabilities = [None] * number

        def set_compute_capability(self, capability: Any, index: int) -> bool:
            self._capabilities[index] = capability
            return True

        def create_timing_cache(self, content: bytes) -> Any:
            try:
                return ITimingCache(content)
            except ValueError:
                return None

        def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
            self._cache = cache
            return True

        def get_timing_cache(self) -> Any:
            return self._cache

    class Builder(Faithful):
        def __init__(self, logger: Any) -> None:
            assert isinstance(logger, ILogger)
            self._logger = logger

        def create_network(self, flags: int = 0) -> Any:
            return INetworkDefinition(flags)

        def create_builder_config(self) -> Any:
            return IBuilderConfig()

        def create_optimization_profile(self) -> Any:
            return IOptimizationProfile()

        def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
            needed = 2**21
            if config._pools.get(trt.MemoryPoolType.WORKSPACE, needed) < needed:
                self._logger.log(ILogger.Severity.ERROR, f"OutOfMemory (Requested size\n was {needed} bytes.)")
                return None
            monitor = config.progress_monitor
            timed = 0
            nodes = onnx.load_model_from_string(network._onnx).graph.node
            monitor.phase_start("Building engine", None, len(nodes))
            for step, node in enumerate(nodes):
                if config._cache is not None and node.op_type not in config._cache._timings:
                    config._cache._timings[node.op_type] = 1.0
                    timed += 1
                if not monitor.step_complete("Building engine", step):
                    monitor.phase_finish("Building engine")
                    self._logger.log(ILogger.Severity.ERROR, "Error Code 7: BuildCanceled")
                    return None
            monitor.phase_finish("Building engine")
            header = {
                "version": trt.__version__,
                "network": network._flags,
                "flags": sorted(flag.name for flag in config._flags),
                "level": config.builder_optimization_level,
                "hardware": config.hardware_compatibility_level.name,
                "verbosity": config.profiling_verbosity.name,
                "capabilities": [capability.name for capability in config._capabilities],
                "profiles": [profile._shapes for profile in config._profiles],
                "timed": timed,
            }
            plan: bytes = json.dumps(header).encode() + b"\n" + network._onnx
            return plan

    class Runtime(Faithful):
        def __init__(self, logger: Any) -> None:
            self._logger = logger
            self.engine_host_code_allowed = False

        def deserialize_cuda_engine(self, plan: bytes) -> Any:
            header = read_header(plan)
            portable = "VERSION_COMPATIBLE" in header["flags"] and self.engine_host_code_allowed
            if header["version"] != trt.__version__ and not portable:
                self._logger.log(ILogger.Severity.ERROR, "Error Code 1: Serialization (Version tag\n does not match)")
                return None
            return ICudaEngine(header, plan.split(b"\n", 1)[1])

    class ICudaEngine(Faithful):
        def __init__(self, header: dict[str, Any], content: bytes) -> None:
            self._header = header
            self._model = onnx.load_model_from_string(content)
            self._session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
            self._tensors = [*self._model.graph.input, *self._model.graph.output]

        def get_tensor_name(self, index: int) -> str:
            return str(self._tensors[index].name)

        def get_tensor_dtype(self, name: str) -> Any:
            (tensor,) = (tensor for tensor in self._tensors if tensor.name == name)
            element = onnx.helper.tensor_dtype_to_np_dtype(tensor.type.tensor_type.elem_type)
            return trt.DataType[ONNX_TYPES[element]]

        def create_runtime_config(self) -> Any:
            return IRuntimeConfig()

        def create_execution_context(self, config: Any = None) -> Any:
            assert (
                trt.__name__ != "tensorrt_rtx" or config.dynamic_shapes_kernel_specialization_strategy.name == "EAGER"
            )
            return IExecutionContext(self)

        def create_engine_inspector(self) -> Any:
            return EngineInspector(self)

        @property
        def device_memory_size_v2(self) -> int:
            return 4096

        def get_engine_stat(self, stat: Any) -> int:
            assert stat is trt.EngineStat.TOTAL_WEIGHTS_SIZE
            return sum(len(tensor.raw_data) for tensor in self._model.graph.initializer)

    class IRuntimeConfig(Faithful):
        pass

    class EngineInspector(Faithful):
        def __init__(self, engine: Any) -> None:
            self._engine = engine

        def get_engine_information(self, form: Any) -> str:
            assert form is trt.LayerInformationFormat.JSON
            assert self._engine._header["verbosity"] == "DETAILED"
            old = int(trt.__version__.split(".")[0]) == 10
            kind = {"Format/Datatype": "Row major linear FP32"} if old else {"Datatype": "Float", "Format": "Linear"}
            layers = [
                {
                    "Name": node.name,
                    "LayerType": node.op_type,
                    "Inputs": [{"Name": name, **kind} for name in node.input[:1]],
                    "Outputs": [{"Name": name, **kind} for name in node.output],
                }
                for node in self._engine._model.graph.node
            ]
            return json.dumps({"Layers": layers, "Bindings": []})

    class IExecutionContext(Faithful):
        def __init__(self, engine: Any) -> None:
            self._engine = engine
            self._shape: tuple[int, ...] = ()
            self._addresses: dict[str, int] = {}

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            smallest, _, largest = self._engine._header["profiles"][0]
            self._shape = shape
            return all(low <= size <= high for low, size, high in zip(smallest, shape, largest, strict=True))

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            (output,) = (tensor for tensor in self._engine._session.get_outputs() if tensor.name == name)
            return (self._shape[0], *output.shape[1:])

        def set_tensor_address(self, name: str, address: int) -> bool:
            self._addresses[name] = address
            return True

        def execute_async_v3(self, stream: int) -> bool:
            source, target = self._engine.get_tensor_name(0), self._engine.get_tensor_name(1)
            images = self._memory(source, self._shape)
            (output,) = self._engine._session.run(None, {source: images.copy()})
            self._memory(target, self.get_tensor_shape(target))[:] = output
            return True

        def _memory(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
            dtype = np.dtype(TYPES[self._engine.get_tensor_dtype(name).name])
            memory = (ctypes.c_byte * (math.prod(shape) * dtype.itemsize)).from_address(self._addresses[name])
            return np.ctypeslib.as_array(memory).view(dtype).reshape(shape)

    return [
        *(ILogger, IProgressMonitor, ITimingCache, IOptimizationProfile, INetworkDefinition, ParserError, OnnxParser),
        *(IBuilderConfig, Builder, Runtime, ICudaEngine, IRuntimeConfig, EngineInspector, IExecutionContext),
    ]


def read_header(plan: bytes) -> dict[str, Any]:
    """How an engine of the fake was built."""
    header: dict[str, Any] = json.loads(plan.split(b"\n", 1)[0])
    return header
