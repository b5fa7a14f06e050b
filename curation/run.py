"""The run: two pools of Ray actors, one ``ray.wait`` loop, one clip a call, one shard and one ledger fragment a block.

The driver admits manifest blocks in order, hands each clip to a face worker, hands the draft of a clip that passed to a flow
worker, and has a block written when all its clips are decided. Samples travel between workers through the object store as
encoded bytes; the driver sees decisions only. A worker that dies has one clip in hand: that clip is tried once more on a
fresh worker, and a second death makes it ``failed``.
"""

import dataclasses
import hashlib
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from logging import getLogger
from pathlib import Path
from typing import Any, Literal

import ray
from ray.exceptions import ObjectLostError, RayActorError, RayError, RayTaskError

from curation.ledger import TELEMETRY_FOLDER, Decision, write_fragment, write_telemetry
from curation.outcome import Failed, Kept, Outcome, Rejected
from curation.preflight import Plan, PoolSizes
from curation.sources import Clip
from curation.video import VideoError
from curation.workers import FaceWorker, FlowWorker
from faceloom.errors import UserError
from shards.dataset import LEDGER_FOLDER, SHARD_FOLDER, ledger_path
from shards.index import DamageError, read_layer_file
from shards.schema import BASE_LAYER
from shards.storage import remove_temporaries
from shards.writer import write_layer

logger = getLogger(__name__)

# What a finished sample weighs, tokens included; only the admission of clips rests on it.
_SAMPLE_MIB = 4
_TRIES = 2
_DOOMED = 20
_BAD_FILES = frozenset(kind.__name__ for kind in VideoError.__subclasses__())
_FAILED_STARTS = 3
_WRITERS = 2


@dataclass
class Progress:
    """What a display needs to know; the runner updates it after every decision."""

    clips: int
    decided: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    in_work: dict[str, int] = field(default_factory=dict)
    worker_deaths: int = 0
    oldest: tuple[str, float] | None = None
    """Source key and seconds in a worker of the clip that has been there longest."""
    waiting: tuple[str, ...] = ()
    """Pools that have clips to work on and no worker yet."""


@dataclass
class _Job:
    """One clip on its way through the pools."""

    block: "_Block"
    position: int
    clip: Clip
    tries: int = 0
    since: float = 0.0
    decision: Decision | None = None
    draft: ray.ObjectRef | None = None


@dataclass
class _Block:
    """One manifest block: its decisions so far, and the samples of its kept clips."""

    part: int
    decisions: list[Decision | None]
    samples: dict[int, ray.ObjectRef] = field(default_factory=dict)

    @property
    def undecided(self) -> int:
        return sum(decision is None for decision in self.decisions)


class _Pool:
    """Actors of one kind. An actor is idle, busy with one job, or starting; a dead one is replaced.

    A job that outlived its worker waits for the replacement, so that its next worker is a fresh one.
    """

    def __init__(self, name: Literal["face", "flow"], size: int, create: Callable[[], Any]) -> None:
        self.name = name
        self._create = create
        self.idle: list[Any] = []
        self.busy: dict[ray.ObjectRef, tuple[Any, _Job, ray.ObjectRef]] = {}
        self.starting: dict[ray.ObjectRef, tuple[Any, _Job | None]] = {}
        self._failed_starts = 0
        self._failures_in_row = 0
        for _ in range(size):
            self.start(None)

    def start(self, job: _Job | None) -> None:
        actor = self._create()
        self.starting[actor.__ray_ready__.remote()] = (actor, job)

    def started(self, ref: ray.ObjectRef) -> None:
        """An actor has loaded its models, or died of it."""
        actor, job = self.starting.pop(ref)
        try:
            ray.get(ref)
        except RayActorError as error:
            self._failed_starts += 1
            if self._failed_starts >= _FAILED_STARTS:
                raise UserError(f"{self.name} workers cannot start: {_reason(error)}") from None
            self.start(job)
            return
        self._failed_starts = 0
        if job is None:
            self.idle.append(actor)
        else:
            self.submit(actor, job)

    def submit(self, actor: Any, job: _Job) -> None:
        job.since = time.monotonic()
        if job.decision is None:
            decision, payload = actor.decide.options(num_returns=2).remote(job.clip)
        else:
            decision, payload = actor.finish.options(num_returns=2).remote(job.decision, job.draft)
        self.busy[decision] = (actor, job, payload)

    def release(self, actor: Any, outcome: Outcome) -> None:
        """Take an actor back after its clip, or retire it when the clip failed in a way that may be the worker's own."""
        if not isinstance(outcome, Failed) or outcome.error in _BAD_FILES:
            self._failures_in_row = 0
            self.idle.append(actor)
            return
        self._failures_in_row += 1
        if self._failures_in_row >= _DOOMED:
            raise UserError(
                f"the last {_DOOMED} clips all failed in {outcome.stage} ({outcome.error}: {outcome.message}); that "
                "is hardly their fault: mend it, delete the ledger fragments that hold these failures, and run the same "
                "command again"
            )
        self.replace(actor, None)

    def replace(self, actor: Any, job: _Job | None) -> None:
        # It may be unreachable rather than dead, and would then keep its CPU.
        ray.kill(actor)
        self.start(job)

    def stop(self) -> None:
        actors = [*self.idle, *(actor for actor, *_ in [*self.busy.values(), *self.starting.values()])]
        for actor in actors:
            ray.kill(actor)


class Runner:
    """Carries out a :class:`Plan` on the Ray cluster that this process is connected to."""

    def __init__(self, plan: Plan, sizes: PoolSizes, report: Callable[[Progress], None]) -> None:
        self._plan = plan
        self._sizes = sizes
        self._report = report
        self._blocks = self._blocks_left()
        self._open: dict[int, _Block] = {}
        self._face_queue: deque[_Job] = deque()
        self._flow_queue: deque[_Job] = deque()
        self._writing: dict[ray.ObjectRef, _Block] = {}
        self._complete: deque[_Block] = deque()
        done = sum(plan.record.manifest.block_rows(block) for block in plan.done)
        self.progress = Progress(clips=plan.record.manifest.clips, decided=done)

    def run(self) -> Progress:
        """Decide every block that has no ledger fragment, then seal the dataset. Returns the final progress.

        Raises :class:`UserError` when workers cannot start or the output cannot be written; what was committed stays, and the
        same command goes on from there.
        """
        plan = self._plan
        for folder in (plan.out, *(plan.out / name for name in (SHARD_FOLDER, LEDGER_FOLDER, TELEMETRY_FOLDER))):
            remove_temporaries(folder)
        plan.record.model_copy(update={"complete": False, "shards": (), "ledger": ()}).save(plan.out)
        if plan.blocks_left:
            face, flow = self._pools()
            try:
                self._loop(face, flow)
            finally:
                face.stop()
                flow.stop()
        self._seal()
        return self.progress

    def _seal(self) -> None:
        plan, blocks = self._plan, range(self._plan.record.manifest.blocks)
        try:
            shards = tuple(read_layer_file(plan.out, part) for part in blocks)
        except DamageError as error:
            raise UserError(
                f"{error}; delete the ledger fragment of the same number and run the same command again"
            ) from None
        ledger = tuple(hashlib.sha256(ledger_path(plan.out, part).read_bytes()).hexdigest() for part in blocks)
        plan.record.model_copy(update={"complete": True, "shards": shards, "ledger": ledger}).save(plan.out)

    def _pools(self) -> tuple[_Pool, _Pool]:
        config, run = self._plan.config, self._plan.config.run
        settings = ray.put(config)

        def face_worker() -> Any:
            return FaceWorker.options(num_cpus=run.face.cpus).remote(settings, self._plan.all_statistics)

        def flow_worker() -> Any:
            return FlowWorker.options(num_cpus=run.flow.cpus, num_gpus=run.flow.gpus).remote(settings)

        # Flow first: where more workers are asked for than fit now, the other pool must not take its last place.
        flow = _Pool("flow", self._sizes.flow, flow_worker)
        return _Pool("face", self._sizes.face, face_worker), flow

    def _loop(self, face: _Pool, flow: _Pool) -> None:
        while True:
            self._admit()
            # Back to front: what is nearest to its shard goes first, so that memory is given back soonest.
            self._write_complete()
            self._dispatch(flow, self._flow_queue)
            self._dispatch(face, self._face_queue)
            waiting = [*self._writing, *flow.busy, *face.busy, *flow.starting, *face.starting]
            if not self._open and not self._writing:
                return
            ready, _ = ray.wait(waiting, num_returns=1, timeout=1.0)
            for ref in ready:
                if ref in self._writing:
                    self._written(ref)
                elif ref in face.busy:
                    self._face_done(face, ref)
                elif ref in flow.busy:
                    self._flow_done(flow, ref)
                elif ref in face.starting:
                    face.started(ref)
                else:
                    flow.started(ref)
            self._show(face, flow)

    def _show(self, face: _Pool, flow: _Pool) -> None:
        jobs = [job for pool in (face, flow) for _, job, _ in pool.busy.values()]
        oldest = min(jobs, key=lambda job: job.since, default=None)
        self.progress.in_work = {"face": len(face.busy), "flow": len(flow.busy)}
        self.progress.oldest = (oldest.clip.source_key, time.monotonic() - oldest.since) if oldest else None
        self.progress.waiting = tuple(
            pool.name
            for pool, queue in ((face, self._face_queue), (flow, self._flow_queue))
            if queue and not pool.idle and not pool.busy
        )
        self._report(self.progress)

    def _blocks_left(self) -> Iterator[tuple[int, list[Clip]]]:
        plan = self._plan
        for part, clips in enumerate(plan.manifest.blocks(plan.config.run.block_clips, plan.limit)):
            if part not in plan.done:
                yield part, clips

    def _admit(self) -> None:
        """Open the next block while no clip waits and memory allows; the oldest block alone is always admitted."""
        while not self._face_queue:
            held = sum(
                len(block.samples) + block.undecided for block in [*self._open.values(), *self._writing.values()]
            )
            if self._open and held * _SAMPLE_MIB >= self._plan.config.run.held_mib:
                return
            following = next(self._blocks, None)
            if following is None:
                return
            part, clips = following
            block = _Block(part, [None] * len(clips))
            self._open[part] = block
            self._face_queue.extend(_Job(block, position, clip) for position, clip in enumerate(clips))

    def _dispatch(self, pool: _Pool, queue: deque[_Job]) -> None:
        while pool.idle and queue:
            pool.submit(pool.idle.pop(), queue.popleft())

    def _face_done(self, pool: _Pool, ref: ray.ObjectRef) -> None:
        result = self._result(pool, ref)
        if result is None:
            return
        job, decision, draft = result
        if isinstance(decision.outcome, Kept):
            job.decision, job.draft, job.tries = decision, draft, 0
            self._flow_queue.append(job)
        else:
            self._decide(job, decision, None)

    def _flow_done(self, pool: _Pool, ref: ray.ObjectRef) -> None:
        result = self._result(pool, ref)
        if result is not None:
            job, decision, sample = result
            self._decide(job, decision, sample if isinstance(decision.outcome, Kept) else None)

    def _result(self, pool: _Pool, ref: ray.ObjectRef) -> tuple[_Job, Decision, ray.ObjectRef] | None:
        """What an actor returned; None when it did not, and its job was queued again or given up."""
        actor, job, payload = pool.busy.pop(ref)
        try:
            decision: Decision = ray.get(ref)
        except RayError as error:
            if _lost_object(error):
                # The node that held the draft is gone; neither the clip nor the worker is to blame.
                pool.idle.append(actor)
                job.decision = job.draft = None
                self._face_queue.appendleft(job)
                return None
            self.progress.worker_deaths += 1
            logger.warning("the %s worker of %s is lost: %s", pool.name, job.clip.path, _reason(error))
            job.tries += 1
            if job.tries < _TRIES:
                pool.replace(actor, job)
            else:
                pool.replace(actor, None)
                self._give_up(job, pool.name)
            return None
        pool.release(actor, decision.outcome)
        return job, decision, payload

    def _give_up(self, job: _Job, pool: str) -> None:
        # What Ray says of a death names processes and nodes, and would differ from run to run.
        message = (
            f"{job.clip.path}: the {pool} worker was lost {job.tries} times over this clip; "
            "re-encode it or remove it from the manifest"
        )
        known = job.decision or Decision(job.clip, Kept())
        self._decide(job, dataclasses.replace(known, outcome=Failed(pool, "WorkerDied", message)), None)

    def _decide(self, job: _Job, decision: Decision, sample: ray.ObjectRef | None) -> None:
        block = job.block
        block.decisions[job.position] = decision
        if sample is not None:
            block.samples[job.position] = sample
        self.progress.decided += 1
        self.progress.outcomes[_label(decision.outcome)] += 1
        if not block.undecided:
            self._complete.append(block)

    def _write_complete(self) -> None:
        while self._complete and len(self._writing) < _WRITERS:
            block = self._complete.popleft()
            del self._open[block.part]
            samples = [block.samples[i] for i in sorted(block.samples)]
            run = self._plan.record.config_fingerprint
            ref = _write_block.remote(str(self._plan.out.absolute()), block.part, block.decisions, samples, run)
            self._writing[ref] = block

    def _written(self, ref: ray.ObjectRef) -> None:
        block = self._writing.pop(ref)
        try:
            ray.get(ref)
        except RayError as error:
            if not _lost_object(error):
                raise UserError(
                    f"cannot write block {block.part} to {self._plan.out}: {_reason(error)}; "
                    "make room or mend it, then run the same command again"
                ) from None
            # Samples were lost with their node before they were written: the block is decided anew.
            clips = [decision.clip for decision in block.decisions if decision is not None]
            self.progress.decided -= len(clips)
            self.progress.outcomes -= Counter(_label(d.outcome) for d in block.decisions if d is not None)
            fresh = _Block(block.part, [None] * len(clips))
            self._open[block.part] = fresh
            self._face_queue.extendleft(_Job(fresh, i, clip) for i, clip in reversed(list(enumerate(clips))))


# The pools reserve the CPUs; a writer that asked for one of its own might never be scheduled.
@ray.remote(num_cpus=0)
def _write_block(root: str, part: int, decisions: list[Decision], samples: list[ray.ObjectRef], run: str) -> int:
    """Write shard, telemetry and, last, the ledger fragment of one block; samples are fetched one at a time."""
    kept = [decision.clip.clip_id for decision in decisions if isinstance(decision.outcome, Kept)]
    folder = Path(root)
    write_layer(folder, part, BASE_LAYER, ((key, ray.get(ref)) for key, ref in zip(kept, samples, strict=True)))
    write_telemetry(folder, part, decisions)
    write_fragment(folder, part, decisions, run)
    return part


def connect(address: str | None) -> dict[str, float]:
    """Join the cluster at ``address``, or start one on this machine; returns its resources (CPU, GPU, ...).

    Without ``address``, ``RAY_ADDRESS`` is asked, which Ray sets for the jobs it submits.
    """
    if not ray.is_initialized():
        # "local", since None would join, or wait minutes for, whatever cluster `ray start` last noted on this machine.
        address = address or os.environ.get("RAY_ADDRESS") or "local"
        _refuse_dead_address(address)
        # MediaPipe writes to stderr for every clip; failures reach the ledger with their message.
        quiet = {"GLOG_minloglevel": "2", "TF_CPP_MIN_LOG_LEVEL": "2"}
        # An actor that reserves no GPU sees none, so that `flow.device: auto` never takes one behind the scheduler's back.
        hidden = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}
        os.environ.update(hidden)
        try:
            ray.init(
                address=address,
                include_dashboard=False,
                log_to_driver=False,
                runtime_env={"env_vars": quiet | hidden},
                logging_level="error",
            )
        except (ConnectionError, ValueError) as error:
            raise _no_cluster(address, error) from None
    return dict(ray.cluster_resources())


def _refuse_dead_address(address: str) -> None:
    """Ray itself tries for minutes before it gives up an address where nobody listens."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host.rpartition("//")[2].strip("[]"), int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise _no_cluster(address, error) from None


def _no_cluster(address: str, error: Exception) -> UserError:
    return UserError(f"no Ray cluster at {address}: {error}; start one with: ray start --head")


def _label(outcome: Outcome) -> str:
    if isinstance(outcome, Rejected):
        return f"rejected: {outcome.rule}"
    return f"failed: {outcome.error}" if isinstance(outcome, Failed) else "kept"


def _lost_object(error: BaseException) -> bool:
    cause = error.cause if isinstance(error, RayTaskError) else error
    return isinstance(cause, ObjectLostError)


def _reason(error: BaseException) -> str:
    """The line of a Ray error that says what happened."""
    cause = error.cause if isinstance(error, RayTaskError) and error.cause else error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[-1] if lines else type(cause).__name__
