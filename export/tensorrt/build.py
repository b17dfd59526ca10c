"""Build of TensorRT engines from ONNX files.

    x.onnx --parser--> network --builder, for one GPU or for several kinds of GPU--> x.engine, x.engine.json

There is one code path for TensorRT 10, TensorRT 11 and TensorRT-RTX. Every network is strongly typed: the ONNX file
alone decides the type of each operation (TensorRT 11 has no other mode), and fp32 is not rounded to TF32.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from scalenet_zoo.core.backends import driver_version
from scalenet_zoo.core.bounds import TIMINGS_BYTES
from scalenet_zoo.core.errors import EngineError, OutputError
from scalenet_zoo.core.files import cache_folder, read_bytes, replacing
from scalenet_zoo.core.progress import OnProgress
from scalenet_zoo.export.tensorrt.library import TensorRT, on_one_line, open_library, require_gpu
from scalenet_zoo.export.tensorrt.network import EngineNetwork, check_engine
from scalenet_zoo.export.tensorrt.record import (
    Device,
    EngineOptions,
    EngineRecord,
    Library,
    read_engine,
    record_path,
)
from scalenet_zoo.export.tensorrt.source import EngineSource
from scalenet_zoo.export.tensorrt.summary import EngineSummary

__all__ = ["EngineNetwork", "EngineOptions", "EngineRecord", "Library", "build_engine", "check_engine"]


def build_engine(
    onnx_path: str | Path,
    path: str | Path,
    options: EngineOptions = EngineOptions(),  # noqa: B008 - it cannot be changed
    on_progress: OnProgress | None = None,
    rebuild: bool = False,
    check: Callable[[EngineNetwork], object] | None = None,
) -> EngineRecord:
    """Build an engine from an ONNX file, and write it with its record beside it; both appear whole or not at all.

    An existing engine is kept if this build would give the same one. An interrupt (Ctrl-C) stops the builder.

    Args:
        onnx_path: an ONNX file with one input, whose first axis is the batch and whose other axes are fixed.
        path: the file to write.
        options: how the engine is built.
        on_progress: reports the builder's phase, the steps done and the number of steps; called on another thread.
        rebuild: build even if there is an engine.
        check: called with the engine, open on this GPU, before it appears at `path`; its errors are passed on. It is
            not called for engines for other machines, since they cannot be opened here.

    Returns:
        The record of the engine.

    Raises:
        EngineError: the options do not fit, TensorRT does not know an operator or cannot build the engine, or an
            existing engine is stale.
        BackendError: the library or the GPU is missing, or external data do not fit into memory.
        InputError: the ONNX file cannot be read.
        OutputError: the engine cannot be written.
    """
    path = Path(path)
    library, capabilities, device = find_target(options)
    source = EngineSource.read(Path(onnx_path))
    options = options.model_copy(update={"batch": source.choose_batch(options.batch)})
    if path.is_file() and not rebuild:
        record, plan = _still_good(path, source, options, library, device)
        if check and device:
            check(EngineNetwork.open(record, plan, library, str(path)))
        return record
    with replacing(path) as temporary:
        plan, messages = _build(library, source, options, capabilities, device, on_progress)
        content = gzip.compress(plan, 6, mtime=0) if options.compress else plan
        record = EngineRecord(
            engine_sha256=hashlib.sha256(content).hexdigest(),
            engine_bytes=len(content),
            plan_bytes=len(plan),
            onnx_sha256=source.sha256,
            spec_hash=source.metadata.spec.hash if source.metadata else None,
            entries=source.entries,
            precision=source.precision,
            options=options,
            tensorrt=library.version,
            device=device,
            driver=driver_version() if device else None,
            profiles=(source.profile(options),),
        )
        network = EngineNetwork.open(record, plan, library, str(path)) if device else None
        summary = network.summary() if network else EngineSummary.listen(messages)
        if network and check:
            check(network)
        record = record.model_copy(update={"summary": summary}).sealed()
        temporary.write_bytes(content)
        record.save(record_path(temporary))
    return record


def find_target(options: EngineOptions) -> tuple[TensorRT, list[Any], Device | None]:
    """Find the library and the GPU for an engine; this needs no ONNX file yet.

    Returns:
        The library, the requested compute capabilities, and the GPU here if the engine is for it.

    Raises:
        EngineError: the options do not fit.
        BackendError: the library or the GPU is missing.
    """
    options.check()
    library = open_library(options.library)
    capabilities = _compute_capabilities(library, options)
    return library, capabilities, None if options.ahead_of_time else _require_gpu(library)


def _require_gpu(library: TensorRT) -> Device:
    if library.name == "tensorrt":
        return require_gpu(library.name)
    kinds = ",".join(_supported_capabilities(library))
    return require_gpu(
        library.name, f"; or build for other machines: --compute-capability (of {kinds}) or --hardware-compatible"
    )


def _supported_capabilities(library: TensorRT) -> dict[str, Any]:
    """Map TensorRT-RTX's compute capabilities, such as "8.9", to the members of its enumeration, such as SM89."""
    members = library.module.ComputeCapability.__members__.items()
    return {f"{name[2:-1]}.{name[-1]}": member for name, member in members if name.startswith("SM")}


def _compute_capabilities(library: TensorRT, options: EngineOptions) -> list[Any]:
    """List the compute capabilities for which TensorRT-RTX builds; none: its default, every GPU from Ampere on."""
    if library.name == "tensorrt" or options.hardware_compatible:
        return []
    if not options.compute_capabilities:
        return [library.module.ComputeCapability.CURRENT]
    supported = _supported_capabilities(library)
    for capability in options.compute_capabilities:
        if capability not in supported:
            raise EngineError(f"compute capability: found {capability!r}, expected some of {', '.join(supported)}")
    return [supported[capability] for capability in options.compute_capabilities]


def _still_good(
    path: Path, source: EngineSource, options: EngineOptions, library: TensorRT, device: Device | None
) -> tuple[EngineRecord, bytes]:
    """Read an existing engine, and require that a build now would give the same one."""
    try:
        record, plan = read_engine(path)
    except EngineError as error:
        raise EngineError(f"{error}; pass --rebuild to build it again") from None
    if changes := record.changes(source.sha256, options, library.version, device):
        raise EngineError(f"{path}: is stale: {'; '.join(changes)}; pass --rebuild to build it again")
    return record, plan


def _build(
    library: TensorRT,
    source: EngineSource,
    options: EngineOptions,
    capabilities: list[Any],
    device: Device | None,
    on_progress: OnProgress | None,
) -> tuple[bytes, list[str]]:
    """Build an engine; return its bytes and the builder's messages."""
    trt = library.module
    with library.listening():
        builder = trt.Builder(library.logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, library.logger)
        if not parser.parse_from_file(str(source.path)):
            errors = "; ".join(_parser_errors(parser)) or library.complaint
            raise EngineError(f"{source.path}: cannot be read by {library.name}: {errors}")
        config = _configured(trt, builder.create_builder_config(), options, capabilities)
        profile, shapes = builder.create_optimization_profile(), source.profile(options)
        profile.set_shape(shapes.tensor, shapes.smallest, shapes.optimal, shapes.largest)
        config.add_optimization_profile(profile)
        monitor = _monitor(trt, on_progress or (lambda phase, step, steps: None))
        config.progress_monitor = monitor
        # TensorRT-RTX times no kernels when it builds, so it has no timings to keep.
        timings = _timings_path(library, device) if device and library.name == "tensorrt" else None
        if timings:
            _load_timings(config, timings)
        plan = _run(builder, network, config, monitor)
        if plan is None:
            raise EngineError(f"{source.path}: cannot be built by {library.name}: {library.complaint}")
        if timings:
            with suppress(OutputError), replacing(timings) as temporary:  # without them the next build takes longer
                temporary.write_bytes(bytes(config.get_timing_cache().serialize()))
        return bytes(plan), library.messages


def _parser_errors(parser: Any) -> Iterator[str]:  # noqa: ANN401 - TensorRT has no types
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        # Without a GPU, each error also reports that there is none.
        what = on_one_line("\n".join(line for line in error.desc().splitlines() if "catchCudaError" not in line))
        if "Plugin not found" in what:
            what = "no such operator"
        yield f"{error.node_operator()} {error.node_name()!r}: {what}" if error.node_operator() else what


def _configured(trt: Any, config: Any, options: EngineOptions, capabilities: list[Any]) -> Any:  # noqa: ANN401
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # for the summary
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib * 2**20)
    if options.level is not None:
        config.builder_optimization_level = options.level
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible and options.library == "tensorrt":
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if capabilities:
        config.num_compute_capabilities = len(capabilities)
        for index, capability in enumerate(capabilities):
            config.set_compute_capability(capability, index)
    return config


def _monitor(trt: Any, on_progress: OnProgress) -> Any:  # noqa: ANN401
    """Make a progress monitor; once it is `cancelled`, it stops the builder at its next step."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.cancelled = False
            self.error: BaseException | None = None
            self._steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self._steps[phase] = steps
            self._tell(phase, 0)

        def step_complete(self, phase: str, step: int) -> bool:
            self._tell(phase, step + 1)
            return not self.cancelled

        def phase_finish(self, phase: str) -> None:
            self._steps.pop(phase, None)

        def _tell(self, phase: str, step: int) -> None:
            try:
                if not self.cancelled:
                    on_progress(phase, step, self._steps.get(phase, step))
            except BaseException as error:  # errors must not pass through TensorRT
                self.cancelled, self.error = True, error

    return Monitor()


def _run(builder: Any, network: Any, config: Any, monitor: Any) -> Any:  # noqa: ANN401
    """Build on another thread, so that this one can be interrupted; the new thread must select the same GPU."""
    gpu = torch.cuda.current_device() if torch.cuda.is_available() else None

    def build() -> Any:  # noqa: ANN401
        if gpu is not None:
            torch.cuda.set_device(gpu)
        return builder.build_serialized_network(network, config)

    with ThreadPoolExecutor(1) as executor:
        plan = executor.submit(build)
        try:
            plan.result()
        except BaseException:
            monitor.cancelled = True
            raise  # after the executor has waited for the builder to stop
    if monitor.error:
        raise monitor.error
    return plan.result()


def _timings_path(library: TensorRT, device: Device) -> Path:
    """Return the file of the builder's kernel timings, which hold for one version and one GPU."""
    name = f"{library.version}_{device.name}_{device.compute_capability}.timings".replace(" ", "-").replace("/", "-")
    return cache_folder() / "tensorrt" / name


def _load_timings(config: Any, path: Path) -> None:  # noqa: ANN401
    content = b""
    with suppress(ValueError):
        content = read_bytes(path, TIMINGS_BYTES)
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):  # damaged: start with no timings
        config.set_timing_cache(config.create_timing_cache(b""), False)
