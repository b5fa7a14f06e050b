"""The engine of a run on Ray: blocks of items through a chain of actor pools, one ``ray.wait`` loop, one item a call.

The driver admits blocks in order, hands each item to a worker of the first pool, hands what passed on to the next pool, and
has a block written when all its items have a result. Payloads travel between workers through the object store; the driver
sees results only. A worker that is lost has one item in hand: that item is tried once more on a fresh one, and a second loss
is its result, unless it was a whole node that was lost. What items and results are, and what becomes of them, is a
:class:`Procedure`'s to know.
"""

import errno
import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from logging import getLogger
from typing import Any, Generic, Protocol, TypeVar

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError

from faceloom.blocks import Block, Case, ItemT, Job, ResultT
from faceloom.errors import UserError
from faceloom.pool import Pool, Stage, Verdict, Worker
from faceloom.progress import Oldest, Progress
from faceloom.ray_errors import lost_object, reason

logger = getLogger(__name__)

_LOSSES = 2
_NODES = 3
_WRITERS = 2
_TICK_S = 0.5
_RESIZE_S = 5.0
_STARVED_S = 30.0
_LOADING_S = 180.0
_DOUBT_S = 120.0

ItemT_contra = TypeVar("ItemT_contra", contravariant=True)


@dataclass(frozen=True)
class Loss:
    """Why an item is given up: ``times`` workers of ``stage`` were lost over it.

    ``error`` tells the last one: ``WorkerDied``, ``DeadlineExceeded``, or the class of an error that the worker let through
    because the machine seemed to be at fault (see :func:`machine_is_at_fault`).
    """

    stage: str
    times: int
    error: str


class Procedure(Protocol[ItemT_contra, ResultT]):
    """What the engine is used for."""

    def name(self, item: ItemT_contra) -> str:
        """The item's name for a person."""
        ...

    def identity(self, item: ItemT_contra) -> str:
        """What the item is found by in logs."""
        ...

    def verdict(self, result: ResultT) -> Verdict:
        """What the engine has to know of a result."""
        ...

    def given_up(self, item: ItemT_contra, result: ResultT | None, loss: Loss) -> ResultT:
        """The result of an item, or of its part, that is given up.

        ``result`` is that of the stage before; without it, the item is not known to have parts.

        It must not depend on anything that differs from run to run, such as process numbers.
        """
        ...

    def write(self, block: int, results: list[ResultT], payloads: list[ray.ObjectRef]) -> ray.ObjectRef:
        """Start the task that writes and commits a block, and return its reference.

        Results come in the order of the block's items, those of an item's parts in theirs, and payloads, of what passed the
        last stage, too.
        """
        ...

    def decided(self, item: ItemT_contra, result: ResultT) -> None:
        """Take note: this is the result of an item, or of one of its parts."""
        ...

    def committed(self, block: int, told: Any) -> None:
        """Take note: a block is committed, and this is what the task that :meth:`write` began has returned."""
        ...


class Engine(Generic[ItemT, ResultT]):
    """Carries out a :class:`Procedure` on the Ray cluster that this process is connected to.

    ``blocks`` yields the numbers and items of the blocks to do and is read as memory allows: an item counts ``item_mib``
    while it is undecided or its payload waits to be written, and when ``held_mib`` are reached only what is open goes on.
    Of an item with parts each counts; as long as their number is not known, the most that there may be.
    ``report`` is called with ``progress`` some times a second. ``where`` tells in errors where blocks are written to.

    ``sizes`` gives the number of workers by stage that a cluster with such resources (Ray's totals) should have; it is asked
    again when nodes have come or gone. A pool that has work and no worker takes the place of a worker of another pool, and
    when there is none to give, the run ends after ``wait_s``.
    """

    def __init__(
        self,
        procedure: Procedure[ItemT, ResultT],
        stages: Sequence[Stage[ItemT, ResultT]],
        blocks: Iterator[tuple[int, list[ItemT]]],
        *,
        item_mib: int,
        held_mib: int,
        where: str,
        progress: Progress,
        report: Callable[[Progress], None],
        sizes: Callable[[Mapping[str, float]], Sequence[int]] | None = None,
        wait_s: float = math.inf,
    ) -> None:
        self._procedure = procedure
        self._stages = stages
        self._blocks = blocks
        self._item_mib = item_mib
        self._held_mib = held_mib
        self._where = where
        self._progress = progress
        self._report = report
        self._sizes = sizes
        self._wait_s = wait_s
        self._pools: list[Pool[ItemT, ResultT]] = []
        self._open: dict[int, Block[ItemT, ResultT]] = {}
        self._complete: deque[Block[ItemT, ResultT]] = deque()
        self._writing: dict[ray.ObjectRef, Block[ItemT, ResultT]] = {}
        self._resources: dict[str, float] = {}
        self._starved: dict[str, float] = {}
        self._ticked = self._resized = 0.0

    def run(self) -> None:
        """Do all blocks.

        Raises :class:`UserError` when workers cannot start, when 20 items in a row fail, when a pool has had work and no
        worker for ``wait_s``, or when a block cannot be written; what was committed by then stays.
        """
        try:
            if not self._pools:
                self.start()
            self._loop()
        finally:
            for pool in self._pools:
                pool.stop()

    def start(self) -> list[ray.ObjectRef]:
        """Start the workers, as :meth:`run` does itself; the references are ready when the workers are."""
        self._resources = ray.cluster_resources()
        # Back to front: where more workers are asked for than fit now, a pool must not take a later one's last place.
        for stage in reversed(self._stages):
            self._pools.insert(0, Pool(stage))
        return [ref for pool in self._pools for ref in pool.starting]

    def _loop(self) -> None:
        while True:
            self._admit()
            # Back to front: what is nearest to its block goes first, so that memory is given back soonest.
            self._write_complete()
            for pool in reversed(self._pools):
                pool.dispatch()
            if not self._open and not self._writing:
                self._show(time.monotonic())
                return
            waiting = [*self._writing, *(ref for pool in reversed(self._pools) for ref in pool.refs)]
            ready, _ = ray.wait(waiting, num_returns=1, timeout=_TICK_S) if waiting else ([], [])
            for ref in ready:
                self._came(ref)
            now = time.monotonic()
            if now - self._ticked >= _TICK_S:
                self._ticked = now
                self._tick(now)

    def _tick(self, now: float) -> None:
        """What has to be looked after now and then, whatever comes."""
        for pool in self._pools:
            for worker in pool.overdue(now):
                self._lost(pool, worker, "DeadlineExceeded", f"it took more than {now - worker.since:.0f} s")
            pool.ask_again()
        if now - self._resized >= _RESIZE_S:
            self._resized = now
            self._follow_cluster()
        self._feed_starved(now)
        self._show(now)

    def _follow_cluster(self) -> None:
        """Nodes came or went: have as many workers as the cluster has room for now."""
        resources = ray.cluster_resources()
        before, self._resources = self._resources, resources
        kinds = {kind for stage in self._stages for kind in stage.needs}
        if self._sizes is None or all(resources.get(kind, 0.0) == before.get(kind, 0.0) for kind in kinds):
            return
        try:
            sizes = self._sizes(resources)
        except UserError:
            return  # there is no room for one worker of each pool; see _feed_starved
        for pool, size in zip(self._pools, sizes, strict=True):
            if size != pool.target:
                logger.info("%s workers: %d now, %d before", pool.stage.name, size, pool.target)
            pool.resize(size)

    def _feed_starved(self, now: float) -> None:
        """A pool with work and no worker gets the place of a worker of another; without one to give, time runs out.

        After a node was lost, the workers that were started in place of its own may have taken all the room that is left.
        """
        self._progress.waiting = {}
        for pool in self._pools:
            name = pool.stage.name
            if pool.living or pool.doubted or pool.unheard or not pool.queue:
                self._starved.pop(name, None)
                continue
            since = self._starved.setdefault(name, now)
            lacking = self._lacking(pool.stage.needs)
            self._progress.waiting[name] = told = lacking or "it is loading its models, or other jobs have the room"
            if now - since >= self._wait_s:
                raise UserError(
                    f"no {name} worker could start within {self._wait_s:g} s: {told}; mend that, and run the same "
                    "command again"
                )
            donor = max((other for other in self._pools if other is not pool), key=lambda p: p.living, default=None)
            patience_s = _STARVED_S if lacking else _LOADING_S
            if donor is not None and donor.living > 1 and now - since >= patience_s:
                logger.warning("a %s worker makes room for a %s worker: %s", donor.stage.name, name, told)
                donor.resize(donor.living - 1)
                self._starved[name] = now

    def _lacking(self, needs: Mapping[str, float]) -> str | None:
        """Which resource there is too little of for the workers that there are and those that are starting."""
        asked: dict[str, float] = defaultdict(float)
        for pool in self._pools:
            for kind, amount in pool.stage.needs.items():
                asked[kind] += amount * pool.size
        for kind, amount in needs.items():
            total = self._resources.get(kind, 0.0)
            if total < amount:
                return f"it needs {amount:g} {kind}, and the cluster has {total:g}"
            if amount and asked[kind] > total + 1e-6:
                return f"it needs {amount:g} {kind}, and other workers have the {total:g} of the cluster"
        return None

    def _admit(self) -> None:
        """Open the next block while no item waits and memory allows; the oldest block alone is always admitted."""
        first = self._pools[0]
        while not first.queue:
            held = sum(block.held for block in [*self._open.values(), *self._writing.values()])
            if self._open and held * self._item_mib >= self._held_mib:
                return
            following = next(self._blocks, None)
            if following is None:
                return
            first.queue.extend(self._jobs(*following))

    def _jobs(self, number: int, items: list[ItemT]) -> list[Job[ItemT, ResultT]]:
        """Open a block."""
        block: Block[ItemT, ResultT] = Block.of(number, items, self._stages[0].most or 1)
        self._open[number] = block
        if not items:
            self._complete.append(block)
        return [Job(block, case) for case in block.cases]

    def _came(self, ref: ray.ObjectRef) -> None:
        if ref in self._writing:
            self._written(ref)
            return
        for pool in self._pools:
            if ref in pool.busy:
                self._returned(pool, ref)
            elif ref in pool.starting:
                pool.started(ref)
            elif ref in pool.doubted:
                self._answered(pool, ref)
            else:
                continue
            return

    def _returned(self, pool: Pool[ItemT, ResultT], ref: ray.ObjectRef) -> None:
        """A call has ended: with a result, or with the end of its worker."""
        worker = pool.busy.pop(ref)
        job, payloads = worker.job, worker.payloads
        assert job is not None
        try:
            returned: Any = ray.get(ref)
        except RayError as error:
            if lost_object(error):
                # The node that held the payload is gone; neither the item nor the worker is to blame.
                pool.keep(worker)
                if not job.stale:
                    self._restart(job)
            elif isinstance(error, ActorUnavailableError):
                pool.doubt(worker, time.monotonic() + _DOUBT_S)
            else:
                self._died(pool, worker, error)
            return
        results: list[ResultT] = [returned] if pool.stage.most is None else returned
        verdicts = [self._procedure.verdict(result) for result in results]
        pool.release(worker, next((verdict for verdict in verdicts if verdict.suspicion), verdicts[0]))
        if job.stale:
            return
        for part, result, verdict, payload in zip(
            self._parts(job, len(results)), results, verdicts, payloads, strict=False
        ):
            if verdict.passed and part.stage + 1 < len(self._pools):
                part.advance(result, payload)
                self._pools[part.stage].queue.append(part)
            else:
                self._decide(part, result, payload if verdict.passed else None)

    def _parts(self, job: Job[ItemT, ResultT], count: int) -> list[Job[ItemT, ResultT]]:
        """The jobs that go on from a result: this one, and after the first stage those of the item's further parts."""
        if job.case.parts is not None:
            return [job]
        job.block.divide(job.case, count)
        return [job, *(Job(job.block, job.case, part) for part in range(1, count))]

    def _restart(self, job: Job[ItemT, ResultT]) -> None:
        """Back to the first stage with the whole item: its parts are known only from there."""
        if 0 in job.case.results:
            self._progress.outcomes[self._label(job.case)] -= 1
        self._retry(job, self._pools[0], "its payload is lost")
        self._pools[0].queue.appendleft(Job(job.block, job.block.restart(job.case)))

    def _answered(self, pool: Pool[ItemT, ResultT], ref: ray.ObjectRef) -> None:
        """What Ray knows of a worker to which the connection broke."""
        worker = pool.doubted.pop(ref)
        try:
            ray.get(ref)
        except ActorUnavailableError:
            if time.monotonic() < worker.until:
                pool.doubt(worker, worker.until)
            else:
                self._lost(pool, worker, "NodeLost", f"nothing was heard of it for {_DOUBT_S:g} s")
        except RayError as error:
            self._died(pool, worker, error)
        else:
            self._lost(pool, worker, "NodeLost", "the connection to it broke")

    def _died(self, pool: Pool[ItemT, ResultT], worker: Worker[ItemT, ResultT], error: RayError) -> None:
        """A worker is gone, or has let an error through."""
        kind = "WorkerDied"
        if isinstance(error, RayTaskError):
            kind = type(error.cause or error).__name__
        elif isinstance(error, RayActorError):
            alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
            kind = "NodeLost" if error.preempted or worker.node not in alive else kind
        self._lost(pool, worker, kind, reason(error))

    def _lost(self, pool: Pool[ItemT, ResultT], worker: Worker[ItemT, ResultT], error: str, told: str) -> None:
        """A worker is lost over its job, which is tried again, or given up when it is likely to blame."""
        job, name = worker.job, pool.stage.name
        assert job is not None
        self._progress.losses[f"{name}: {error}"] += 1
        logger.warning(
            *("the %s worker of %s is lost (%s): %s", name, self._procedure.name(job.case.item), error, told),
            extra=self._extra(job, name, error) | {"node": worker.node},
        )
        if error == "NodeLost" and job.nodes < _NODES:
            job.nodes += 1  # beyond that it may be the item that brings nodes down
        else:
            job.losses += 1
        if job.stale:
            pool.replace(worker, None)
        elif job.losses < _LOSSES:
            self._retry(job, pool, error)
            pool.replace(worker, job)
        else:
            pool.count_failure(f"{name} ({told})")
            pool.replace(worker, None)
            self._parts(job, 1)
            loss = Loss(name, job.losses, error)
            self._decide(job, self._procedure.given_up(job.case.item, job.result, loss), None)

    def _retry(self, job: Job[ItemT, ResultT], pool: Pool[ItemT, ResultT], cause: str) -> None:
        name = pool.stage.name
        self._progress.retries[name] += 1
        logger.info(
            *("%s is tried again in %s: %s", self._procedure.name(job.case.item), name, cause),
            extra=self._extra(job, name, cause),
        )

    def _extra(self, job: Job[ItemT, ResultT], stage: str, cause: str) -> dict[str, str]:
        item = job.case.item
        return {
            "clip_id": self._procedure.identity(item),
            "clip": self._procedure.name(item),
            "stage": stage,
            "cause": cause,
        }

    def _decide(self, job: Job[ItemT, ResultT], result: ResultT, payload: ray.ObjectRef | None) -> None:
        block, case = job.block, job.case
        block.decide(case, job.part, result, payload)
        self._procedure.decided(case.item, result)
        if job.part == 0:
            self._progress.outcomes[self._label(case)] += 1
        if case.decided:
            self._progress.decided += 1
        if not block.undecided:
            self._complete.append(block)

    def _label(self, case: Case[ItemT, ResultT]) -> str:
        """What an item is counted as: what its first part is."""
        return self._procedure.verdict(case.results[0]).label

    def _write_complete(self) -> None:
        while self._complete and len(self._writing) < _WRITERS:
            block = self._complete.popleft()
            del self._open[block.number]
            results = [case.results[part] for case in block.cases for part in sorted(case.results)]
            payloads = [case.payloads[part] for case in block.cases for part in sorted(case.payloads)]
            self._writing[self._procedure.write(block.number, results, payloads)] = block

    def _written(self, ref: ray.ObjectRef) -> None:
        block = self._writing.pop(ref)
        try:
            told = ray.get(ref)
        except RayError as error:
            if not lost_object(error):
                raise UserError(
                    f"cannot write block {block.number} to {self._where}: {reason(error)}; "
                    "make room or mend it, then run the same command again"
                ) from None
            # Payloads were lost with their node before they were written: the block is done anew.
            self._progress.decided -= len(block.cases)
            for case in block.cases:
                self._progress.outcomes[self._label(case)] -= 1
            self._pools[0].queue.extendleft(reversed(self._jobs(block.number, [case.item for case in block.cases])))
            return
        self._progress.blocks_committed += 1
        self._procedure.committed(block.number, told)

    def _show(self, now: float) -> None:
        progress = self._progress
        busy = [(worker, pool.stage.name) for pool in self._pools for worker in pool.busy.values()]
        oldest, stage = min(busy, key=lambda one: one[0].since, default=(None, ""))
        progress.in_work = {pool.stage.name: len(pool.busy) for pool in self._pools}
        progress.workers = {pool.stage.name: pool.living for pool in self._pools}
        progress.recycled = {pool.stage.name: pool.recycled for pool in self._pools}
        progress.oldest = None
        if oldest is not None and oldest.job is not None:
            item = oldest.job.case.item
            name, clip_id = self._procedure.name(item), self._procedure.identity(item)
            progress.oldest = Oldest(name, clip_id, stage, now - oldest.since)
        progress.blocks_open = len(self._open) + len(self._writing)
        progress.pace.note(progress.decided, now)
        self._report(progress)


def machine_is_at_fault(error: Exception) -> bool:
    """Whether ``error`` says that the machine, not the item, is to blame: out of memory, disk full, a device gone.

    A worker lets such an error through in place of making a result of it, and the engine tries the item on another.
    """
    full = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EIO, errno.ESTALE, errno.EMFILE}
    return full or isinstance(error, MemoryError) or type(error).__name__ in {"OutOfMemoryError", "AcceleratorError"}
