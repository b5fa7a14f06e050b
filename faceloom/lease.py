"""One driver at a time on one output: a lease, which is a file there, and which a dead driver cannot hold for ever.

The file says who holds it and is written anew every few seconds, with what the run is at, so that ``faceloom status`` can
read it from anywhere. Whoever finds the file of another driver knows that one gone if it ran on this machine and its process
is no more; otherwise it watches: a file that changes is held, one that stays as it is for a minute is taken over. No two
machines' clocks are compared. A driver that finds itself taken over, having stood still, stops before it commits more.

Where folders can be locked (a local disk), taking over is atomic. Elsewhere (NFS, object stores) the taker writes, waits and
reads back: of two takers the last to write has it. Should both go on until the next renewal, because a write was under way
for longer than that wait, nothing is harmed: they write the same bytes.
"""

import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from logging import getLogger
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, NoReturn

from faceloom.errors import UserError

logger = getLogger(__name__)

RENEW_S = 5.0
EXPIRY_S = 60.0
"""How long a file must stay as it is before its driver counts as dead."""
_SETTLE_S = 2.0
_LOCK_TRIES = 50


@dataclass(frozen=True)
class Holder:
    """A driver, as its lease tells it. Times are seconds since the epoch by its own clock."""

    doing: str
    """The command, ``curate`` or ``encode``."""
    host: str
    machine: str
    """The boot and the process namespace that its process number belongs to."""
    pid: int
    started: int
    """When its process began, in the kernel's ticks since the boot: with it, a process number is not used twice."""
    token: str
    taken_at: float
    renewed_at: float
    renewals: int = 0
    state: Mapping[str, Any] = field(default_factory=dict)
    """What its run is at."""

    @classmethod
    def this_process(cls, doing: str) -> "Holder":
        """A new lease's holder."""
        now = time.time()
        started = _process_started(os.getpid())
        assert started is not None
        return cls(doing, socket.gethostname(), _machine(), os.getpid(), started, secrets.token_hex(8), now, now)

    @property
    def alive(self) -> bool | None:
        """Whether its process lives; None if it is, or was, on another machine, so that nothing can be said."""
        if self.machine != _machine():
            return None
        return _process_started(self.pid) == self.started

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.taken_at))
        return f"faceloom {self.doing} on {self.host}, process {self.pid}, since {since}"


def lease_path(root: Path, layer: str | None = None) -> Path:
    """The lease on a dataset or, with ``layer``, on the making of that layer."""
    return root / (f"driver.{layer}.json" if layer else "driver.json")


def read_holder(path: Path) -> Holder | None:
    """Who holds the lease, or None: nobody does, or its file is being written at this moment."""
    return _holder(_read(path))


@dataclass(frozen=True)
class Sighting:
    """A lease's file, as someone else finds it."""

    holder: Holder
    at_work: bool
    seen_s: float
    """How long ago it was renewed, by its clock and ours."""


def sighting(path: Path) -> Sighting | None:
    """Who holds the lease and whether that driver is at work, or None if nobody holds it.

    Of a driver on another machine that was not just seen it takes up to two renewals to tell.
    """
    first = read_holder(path)
    if first is None:
        return None
    end = _clock() + 2 * RENEW_S
    holder: Holder | None = first
    while holder is not None:
        seen_s = time.time() - holder.renewed_at
        at_work = holder.alive
        if at_work is None and (holder.renewals != first.renewals or abs(seen_s) < 2 * RENEW_S):
            at_work = True
        if at_work is not None or _clock() > end:
            return Sighting(holder, bool(at_work), max(0.0, seen_s))
        time.sleep(RENEW_S / 10)
        holder = read_holder(path)
    return None


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
        self._me, self._renewed = me, _clock()
        threading.Thread(target=self._renew_on, name="lease", daemon=True).start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._ended.set()
        assert self._me is not None
        try:
            with self._no_renewal(), _exclusively(self.path):
                if _token(_read(self.path)) == self._me.token:
                    _remove(self.path)
        except Exception as error:  # every fsspec backend has exceptions of its own
            logger.warning(
                "could not remove %s (%s); the next run on another machine will wait for it", self.path, error
            )

    def tell(self, state: Mapping[str, Any]) -> None:
        """What the run is at: anything that JSON can hold. It is written with the next renewal."""
        self._state = state

    def check(self) -> None:
        """Raise :class:`UserError` unless the lease is still this driver's; costs nothing as long as renewals succeed."""
        if self._taken_over_by is None and _clock() - self._renewed > self._expiry_s / 2:
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
            with _exclusively(self.path) as locked:
                found = _read(self.path)
                holder = _holder(found)
                expired = found is not None and found == watched and _clock() - begun >= self._expiry_s
                free = found is None or expired or (holder is not None and holder.alive is False)
                if found is None:
                    _create(self.path, me)
                elif free:
                    logger.warning("taking over %s from a driver that is gone: %s", self.path, holder or "unknown")
                    _write(self.path, me)
                    if holder is not None and _is_local(self.path):
                        _temporary(self.path, holder).unlink(missing_ok=True)
            if free:
                if not locked:
                    time.sleep(min(_SETTLE_S, self._renew_s))
                if _token(_read(self.path)) == me.token:
                    return
                continue
            if (holder is not None and holder.alive) or (watched is not None and found != watched):
                self._refuse(holder)
            if watched is None:
                watched, begun = found, _clock()
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
        with self._no_renewal(), _exclusively(self.path):
            if self._ended.is_set():
                return
            found = _read(self.path)
            if found is not None and _token(found) != self._me.token:
                self._taken_over_by = _holder(found) or replace(self._me, host="an unknown host", pid=0)
                return
            now = time.time()
            self._me = replace(self._me, renewed_at=now, renewals=self._me.renewals + 1, state=self._state)
            _write(self.path, self._me)
            self._renewed = _clock()


def _clock() -> float:
    """Seconds that also pass while this machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _machine() -> str:
    """What a process number belongs to, the boot and the container: hosts in different containers may share a name."""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"


def _process_started(pid: int) -> int | None:
    """The start of a process in ticks since the boot, or None if there is none, or only a zombie."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(fields[18])


def _holder(data: bytes | None) -> Holder | None:
    try:
        return Holder(**json.loads(data)) if data else None
    except (ValueError, TypeError):  # half written, or by a version with other fields: watched like any other
        return None


def _token(data: bytes | None) -> str | None:
    holder = _holder(data)
    return holder.token if holder is not None else None


def _is_local(path: Path) -> bool:
    return isinstance(path, PurePath)  # what is behind a URL is a UPath


@contextmanager
def _exclusively(path: Path) -> Iterator[bool]:
    """Keep other drivers from the file meanwhile, where its folder can be locked; yields whether it can."""
    if not _is_local(path):
        yield False
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield _locked(folder)
    finally:
        os.close(folder)


def _locked(folder: int) -> bool:
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.1)
        except OSError:  # NFS locks no folders
            return False
        else:
            return True
    return False


def _read(path: Path) -> bytes | None:
    try:
        # Past fsspec's listings, which may be older than the file.
        data: bytes = path.read_bytes() if _is_local(path) else path.fs.cat_file(path.path)  # type: ignore[attr-defined]
    except FileNotFoundError:
        return None
    return data


def _create(path: Path, holder: Holder) -> None:
    if not _is_local(path):
        _write(path, holder)
        return
    with suppress(FileExistsError), path.open("xb") as stream:
        stream.write(_bytes(holder))


def _write(path: Path, holder: Holder) -> None:
    if not _is_local(path):
        path.fs.pipe_file(path.path, _bytes(holder))  # type: ignore[attr-defined]
        return
    temporary = _temporary(path, holder)
    temporary.write_bytes(_bytes(holder))
    temporary.replace(path)


def _temporary(path: Path, holder: Holder) -> Path:
    return path.with_name(f".{path.name}.{holder.token}")


def _remove(path: Path) -> None:
    if _is_local(path):
        path.unlink(missing_ok=True)
    else:
        path.fs.rm_file(path.path)  # type: ignore[attr-defined]


def _bytes(holder: Holder) -> bytes:
    return json.dumps(asdict(holder), indent=1).encode()
