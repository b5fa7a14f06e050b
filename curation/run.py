"""The curation run: face workers, then flow workers, one shard and one ledger fragment a manifest block.

A clip goes to a face worker and the drafts of its windows, if it passed, one by one to flow workers; a block is written when
all its clips are decided, the ledger fragment last. Calls, deaths and memory are the business of :mod:`faceloom.engine`.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ray

from curation.config import PoolConfig
from curation.ledger import TELEMETRY_FOLDER, Decision, committed, write_fragment, write_telemetry
from curation.outcome import Failed, Kept, Rejected
from curation.preflight import SAMPLE_MIB, Plan, PoolSizes, pool_sizes
from curation.sources import Clip
from curation.video import VideoError
from curation.workers import FaceWorker, FlowWorker
from faceloom.engine import Engine, Loss
from faceloom.errors import UserError
from faceloom.lease_file import lease_path
from faceloom.location import location
from faceloom.memory import limit_memory
from faceloom.pool import Stage, Verdict
from faceloom.progress import Progress
from faceloom.transfers import StorageConfig, attempts
from faceloom.watch import Watch
from shards.dataset import LEDGER_FOLDER, SHARD_FOLDER, ledger_path
from shards.index import DamageError, read_layer_file
from shards.schema import BASE_LAYER
from shards.storage import read_bytes, remove_temporaries
from shards.writer import write_layer

_BAD_FILES = frozenset(kind.__name__ for kind in VideoError.__subclasses__())


class Runner:
    """Carries out a :class:`Plan` on the Ray cluster that this process is connected to; the engine's procedure."""

    def __init__(self, plan: Plan, sizes: PoolSizes, report: Callable[[Progress], None]) -> None:
        self._plan = plan
        self._sizes = sizes
        self._watch = Watch("curate", lease_path(plan.out), plan.out, report)
        self.progress = Progress(clips=plan.record.manifest.clips, decided=_clips_done(plan))

    def run(self) -> Progress:
        """Decide every block that has no ledger fragment, then seal the dataset. Returns the final progress.

        Raises :class:`UserError` when another driver is at work there, when workers cannot start or when the output cannot be
        written; what was committed stays, and the same command goes on from there.
        """
        with self._watch:
            self._run()
        return self.progress

    def _run(self) -> None:
        plan = self._plan
        # Another driver may have committed more between this one's preflight and its lease.
        plan = self._plan = dataclasses.replace(plan, done=frozenset(committed(plan.out, plan.record.manifest.blocks)))
        self.progress.decided = _clips_done(plan)
        for folder in (plan.out, *(plan.out / name for name in (SHARD_FOLDER, LEDGER_FOLDER, TELEMETRY_FOLDER))):
            remove_temporaries(folder)
        plan.record.model_copy(update={"complete": False, "shards": (), "ledger": ()}).save(plan.out)
        if plan.blocks_left:
            self.engine().run()
        self._watch.check()
        self._seal()

    def engine(self) -> Engine[Clip, Decision]:
        """The engine with its two stages; nothing is started yet."""
        config, run = self._plan.config, self._plan.config.run
        settings = ray.put(config)

        def face_worker() -> Any:
            options = _options(run.face)
            return _limited(FaceWorker.options(**options).remote(settings, self._plan.all_statistics), run.face)

        def flow_worker() -> Any:
            options = _options(run.flow) | {"num_gpus": run.flow.gpus}
            return _limited(FlowWorker.options(**options).remote(settings), run.flow)

        def decide(worker: Any, clip: Clip, _decision: Decision | None, _draft: ray.ObjectRef | None) -> Any:
            return worker.decide_apart.options(num_returns=1 + most).remote(clip)

        def sizes(resources: Mapping[str, float]) -> tuple[int, int]:
            fitting = pool_sizes(run, resources)
            return fitting.face, fitting.flow

        most = config.window.most
        face: Stage[Clip, Decision] = Stage(
            "face",
            self._sizes.face,
            face_worker,
            decide,
            most,
            deadline_s=run.face.deadline_s,
            allow=lambda worker, clip: worker.allowance_s.remote(clip),
            recycle_after=run.face.recycle_clips,
            needs=run.face.needs,
        )
        flow: Stage[Clip, Decision] = Stage(
            "flow",
            self._sizes.flow,
            flow_worker,
            _finish,
            deadline_s=run.flow.deadline_s,
            recycle_after=run.flow.recycle_clips,
            needs=run.flow.needs,
        )
        return Engine(
            self,
            (face, flow),
            self._blocks_left(),
            item_mib=SAMPLE_MIB,
            held_mib=run.held_mib,
            where=str(self._plan.out),
            progress=self.progress,
            report=self._watch.report,
            sizes=sizes,
            wait_s=run.wait_s,
        )

    def name(self, clip: Clip) -> str:
        """Its source key."""
        return clip.source_key

    def identity(self, clip: Clip) -> str:
        """Its clip id."""
        return clip.clip_id

    def verdict(self, decision: Decision) -> Verdict:
        """A clip that is kept goes on; a failure that is not the file's own may be its worker's."""
        outcome = decision.outcome
        if isinstance(outcome, Rejected):
            return Verdict(f"rejected: {outcome.rule}", passed=False, worn=decision.worn)
        if isinstance(outcome, Failed):
            suspicious = outcome.error not in _BAD_FILES
            told = (outcome.stage, outcome.error, outcome.message)
            return Verdict.failed(*told, suspicious=suspicious, worn=decision.worn)
        return Verdict("kept", passed=True, worn=decision.worn)

    def given_up(self, clip: Clip, decision: Decision | None, loss: Loss) -> Decision:
        """``failed``, with what the stage before had measured."""
        known = decision or Decision(clip, Kept())
        return dataclasses.replace(known, outcome=Failed(loss.stage, loss.error, f"{clip.path}: {_told(loss)}"))

    def write(self, block: int, decisions: list[Decision], samples: list[ray.ObjectRef]) -> ray.ObjectRef:
        """Start :func:`_write_block`, unless another driver has taken over."""
        self._watch.check()
        run = self._plan.record.config_fingerprint
        decisions, samples = _distinct(decisions, samples)
        return _write_block.remote(
            str(self._plan.out.absolute()), block, decisions, samples, run, self._plan.config.storage
        )

    def decided(self, _clip: Clip, decision: Decision) -> None:
        """For metrics and log; of a further window, what is its own."""
        outcome, clip = decision.outcome, decision.clip
        self._watch.spent(decision.wall_s)
        if decision.retries:
            self.progress.retries["fetch"] += decision.retries
        if decision.of_clip is None:
            self._watch.metrics.footage(decision.statistics.get("duration_s", 0.0))
        if isinstance(outcome, Failed):
            grave = outcome.error not in _BAD_FILES
            what = (outcome.stage, outcome.error, outcome.message)
            self._watch.failed(clip.clip_id, clip.source_key, *what, trace=decision.traceback, grave=grave)

    def committed(self, _block: int, shard_bytes: int) -> None:
        """For metrics."""
        self._watch.metrics.committed(shard_bytes)

    def _blocks_left(self) -> Iterator[tuple[int, list[Clip]]]:
        plan = self._plan
        for part, clips in enumerate(plan.manifest.blocks(plan.config.run.block_clips, plan.limit)):
            if part not in plan.done:
                yield part, clips

    def _seal(self) -> None:
        plan, blocks = self._plan, range(self._plan.record.manifest.blocks)
        try:
            shards = tuple(read_layer_file(plan.out, part) for part in blocks)
        except DamageError as error:
            raise UserError(
                f"{error}; delete the ledger fragment of the same number and run the same command again"
            ) from None
        ledger = tuple(hashlib.sha256(read_bytes(ledger_path(plan.out, part))).hexdigest() for part in blocks)
        plan.record.model_copy(update={"complete": True, "shards": shards, "ledger": ledger}).save(plan.out)


def _told(loss: Loss) -> str:
    worker, times, pool = f"the {loss.stage} worker", f"{loss.times} times over this clip", f"run.{loss.stage}"
    if loss.error == "DeadlineExceeded":
        return (
            f"{worker} was not done by its deadline, {times}; raise {pool}.deadline_s, or remove it from the manifest"
        )
    if loss.error == "MemoryLimitError":
        return f"{worker} grew beyond {pool}.memory_mib {times}; raise it, or remove the clip from the manifest"
    if loss.error in ("WorkerDied", "NodeLost"):
        return f"{worker} was lost {times}; re-encode it or remove it from the manifest"
    return f"{worker} met a {loss.error} {times}; mend the machine, delete the ledger fragment of its block, run again"


def _options(pool: PoolConfig) -> dict[str, Any]:
    return {"num_cpus": pool.cpus, "resources": pool.resources}


def _limited(worker: Any, pool: PoolConfig) -> Any:
    worker.__ray_call__.remote(_limit_memory, pool.memory_mib)
    return worker


def _limit_memory(_worker: object, mib: int) -> None:
    limit_memory(mib)


def _clips_done(plan: Plan) -> int:
    return sum(plan.record.manifest.block_rows(block) for block in plan.done)


def _finish(worker: Any, _clip: Clip, decision: Decision | None, draft: ray.ObjectRef | None) -> list[ray.ObjectRef]:
    return list(worker.finish.options(num_returns=2).remote(decision, draft))


def _distinct(decisions: list[Decision], samples: list[ray.ObjectRef]) -> tuple[list[Decision], list[ray.ObjectRef]]:
    """Without the further windows that are a clip of the block already: spans of a manifest may overlap."""
    kept = iter(samples)
    sample_of = [next(kept) if isinstance(decision.outcome, Kept) else None for decision in decisions]
    known = {decision.clip.clip_id for decision in decisions if decision.of_clip is None}
    chosen = []
    for i, decision in enumerate(decisions):
        if decision.of_clip is None or decision.clip.clip_id not in known:
            known.add(decision.clip.clip_id)
            chosen.append(i)
    return [decisions[i] for i in chosen], [ref for i in chosen if (ref := sample_of[i]) is not None]


# The pools reserve the CPUs; a writer that asked for one of its own might never be scheduled.
@ray.remote(num_cpus=0)
def _write_block(
    root: str, part: int, decisions: list[Decision], samples: list[ray.ObjectRef], run: str, storage: StorageConfig
) -> int:
    """Write shard, telemetry and, last, the ledger fragment of one block; returns the bytes of the shard.

    Samples are fetched one at a time.
    """
    kept = [decision.clip.clip_id for decision in decisions if isinstance(decision.outcome, Kept)]
    folder, fields = location(root), ((key, ray.get(ref)) for key, ref in zip(kept, samples, strict=True))
    with attempts(storage):
        layer = write_layer(folder, part, BASE_LAYER, fields)
        write_telemetry(folder, part, decisions)
        write_fragment(folder, part, decisions, run)
    return layer.bytes
