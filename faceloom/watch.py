"""What a driver does beside its work: it holds the lease on its output, and tells how far it is.

To the lease's file, for ``faceloom status``; to Prometheus; to the log; to whoever looks at the display.
"""

import logging
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from faceloom.lease import Lease
from faceloom.metrics import RunMetrics
from faceloom.progress import Progress

logger = logging.getLogger(__name__)


class Watch:
    """The watch over one run of ``command``, in its ``with`` block; entering and leaving are those of its :class:`Lease`.

    SIGTERM ends the run as Ctrl-C does, and the process with exit code 143. ``lease`` is the lease's file, ``output`` what
    metrics name the run by, and ``show`` is called with the progress.
    """

    def __init__(self, command: str, lease: Path, output: Path, show: Callable[[Progress], None]) -> None:
        self._command = command
        self._output = str(output)
        self._lease = Lease(lease, command)
        self._show = show
        self._metrics: RunMetrics | None = None
        self._terminated = False
        self._before: Any = None

    def __enter__(self) -> "Watch":
        self._lease.__enter__()
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._terminate)
        logger.info("%s of %s begins", self._command, self._output)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        why = "" if error is None else f" ({type(error).__name__}: {error})"
        logger.info("%s of %s ends%s", self._command, self._output, why)
        self._lease.__exit__(kind, error, trace)
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
        if self._terminated:
            raise SystemExit(128 + signal.SIGTERM) from None

    @property
    def metrics(self) -> RunMetrics:
        """The run's metrics; Ray is needed from here on."""
        if self._metrics is None:
            self._metrics = RunMetrics(self._command, self._output)
        return self._metrics

    def check(self) -> None:
        """Raise :class:`UserError` if another driver has taken over."""
        self._lease.check()

    def report(self, progress: Progress) -> None:
        """Tell everybody how far the run is, unless another driver has taken over: see :meth:`check`."""
        self.check()
        self._lease.tell(progress.state())
        self.metrics.follow(progress)
        self._show(progress)

    def spent(self, step_s: Mapping[str, float]) -> None:
        """An item, or a part of one, is decided and has cost so many seconds by step."""
        self.metrics.spent(step_s)

    def failed(
        self, clip_id: str, name: str, stage: str, error: str, message: str, *, trace: str | None, grave: bool
    ) -> None:
        """A line in the log; one that a person should see at once if it is ``grave``: not the fault of a bad file."""
        logger.log(
            logging.WARNING if grave else logging.INFO,
            *("%s failed in %s: %s: %s", name, stage, error, message),
            extra={
                "clip_id": clip_id,
                "clip": name,
                "stage": stage,
                "cause": error,
                "traceback": trace if grave else None,
            },
        )

    def _terminate(self, _number: int, _frame: FrameType | None) -> None:
        # Ray's own handler has the process aborted, and of a SystemExit Ray loses the code.
        self._terminated = True
        raise KeyboardInterrupt
