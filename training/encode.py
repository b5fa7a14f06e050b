"""The encoding run: one pool of encoders, one tar and one ledger fragment a part of the base.

A sample goes to an encoder; when all samples of a part are encoded or have failed, the part's tar is written, then its ledger
fragment, which commits it. Calls, deaths and memory are the business of :mod:`faceloom.engine`.
"""

import hashlib
import math
from collections.abc import Callable
from typing import Any

import ray

from faceloom.engine import Engine, Loss
from faceloom.errors import UserError
from faceloom.lease_file import lease_path
from faceloom.location import location
from faceloom.pool import Stage, Verdict
from faceloom.progress import Progress
from faceloom.watch import Watch
from shards.dataset import SHARD_FOLDER
from shards.layers import layer_ledger_path, layer_record_path
from shards.storage import is_temporary, read_bytes
from shards.writer import write_layer
from training.encode_ledger import write_fragment
from training.encode_plan import EncodePlan, layer_files, pool_size
from training.encoder import BaseSample, Encoded, EncodeWorker, Failure


class EncodeRunner:
    """Carries out an :class:`EncodePlan` on the Ray cluster that this process is connected to; the engine's procedure."""

    def __init__(self, plan: EncodePlan, workers: int, report: Callable[[Progress], None]) -> None:
        self._plan = plan
        self._workers = workers
        self._watch = Watch("encode", lease_path(plan.dataset, plan.record.layer), plan.dataset, report)
        self.progress = Progress(clips=plan.samples, decided=plan.samples_done)

    def run(self) -> Progress:
        """Encode every part that has no ledger fragment, then seal the layer. Returns the final progress.

        Raises :class:`UserError` when another driver makes this layer, when encoders cannot start, the base cannot be read or
        the layer cannot be written; what was committed stays, and the same command goes on from there.
        """
        with self._watch:
            self._run()
        return self.progress

    def _run(self) -> None:
        plan = self._plan
        try:
            self._remove_temporaries()
            plan.record.model_copy(update={"complete": False, "shards": (), "ledger": ()}).save(plan.dataset)
        except OSError as error:
            raise UserError(f"cannot write to {plan.dataset}: {error.strerror}; mend its rights or make room") from None
        if len(plan.done) < len(plan.parts):
            self._engine().run()
        self._watch.check()
        self._seal()

    def name(self, sample: BaseSample) -> str:
        """Its clip id."""
        return sample.clip_id

    def identity(self, sample: BaseSample) -> str:
        """Its clip id."""
        return sample.clip_id

    def verdict(self, result: Encoded) -> Verdict:
        """A failure of which the sample's bytes are not proven guilty may be its worker's."""
        failure = result.failure
        if failure is None:
            return Verdict("encoded", passed=True)
        return Verdict.failed(failure.stage, failure.error, failure.message, suspicious=not failure.of_sample)

    def given_up(self, sample: BaseSample, _result: Encoded | None, loss: Loss) -> Encoded:
        """``failed``."""
        what = "had not finished in time" if loss.error == "DeadlineExceeded" else "was lost"
        message = f"the {loss.stage} {what} {loss.times} times over this sample"
        return Encoded(sample.clip_id, Failure(loss.stage, loss.error, message))

    def write(self, block: int, results: list[Encoded], payloads: list[ray.ObjectRef]) -> ray.ObjectRef:
        """Start :func:`_write_part`, unless another driver has taken over."""
        self._watch.check()
        plan = self._plan
        root = str(plan.dataset.absolute())
        return _write_part_task.remote(root, plan.record.layer, block, results, payloads, plan.record.run)

    def decided(self, sample: BaseSample, result: Encoded) -> None:
        """For the log."""
        failure = result.failure
        if failure is not None:
            what = (failure.stage, failure.error, failure.message)
            grave = not failure.of_sample
            self._watch.failed(sample.clip_id, sample.clip_id, *what, trace=result.traceback, grave=grave)

    def committed(self, _part: int, tar_bytes: int) -> None:
        """For metrics."""
        self._watch.metrics.committed(tar_bytes)

    def _engine(self) -> Engine[BaseSample, Encoded]:
        plan, run = self._plan, self._plan.config.run
        settings = ray.put(plan.config)
        root = str(plan.dataset.absolute())

        def encoder() -> Any:
            worker = EncodeWorker.options(num_cpus=run.cpus, num_gpus=run.gpus)
            return worker.remote(root, settings, plan.backend, plan.codec_fingerprint)

        stage: Stage[BaseSample, Encoded] = Stage(
            "encoder", self._workers, encoder, _encode, deadline_s=run.deadline_s, needs=run.needs
        )
        return Engine(
            self,
            (stage,),
            plan.blocks_left(),
            item_mib=math.ceil(plan.sample_nbytes / 2**20),
            held_mib=run.held_mib,
            where=str(plan.dataset),
            progress=self.progress,
            report=self._watch.report,
            sizes=lambda resources: [pool_size(run, resources)],
            wait_s=run.wait_s,
        )

    def _remove_temporaries(self) -> None:
        """What a death left of this layer; another layer may be in the making at the same time."""
        plan = self._plan
        layer = plan.record.layer
        ledger = layer_ledger_path(plan.dataset, layer, 0).parent
        leftovers = [*(plan.dataset / SHARD_FOLDER).glob(f".part-*.{layer}.*"), *ledger.glob(".part-*")]
        leftovers += layer_record_path(plan.dataset, layer).parent.glob(f".{layer}.json.*")
        for path in leftovers:
            if is_temporary(path):
                path.unlink(missing_ok=True)

    def _seal(self) -> None:
        plan = self._plan
        files = layer_files(plan)
        fragments = [layer_ledger_path(plan.dataset, plan.record.layer, part) for part in plan.parts]
        ledger = tuple(hashlib.sha256(read_bytes(fragment)).hexdigest() for fragment in fragments)
        plan.record.model_copy(update={"complete": True, "shards": files, "ledger": ledger}).save(plan.dataset)


def _encode(worker: Any, sample: BaseSample, _result: Encoded | None, _payload: ray.ObjectRef | None) -> Any:
    return worker.encode.options(num_returns=2).remote(sample)


def _write_part(
    root: str, layer: str, part: int, results: list[Encoded], payloads: list[ray.ObjectRef], run: str
) -> int:
    """Write tar, index and, last, the ledger fragment of one part; returns the bytes of the tar.

    Latents are fetched one sample at a time.
    """
    encoded = [result.clip_id for result in results if result.failure is None]
    folder = location(root)
    made = write_layer(folder, part, layer, ((key, ray.get(ref)) for key, ref in zip(encoded, payloads, strict=True)))
    write_fragment(folder, layer, part, results, run)
    return made.bytes


# The pool reserves the CPUs; a writer that asked for one of its own might never be scheduled.
_write_part_task: Any = ray.remote(num_cpus=0)(_write_part)
