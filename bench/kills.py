"""Is a run that is killed again and again the run that was left alone?

    python -m bench.kills [--kills 50] [--seed 0] [--clips 12] [--folder DIR] [--json]

The true ``faceloom curate`` on a Ray cluster of a head and two nodes, each a raylet of its own with one CPU, all on this
machine. At moments from a seeded schedule something is killed with SIGKILL, and in the end, after as many resumes as it
takes, the dataset must have the bytes that an undisturbed run writes, and one ledger row for each clip of the manifest, and
no clip of a block that was committed when something was killed may have been given to a worker again. Exits 1 otherwise.
The seed fixes what is killed after how long; which clip and instruction that finds differs from one run of the bench to the
next.

A clip whose worker dies twice has failed, by design. So no worker is shot over a clip and stage that one was shot over
before: it is stopped, its clip read from its notes (``bench/witness.py``), and it goes on if that was hit. Deaths of nodes
are not the clip's fault and may hit it any number of times.
"""

import argparse
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from ray.cluster_utils import Cluster
from rich.console import Console
from rich.table import Table

import faceloom
from bench.reader import machine
from bench.witness import Call, calls, in_hand
from curation.demo import demo_clips
from curation.ledger import committed, manifest_rows, read_ledger
from curation.sources import Clip, open_manifest, write_manifest
from shards.dataset import DatasetRecord
from tests.e2e.command import CHEAP_SETTINGS, curate_arguments, kill_all, tree

KINDS = {
    "worker": 5,
    "node, replaced": 2,
    "node, not replaced": 2,
    "driver": 3,
    "cluster and driver": 1,
}
"""What is killed, and how often in relation to each other."""
SETTINGS = ("run.face.workers=2", "run.flow.workers=1")
KILLS_A_RUN = 6
"""At most: with more, blocks are seldom committed between two of them."""
_STORE_BYTES = 200 * 2**20
_STUCK_S = 300.0
# Ray's defaults find out about a dead node in 15 s or more.
_HEALTH = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 5,
}

console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


@dataclass(frozen=True)
class Shot:
    """Kill ``kind``, ``delay_s`` after the first call of a worker since the last kill."""

    kind: str
    delay_s: float


def schedule(seed: int, count: int) -> list[Shot]:
    """The kills of a bench run."""
    random_ = random.Random(seed)
    kinds = random_.choices([*KINDS], [*KINDS.values()], k=count)
    return [Shot(kind, random_.uniform(0.0, 8.0)) for kind in kinds]


@dataclass
class Trial:
    """One dataset: the manifest curated under fire, until it is finished."""

    out: Path
    fired: list[tuple[Shot, float]] = field(default_factory=list)
    """Kills so far, and when."""
    committed: list[tuple[float, frozenset[int]]] = field(default_factory=list)
    """The blocks that had a ledger fragment at a time: after each kill."""
    resumes: int = 0
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def notes(self) -> Path:
        """Where its workers note what they have in hand."""
        return self.out.with_name(f"{self.out.name}.notes")

    def repeated(self) -> list[tuple[str, Call]]:
        """Calls for a clip and stage that had had one before, and after which kill they came."""
        seen, again = set(), []
        for call in calls(self.notes):
            if (call.stage, call.clip_id) in seen:
                before = [shot.kind for shot, when in self.fired if when < call.began]
                again.append((before[-1] if before else "nothing", call))
            seen.add((call.stage, call.clip_id))
        return again


class Raylets:
    """A head and two nodes with one CPU each. Nodes that were lost come back with :meth:`restore`."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        head = {"num_cpus": 1, "object_store_memory": _STORE_BYTES, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=head | {"_system_config": _HEALTH})
        self.restore()

    @property
    def address(self) -> str:
        """Where a driver joins."""
        return str(self._cluster.address)

    @property
    def spare(self) -> int:
        """Nodes beside the head."""
        return len(self._cluster.worker_nodes)

    def restore(self) -> None:
        """Start nodes until there are two beside the head."""
        while self.spare < 2:
            self._cluster.add_node(num_cpus=1, object_store_memory=_STORE_BYTES)

    def kill_node(self, random_: random.Random) -> None:
        """SIGKILL the raylet, and what else belongs to the node, of one beside the head."""
        nodes = sorted(self._cluster.worker_nodes, key=lambda node: str(node.plasma_store_socket_name))
        self._cluster.remove_node(random_.choice(nodes), allow_graceful=False)

    def kill(self) -> None:
        """SIGKILL all nodes with all that runs on them."""
        below = psutil.Process().children(recursive=True)
        ours = {pid for node in self._cluster.list_all_nodes() for pid in _pids(node)}
        doomed = [process for process in below if _belongs(process, ours)]
        for node in self._cluster.list_all_nodes():
            node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
        self._cluster.head_node = None
        self._cluster.worker_nodes.clear()
        kill_all(doomed)

    def start_again(self) -> None:
        """A new cluster, at another address."""
        self._start()

    def workers(self) -> list[psutil.Process]:
        """The processes of the actors."""
        found = []
        for process in psutil.Process().children(recursive=True):
            try:
                title = " ".join(process.cmdline())
            except psutil.NoSuchProcess:
                continue
            if title.startswith("ray::Witnessed"):
                found.append(process)
        return sorted(found, key=lambda process: process.pid)


def _pids(node: object) -> set[int]:
    groups = getattr(node, "all_processes").values()  # noqa: B009 - of an untyped library
    return {info.process.pid for group in groups for info in group}


def _belongs(process: psutil.Process, roots: set[int]) -> bool:
    try:
        return process.pid in roots or any(parent.pid in roots for parent in process.parents())
    except psutil.NoSuchProcess:
        return False


@contextmanager
def raylets() -> Iterator[Raylets]:
    """The cluster; nothing is left of it afterwards."""
    cluster = Raylets()
    try:
        yield cluster
    finally:
        cluster.kill()


class Attack:
    """Carries out a trial: drives the command, shoots, resumes."""

    def __init__(self, cluster: Raylets, manifest: Path, seed: int) -> None:
        self._cluster = cluster
        self._manifest = manifest
        self._blocks = open_manifest(manifest).clips  # at most
        self._random = random.Random(seed)

    def carry_out(self, trial: Trial, shots: list[Shot]) -> None:
        """Curate the manifest into ``trial.out``; takes from ``shots`` those that the run lasts for."""
        self._cluster.restore()
        began = time.monotonic()
        hit: set[tuple[str, str]] = set()
        driver = self._drive(trial)
        try:
            while True:
                if not (shots and self._wait(trial, driver, shots[0])):
                    if self._ended(trial, driver):
                        return
                elif self._shoot(trial, driver, shots[0].kind, hit):
                    trial.fired.append((shots.pop(0), time.time()))
                    trial.committed.append((time.time(), frozenset(committed(trial.out, self._blocks))))
                if (driver.poll() or 0) < 0:
                    trial.resumes += 1
                    driver = self._drive(trial)
        finally:
            driver.kill()
            driver.wait()
            trial.seconds = time.monotonic() - began

    def _drive(self, trial: Trial) -> subprocess.Popen[bytes]:
        settings = [part for setting in SETTINGS for part in ("--set", setting)]
        command = [*curate_arguments(self._manifest, trial.out), *settings, "--address", self._cluster.address]
        log = trial.out.with_name(f"{trial.out.name}.{trial.resumes}.log")
        with log.open("wb") as stream:
            return subprocess.Popen(
                [sys.executable, "-m", "bench.witness", str(trial.notes), *map(str, command)],
                cwd=Path(faceloom.__file__).parents[1],
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait(self, trial: Trial, driver: subprocess.Popen[bytes], shot: Shot) -> bool:
        """Until the moment of the shot; False when the driver ends before it."""
        last = trial.fired[-1][1] if trial.fired else 0.0
        begun = None
        end = time.monotonic() + _STUCK_S
        while begun is None or time.time() < begun + shot.delay_s:
            if driver.poll() is not None:
                return False
            if time.monotonic() > end:
                raise _Stuck(f"nothing was worked on for {_STUCK_S:.0f} s; {self._state(trial)}")
            if begun is None:
                begun = next((call.began for call in calls(trial.notes) if call.began > last), None)
            time.sleep(0.02)
        return True

    def _ended(self, trial: Trial, driver: subprocess.Popen[bytes]) -> bool:
        """Wait for the driver's end; True if it says that all is done."""
        code, seen, since = None, -1, time.monotonic()
        while code is None:
            code = driver.poll()
            now = len(calls(trial.notes))
            if now != seen:
                seen, since = now, time.monotonic()
            if time.monotonic() - since > _STUCK_S:
                raise _Stuck(f"nothing was worked on for {_STUCK_S:.0f} s; {self._state(trial)}")
            time.sleep(0.1)
        if code == 0:
            return True
        if code > 0:
            trial.faults.append(f"exit code {code}: {self._last_words(trial)}")
            return True
        return False

    def _state(self, trial: Trial) -> str:
        done = len(committed(trial.out, self._blocks))
        kills = ", ".join(shot.kind for shot, _ in trial.fired)
        return f"{self._cluster.spare} nodes beside the head, {done} blocks committed; killed: {kills}"

    def _last_words(self, trial: Trial) -> str:
        return trial.out.with_name(f"{trial.out.name}.{trial.resumes}.log").read_text()[-600:].strip()

    def _shoot(self, trial: Trial, driver: subprocess.Popen[bytes], kind: str, hit: set[tuple[str, str]]) -> bool:
        """False if there is nobody left to shoot at, or if the run was over first."""
        match kind:
            case "worker":
                return self._shoot_worker(trial, driver, hit)
            case "node, replaced":
                self._cluster.restore()
                self._cluster.kill_node(self._random)
                self._cluster.restore()
            case "node, not replaced":
                if not self._cluster.spare:
                    self._cluster.restore()
                self._cluster.kill_node(self._random)
            case "driver":
                driver.kill()
                driver.wait()
            case "cluster and driver":
                driver.kill()
                driver.wait()
                self._cluster.kill()
                self._cluster.start_again()
        return True

    def _shoot_worker(self, trial: Trial, driver: subprocess.Popen[bytes], hit: set[tuple[str, str]]) -> bool:
        """One that has a clip in hand over which, in its stage, no worker was shot before."""
        end = time.monotonic() + 60
        while driver.poll() is None and time.monotonic() < end:
            workers = self._cluster.workers()
            self._random.shuffle(workers)
            for worker in workers:
                try:
                    # So that its clip is still the one it dies over.
                    worker.send_signal(signal.SIGSTOP)
                    call = in_hand(trial.notes, worker.pid)
                    if call is not None and (call.stage, call.clip_id) not in hit:
                        hit.add((call.stage, call.clip_id))
                        kill_all([worker])
                        return True
                    worker.send_signal(signal.SIGCONT)
                except psutil.NoSuchProcess:
                    continue
            time.sleep(0.01)
        return False


class _Stuck(Exception):
    """A run that no longer does anything."""


def check(trial: Trial, manifest: Path, undisturbed: Mapping[str, str]) -> None:
    """Note in ``trial.faults`` what differs from the manifest and from an undisturbed run, and what was done in vain."""
    blocks = [*open_manifest(manifest).blocks(DatasetRecord.load(trial.out).manifest.block_clips)]
    wanted = Counter(clip.clip_id for block in blocks for clip in block)
    found = Counter(manifest_rows(read_ledger(trial.out))["clip_id"].to_pylist())
    if found != wanted:
        trial.faults.append(f"lost {[*(wanted - found)]}, repeated {[*(found - wanted)]}")
    written = tree(trial.out)
    for name in sorted({*written, *undisturbed}):
        if written.get(name) != undisturbed.get(name):
            trial.faults.append(f"{name} differs")
    block_of = {clip.clip_id: number for number, block in enumerate(blocks) for clip in block}
    for when, done in trial.committed:
        again = {block_of[call.clip_id] for call in calls(trial.notes) if call.began > when} & done
        trial.faults += [f"block {block} was committed, and its clips worked on again" for block in sorted(again)]
    rows = read_ledger(trial.out).to_pylist()
    trial.faults += [f"{row['source_key']}: {row['message']}" for row in rows if row["error"] == "WorkerDied"]


def made_manifest(folder: Path, count: int) -> Path:
    """``count`` clips of the demo's footage: three of four are spans of the talking man, which are kept."""
    footage = {clip.source_key: clip for clip in demo_clips(folder / "videos")}
    man = footage["talking_man.mp4"].path
    others = [footage[name].path for name in ("too_short.mp4", "cut_short.mp4", "frozen.mp4", "bicycles.mp4")]
    clips = [
        Clip("kills", f"other {i}", others[i // 4 % len(others)])
        if i % 4 == 3
        else Clip("kills", f"man {i}", man, t0_s=round(0.005 * i, 3))
        for i in range(count)
    ]
    write_manifest(clips, folder / "manifest.parquet")
    return folder / "manifest.parquet"


def attack(folder: Path, kills: int, seed: int, clips: int, told: Path | None) -> tuple[list[Trial], float]:
    """All trials, until ``kills`` were fired, and how long the undisturbed run took. Each is noted in the file ``told``."""
    manifest = made_manifest(folder, clips)
    shots, trials = schedule(seed, kills), []
    with raylets() as cluster:
        attacker = Attack(cluster, manifest, seed)
        reference = Trial(folder / "undisturbed")
        attacker.carry_out(reference, [])
        undisturbed = tree(reference.out)
        while shots:
            trial = Trial(folder / f"run-{len(trials):02}")
            trials.append(trial)
            next_shots = shots[:KILLS_A_RUN]
            try:
                attacker.carry_out(trial, next_shots)
                check(trial, manifest, undisturbed)
            except _Stuck as stuck:
                trial.faults.append(str(stuck))
            result = "; ".join(trial.faults) or "identical"
            console.print(
                f"run {len(trials)}: {', '.join(f'{shot.kind} {shot.delay_s:.1f} s' for shot, _ in trial.fired)}: "
                f"{trial.resumes} resumes, {trial.seconds:.0f} s: {result}",
                markup=False,
            )
            if told:
                told.write_text(json.dumps([_as_json(trial) for trial in trials], indent=2))
            shots = shots[len(trial.fired) :]
            if not trial.fired:
                raise SystemExit("a run ended before anything could be killed; give more --clips")
    return trials, reference.seconds


def print_table(trials: Sequence[Trial]) -> None:
    """By kind of kill."""
    table = Table("killed", "times", "runs", "identical", "calls repeated", box=None)
    again = Counter(kind for trial in trials for kind, _ in trial.repeated())
    for kind in KINDS:
        hit = [trial for trial in trials if any(shot.kind == kind for shot, _ in trial.fired)]
        times = sum(shot.kind == kind for trial in trials for shot, _ in trial.fired)
        table.add_row(kind, str(times), str(len(hit)), str(sum(not t.faults for t in hit)), str(again[kind]))
    table.add_section()
    table.add_row(
        "all",
        str(sum(len(trial.fired) for trial in trials)),
        str(len(trials)),
        str(sum(not trial.faults for trial in trials)),
        str(again.total()),
    )
    console.print(table)


def main() -> None:
    """Print the table; exit 1 if a run was not identical."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clips", type=int, default=12, help="clips of a run (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="keep what was written here")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    # As Ray's own processes inherit it, and MediaPipe writes to stderr for every clip.
    os.environ |= {"GLOG_minloglevel": "2", "TF_CPP_MIN_LOG_LEVEL": "2"}
    logging.getLogger("ray").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="faceloom-kills-") as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        trials, undisturbed_s = attack(folder, args.kills, args.seed, args.clips, args.json)
        console.print(f"{machine()}; {args.clips} clips, {', '.join((*CHEAP_SETTINGS, *SETTINGS))}; seed {args.seed}")
        print_table(trials)
        each_s = sum(trial.seconds for trial in trials) / len(trials)
        console.print(
            f"{sum(trial.resumes for trial in trials)} resumes; a run took {each_s:.0f} s, undisturbed {undisturbed_s:.0f} s"
        )
    sys.exit(any(trial.faults for trial in trials))


def _as_json(trial: Trial) -> dict[str, object]:
    return {
        "kills": [{"kind": shot.kind, "delay_s": shot.delay_s} for shot, _ in trial.fired],
        "resumes": trial.resumes,
        "seconds": trial.seconds,
        "calls": len(calls(trial.notes)),
        "repeated": Counter(kind for kind, _ in trial.repeated()),
        "faults": trial.faults,
    }


if __name__ == "__main__":
    main()
