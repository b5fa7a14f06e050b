"""Being asked to stop: a signal becomes a flag, on which all ranks act at the same step."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """In its ``with`` block, SIGTERM and SIGINT only set a flag; a second SIGINT interrupts as usual.

    Signals reach the ranks at different moments, some ranks never, so that none may act on its own flag: either ask
    :meth:`agreed`, or add :meth:`tensor` to something that is reduced anyway. Schedulers and ``torchrun`` kill what has not
    stopped some time after the signal (``torchrun --shutdown-timeout``, 30 s by default).

    Outside of the main thread, as in Ray's workers, there are no signals and it only keeps the flag.
    """

    def __init__(self) -> None:
        self.requested = False
        """Whether this rank was asked to stop. Code may set it too."""
        self._before: dict[int, Any] = {}

    def tensor(self, device: torch.device) -> Tensor:
        """The flag as float32 ``[]``, 1 for stop: above 0 after a sum or a maximum over ranks means that one was asked."""
        return torch.tensor(float(self.requested), device=device)

    def agreed(self, device: torch.device) -> bool:
        """Whether any rank was asked to stop: the same on all, since it is a collective call."""
        flag = self.tensor(device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag > 0)

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in _SIGNALS}
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and self.requested:
            raise KeyboardInterrupt
        self.requested = True
