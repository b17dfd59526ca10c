"""Processes that share one device: each holds the data, and does what it is told.

NVIDIA's multi-process service, where it is there and works, lets kernels of several processes run at once; without it
they take turns.
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
"""Seconds that workers wait for each other."""
PRELOADED = ("benchmarks.evidence.smoke", "benchmarks.evidence.tasks", "safetensors.torch")
"""What a server imports once; processes are forked from it, so that they need not."""
PROBE = """
import ctypes
cuda = ctypes.CDLL("libcuda.so.1")
context = ctypes.c_void_p()
assert cuda.cuInit(0) == 0, "cuInit"
assert cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0, "cuDevicePrimaryCtxRetain"
"""
"""Opens the GPU as torch does, in a second or two."""


@contextmanager
def multi_process_service(folder: Path, wanted: bool) -> Iterator[str]:
    """Start the service for the processes that are begun inside, if it is there and a process can open the GPU with it.

    No setting of the card is touched; the service ends with this.

    Args:
        folder: for its pipe and logs.
        wanted: else nothing is done.

    Yields:
        What came of it, in words.
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
    _tried([program], 10, "quit\n")  # a run that was killed leaves it behind
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
    """Run a program; what went wrong, in words."""
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
    """Begin the process that others are forked from, without waiting for it."""
    forkserver.set_forkserver_preload(list(PRELOADED))
    forkserver.ensure_running()


@dataclass
class Worker:
    """A process, and how to reach it.

    Attributes:
        process: that runs `_serve`.
        connection: to it.
        busy: with what; None: with nothing.
        told: tasks so far.
    """

    process: Any
    connection: Connection
    busy: Any = None
    told: int = 0


@dataclass
class Workers:
    """Processes that are begun at once, and ended with the context.

    A process that has ended is begun anew by `mend`.

    Args:
        count: of processes.
        device: that they compute on: cuda or cpu.
        data: the file of `images.decode`, which need not be there before the first task.
        method: how processes are begun: `forkserver`, fast, after `start_server`; `spawn`, each with its own imports.
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
        self.workers = [self._begun() for _ in range(self.count)]
        return self

    def _begun(self) -> Worker:
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
        """Begin those processes anew that have ended, and those that are given; how many."""
        mended = 0
        for place, worker in enumerate(self.workers):
            if worker.process.is_alive() and not any(worker is each for each in hanging):
                continue
            worker.process.kill()
            worker.connection.close()
            self.workers[place] = self._begun()
            mended += 1
        if mended and not hanging:  # one that was killed may hold a lock
            for barrier in self.barriers:
                barrier.reset()
        return mended

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.connection.close()
        limit = time.monotonic() + 3  # for those that are idle; others are in the midst of what nobody waits for
        for worker in self.workers:
            worker.process.join(max(0.0, limit - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()

    def tell(self, worker: Worker, task: Callable[..., Any], *arguments: Any) -> None:
        """Give a process something to do: `task(sets, *arguments)`, a function of a module."""
        worker.told += 1
        with suppress(OSError):  # it has ended: `answer` will tell
            worker.connection.send((worker.told, task, arguments))
        worker.busy = (task, arguments)

    def together(self, arguments: Sequence[tuple[Any, ...]], task: Callable[..., Any], seconds: float) -> list[Any]:
        """Let as many processes as there are arguments do a task at the same time.

        Returns:
            What each gave, or an exception: of the task, or since it took longer than so many seconds.
        """
        chosen = self.workers[: len(arguments)]
        for worker, own in zip(chosen, arguments, strict=True):
            self.tell(worker, task, *own)
        limit = time.monotonic() + seconds
        return [self.answer(worker, limit) for worker in chosen]

    def answer(self, worker: Worker, limit: float) -> Any:
        """What a process gave; an exception, if that is what came of it, or nothing came until `limit`."""
        number, given = 0, None
        try:
            while number != worker.told:  # what was too late before is not asked for any more
                if not worker.connection.poll(max(0.0, limit - time.monotonic())):
                    return TimeoutError("no answer in time")
                number, given = worker.connection.recv()
        except (EOFError, OSError) as error:
            given = RuntimeError(f"the process ended: {error}")
            worker.process.join(2.0)
        worker.busy = None
        if isinstance(given, RuntimeError) and FATAL in str(given):
            worker.process.join(2.0)  # it ends by itself: `mend` begins it anew
        return given

    def ready(self, seconds: float) -> list[Worker]:
        """Those that have something to give, waiting so long for the first."""
        busy = {worker.connection: worker for worker in self.workers if worker.busy is not None}
        return [busy[connection] for connection in wait(list(busy), seconds)]  # type: ignore[index]


FATAL = "CUDA error"
"""In what went wrong: the process can do nothing more on its device."""
_barriers: Sequence[Barrier] = ()
"""In a worker: the first is for one process, the next for two, and so on."""


def meet(count: int) -> None:
    """In a worker: wait until so many workers have come here, some seconds at most."""
    with suppress(BrokenBarrierError):  # one has failed: the others go on
        _barriers[count - 1].wait(PATIENCE)


def _serve(connection: Connection, device: str, data: str, barriers: Sequence[Barrier]) -> None:
    """A process: loads the data, then does one task after the other, until the connection is closed."""
    import torch

    from benchmarks.evidence.alone import on_one_stream
    from benchmarks.evidence.images import Sets

    global _barriers
    _barriers = barriers
    end_with_parent()
    torch.set_num_threads(1)
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
                    gc.collect()  # what the task has left on the device
                    if device == "cuda":
                        torch.cuda.empty_cache()
                connection.send((number, answer))
                if fatal:
                    os._exit(1)
    except (EOFError, OSError):  # nobody asks any more
        return
    except Exception as error:
        print("a process ended:", _in_short(error), file=sys.stderr, flush=True)
        os._exit(1)


def _in_short(error: Exception) -> str:
    """What went wrong, and where, in a line."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if "evidence" in frame.filename]
    at = own[-1] if own else where
    said = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {said} ({Path(at.filename).name}:{at.lineno})"[:300]
