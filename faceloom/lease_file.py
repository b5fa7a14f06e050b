"""The file of a lease: who holds it, and how it is read, written and kept from others meanwhile, local or remote."""

import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from faceloom.location import is_remote

RENEW_S = 5.0
_LOCK_TRIES = 50


@dataclass(frozen=True)
class Holder:
    """A driver, as its lease tells it. Times are seconds since the epoch by its own clock."""

    doing: str
    """The command, ``curate`` or ``encode``."""
    host: str
    machine: str
    """The boot and the process namespace that its process number belongs to."""
    user: int
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
        process = (os.getuid(), os.getpid(), started)
        return cls(doing, socket.gethostname(), _machine(), *process, secrets.token_hex(8), now, now)

    @property
    def alive(self) -> bool | None:
        """Whether its process lives; None if that cannot be seen: it is, or was, on another machine, or is hidden from us."""
        if self.machine != _machine():
            return None
        lives = _process_started(self.pid) == self.started
        # Where /proc is mounted with hidepid, the processes of other users look like none.
        return lives if lives or os.getuid() in (0, self.user) else None

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.taken_at))
        return f"faceloom {self.doing} on {self.host}, process {self.pid}, since {since}"


def lease_path(root: Path, layer: str | None = None) -> Path:
    """The lease on a dataset or, with ``layer``, on the making of that layer."""
    return root / (f"driver.{layer}.json" if layer else "driver.json")


def read_holder(path: Path) -> Holder | None:
    """Who holds the lease, or None: nobody does, or its file is being written at this moment."""
    return parse(read(path))


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
    end = clock() + 2 * RENEW_S
    holder: Holder | None = first
    while holder is not None:
        seen_s = time.time() - holder.renewed_at
        at_work = holder.alive
        if at_work is None and (holder.renewals != first.renewals or abs(seen_s) < 2 * RENEW_S):
            at_work = True
        if at_work is not None or clock() > end:
            return Sighting(holder, bool(at_work), max(0.0, seen_s))
        time.sleep(RENEW_S / 10)
        holder = read_holder(path)
    return None


def clock() -> float:
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


def parse(data: bytes | None) -> Holder | None:
    """Who holds a lease with these bytes; None for none, and for what is half written or of another version."""
    try:
        return TypeAdapter(Holder).validate_json(data) if data else None
    except ValidationError:
        return None


def token_of(data: bytes | None) -> str | None:
    """The token in these bytes."""
    holder = parse(data)
    return holder.token if holder is not None else None


@contextmanager
def exclusively(path: Path) -> Iterator[bool]:
    """Keep other drivers from the file meanwhile, where its folder can be locked; yields whether it can."""
    if is_remote(path):
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


def read(path: Path) -> bytes | None:
    """What is in the file now, or None."""
    try:
        # Past fsspec's listings, which may be older than the file.
        data: bytes = path.fs.cat_file(path.path) if is_remote(path) else path.read_bytes()  # type: ignore[attr-defined]
    except FileNotFoundError:
        return None
    return data


def create(path: Path, holder: Holder) -> None:
    """Write the file if there is none; read it to know whose it is."""
    if is_remote(path):
        write(path, holder)
        return
    temporary = _temporary(path, holder)
    temporary.write_bytes(_bytes(holder))
    try:
        os.link(temporary, path)  # whole from its first moment, and never in the place of another
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        with suppress(FileExistsError), path.open("xb") as stream:
            stream.write(_bytes(holder))
    finally:
        temporary.unlink(missing_ok=True)


def write(path: Path, holder: Holder) -> None:
    """Create or replace the file, whole."""
    if is_remote(path):
        path.fs.pipe_file(path.path, _bytes(holder))  # type: ignore[attr-defined]
        return
    temporary = _temporary(path, holder)
    temporary.write_bytes(_bytes(holder))
    temporary.replace(path)


def _temporary(path: Path, holder: Holder) -> Path:
    return path.with_name(f".{path.name}.{holder.token}")


def remove(path: Path) -> None:
    """Remove the file."""
    if is_remote(path):
        path.fs.rm_file(path.path)  # type: ignore[attr-defined]
    else:
        path.unlink(missing_ok=True)


def remove_leftover(path: Path, holder: Holder) -> None:
    """Remove what ``holder`` left if it died in writing."""
    if not is_remote(path):
        _temporary(path, holder).unlink(missing_ok=True)


def _bytes(holder: Holder) -> bytes:
    return json.dumps(asdict(holder), indent=1).encode()
