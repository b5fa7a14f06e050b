"""The two stages as classes that keep their models, and the Ray actors made of them.

One clip a call, and from then on one window of it, so that a crash has exactly one suspect; an exception is a decision, not
a crash. An actor hands its samples on as encoded bytes of a few MB, never as frames.
"""

import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import ray

from curation.config import CurationConfig
from curation.drafts import Draft
from curation.face_stage import FaceTools, Findings, Passed, examine, make_draft
from curation.fetch import LocalSource
from curation.flow_stage import FlowTools, finish
from curation.ledger import Decision
from curation.outcome import Failed, Kept, Outcome
from curation.sampling import pixels_in_span
from curation.sources import Clip
from curation.stages import StageClock
from curation.video import Probe, probe
from curation.weights import face_weights, flow_weights
from faceloom.engine import machine_is_at_fault
from faceloom.memory import resident_mib
from faceloom.models import model_path
from faceloom.node_models import bring_to_node


class FaceStage:
    """Probe to sample video (CPU)."""

    _opened: tuple[LocalSource, Probe | None, StageClock] | None = None
    """The clip whose size was asked for, so that its file is not fetched and its container not read twice."""

    def __init__(self, config: CurationConfig, all_statistics: bool = False) -> None:
        # Workers are parallel already; threads of their own would only get in each other's way.
        cv2.setNumThreads(1)
        if config.landmarks.backend == "smirk" or config.census.detector != "blazeface":
            import torch

            torch.set_num_threads(1)  # also because a network's last bits may depend on it
        self._config = config
        self._all_statistics = all_statistics
        bring_to_node(face_weights(config))
        self._tools = FaceTools.load(model_path("face_landmarker", "census"), config)

    def allowance_s(self, clip: Clip) -> float:
        """Seconds that :meth:`decide` may take for the size of ``clip``, which is known only to who has opened it."""
        clock = StageClock()
        if self._opened is not None:
            self._opened[0].close()
        source = LocalSource(clip, self._config.storage)
        self._opened = source, None, clock
        try:
            path = source.path(clock)
            with clock.stage("probe"):
                probed = probe(path)
            pixels = pixels_in_span(probed, clip)
        except Exception:
            return clock.wall_s.get("fetch", 0.0)  # decide() meets it again, and says what it is
        self._opened = source, probed, clock
        return clock.wall_s.get("fetch", 0.0) + pixels / 1e9 * self._config.run.face.deadline_s_per_gigapixel

    def decide(self, clip: Clip) -> list[tuple[Decision, Draft | None]]:
        """The decision; for a clip that passed every rule so far, one for each window to keep, with its draft."""
        source, probed, clock = LocalSource(clip, self._config.storage), None, StageClock()
        if self._opened is not None and self._opened[0].clip == clip:
            source, probed, clock = self._opened
            self._opened = None
        try:
            (first, draft), *others = self._decide(source, probed, clock)
            return [(replace(first, retries=source.retries), draft), *others]
        finally:
            source.close()

    def _decide(
        self, source: LocalSource, probed: Probe | None, clock: StageClock
    ) -> list[tuple[Decision, Draft | None]]:
        clip, findings = source.clip, Findings({})
        try:
            path = source.path(clock)
            examine(clip, self._tools, self._config, findings, clock, self._all_statistics, probed, path)
        except Exception as error:
            if machine_is_at_fault(error):
                raise  # the engine tries the clip in another worker
            # What is measured after a rule has failed, for --all-statistics, decides nothing.
            outcome = findings.rejected or _failure(clip, clock, error, source.told)
            return [(_decision(clip, outcome, findings, clock), None)]
        if findings.passed is None:
            assert findings.rejected is not None
            return [(_decision(clip, findings.rejected, findings, clock), None)]
        passed = findings.passed
        return [
            self._draft(source, number, passed, findings, StageClock() if number else clock)
            for number in range(len(passed.windows))
        ]

    def decide_apart(self, clip: Clip) -> list[Any]:
        """As :meth:`decide`, for Ray to make objects of: the decisions, then each draft, None up to ``window.most``."""
        decided = self.decide(clip)
        drafts = [draft for _, draft in decided]
        worn = resident_mib() > self._config.run.face.recycle_mib
        return [
            [replace(decision, worn=worn) for decision, _ in decided],
            *drafts,
            *[None] * (self._config.window.most - len(drafts)),
        ]

    def _draft(
        self, source: LocalSource, number: int, passed: Passed, findings: Findings, clock: StageClock
    ) -> tuple[Decision, Draft | None]:
        """One window's decision and draft; that it fails is nothing to the others."""
        manifest_clip = source.clip
        clip, window = passed.clip_of(manifest_clip, number), passed.windows[number]
        draft = None
        outcome: Outcome = Kept()
        try:
            draft = make_draft(clip, window, passed, self._tools, self._config, clock)
        except Exception as error:
            if machine_is_at_fault(error):
                raise
            outcome = _failure(clip, clock, error, source.told)
        findings.decoder = passed.reader.decoder
        decision = _decision(clip, outcome, findings, clock)
        if number:
            statistics = findings.statistics | window.statistics
            decision = replace(decision, statistics=statistics, of_clip=manifest_clip.clip_id, window=number)
        return decision, draft


class FlowStage:
    """Flow, face and reference of a draft (CPU or GPU)."""

    def __init__(self, config: CurationConfig) -> None:
        import torch

        cv2.setNumThreads(1)
        # RAFT's last bits depend on the number of threads, so it belongs to the config, not to the machine.
        torch.set_num_threads(config.flow.threads)
        self._config = config
        bring_to_node(flow_weights(config))
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
            if machine_is_at_fault(error):
                raise  # the engine tries the clip in another worker
            outcome = _failure(decision.clip, clock, error)
        wall_s, cpu_s = decision.wall_s | clock.wall_s, decision.cpu_s | clock.cpu_s
        worn = resident_mib() > self._config.run.flow.recycle_mib
        decided = replace(decision, outcome=outcome, statistics=statistics, wall_s=wall_s, cpu_s=cpu_s)
        return replace(decided, worn=worn, traceback=clock.traceback), fields


# As actors; ``decide_apart`` and ``finish`` are called with ``num_returns``, so that every payload is an object of its own.
FaceWorker: Any = ray.remote(FaceStage)
FlowWorker: Any = ray.remote(FlowStage)


def _decision(clip: Clip, outcome: Outcome, findings: Findings, clock: StageClock) -> Decision:
    return Decision(
        *(clip, outcome, findings.statistics, findings.decoder, clock.wall_s, clock.cpu_s), traceback=clock.traceback
    )


def _failure(clip: Clip, clock: StageClock, error: Exception, told: Callable[[str], str] = str) -> Failed:
    """``told`` says of a text what may be kept of it."""
    clock.traceback = told(traceback.format_exc())  # for the driver's log
    message = told(str(error).strip() or repr(error))
    if clip.path not in message:
        message = f"{clip.path}: {message}"
    return Failed(clock.current, type(error).__name__, message)
