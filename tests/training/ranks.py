"""Ranks of a run as real processes on this machine, which talk by gloo.

The processes are forked from a server that has imported torch once, so that one starts in tens of milliseconds.
"""

import multiprocessing
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        "diffusers.models.transformers.cogvideox_transformer_3d",
        "torch.distributed.checkpoint",
        "torch.distributed.fsdp",
        "torch.distributed.tensor",
    ]
)


@dataclass(frozen=True)
class Ranks:
    """Processes that were started, and where they write."""

    processes: list[Any]
    folder: Path

    def wait(self, timeout_s: float) -> list[int]:
        """Exit codes by rank (negative: the signal that ended it); all are killed when the time is over."""
        deadline = time.monotonic() + timeout_s
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        if late := [rank for rank, process in enumerate(self.processes) if process.is_alive()]:
            self.kill()
            raise TimeoutError(f"ranks {late} were not done after {timeout_s} s\n{self.outputs()}")
        return [process.exitcode for process in self.processes]

    def signal(self, rank: int, number: int) -> None:
        os.kill(self.processes[rank].pid, number)

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()

    def output(self, rank: int) -> str:
        """What the rank wrote to stdout and stderr."""
        return (self.folder / f"{rank}.log").read_text()

    def outputs(self) -> str:
        return "\n".join(f"--- rank {rank}:\n{self.output(rank)}" for rank in range(len(self.processes)))

    def result(self, rank: int) -> Any:
        """What the function returned there."""
        return torch.load(self.folder / f"{rank}.pt", weights_only=False)


def start_ranks(folder: Path, world: int, function: Callable[..., Any], *arguments: Any) -> Ranks:
    """Begin ``function(*arguments)``, a function of a module, as each rank of ``world``, in torchrun's environment."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(world):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
        environment = {name: str(value) for name, value in place.items()}
        process = _SERVER.Process(target=_run, args=(folder, rank, environment, function, arguments))
        process.start()
        processes.append(process)
    return Ranks(processes, folder)


def run_ranks(
    folder: Path, world: int, function: Callable[..., Any], *arguments: Any, timeout_s: float = 120
) -> list[Any]:
    """``function``'s results by rank. Fails with the output of all if a rank raises, dies, or takes too long."""
    ranks = start_ranks(folder, world, function, *arguments)
    if any(codes := ranks.wait(timeout_s)):
        raise AssertionError(f"exit codes {codes}\n{ranks.outputs()}")
    return [ranks.result(rank) for rank in range(world)]


def _run(
    folder: Path, rank: int, environment: dict[str, str], function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    log = os.open(folder / f"{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    try:
        torch.save(function(*arguments), folder / f"{rank}.pt")
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        # Not by sys.exit: a peer that hangs must not keep this process's threads, and so the test, waiting.
        os._exit(1)
    finally:
        sys.stderr.flush()
