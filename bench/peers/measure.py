"""What every loader of the reader bench is put through, in a process of its own and with nothing but what it needs.

A script ``with_<loader>.py`` hands :func:`main` two functions: one writes the samples in the loader's format, the other
opens them. The bench calls the script once for each job:

    with_x.py write  --folder F --samples N --shards S --out JSON
    with_x.py check  --folder F --samples N --fields all|two --out JSON     every sample's checksums
    with_x.py run    … --seconds 4 --started NS                             first batch, steady rate, CPU time
    with_x.py save   … --state FILE                                         the state at 75 % of an epoch
    with_x.py resume … --state FILE --started NS                            first batch after restoring it
"""

import argparse
import json
import resource
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import samples
import torch

BATCH = 4
RESUME_AT = 0.75
SEED = 7
SHUFFLE_BUFFER = 16
"""Samples in the buffer of loaders that shuffle by one: little, so that it does not weigh on their first batch."""

Batch = tuple[Sequence[str], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Loader:
    """An opened loader: its batches of ``BATCH`` samples, epoch after epoch without end, and its state.

    ``batches()`` is called once. ``state()`` is taken between two batches and pickled; ``None`` for a loader that cannot
    go on from the middle of an epoch. ``close()`` ends what would outlive the process.
    """

    batches: Callable[[], Iterator[Batch]]
    state: Callable[[], Any] | None = None
    close: Callable[[], None] = lambda: None


Write = Callable[[Path, int, int], None]
"""``write(folder, samples, shards)``: the folder exists and is empty."""
Open = Callable[[Path, Sequence[str], Any], Loader]
"""``open_loader(folder, fields, state)``: ``state`` is one to go on from, or ``None``."""


def main(write: Write, open_loader: Open) -> None:
    """Do the one job that the command line names and write its result to ``--out``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=["write", "check", "run", "save", "resume"])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--samples", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shards", type=int)
    parser.add_argument("--fields", choices=["all", "two"], default="all")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--started", type=int, help="time.monotonic_ns() when the bench started this process")
    parser.add_argument("--state", type=Path)
    args = parser.parse_args()

    warnings.filterwarnings(
        "ignore", "The given (buffer|NumPy array) is not writable"
    )  # nobody writes, batches are copies
    # One thread of torch: stacking a batch must not spread over cores that other loaders leave idle.
    torch.set_num_threads(1)
    fields = tuple(samples.FIELDS) if args.fields == "all" else samples.TWO
    epoch = args.samples // BATCH
    result: Any = None
    if args.job == "write":
        write(args.folder, args.samples, args.shards)
    elif args.job == "check":
        result = check(open_loader(args.folder, fields, None), fields, args.samples)
    elif args.job == "run":
        result = run(lambda: open_loader(args.folder, fields, None), epoch, args.seconds, args.started)
    elif args.job == "save":
        result = save(open_loader(args.folder, fields, None), round(epoch * RESUME_AT), args.state)
    else:
        result = resume(open_loader, args.folder, fields, args.state, args.started)
    args.out.write_text(json.dumps(result))


def check(loader: Loader, fields: Sequence[str], count: int) -> dict[str, Any]:
    """The checksums of every sample, and how many batches it took to see them all (at most five epochs)."""
    seen: dict[str, dict[str, int]] = {}
    batches = 0
    first_epoch: list[str] = []
    for keys, arrays in loader.batches():
        batches += 1
        if batches <= count // BATCH:
            first_epoch += keys
        if len(keys) != BATCH or set(arrays) != set(fields):
            raise SystemExit(f"a batch of {len(keys)} samples with {sorted(arrays)}")
        for row, key in enumerate(keys):
            seen[key] = samples.checksums({name: bits(name, array[row]) for name, array in arrays.items()})
        if len(seen) >= count or batches >= 5 * count // BATCH:
            break
    loader.close()
    return {"samples": seen, "batches": batches, "first_epoch": first_epoch}


def bits(name: str, array: torch.Tensor) -> Any:
    """The bits of one sample's array, which must be what the schema of the samples says."""
    wanted = samples.FIELDS[name]
    if array.dtype != getattr(torch, wanted.dtype) or tuple(array.shape) != wanted.shape:
        raise SystemExit(f"{name}: expected {wanted}, got {array.dtype} {tuple(array.shape)}")
    return array.view(torch.uint16).numpy()


def run(construct: Callable[[], Loader], epoch: int, seconds: float, started: int) -> dict[str, float]:
    """Times of the first batch; then, after a whole epoch to warm up, rate and CPU time over whole epochs.

    The first batch of each epoch is left out together with its time: the turn of an epoch costs some loaders much, and
    real epochs are so long that it does not matter.
    """
    constructed = time.monotonic_ns()
    loader = construct()
    batches = loader.batches()
    next(batches)
    first = time.monotonic_ns()
    for _ in range(epoch - 1):
        next(batches)
    wall = cpu = 0.0
    count = epochs = 0
    while wall < seconds:
        next(batches)
        since, cpu_since = time.monotonic(), cpu_seconds()
        for _ in range(epoch - 1):
            keys, _ = next(batches)
            count += len(keys)
        wall += time.monotonic() - since
        cpu += cpu_seconds() - cpu_since
        epochs += 1
    loader.close()
    return {
        "process_s": (first - started) / 1e9,
        "construct_s": (first - constructed) / 1e9,
        "samples_s": count / wall,
        "cpu_ms": 1e3 * cpu / count,
        "epochs": epochs,
        "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def save(loader: Loader, after: int, path: Path) -> dict[str, Any] | None:
    """Write the state after ``after`` batches; returns the keys of the batch that comes next."""
    if loader.state is None:
        loader.close()
        return None
    batches = loader.batches()
    for _ in range(after):
        next(batches)
    torch.save(loader.state(), path)
    keys, _ = next(batches)
    loader.close()
    return {"next": list(keys), "bytes": path.stat().st_size}


def resume(open_loader: Open, folder: Path, fields: Sequence[str], path: Path, started: int) -> dict[str, Any]:
    """Times and keys of the first batch after the state in ``path``."""
    constructed = time.monotonic_ns()
    loader = open_loader(folder, fields, torch.load(path, weights_only=False))
    keys, _ = next(loader.batches())
    first = time.monotonic_ns()
    loader.close()
    return {"process_s": (first - started) / 1e9, "construct_s": (first - constructed) / 1e9, "next": list(keys)}


def cpu_seconds() -> float:
    """CPU time so far of this process with all its threads, and of children that it has waited for."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
