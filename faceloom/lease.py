"""One driver at a time on one output: a lease, which is a file there, and which a dead driver cannot hold for ever.

The file says who holds it and is written anew every few seconds, with what the run is at, so that ``faceloom status`` can
read it from anywhere. Whoever finds the file of another driver knows that one gone if it ran on this machine and its process
is no more; otherwise it watches: a file that changes is held, one that stays as it is for a minute is taken over. No two
machines' clocks are compared. A driver that finds itself taken over, having stood still, stops before it commits more.

Where folders can be locked (a local disk), taking over is atomic. Elsewhere (NFS, object stores) the taker writes, waits and
reads back: of two takers the last to write has it. Should both go on until the next renewal, because a write was under way
for longer than that wait, nothing is harmed: they write the same bytes.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from logging import getLogger
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from faceloom.errors import UserError
from faceloom.lease_file import (
    RENEW_S,
    Holder,
    clock,
    create,
    exclusively,
    parse,
    read,
    remove,
    remove_leftover,
    token_of,
    write,
)

logger = getLogger(__name__)

EXPIRY_S = 60.0
"""How long a file must stay as it is before its driver counts as dead."""
_SETTLE_S = 2.0


class Lease:
    """Holds the lease ``path`` in its ``with`` block; entering it raises :class:`UserError` if another driver does.

    Entering may take up to ``expiry_s``, and says so, when the last holder left its file behind on another machine.
    """

    def __init__(self, path: Path, doing: str, *, renew_s: float = RENEW_S, expiry_s: float = EXPIRY_S) -> None:
        self.path = path
        self._doing = doing
        self._renew_s = renew_s
        self._expiry_s = expiry_s
        self._state: Mapping[str, Any] = {}
        self._me: Holder | None = None
        self._taken_over_by: Holder | None = None
        self._renewed = 0.0
        self._renewing = threading.Lock()
        self._ended = threading.Event()

    def __enter__(self) -> "Lease":
        me = Holder.this_process(self._doing)
        try:
            self._take(me)
        except UserError:
            raise
        except Exception as error:  # every fsspec backend has exceptions of its own
            raise UserError(f"cannot write {self.path}: {error}; make room or mend its rights") from None
        self._me, self._renewed = me, clock()
        threading.Thread(target=self._renew_on, name="lease", daemon=True).start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._ended.set()
        assert self._me is not None
        try:
            with self._no_renewal(), exclusively(self.path):
                if token_of(read(self.path)) == self._me.token:
                    remove(self.path)
        except Exception as error:  # every fsspec backend has exceptions of its own
            logger.warning(
                "could not remove %s (%s); the next run on another machine will wait for it", self.path, error
            )

    def tell(self, state: Mapping[str, Any]) -> None:
        """What the run is at: anything that JSON can hold. It is written with the next renewal."""
        self._state = state

    def check(self) -> None:
        """Raise :class:`UserError` unless the lease is still this driver's; costs nothing as long as renewals succeed."""
        if self._taken_over_by is None and clock() - self._renewed > self._expiry_s / 2:
            # This process stood still, or the storage is away: another driver may think it dead.
            try:
                self._renew()
            except Exception as error:  # every fsspec backend has exceptions of its own
                raise UserError(
                    f"cannot renew {self.path} ({error}), so another driver may take over; mend it, then run the same "
                    "command again"
                ) from None
        if self._taken_over_by is not None:
            raise UserError(
                f"this run was not heard of for too long, and {self.path} was taken over by {self._taken_over_by}; "
                "it goes on there: see faceloom status"
            )

    def _take(self, me: Holder) -> None:
        watched: bytes | None = None
        begun = 0.0
        while True:
            with exclusively(self.path) as locked:
                found = read(self.path)
                holder = parse(found)
                expired = found is not None and found == watched and clock() - begun >= self._expiry_s
                free = found is None or expired or (holder is not None and holder.alive is False)
                if found is None:
                    create(self.path, me)
                elif free:
                    logger.warning("taking over %s from a driver that is gone: %s", self.path, holder or "unknown")
                    write(self.path, me)
                    if holder is not None:
                        remove_leftover(self.path, holder)
            if free:
                if not locked:
                    time.sleep(min(_SETTLE_S, self._renew_s))
                if token_of(read(self.path)) == me.token:
                    return
                continue
            if (holder is not None and holder.alive) or (watched is not None and found != watched):
                self._refuse(holder)
            if watched is None:
                watched, begun = found, clock()
                logger.warning(
                    "%s is of %s; waiting up to %.0f s to see whether that still lives",
                    self.path,
                    holder or "an unknown driver",
                    self._expiry_s,
                )
            time.sleep(self._renew_s / 10)

    def _refuse(self, holder: Holder | None) -> NoReturn:
        who = str(holder) if holder is not None else "another driver"
        stop = f"stop it there (kill {holder.pid})" if holder is not None else "stop it"
        raise UserError(
            f"{self.path.parent} is being worked on: {who}; let it finish, or {stop}, then run the same command again"
        )

    def _renew_on(self) -> None:
        while not self._ended.wait(self._renew_s) and self._taken_over_by is None:
            try:
                self._renew()
            except Exception as error:  # every fsspec backend has exceptions of its own
                logger.warning("could not renew %s, trying again: %s", self.path, error)

    @contextmanager
    def _no_renewal(self) -> Iterator[None]:
        """Nothing else renews meanwhile; raises ``TimeoutError`` when one hangs."""
        if not self._renewing.acquire(timeout=self._expiry_s):
            raise TimeoutError("the storage does not answer")
        try:
            yield
        finally:
            self._renewing.release()

    def _renew(self) -> None:
        assert self._me is not None
        with self._no_renewal(), exclusively(self.path):
            if self._ended.is_set():
                return
            found = read(self.path)
            if found is not None and token_of(found) != self._me.token:
                self._taken_over_by = parse(found) or replace(self._me, host="an unknown host", pid=0)
                return
            now = time.time()
            self._me = replace(self._me, renewed_at=now, renewals=self._me.renewals + 1, state=self._state)
            write(self.path, self._me)
            self._renewed = clock()
