"""Processes: functions in several ones that torch.distributed joins, over gloo; searches that are killed."""

import multiprocessing
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch.distributed
from torch.multiprocessing.spawn import start_processes

multiprocessing.set_forkserver_preload(["scalenet_zoo.search.driver"])  # which imports torch, once for all processes


def run_processes(function: Callable[..., Any], world: int, *arguments: Any) -> list[Any]:
    """What `function(rank, world, *arguments)` gives in each process; Accelerate finds them launched together."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        start_processes(_run, (function, world, folder, arguments), world, start_method="forkserver")  # type: ignore[no-untyped-call]
        return [pickle.loads((folder / f"result{rank}").read_bytes()) for rank in range(world)]


def _run(rank: int, function: Callable[..., Any], world: int, folder: Path, arguments: tuple[Any, ...]) -> None:
    launched = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    # Accelerate asks for an address and a port, but it takes the group that is there.
    os.environ |= {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "0", **launched}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder / 'meeting'}", rank=rank, world_size=world)
    try:
        (folder / f"result{rank}").write_bytes(pickle.dumps(function(rank, world, *arguments)))
    finally:
        torch.distributed.destroy_process_group()


def launch_two(*program: str | Path) -> None:
    """Run a program, or `-m` and a module, with its arguments in two processes that torchrun starts."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, *program], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


def search_whole_and_killed(config: Path, folder: Path, options: Sequence[str], shares: Sequence[float]) -> None:
    """Run the command `search` to folder/whole, and again to folder/killed, where nothing but its files is left.

    Args:
        config: of the search.
        folder: to write to.
        options: of the command.
        shares: of the scores, after which the second search is killed, though not its workers; then it is started
            again, in the end to its end.
    """
    scores = folder / "whole" / "scores.jsonl", folder / "killed" / "scores.jsonl"

    def start(name: str) -> "subprocess.Popen[bytes]":
        program = Path(sys.executable).with_name("scalenet-zoo")
        command: list[str | Path] = [program, "search", config, "--output", folder / name, *options]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with (folder / "errors.txt").open("wb") as errors:
            return subprocess.Popen(command, env=environment, stderr=errors)

    def finish(process: "subprocess.Popen[bytes]") -> None:
        assert process.wait(timeout=400) == 0, (folder / "errors.txt").read_text()

    finish(start("whole"))
    for share in shares:
        process = start("killed")
        deadline = time.monotonic() + 400
        while _lines(scores[1]) < share * _lines(scores[0]):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
        process.wait()
    finish(start("killed"))
    assert not list((folder / "killed").rglob(".scalenet-zoo*"))


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


@contextmanager
def other_process(program: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that runs a program until it is killed; it has begun when it has printed a line."""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
        yield process
    finally:
        process.kill()
        process.communicate()


def is_running(process: int) -> bool:
    """Whether a process is there, by its number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def ends(process: int, seconds: float = 20.0) -> bool:
    """Whether a process ends within some seconds."""
    deadline = time.monotonic() + seconds
    while is_running(process) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not is_running(process)
