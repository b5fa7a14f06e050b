"""The Ray actors. One clip a call, so that a crash has exactly one suspect; an exception is a decision, not a crash.

An actor hands its samples on as encoded bytes of a few MB, never as frames.
"""

import os
import traceback
from logging import getLogger

import ray

from curation.config import CurationConfig
from curation.face_stage import Draft, FaceTools, Findings, examine
from curation.flow_stage import FlowTools, finish
from curation.ledger import Decision
from curation.outcome import Failed, Kept
from curation.sources import Clip
from curation.stages import StageClock
from faceloom.models import model_path

logger = getLogger(__name__)


class FaceStage:
    """Probe to sample video (CPU). Plain class, so that benchmarks and tests run the same code without Ray."""

    def __init__(self, config: CurationConfig, all_statistics: bool) -> None:
        self._config = config
        self._all_statistics = all_statistics
        self._tools = FaceTools.load(model_path("face_landmarker", "census"), config)

    def decide(self, clip: Clip) -> tuple[Decision, Draft | None]:
        """The decision and, for a clip that passed every rule so far, its draft."""
        clock, findings = StageClock(), Findings({})
        draft = None
        try:
            examine(clip, self._tools, self._config, findings, clock, self._all_statistics)
            outcome = findings.rejected or Kept()
            draft = findings.draft
        except Exception as error:
            outcome = _failure(clip, clock, error)
        return Decision(clip, outcome, findings.statistics, findings.decoder, clock.wall_s, clock.cpu_s), draft


class FlowStage:
    """Flow, face and reference of a draft (CPU or GPU)."""

    def __init__(self, config: CurationConfig) -> None:
        import torch

        # RAFT's last bits depend on the number of threads, so it belongs to the config, not to the machine.
        torch.set_num_threads(config.flow.threads)
        self._config = config
        self._tools = FlowTools.load(config)

    def finish(self, decision: Decision, draft: Draft) -> tuple[Decision, dict[str, bytes] | None]:
        """The final decision and the encoded fields of the sample."""
        clock = StageClock()
        statistics = dict(decision.statistics)
        outcome = decision.outcome
        fields = None
        try:
            fields = finish(draft, self._tools, self._config, statistics, clock)
        except Exception as error:
            outcome = _failure(decision.clip, clock, error)
        wall_s, cpu_s = decision.wall_s | clock.wall_s, decision.cpu_s | clock.cpu_s
        return Decision(decision.clip, outcome, statistics, decision.decoder, wall_s, cpu_s), fields


class _Identified:
    """What the runner asks of any actor, beside its work."""

    def pid(self) -> int:
        """The process, for a reader of the log; also tells that the models are loaded."""
        return os.getpid()


@ray.remote
class FaceWorker(FaceStage, _Identified):
    """:class:`FaceStage` as an actor; ``decide`` returns the draft as an object of its own."""

    @ray.method(num_returns=2)
    def decide(self, clip: Clip) -> tuple[Decision, Draft | None]:  # noqa: D102 - see FaceStage
        return super().decide(clip)


@ray.remote
class FlowWorker(FlowStage, _Identified):
    """:class:`FlowStage` as an actor; ``finish`` returns the sample as an object of its own."""

    @ray.method(num_returns=2)
    def finish(self, decision: Decision, draft: Draft) -> tuple[Decision, dict[str, bytes] | None]:  # noqa: D102
        return super().finish(decision, draft)


def _failure(clip: Clip, clock: StageClock, error: Exception) -> Failed:
    logger.warning(
        "clip %s (%s) failed in %s\n%s", clip.clip_id, clip.source_key, clock.current, traceback.format_exc()
    )
    message = str(error).strip() or repr(error)
    return Failed(clock.current, type(error).__name__, message)
