"""Work on strangers' files in a process of its own, which may crash or hang and is then replaced."""

import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from logging import getLogger
from multiprocessing.connection import Connection
from typing import Any, Generic, Protocol, TypeVar

from faceloom.apart import Child
from faceloom.errors import UserError

logger = getLogger(__name__)

AskT = TypeVar("AskT")
AnswerT = TypeVar("AnswerT")
AskT_contra = TypeVar("AskT_contra", contravariant=True)
AnswerT_co = TypeVar("AnswerT_co", covariant=True)

Report = Callable[[str, int, int], None]


class Work(Protocol[AskT_contra, AnswerT_co]):
    """What the process does: it answers, and reports how far it is. A :class:`UserError` is an answer, too."""

    def __call__(self, ask: AskT_contra, report: Report) -> AnswerT_co:
        """Answer ``ask``, or raise."""
        ...


class Apart(Generic[AskT, AnswerT]):
    """A process that ``make(*arguments)`` prepares to work, begun when it is first asked and kept for the next.

    ``make``, what it is given, and what is asked and answered must be picklable. Safe for threads: one is answered at a time.
    """

    def __init__(self, make: Callable[..., Work[AskT, AnswerT]], *arguments: Any, deadline_s: float) -> None:
        self._start = (make, arguments)
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._child: Child | None = None

    def ask(self, ask: AskT, report: Report = lambda *_: None) -> AnswerT:
        """The answer. Raises the work's own :class:`UserError`, and one if its process dies or is too slow."""
        with self._lock:
            connection = self._ready()
            until = time.monotonic() + self._deadline_s
            try:
                connection.send(ask)
                while connection.poll(max(0.0, until - time.monotonic())):
                    kind, told = connection.recv()
                    if kind == "progress":
                        report(*told)
                    elif kind == "answer":
                        return told  # type: ignore[no-any-return]
                    elif kind == "refused":
                        raise UserError(told)
                    else:
                        logger.error("an upload could not be worked on:\n%s", told)
                        raise UserError("something went wrong here that is not your files' fault; the log has it")
            except (EOFError, OSError):
                self.close()
                raise UserError(
                    "a file cannot be read without harm, it is damaged; save it again with another program"
                ) from None
            except UserError:
                raise
            except BaseException:
                # What it is still to answer belongs to nobody's next question.
                self.close()
                raise
            self.close()
            raise UserError(f"it took more than {self._deadline_s:g} s and was given up; try a shorter or smaller file")

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self._child is not None:
            self._child.kill()
        self._child = None

    def _ready(self) -> Connection:
        if self._child is None or not self._child.lives:
            self.close()
            self._child = Child(_serve, *self._start)
        return self._child.connection


def _serve(connection: Connection, make: Callable[..., Work[Any, Any]], arguments: tuple[Any, ...]) -> None:
    import traceback

    # Ctrl-C is for the server, which ends this process itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    work: Work[Any, Any] | None = None
    while True:
        try:
            ask = connection.recv()
        except EOFError:
            return
        try:
            work = work or make(*arguments)
            answer = "answer", work(ask, lambda *told: connection.send(("progress", told)))
        except UserError as error:
            answer = "refused", str(error)
        except Exception:
            answer = "failed", traceback.format_exc()
        with suppress(BrokenPipeError):
            connection.send(answer)
