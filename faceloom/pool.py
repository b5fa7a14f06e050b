"""The workers of one stage of a run: Ray actors that are started, given one job at a time, and replaced.

A worker is replaced when it was lost, when it is past its deadline, when it has worked on enough items or has grown too large
(decoders and models leak), and when an item failed in a way that may be the worker's own.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from logging import getLogger
from typing import Any, Generic

import ray
from ray.exceptions import RayActorError, RayError

from faceloom.blocks import ItemT, Job, ResultT
from faceloom.errors import UserError
from faceloom.ray_errors import reason

logger = getLogger(__name__)

_DOOMED = 20
_FAILED_STARTS = 3
_LOST_STARTS = 12


@dataclass(frozen=True)
class Stage(Generic[ItemT, ResultT]):
    """One pool of the chain: ``workers`` actors that ``create`` makes.

    ``submit(actor, item, result, payload)`` calls an actor with an item, and with the result and payload that the stage
    before gave it (None in the first stage). It returns two object references, to a new result and a new payload, so that
    the driver can look at the one without fetching the other.

    With ``most``, which only the first stage may have, an item may turn out to be several parts, up to that many. The first
    reference is then to a list of results, and the others, ``most`` of them, to the payloads of these. From there on each
    part is called, blamed and decided by itself.

    A call may take ``deadline_s``, and as many seconds more as ``allow(actor, item)``, a call that is made before it, says:
    the size of an item may be known only to who has opened it. ``recycle_after`` is after how many items a worker is
    replaced. ``needs`` is what Ray reserves for a worker (CPU, GPU, ...), to be named when there is no room for one.
    """

    name: str
    workers: int
    create: Callable[[], Any]
    submit: Callable[[Any, ItemT, ResultT | None, ray.ObjectRef | None], Sequence[ray.ObjectRef]]
    most: int | None = None
    deadline_s: float = math.inf
    allow: Callable[[Any, ItemT], ray.ObjectRef] | None = None
    recycle_after: int | None = None
    needs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What the engine has to know of a result."""

    label: str
    """What it is counted as; the part before a colon is its kind."""
    passed: bool
    """Whether its payload goes on: to the next stage or, from the last, into the block."""
    suspicion: str | None = None
    """Where and why it failed, when that may have been the worker's fault: the worker is then replaced."""
    worn: bool = False
    """Whether the worker has grown so large that it should be replaced."""

    @classmethod
    def failed(cls, stage: str, error: str, message: str, *, suspicious: bool, worn: bool = False) -> "Verdict":
        """Of an item that failed in ``stage`` with ``error``, a class name; ``suspicious`` if the worker may be to blame."""
        suspicion = f"{stage} ({error}: {message})" if suspicious else None
        return cls(f"failed: {error}", passed=False, suspicion=suspicion, worn=worn)


@dataclass(eq=False)
class Worker(Generic[ItemT, ResultT]):
    """One actor, the node it is on, and the job it has or, while it is starting, will have first."""

    actor: Any
    node: str | None = None
    job: Job[ItemT, ResultT] | None = None
    payloads: list[ray.ObjectRef] = field(default_factory=list)
    served: int = 0
    since: float = 0.0
    until: float = math.inf
    allowance: ray.ObjectRef | None = None


class Pool(Generic[ItemT, ResultT]):
    """The workers of one stage: idle, busy with one job, starting, or in doubt; ``target`` is how many there should be.

    A job that outlived its worker waits for the replacement, so that its next worker is a fresh one.
    """

    def __init__(self, stage: Stage[ItemT, ResultT]) -> None:
        self.stage = stage
        self.target = stage.workers
        self.recycled = 0
        self.queue: deque[Job[ItemT, ResultT]] = deque()
        self.idle: list[Worker[ItemT, ResultT]] = []
        self.busy: dict[ray.ObjectRef, Worker[ItemT, ResultT]] = {}
        self.starting: dict[ray.ObjectRef, Worker[ItemT, ResultT]] = {}
        self.doubted: dict[ray.ObjectRef, Worker[ItemT, ResultT]] = {}
        self.unheard: list[Worker[ItemT, ResultT]] = []
        self._failed_starts = 0
        self._lost_starts = 0
        self._failures_in_row = 0
        self.resize(stage.workers)

    @property
    def living(self) -> int:
        """Workers that have started and are not known to be lost."""
        return len(self.idle) + len(self.busy)

    @property
    def size(self) -> int:
        """Workers that take room, or ask for it."""
        return self.living + len(self.starting) + len(self.doubted) + len(self.unheard)

    @property
    def refs(self) -> list[ray.ObjectRef]:
        """What :meth:`ray.wait` is to wait for."""
        return [*self.busy, *self.starting, *self.doubted]

    def dispatch(self) -> None:
        """Give idle workers what is queued."""
        while self.idle and self.queue:
            job = self.queue.popleft()
            if not job.stale:
                self._submit(self.idle.pop(), job)

    def started(self, ref: ray.ObjectRef) -> None:
        """A worker has loaded its models, or died of it; when that happens again and again, the pool does with one less.

        Raises :class:`UserError` when it has no other.
        """
        worker = self.starting.pop(ref)
        try:
            worker.node = ray.get(ref)
        except RayError as error:
            # A worker may also be lost with its node, or to a machine that is full, before it has begun.
            if isinstance(error, RayActorError) and error.actor_init_failed:
                self._failed_starts += 1
            self._lost_starts += 1
            name = self.stage.name
            logger.warning(
                "a %s worker did not start: %s", name, reason(error), extra={"stage": name, "cause": "start"}
            )
            if self._failed_starts >= _FAILED_STARTS or self._lost_starts >= _LOST_STARTS:
                if not self.living and not self.starting:
                    raise UserError(f"{name} workers cannot start: {reason(error)}") from None
                self.target -= 1  # it may be one node of many on which none can start
            self.replace(worker, worker.job)
            return
        self._failed_starts = self._lost_starts = 0
        job, worker.job = worker.job, None
        if job is None or job.stale:
            self.idle.append(worker)
        else:
            self._submit(worker, job)

    def release(self, worker: Worker[ItemT, ResultT], verdict: Verdict) -> None:
        """Take a worker back after its item, or replace it."""
        if verdict.suspicion is not None:
            self.count_failure(verdict.suspicion)
            self.replace(worker, None)
            return
        self._failures_in_row = 0
        if verdict.worn or worker.served == self.stage.recycle_after:
            self.recycled += 1
            cause = "it has grown too large" if verdict.worn else f"it has worked on {worker.served} clips"
            name = self.stage.name
            logger.info("a %s worker is replaced: %s", name, cause, extra={"stage": name, "cause": cause})
            self.replace(worker, None)
        else:
            self.keep(worker)

    def keep(self, worker: Worker[ItemT, ResultT]) -> None:
        """Have a worker wait for its next job, if so many are wanted."""
        worker.job, worker.payloads = None, []
        if self.size < self.target:
            self.idle.append(worker)
        else:
            ray.kill(worker.actor)

    def count_failure(self, suspicion: str) -> None:
        """Another item failed in a way that may not be its own. Raises :class:`UserError` when too many did in a row."""
        self._failures_in_row += 1
        if self._failures_in_row >= _DOOMED:
            raise UserError(
                f"the last {_DOOMED} all failed in {suspicion}; that is hardly their fault: mend it, delete the ledger "
                "fragments that hold these failures, if there are any, and run the same command again"
            )

    def replace(self, worker: Worker[ItemT, ResultT], job: Job[ItemT, ResultT] | None) -> None:
        """Start another worker in the place of this one; it will work on ``job`` first."""
        # It may be unreachable rather than dead, and would then keep its CPU.
        ray.kill(worker.actor)
        if self.size < self.target:
            self._start(job)
        elif job is not None:
            self.queue.appendleft(job)

    def doubt(self, worker: Worker[ItemT, ResultT], until: float) -> None:
        """The connection to a worker broke: until Ray knows whether it is gone, or its node, nobody is to blame."""
        worker.until = until
        self.unheard.append(worker)

    def ask_again(self) -> None:
        """Ask after the workers in doubt; Ray answers when it knows, or soon that it does not."""
        for worker in self.unheard:
            self.doubted[worker.actor.__ray_ready__.remote()] = worker
        self.unheard.clear()

    def overdue(self, now: float) -> list[Worker[ItemT, ResultT]]:
        """Take out the workers that are past their deadline."""
        late = [ref for ref, worker in self.busy.items() if worker.until < now and not _extended(worker, now)]
        return [self.busy.pop(ref) for ref in late]

    def resize(self, target: int) -> None:
        """Have ``target`` workers: more are started, and of too many those go first that are not here yet, then idle ones.

        Busy ones go when they have done their job.
        """
        self.target = target
        while self.size < self.target:
            self._start(None)
        while self.size > self.target and self.starting:
            _, worker = self.starting.popitem()
            ray.kill(worker.actor)
            if worker.job is not None:
                self.queue.appendleft(worker.job)
        while self.size > self.target and self.idle:
            ray.kill(self.idle.pop().actor)

    def stop(self) -> None:
        """Kill all workers."""
        everyone = [*self.idle, *self.busy.values(), *self.starting.values(), *self.doubted.values(), *self.unheard]
        for worker in everyone:
            ray.kill(worker.actor)

    def _start(self, job: Job[ItemT, ResultT] | None) -> None:
        actor = self.stage.create()
        self.starting[actor.__ray_call__.remote(_node)] = Worker(actor, job=job)

    def _submit(self, worker: Worker[ItemT, ResultT], job: Job[ItemT, ResultT]) -> None:
        stage = self.stage
        worker.job, worker.since = job, time.monotonic()
        worker.until = worker.since + stage.deadline_s
        worker.served += 1
        worker.allowance = stage.allow(worker.actor, job.case.item) if stage.allow is not None else None
        result, *worker.payloads = stage.submit(worker.actor, job.case.item, job.result, job.payload)
        self.busy[result] = worker


def _extended(worker: Worker[ItemT, ResultT], now: float) -> bool:
    """Whether a worker that is past its deadline has more time for the size of its item, which is looked up only now."""
    if worker.allowance is None or not ray.wait([worker.allowance], timeout=0)[0]:
        return False
    allowance, worker.allowance = worker.allowance, None
    try:
        worker.until += ray.get(allowance)
    except RayError:
        return True  # the call itself will tell, before it is looked at again
    return worker.until >= now


def _node(_worker: object) -> str:
    """The node that a worker is on, asked of the worker itself."""
    return str(ray.get_runtime_context().get_node_id())
