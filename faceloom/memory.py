"""The memory of a worker process: how much it has, and a limit that ends the call which goes beyond it.

The kernel's own limits count address space or kill without a word; this one looks at resident memory, tells the call by an
exception, and kills the process only if that is not heard.
"""

import os
import signal
import threading
import time
from types import FrameType

_LOOK_S = 0.2
_GRACE_S = 5.0
_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20


class MemoryLimitError(MemoryError):
    """The process has grown beyond its limit in the call in which this is raised."""


def resident_mib() -> float:
    """Resident memory of this process, in MiB (Linux)."""
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - five times a second, for days
        return int(file.read().split()[1]) * _PAGE_MIB


def limit_memory(mib: int) -> None:
    """Have :class:`MemoryLimitError` raised in the main thread whenever the process has more than ``mib`` resident.

    To be called from the main thread. Native code that does not return to the interpreter, or a library that swallows the
    error, is given five seconds; then the process is killed.
    """

    def handle(_number: int, _frame: FrameType | None) -> None:
        if resident_mib() > mib:
            raise MemoryLimitError(f"the process has grown beyond {mib} MiB")

    signal.signal(signal.SIGUSR1, handle)
    threading.Thread(target=_watch, args=(mib, threading.main_thread().ident), daemon=True).start()


def _watch(mib: int, thread: int) -> None:
    since = None
    while True:
        time.sleep(_LOOK_S)
        if resident_mib() <= mib:
            since = None
            continue
        since = since or time.monotonic()
        if time.monotonic() - since > _GRACE_S:
            os.kill(os.getpid(), signal.SIGKILL)
        signal.pthread_kill(thread, signal.SIGUSR1)
