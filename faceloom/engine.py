"""The engine of a run on Ray: blocks of items through a chain of actor pools, one ``ray.wait`` loop, one item a call.

The driver admits blocks in order, hands each item to an actor of the first pool, hands what passed on to the next pool, and
has a block written when all its items have a result. Payloads travel between actors through the object store; the driver sees
results only. An actor that dies has one item in hand: that item is tried once more on a fresh actor, and a second death is
its result. What items and results are, and what becomes of them, is a :class:`Procedure`'s to know.
"""

import errno
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from logging import getLogger
from typing import Any, Generic, Protocol, TypeVar

import ray
from ray.exceptions import ObjectLostError, RayActorError, RayError, RayTaskError

from faceloom.errors import UserError
from faceloom.progress import Progress

logger = getLogger(__name__)

_TRIES = 2
_DOOMED = 20
_FAILED_STARTS = 3
_WRITERS = 2

ItemT = TypeVar("ItemT")
ItemT_contra = TypeVar("ItemT_contra", contravariant=True)
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Stage(Generic[ItemT, ResultT]):
    """One pool of the chain: ``workers`` actors that ``create`` makes.

    ``submit(actor, item, result, payload)`` calls an actor with an item, and with the result and payload that the stage
    before gave it (None in the first stage). It returns two object references, to a new result and a new payload, so that
    the driver can look at the one without fetching the other.

    With ``most``, which only the first stage may have, an item may turn out to be several parts, up to that many. The first
    reference is then to a list of results, and the others, ``most`` of them, to the payloads of these. From there on each
    part is called, blamed and decided by itself.
    """

    name: str
    workers: int
    create: Callable[[], Any]
    submit: Callable[[Any, ItemT, ResultT | None, ray.ObjectRef | None], Sequence[ray.ObjectRef]]
    most: int | None = None


@dataclass(frozen=True)
class Verdict:
    """What the engine has to know of a result."""

    label: str
    """What it is counted as; the part before a colon is its kind."""
    passed: bool
    """Whether its payload goes on: to the next stage or, from the last, into the block."""
    suspicion: str | None = None
    """Where and why it failed, when that may have been the worker's fault: the worker is then replaced."""


class Procedure(Protocol[ItemT_contra, ResultT]):
    """What the engine is used for."""

    def name(self, item: ItemT_contra) -> str:
        """The item's name for a person."""
        ...

    def verdict(self, result: ResultT) -> Verdict:
        """What the engine has to know of a result."""
        ...

    def given_up(self, item: ItemT_contra, result: ResultT | None, stage: str, times: int) -> ResultT:
        """The result of an item, or of its part, over which ``times`` workers of ``stage`` were lost.

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


@dataclass
class _Case(Generic[ItemT, ResultT]):
    """One item in its block: how many ``parts`` it has, once that is known, and their results and payloads so far."""

    item: ItemT
    position: int
    most: int
    parts: int | None = None
    results: dict[int, ResultT] = field(default_factory=dict)
    payloads: dict[int, ray.ObjectRef] = field(default_factory=dict)

    @property
    def decided(self) -> bool:
        return self.parts == len(self.results)

    @property
    def held(self) -> int:
        """Payloads that are, or may yet come to be, in memory."""
        return (self.parts or self.most) - len(self.results) + len(self.payloads)


@dataclass
class _Block(Generic[ItemT, ResultT]):
    """One block. Its counts are kept up rather than made anew, for they are asked for with every result."""

    number: int
    cases: list[_Case[ItemT, ResultT]]
    undecided: int
    held: int

    @classmethod
    def of(cls, number: int, items: list[ItemT], most: int) -> "_Block[ItemT, ResultT]":
        cases: list[_Case[ItemT, ResultT]] = [_Case(item, position, most) for position, item in enumerate(items)]
        return cls(number, cases, len(items), most * len(items))

    def divide(self, case: _Case[ItemT, ResultT], parts: int) -> None:
        """The item turned out to have so many parts."""
        self.held -= case.held
        case.parts = parts
        self.held += case.held

    def decide(self, case: _Case[ItemT, ResultT], part: int, result: ResultT, payload: ray.ObjectRef | None) -> None:
        self.held -= case.held
        case.results[part] = result
        if payload is not None:
            case.payloads[part] = payload
        self.held += case.held
        self.undecided -= case.decided

    def restart(self, case: _Case[ItemT, ResultT]) -> _Case[ItemT, ResultT]:
        """Put a new case in the place of one that is not decided; whatever is still in work of the old one is stale."""
        self.held += case.most - case.held
        self.cases[case.position] = _Case(case.item, case.position, case.most)
        return self.cases[case.position]


@dataclass
class _Job(Generic[ItemT, ResultT]):
    """One item, or one part of it, on its way through the pools."""

    block: _Block[ItemT, ResultT]
    case: _Case[ItemT, ResultT]
    part: int = 0
    stage: int = 0
    tries: int = 0
    since: float = 0.0
    result: ResultT | None = None
    payload: ray.ObjectRef | None = None

    @property
    def stale(self) -> bool:
        """Whether its item has been started anew meanwhile, so that its result is of no use."""
        return self.block.cases[self.case.position] is not self.case


class _Pool(Generic[ItemT, ResultT]):
    """Actors of one stage. An actor is idle, busy with one job, or starting; a dead one is replaced.

    A job that outlived its worker waits for the replacement, so that its next worker is a fresh one.
    """

    def __init__(self, stage: Stage[ItemT, ResultT]) -> None:
        self.stage = stage
        self.queue: deque[_Job[ItemT, ResultT]] = deque()
        self.idle: list[Any] = []
        self.busy: dict[ray.ObjectRef, tuple[Any, _Job[ItemT, ResultT], list[ray.ObjectRef]]] = {}
        self.starting: dict[ray.ObjectRef, tuple[Any, _Job[ItemT, ResultT] | None]] = {}
        self._failed_starts = 0
        self._failures_in_row = 0
        for _ in range(stage.workers):
            self._start(None)

    def dispatch(self) -> None:
        """Give idle actors what is queued."""
        while self.idle and self.queue:
            job = self.queue.popleft()
            if not job.stale:
                self._submit(self.idle.pop(), job)

    def started(self, ref: ray.ObjectRef) -> None:
        """An actor has loaded its models, or died of it."""
        actor, job = self.starting.pop(ref)
        try:
            ray.get(ref)
        except RayActorError as error:
            self._failed_starts += 1
            if self._failed_starts >= _FAILED_STARTS:
                raise UserError(f"{self.stage.name} workers cannot start: {_reason(error)}") from None
            self._start(job)
            return
        self._failed_starts = 0
        if job is None or job.stale:
            self.idle.append(actor)
        else:
            self._submit(actor, job)

    def release(self, actor: Any, verdict: Verdict) -> None:
        """Take an actor back after its item, or retire it when the item failed in a way that may be the worker's own."""
        if verdict.suspicion is None:
            self._failures_in_row = 0
            self.idle.append(actor)
            return
        self.count_failure(verdict.suspicion)
        self.replace(actor, None)

    def count_failure(self, suspicion: str) -> None:
        """Another item failed in a way that may not be its own. Raises :class:`UserError` when too many did in a row."""
        self._failures_in_row += 1
        if self._failures_in_row >= _DOOMED:
            raise UserError(
                f"the last {_DOOMED} clips all failed in {suspicion}; that is hardly their fault: mend it, "
                "delete the ledger fragments that hold these failures, and run the same command again"
            )

    def replace(self, actor: Any, job: _Job[ItemT, ResultT] | None) -> None:
        """Start another actor in the place of this one; it will work on ``job`` first."""
        # It may be unreachable rather than dead, and would then keep its CPU.
        ray.kill(actor)
        self._start(job)

    def stop(self) -> None:
        """Kill all actors."""
        actors = [*self.idle, *(actor for actor, *_ in [*self.busy.values(), *self.starting.values()])]
        for actor in actors:
            ray.kill(actor)

    def _start(self, job: _Job[ItemT, ResultT] | None) -> None:
        actor = self.stage.create()
        self.starting[actor.__ray_ready__.remote()] = (actor, job)

    def _submit(self, actor: Any, job: _Job[ItemT, ResultT]) -> None:
        job.since = time.monotonic()
        result, *payloads = self.stage.submit(actor, job.case.item, job.result, job.payload)
        self.busy[result] = (actor, job, payloads)


class Engine(Generic[ItemT, ResultT]):
    """Carries out a :class:`Procedure` on the Ray cluster that this process is connected to.

    ``blocks`` yields the numbers and items of the blocks to do and is read as memory allows: an item counts ``item_mib``
    while it is undecided or its payload waits to be written, and when ``held_mib`` are reached only what is open goes on.
    Of an item with parts each counts; as long as their number is not known, the most that there may be.
    ``report`` is called with ``progress`` after every change to it. ``where`` tells in errors where blocks are written to.
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
    ) -> None:
        self._procedure = procedure
        self._stages = stages
        self._blocks = blocks
        self._item_mib = item_mib
        self._held_mib = held_mib
        self._where = where
        self._progress = progress
        self._report = report
        self._pools: list[_Pool[ItemT, ResultT]] = []
        self._open: dict[int, _Block[ItemT, ResultT]] = {}
        self._complete: deque[_Block[ItemT, ResultT]] = deque()
        self._writing: dict[ray.ObjectRef, _Block[ItemT, ResultT]] = {}

    def run(self) -> None:
        """Do all blocks.

        Raises :class:`UserError` when workers cannot start, when 20 items in a row fail, or when a block cannot be written;
        what was committed by then stays.
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
        # Back to front: where more workers are asked for than fit now, a pool must not take a later one's last place.
        for stage in reversed(self._stages):
            self._pools.insert(0, _Pool(stage))
        return [ref for pool in self._pools for ref in pool.starting]

    def _loop(self) -> None:
        while True:
            self._admit()
            # Back to front: what is nearest to its block goes first, so that memory is given back soonest.
            self._write_complete()
            for pool in reversed(self._pools):
                pool.dispatch()
            if not self._open and not self._writing:
                return
            waiting = [*self._writing]
            waiting += [ref for pool in reversed(self._pools) for ref in pool.busy]
            waiting += [ref for pool in reversed(self._pools) for ref in pool.starting]
            ready, _ = ray.wait(waiting, num_returns=1, timeout=1.0)
            for ref in ready:
                self._came(ref)
            self._show()

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

    def _jobs(self, number: int, items: list[ItemT]) -> list[_Job[ItemT, ResultT]]:
        """Open a block."""
        block: _Block[ItemT, ResultT] = _Block.of(number, items, self._stages[0].most or 1)
        self._open[number] = block
        if not items:
            self._complete.append(block)
        return [_Job(block, case) for case in block.cases]

    def _came(self, ref: ray.ObjectRef) -> None:
        if ref in self._writing:
            self._written(ref)
            return
        for pool in self._pools:
            if ref in pool.busy:
                self._returned(pool, ref)
                return
            if ref in pool.starting:
                pool.started(ref)
                return

    def _returned(self, pool: _Pool[ItemT, ResultT], ref: ray.ObjectRef) -> None:
        """A call has ended: with a result, or with the end of its actor."""
        actor, job, payloads = pool.busy.pop(ref)
        try:
            returned: Any = ray.get(ref)
        except RayError as error:
            if _lost_object(error):
                # The node that held the payload is gone; neither the item nor the worker is to blame.
                pool.idle.append(actor)
                if not job.stale:
                    self._restart(job)
                return
            self._lost(pool, actor, job, error)
            return
        results: list[ResultT] = [returned] if pool.stage.most is None else returned
        verdicts = [self._procedure.verdict(result) for result in results]
        pool.release(actor, next((verdict for verdict in verdicts if verdict.suspicion), verdicts[0]))
        if job.stale:
            return
        for part, result, verdict, payload in zip(
            self._parts(job, len(results)), results, verdicts, payloads, strict=False
        ):
            if verdict.passed and part.stage + 1 < len(self._pools):
                part.stage, part.result, part.payload, part.tries = part.stage + 1, result, payload, 0
                self._pools[part.stage].queue.append(part)
            else:
                self._decide(part, result, payload if verdict.passed else None)

    def _parts(self, job: _Job[ItemT, ResultT], count: int) -> list[_Job[ItemT, ResultT]]:
        """The jobs that go on from a result: this one, and after the first stage those of the item's further parts."""
        if job.case.parts is not None:
            return [job]
        job.block.divide(job.case, count)
        return [job, *(_Job(job.block, job.case, part) for part in range(1, count))]

    def _restart(self, job: _Job[ItemT, ResultT]) -> None:
        """Back to the first stage with the whole item: its parts are known only from there."""
        if 0 in job.case.results:
            self._progress.outcomes[self._label(job.case)] -= 1
        self._pools[0].queue.appendleft(_Job(job.block, job.block.restart(job.case)))

    def _lost(self, pool: _Pool[ItemT, ResultT], actor: Any, job: _Job[ItemT, ResultT], error: RayError) -> None:
        name = pool.stage.name
        self._progress.worker_deaths += 1
        logger.warning("the %s worker of %s is lost: %s", name, self._procedure.name(job.case.item), _reason(error))
        job.tries += 1
        if job.stale:
            pool.replace(actor, None)
        elif job.tries < _TRIES:
            pool.replace(actor, job)
        else:
            pool.count_failure(f"{name} ({_reason(error)})")
            pool.replace(actor, None)
            self._parts(job, 1)
            self._decide(job, self._procedure.given_up(job.case.item, job.result, name, job.tries), None)

    def _decide(self, job: _Job[ItemT, ResultT], result: ResultT, payload: ray.ObjectRef | None) -> None:
        block, case = job.block, job.case
        block.decide(case, job.part, result, payload)
        if job.part == 0:
            self._progress.outcomes[self._label(case)] += 1
        if case.decided:
            self._progress.decided += 1
        if not block.undecided:
            self._complete.append(block)

    def _label(self, case: _Case[ItemT, ResultT]) -> str:
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
            ray.get(ref)
        except RayError as error:
            if not _lost_object(error):
                raise UserError(
                    f"cannot write block {block.number} to {self._where}: {_reason(error)}; "
                    "make room or mend it, then run the same command again"
                ) from None
            # Payloads were lost with their node before they were written: the block is done anew.
            self._progress.decided -= len(block.cases)
            for case in block.cases:
                self._progress.outcomes[self._label(case)] -= 1
            self._pools[0].queue.extendleft(reversed(self._jobs(block.number, [case.item for case in block.cases])))

    def _show(self) -> None:
        progress = self._progress
        jobs = [job for pool in self._pools for _, job, _ in pool.busy.values()]
        oldest = min(jobs, key=lambda job: job.since, default=None)
        progress.in_work = {pool.stage.name: len(pool.busy) for pool in self._pools}
        progress.oldest = (self._procedure.name(oldest.case.item), time.monotonic() - oldest.since) if oldest else None
        progress.waiting = tuple(
            pool.stage.name for pool in self._pools if pool.queue and not pool.idle and not pool.busy
        )
        self._report(progress)


def machine_is_at_fault(error: Exception) -> bool:
    """Whether ``error`` says that the machine, not the item, is to blame: out of memory, disk full, a device gone.

    A worker lets such an error through in place of making a result of it, and the engine tries the item on another.
    """
    full = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EIO, errno.ESTALE, errno.EMFILE}
    return full or isinstance(error, MemoryError) or type(error).__name__ in {"OutOfMemoryError", "AcceleratorError"}


def _lost_object(error: BaseException) -> bool:
    cause = error.cause if isinstance(error, RayTaskError) else error
    return isinstance(cause, ObjectLostError)


def _reason(error: BaseException) -> str:
    """What of a Ray error says what happened."""
    cause = error.cause if isinstance(error, RayTaskError) and error.cause else error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    told = [number for number, line in enumerate(lines) if "UserError: " in line]
    if told:  # its remedy may take several lines
        return "\n".join(lines[told[-1] :]).partition("UserError: ")[2]
    return lines[-1] if lines else type(cause).__name__
