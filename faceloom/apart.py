"""Work in processes of their own, where one item can take its process along, or its time, and no other item with it."""

import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_LOOK_S = 1.0


def apart(
    work: Callable[[ItemT], ResultT],
    items: Sequence[ItemT],
    workers: int,
    deadline_s: float,
    start: Callable[[], None] | None = None,
) -> Iterator[ResultT | None]:
    """``work(item)`` for each item in order; None for one whose process died, or took longer than ``deadline_s``.

    At most ``workers`` processes, in each of which ``start`` runs first. ``work`` and ``start`` must be picklable, and
    ``work`` must not raise.
    """
    waiting = deque(enumerate(items))
    results: dict[int, ResultT | None] = {}
    busy: list[_Worker[ItemT, ResultT]] = []
    idle: list[_Worker[ItemT, ResultT]] = []
    try:
        for wanted in range(len(items)):
            while wanted not in results:
                while waiting and len(busy) < workers:
                    worker = idle.pop() if idle else _Worker(work, start)
                    worker.give(*waiting.popleft())
                    busy.append(worker)
                answered = wait([worker.connection for worker in busy], _LOOK_S)
                for worker in list(busy):
                    if worker.connection in answered:
                        results[worker.number], lives = worker.answer()
                        (idle if lives else []).append(worker)
                    elif time.monotonic() - worker.since > deadline_s:
                        results[worker.number] = None
                        worker.kill()
                    else:
                        continue
                    busy.remove(worker)
            yield results.pop(wanted)
    finally:
        for worker in [*busy, *idle]:
            worker.kill()


class Child:
    """A fresh process that runs ``serve(connection, *arguments)``, picklable all, and the other end of that connection.

    Its death, whatever the cause, is an :class:`EOFError` or :class:`OSError` of ``connection``.
    """

    def __init__(self, serve: Callable[..., None], *arguments: Any) -> None:
        processes = multiprocessing.get_context("spawn")
        self.connection, other_end = processes.Pipe()
        self._process = processes.Process(target=serve, args=(other_end, *arguments), daemon=True)
        self._process.start()
        # With this copy open, the death of the process would not be seen.
        other_end.close()

    @property
    def lives(self) -> bool:
        """Whether it has not ended."""
        return self._process.is_alive()

    def kill(self) -> None:
        """End it, whatever it is doing."""
        self._process.kill()
        self._process.join()
        self.connection.close()


class _Worker(Child, Generic[ItemT, ResultT]):
    """One process and what it has in hand: item ``number``, ``since`` a moment of the monotonic clock."""

    def __init__(self, work: Callable[[ItemT], ResultT], start: Callable[[], None] | None) -> None:
        super().__init__(_serve, work, start)

    def give(self, number: int, item: ItemT) -> None:
        self.number, self.since = number, time.monotonic()
        with suppress(OSError):  # it is dead already, which its answer will say
            self.connection.send(item)

    def answer(self) -> tuple[ResultT | None, bool]:
        """Its result, and whether it lives on."""
        try:
            return self.connection.recv(), True
        except (EOFError, OSError):
            self.kill()
            return None, False


def _serve(connection: Connection, work: Callable[[ItemT], ResultT], start: Callable[[], None] | None) -> None:
    if start is not None:
        start()
    while True:
        try:
            item = connection.recv()
        except EOFError:
            return
        connection.send(work(item))
