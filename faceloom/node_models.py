"""Model files on the nodes of a cluster: whatever a worker needs is fetched once a node, by whichever worker comes first.

The driver has checked its own copies before the run began (:func:`faceloom.models.model_path`); a node that joins later, or
replaces a lost one, may have an empty cache.
"""

import errno
import fcntl
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from logging import getLogger

from faceloom.errors import UserError
from faceloom.models import cache_folder, fetch, locate

logger = getLogger(__name__)

_LOCK_NAME = ".fetch.lock"


def bring_to_node(wanted: Mapping[str, str]) -> None:
    """Have every model file of ``wanted`` (name → the config key that asks for it) on this machine, and the pinned one.

    What is missing, or is another file in the cache, is fetched under a lock beside the cache: of several processes one
    downloads, and the others wait and then find it. A process that dies in the middle gives the lock back and leaves nothing
    under a model's name. Raises :class:`UserError` naming this machine, the keys and the remedies when it cannot be done.
    """
    missing = [name for name in wanted if not locate(name).usable]
    if not missing:
        return
    try:
        with _one_process_at_a_time():
            # What another process fetched meanwhile is found by `fetch`, which brings only what is not usable.
            fetch(missing, logger.warning)
    except UserError as error:
        asked = ", ".join(f"{name} ({wanted[name]})" for name in missing)
        raise UserError(
            f"node {socket.gethostname()} lacks the models {asked} and cannot fetch them: {error}\n"
            "Or run `faceloom models fetch` when the node is set up, or set FACELOOM_MODELS to a folder that every node has."
        ) from None


@contextmanager
def _one_process_at_a_time() -> Iterator[None]:
    cache = cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = (cache / _LOCK_NAME).open("w")
    except OSError as error:
        raise UserError(f"cannot write the model cache {cache}: {error.strerror}; set XDG_CACHE_HOME") from None
    with lock:
        try:
            # The kernel gives it back when the process dies, however it dies.
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            # A file system without locks: several may download, and each renames a whole file into place.
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
                raise
        yield
