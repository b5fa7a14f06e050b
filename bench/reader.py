"""The reader beside its peers: the same samples in every peer's format, read from memory by one process each.

    python -m bench.reader [--samples 192] [--shards 12] [--repeats 5] [--peers DIR] [--keep]

``DIR`` holds a virtual environment for each peer (``bench/README.md`` has the commands, and says what is measured and how);
without it, ours and the floor are measured alone. Wants an idle machine with room for the samples once for each format in
``/dev/shm``: 8 GB for 192.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.peers import samples

MEMORY = Path("/dev/shm")  # noqa: S108 the point is to measure the loaders and not a disk
SCRIPTS = Path(__file__).parent / "peers"
SECONDS = 4.0  # of steady reading a run, and as many whole epochs as they need
LIMIT_S = 300
MB = 1e6

# A file or pipe has no width of its own; 80 columns would cut the tables.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)


@dataclass(frozen=True)
class Contender:
    """A loader of the bench: its name in the tables, its script, and the script that writes its samples if not its own.

    A peer's name is a requirement, ``litdata==0.2.76``, and its environment is the folder ``litdata`` below ``--peers``.
    """

    name: str
    script: str
    files_of: str | None = None

    @property
    def files(self) -> str:
        """The folder of its samples."""
        return self.files_of or self.script

    def python(self, peers: Path | None) -> str:
        """The interpreter that runs it."""
        package, pinned, _ = self.name.partition("==")
        return str(peers / package / "bin" / "python") if pinned and peers else sys.executable


OURS = Contender("faceloom, 2 threads", "with_faceloom")
ONE_THREAD = Contender("faceloom, 1 thread", "with_faceloom_1", files_of=OURS.script)
FLOOR = Contender("bare preadv, 1 thread", "with_preadv", files_of=OURS.script)
CHECKED_FLOOR = Contender("preadv + crc32c, 1 thread", "with_preadv_checked", files_of=OURS.script)
PEERS = (
    Contender("litdata==0.2.76", "with_litdata"),
    Contender("megatron-energon==7.4.1", "with_energon"),
    Contender("webdataset==1.0.2", "with_webdataset"),
    Contender("mosaicml-streaming==0.13.0", "with_mds"),
)
CHOICES = {"all": tuple(samples.FIELDS), "two": samples.TWO}


@dataclass(frozen=True)
class Bench:
    """What the jobs have in common."""

    root: Path
    peers: Path | None
    samples: int
    shards: int

    def job(self, contender: Contender, job: str, **options: Any) -> Any:
        """Run one job of a contender's script in a fresh process (``bench.peers.measure``) and return its result."""
        out = self.root / "result.json"
        folder = self.root / contender.files
        flags = {"folder": folder, "samples": self.samples, "out": out} | options
        if job in ("run", "resume"):
            flags["started"] = time.monotonic_ns()  # the clock is the system's, so that the script can subtract
        command = [contender.python(self.peers), str(SCRIPTS / f"{contender.script}.py"), job]
        command += [part for name, value in flags.items() for part in (f"--{name}", str(value))]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=LIMIT_S, env=one_thread(), check=False
            )
        except subprocess.TimeoutExpired:
            raise SystemExit(f"{contender.name}: {job} took more than {LIMIT_S} s") from None
        if done.returncode:
            raise SystemExit(f"{contender.name}: {job} failed\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        return json.loads(out.read_text())


@dataclass(frozen=True)
class Figure:
    """The value of one figure in each round."""

    values: tuple[float, ...]

    def text(self, digits: int = 0) -> str:
        """Median and range."""
        median, low, high = statistics.median(self.values), min(self.values), max(self.values)
        return f"{median:.{digits}f} [{low:.{digits}f}–{high:.{digits}f}]"

    def per(self, other: "Figure") -> "Figure":
        """The ratio in each round."""
        return Figure(tuple(a / b for a, b in zip(self.values, other.values, strict=True)))


Rounds = dict[Contender, list[dict[str, Any]]]


def main() -> None:
    """Write, check, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=192, help="a multiple of 4 × shards (default: %(default)s)")
    parser.add_argument("--shards", type=int, default=12, help="default: %(default)s")
    parser.add_argument(
        "--repeats", type=int, default=5, help="rounds in which every loader is run (default: %(default)s)"
    )
    parser.add_argument("--peers", type=Path, help="folder with the peers' virtual environments")
    parser.add_argument("--keep", action="store_true", help="leave the samples in /dev/shm, and say where")
    args = parser.parse_args()
    # Whole shards of whole batches: else some loaders would drop a batch at an epoch's end, and others not.
    if args.samples <= 0 or args.shards <= 0 or args.samples % (4 * args.shards):
        parser.error("--samples must be a multiple of 4 × --shards")

    contenders = [OURS, ONE_THREAD, *(PEERS if args.peers else ()), FLOOR, CHECKED_FLOOR]
    if args.peers:
        for peer in PEERS:
            require_version(peer, args.peers.absolute())
    with memory_folder(args.samples, len({contender.files for contender in contenders}), args.keep) as root:
        bench = Bench(root, args.peers and args.peers.absolute(), args.samples, args.shards)
        print_machine(bench)
        for contender in contenders:
            if contender.files_of is None:
                (root / contender.files).mkdir()
                bench.job(contender, "write", shards=args.shards)
        delivered = check(bench, contenders)
        saved = {
            contender: bench.job(contender, "save", state=root / f"{contender.script}.state")
            for contender in contenders
        }
        runs = {fields: measure(bench, contenders, "run", args.repeats, fields) for fields in CHOICES}
        resumable = [contender for contender in contenders if saved[contender]]
        resumed = measure(bench, resumable, "resume", args.repeats, "all")
        print_machine(bench)

    for fields in CHOICES:
        print_rates(fields, runs[fields])
    print_starts(contenders, runs["all"], resumed, saved, delivered)
    print_goals(runs)


def check(bench: Bench, contenders: Sequence[Contender]) -> dict[Contender, int]:
    """Compare what every loader delivers with the source, bit by bit; returns how many samples its first epoch holds."""
    source = {samples.key(n): samples.checksums(samples.sample_bits(n)) for n in range(bench.samples)}
    delivered = {}
    for contender in contenders:
        for fields, names in CHOICES.items():
            result = bench.job(contender, "check", fields=fields)
            wanted = {key: {name: sums[name] for name in names} for key, sums in source.items()}
            if any(sums != wanted[key] for key, sums in result["samples"].items()):
                raise SystemExit(f"{contender.name}: delivers other numbers than it was given")
            if len(result["samples"]) < bench.samples:
                missing = bench.samples - len(result["samples"])
                raise SystemExit(f"{contender.name}: {missing} samples not seen in {result['batches']} batches")
            delivered[contender] = len(set(result["first_epoch"]))
    return delivered


def measure(bench: Bench, contenders: Sequence[Contender], job: str, repeats: int, fields: str) -> Rounds:
    """Every contender once a round, who begins rotates."""
    results: Rounds = {contender: [] for contender in contenders}
    options: dict[str, Callable[[Contender], dict[str, Any]]] = {
        "run": lambda _: {"seconds": SECONDS},
        "resume": lambda contender: {"state": bench.root / f"{contender.script}.state"},
    }
    for number in range(repeats):
        first = number % len(contenders)
        for contender in [*contenders[first:], *contenders[:first]]:
            result = bench.job(contender, job, fields=fields, **options[job](contender))
            results[contender].append(result)
        console.print(f"{job}, fields {fields}: round {number + 1} of {repeats} done", style="dim")
    return results


def figure(rounds: Sequence[dict[str, Any]], name: str) -> Figure:
    """One figure of all rounds."""
    return Figure(tuple(result[name] for result in rounds))


def print_rates(fields: str, rounds: Rounds) -> None:
    """Steady rate and cost, and the ratio of ours to each."""
    nbytes = sum(samples.FIELDS[name].nbytes for name in CHOICES[fields])
    table = Table(
        title=f"{len(CHOICES[fields])} of 5 fields, {nbytes / MB:.2f} MB a sample: {', '.join(CHOICES[fields])}"
    )
    table.add_column("loader")
    for column in ("samples/s", "MB/s", "CPU ms/sample", "peak MiB", "ours ÷ it"):
        table.add_column(column, justify="right")
    ours = figure(rounds[OURS], "samples_s")
    for contender, results in rounds.items():
        rate = figure(results, "samples_s")
        table.add_row(
            contender.name,
            rate.text(),
            f"{statistics.median(rate.values) * nbytes / MB:.0f}",
            figure(results, "cpu_ms").text(2),
            f"{statistics.median(figure(results, 'rss_mib').values):.0f}",
            ours.per(rate).text(2),
        )
    console.print(table)


def print_starts(
    contenders: Sequence[Contender],
    runs: Rounds,
    resumed: Rounds,
    saved: dict[Contender, Any],
    delivered: dict[Contender, int],
) -> None:
    """Time to the first batch, from nothing and from a state."""
    table = Table(
        title="Seconds to the first batch of all fields in a fresh process: since its start, since construction"
    )
    table.add_column("loader")
    for column in ("process", "constructed", "resumed: process", "constructed", "next batch", "state", "first epoch"):
        table.add_column(column, justify="right")
    for contender in contenders:
        row = [figure(runs[contender], name).text(2) for name in ("process_s", "construct_s")]
        if contender in resumed:
            same = all(result["next"] == saved[contender]["next"] for result in resumed[contender])
            row += [figure(resumed[contender], name).text(2) for name in ("process_s", "construct_s")]
            row += ["the same" if same else "ANOTHER", f"{saved[contender]['bytes']} B"]
        else:
            row += ["cannot", "", "", ""]
        table.add_row(contender.name, *row, f"{delivered[contender]} different")
    console.print(table)


def print_goals(runs: dict[str, Rounds]) -> None:
    """The goals, each with the least favourable figure."""
    goals = [("all fields, ours ÷ the fastest peer", "all", PEERS, 1.0), ("2 of 5", "two", PEERS, 3.0)]
    goals += [("all fields, ours ÷ bare preadv", "all", (FLOOR,), 0.5)]
    for text, fields, others, goal in goals:
        rates = {contender: figure(results, "samples_s") for contender, results in runs[fields].items()}
        ratios = [
            statistics.median(rates[OURS].per(rates[contender]).values) for contender in others if contender in rates
        ]
        if ratios:
            verdict = "reached" if min(ratios) >= goal else "not reached"
            console.print(f"{text}: {min(ratios):.2f} (goal: {goal}, {verdict})")
    bound = (os.cpu_count() or 1) * 1000 / statistics.median(figure(runs["two"][CHECKED_FLOOR], "cpu_ms").values)
    console.print(
        f"2 of 5, copied and checked by all {os.cpu_count()} cores and no more done: {bound:.0f} samples/s at most"
    )


def print_machine(bench: Bench) -> None:
    """What the figures depend on."""
    console.print(f"{machine()}; {bench.samples} samples in {bench.shards} shards")


def machine() -> str:
    """Its cores and what they are busy with."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    return f"{os.cpu_count()} cores, {cpu}, load {load}"


@contextmanager
def memory_folder(count: int, formats: int, keep: bool) -> Iterator[Path]:
    """A folder in memory with room for the samples in every format, removed at the end."""
    needed = int(1.15 * formats * count * sum(array.nbytes for array in samples.FIELDS.values()))
    if not MEMORY.is_dir() or min(shutil.disk_usage(MEMORY).free, available_memory()) < needed:
        raise SystemExit(f"{MEMORY} has no room for {needed / MB:.0f} MB; give fewer --samples")
    root = Path(tempfile.mkdtemp(prefix="faceloom-reader-", dir=MEMORY))
    try:
        yield root
    finally:
        if keep:
            console.print(f"the samples are in {root}")
        else:
            shutil.rmtree(root)


def require_version(peer: Contender, peers: Path) -> None:
    """Refuse an environment that is absent or holds another version than the one that is named in the tables."""
    package, _, version = peer.name.partition("==")
    question = f"import importlib.metadata as m; print(m.version({package!r}), m.version('torch'))"
    try:
        answer = subprocess.check_output([peer.python(peers), "-c", question], text=True).split()
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(
            f"{peers / package}: not an environment with {peer.name}: {error}; see bench/README.md"
        ) from None
    if answer != [version, importlib.metadata.version("torch")]:
        raise SystemExit(f"{peers / package} has {package} {answer[0]} and torch {answer[1]}; see bench/README.md")


def available_memory() -> int:
    """Bytes that can be had without swapping, which a file system in memory does not tell."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def one_thread() -> dict[str, str]:
    """The environment of a job: numeric libraries with one thread, so that loaders compete by what they are."""
    return dict(os.environ) | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


if __name__ == "__main__":
    main()
