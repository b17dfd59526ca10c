"""Worker processes that share one device: each holds the data, and does one task after another.

With NVIDIA's multi-process service, kernels of several processes run at the same time; without it they take turns.
"""

import gc
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import forkserver, get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import BrokenBarrierError
from typing import Any, Literal

from benchmarks.jobs import end_with_parent

MPS = "nvidia-cuda-mps-control"
PATIENCE = 6.0
"""Seconds for which workers wait for each other."""
PRELOADED = ("benchmarks.evidence.smoke", "benchmarks.evidence.tasks", "safetensors.torch")
"""Modules that the fork server imports once for all processes."""
PROBE = """
import ctypes
cuda = ctypes.CDLL("libcuda.so.1")
context = ctypes.c_void_p()
assert cuda.cuInit(0) == 0, "cuInit"
assert cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0, "cuDevicePrimaryCtxRetain"
"""
"""A program that opens the GPU as torch does, in a second or two."""


@contextmanager
def multi_process_service(folder: Path, wanted: bool) -> Iterator[str]:
    """Start the multi-process service for processes started inside the context, if it is installed and works.

    It changes no setting of the GPU, and ends with the context.

    Args:
        folder: the folder of its pipe and its logs.
        wanted: False does nothing.

    Yields:
        A sentence that says whether the service works.
    """
    program = shutil.which(MPS)
    if not wanted or program is None:
        yield "not wanted" if not wanted else f"{MPS} is not there"
        return
    folder.mkdir(parents=True, exist_ok=True)
    names = {"CUDA_MPS_PIPE_DIRECTORY": str(folder / "pipe"), "CUDA_MPS_LOG_DIRECTORY": str(folder / "log")}
    for path in names.values():
        Path(path).mkdir(exist_ok=True)
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    _tried([program], 10, "quit\n")  # a killed run leaves its service behind
    trouble = _tried([program, "-d"], 10) or _tried([sys.executable, "-c", PROBE], 30)
    try:
        if trouble:
            _tried([program], 10, "quit\n")
            _restore(before)
            yield f"does not work here: {trouble}"
        else:
            servers = subprocess.run(
                [program], input="get_server_list\n", capture_output=True, text=True, timeout=10, check=False
            )
            yield f"works, servers {servers.stdout.split()}"
    finally:
        if not trouble:
            _tried([program], 10, "quit\n")
        _restore(before)


def _tried(command: Sequence[str], seconds: float, text: str = "") -> str:
    """Run a program, and say what went wrong; an empty string if nothing did."""
    try:
        done = subprocess.run(
            command, input=text, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=seconds,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return f"{type(error).__name__}: {error}"
    return "" if done.returncode == 0 else f"{Path(command[0]).name} gave {done.returncode}: {done.stderr[-300:]}"


def _restore(before: dict[str, str | None]) -> None:
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def start_server() -> None:
    """Start the fork server, without waiting for it."""
    forkserver.set_forkserver_preload(list(PRELOADED))
    forkserver.ensure_running()


@dataclass
class Worker:
    """A worker process.

    Attributes:
        process: the process, which runs `_serve`.
        connection: the connection to it.
        busy: the task that it does, or None.
        told: number of tasks that it was given.
    """

    process: Any
    connection: Connection
    busy: Any = None
    told: int = 0


@dataclass
class Workers:
    """All worker processes; they start and end with the context, and `mend` replaces those that have ended.

    Args:
        count: number of processes.
        device: the device that they use, cuda or cpu.
        data: the file that `images.decode` writes; it must exist when the first task begins.
        method: how processes start: `forkserver` is fast and needs `start_server`, `spawn` imports all modules anew.
    """

    count: int
    device: str
    data: Path
    method: Literal["forkserver", "spawn"] = "spawn"
    workers: list[Worker] = field(default_factory=list)
    barriers: list[Barrier] = field(default_factory=list)

    def __enter__(self) -> "Workers":
        context = get_context(self.method)
        self.barriers = [context.Barrier(number) for number in range(1, self.count + 1)]
        self.workers = [self._start() for _ in range(self.count)]
        return self

    def _start(self) -> Worker:
        context = get_context(self.method)
        ours, theirs = context.Pipe()
        arguments = theirs, self.device, str(self.data), self.barriers
        process = context.Process(  # type: ignore[attr-defined]
            target=_serve, args=arguments, daemon=True
        )
        process.start()
        theirs.close()
        return Worker(process, ours)

    def mend(self, *hanging: Worker) -> int:
        """Replace the workers that have ended, and those given; return their number."""
        mended = 0
        for place, worker in enumerate(self.workers):
            if worker.process.is_alive() and not any(worker is each for each in hanging):
                continue
            worker.process.kill()
            worker.connection.close()
            self.workers[place] = self._start()
            mended += 1
        if mended and not hanging:  # a worker that was killed may hold a lock
            for barrier in self.barriers:
                barrier.reset()
        return mended

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.connection.close()
        limit = time.monotonic() + 3  # enough for idle workers; nobody waits for what the others do
        for worker in self.workers:
            worker.process.join(max(0.0, limit - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()

    def tell(self, worker: Worker, task: Callable[..., Any], *arguments: Any) -> None:
        """Give a worker a task: it calls `task(sets, *arguments)`, a function of a module."""
        worker.told += 1
        with suppress(OSError):  # the worker has ended; `answer` will say so
            worker.connection.send((worker.told, task, arguments))
        worker.busy = (task, arguments)

    def together(self, arguments: Sequence[tuple[Any, ...]], task: Callable[..., Any], seconds: float) -> list[Any]:
        """Let as many workers as there are tuples of arguments do a task at the same time.

        Returns:
            Each worker's answer, or the exception that its task raised, or a TimeoutError after so many seconds.
        """
        chosen = self.workers[: len(arguments)]
        for worker, own in zip(chosen, arguments, strict=True):
            self.tell(worker, task, *own)
        limit = time.monotonic() + seconds
        return [self.answer(worker, limit) for worker in chosen]

    def answer(self, worker: Worker, limit: float) -> Any:
        """Wait for a worker's answer until `limit`; return it, or the exception that its task raised."""
        number, given = 0, None
        try:
            while number != worker.told:  # answers to earlier tasks came too late
                if not worker.connection.poll(max(0.0, limit - time.monotonic())):
                    return TimeoutError("no answer in time")
                number, given = worker.connection.recv()
        except (EOFError, OSError) as error:
            given = RuntimeError(f"the process ended: {error}")
            worker.process.join(2.0)
        worker.busy = None
        if isinstance(given, RuntimeError) and FATAL in str(given):
            worker.process.join(2.0)  # the worker ends by itself, and `mend` replaces it
        return given

    def ready(self, seconds: float) -> list[Worker]:
        """Wait for the first answer, some seconds at most, and return the workers that have answered."""
        busy = {worker.connection: worker for worker in self.workers if worker.busy is not None}
        return [busy[connection] for connection in wait(list(busy), seconds)]  # type: ignore[index]


FATAL = "CUDA error"
"""Part of the messages of errors after which a process cannot use its device any more."""
_barriers: Sequence[Barrier] = ()
"""In a worker process: barriers for one process, for two, and so on."""


def meet(count: int) -> None:
    """In a worker process: wait until `count` workers have called this function, some seconds at most."""
    with suppress(BrokenBarrierError):  # if one worker fails, the others go on
        _barriers[count - 1].wait(PATIENCE)


def _serve(connection: Connection, device: str, data: str, barriers: Sequence[Barrier]) -> None:
    """The work of a worker process: load the data, then do one task after another until the connection closes."""
    import torch

    from benchmarks.evidence.alone import on_one_stream
    from benchmarks.evidence.images import Sets

    global _barriers
    _barriers = barriers
    end_with_parent()
    torch.set_num_threads(1)
    gc.freeze()  # the collection after each task leaves out the modules
    on = torch.device(device)
    if device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # fp32 as on a CPU
        torch.backends.cudnn.benchmark = False
    sets: Sets | None = None
    try:
        with on_one_stream(on):
            while True:
                number, task, arguments = connection.recv()
                try:
                    sets = sets or Sets.load(Path(data), on)
                    answer = task(sets, *arguments)
                except Exception as error:
                    answer = RuntimeError(_in_short(error))
                fatal = isinstance(answer, RuntimeError) and FATAL in str(answer)
                if not fatal:
                    gc.collect()  # frees what the task has left on the device
                    if device == "cuda":
                        torch.cuda.empty_cache()
                connection.send((number, answer))
                if fatal:
                    os._exit(1)
    except (EOFError, OSError):  # the parent has closed the connection
        return
    except Exception as error:
        print("a process ended:", _in_short(error), file=sys.stderr, flush=True)
        os._exit(1)


def _in_short(error: Exception) -> str:
    """Say in one line what went wrong, and where."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if "evidence" in frame.filename]
    at = own[-1] if own else where
    said = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {said} ({Path(at.filename).name}:{at.lineno})"[:300]
