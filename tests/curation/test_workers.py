"""What a face worker makes of the windows of a clip; reading, models and encoding stand aside."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from curation import workers
from curation.candidates import Candidate, best_windows
from curation.config import CurationConfig
from curation.drafts import Draft
from curation.face_stage import Findings, Passed
from curation.ledger import Decision
from curation.outcome import Failed, Kept, Rejected
from curation.sampling import Sampling
from curation.sources import Clip
from curation.statistics import STATISTICS
from curation.workers import FaceStage
from tests.curation.test_rules import GOOD

CLIP = Clip("set", "a.mp4", "/a.mp4", t0_s=10.0, t1_s=40.0, person_id="ann", licence="CC0")
OF_WINDOW = {name for name, statistic in STATISTICS.items() if statistic.stage == "window"}
OF_CLIP = {name: value for name, value in GOOD.items() if STATISTICS[name].stage in ("probe", "census", "track")}


def candidate(start: int, **statistics: float) -> Candidate:
    nothing: Any = None
    return Candidate(start, start + 49, nothing, nothing, {name: GOOD[name] for name in OF_WINDOW} | statistics)


def passed(*windows: Candidate) -> Passed:
    """Of a source at 24 fps whose clock starts at 5 s; ``CLIP`` begins 10 s after that."""
    probed: Any = SimpleNamespace(pts_s=5 + np.arange(2400) / 24)
    reader: Any = SimpleNamespace(decoder="decord")
    times_s = 15 + np.arange(360) / 12
    return Passed(reader, probed, Sampling(np.arange(240, 960, 2), times_s, 12.0, 30.0), list(windows))


@pytest.fixture
def decide(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FaceStage]:
    """A face stage that finds what it is told to find, and whose drafts of windows starting at ``broken`` fail."""

    def stage(found: Passed | Rejected | Exception, broken: int | None = None, most: int = 4) -> FaceStage:
        def examine(clip: Clip, tools: object, config: object, findings: Findings, *_: object) -> None:
            findings.statistics |= OF_CLIP
            if isinstance(found, Exception):
                raise found
            if isinstance(found, Rejected):
                findings.rejected = found
            else:
                findings.statistics |= found.windows[0].statistics
                findings.passed = found

        def make_draft(
            clip: Clip, window: Candidate, passed: Passed, tools: object, config: object, clock: Any
        ) -> Draft:
            with clock.stage("crop"):
                if window.start == broken:
                    raise ValueError("a frame is missing")
            return Draft({}, {"clip_id": clip.clip_id})

        monkeypatch.setattr(workers, "examine", examine)
        monkeypatch.setattr(workers, "make_draft", make_draft)
        made = object.__new__(FaceStage)
        made._config = CurationConfig.model_validate({"window": {"most": most}})
        made._all_statistics = False
        made._tools = None  # type: ignore[assignment]
        return made

    return stage


def test_the_first_window_is_the_clip_of_the_manifest_and_each_other_a_clip_of_its_own_span(
    decide: Callable[..., FaceStage],
) -> None:
    found = passed(candidate(48, motion_score=2.0), candidate(0, motion_score=1.5), candidate(120, motion_score=1.0))

    decided = decide(found).decide(CLIP)

    first, second, third = (decision for decision, _ in decided)
    assert (first.clip, first.of_clip, first.window) == (CLIP, None, 0)
    # The source's first frame is time 0, so the span starts at 10 s and its 49 frames end 4 s and a frame later.
    assert (second.clip.t0_s, second.clip.t1_s) == pytest.approx((10.0, 14 + 1 / 12), abs=1e-6)
    assert (third.clip.t0_s, third.clip.t1_s) == pytest.approx((20.0, 24 + 1 / 12), abs=1e-6)
    assert [(d.of_clip, d.window) for d in (second, third)] == [(CLIP.clip_id, 1), (CLIP.clip_id, 2)]
    assert {d.clip.person_id for d in (second, third)} == {"ann"}
    assert [draft.meta["clip_id"] for _, draft in decided if draft] == [d.clip.clip_id for d, _ in decided]
    assert len({d.clip.clip_id for d, _ in decided}) == 3
    assert [d.statistics["motion_score"] for d, _ in decided] == [2.0, 1.5, 1.0]
    assert all(d.statistics["face_height_px"] == GOOD["face_height_px"] for d, _ in decided)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_window_whose_sample_cannot_be_made_fails_alone(decide: Callable[..., FaceStage], number: int) -> None:
    found = passed(candidate(48), candidate(0), candidate(120))

    decided = decide(found, broken=found.windows[number].start).decide(CLIP)

    outcome = decided[number][0].outcome
    assert isinstance(outcome, Failed)
    assert (outcome.stage, outcome.error) == ("crop", "ValueError")
    assert [(d.outcome, draft is not None, d.traceback) for i, (d, draft) in enumerate(decided) if i != number] == [
        (Kept(), True, None)
    ] * 2


def test_each_draft_is_handed_to_ray_by_itself_and_there_are_as_many_as_there_may_be(
    decide: Callable[..., FaceStage],
) -> None:
    decisions, *drafts = decide(passed(candidate(48), candidate(0)), most=3).decide_apart(CLIP)
    assert [draft and draft.meta["clip_id"] for draft in drafts] == [*(d.clip.clip_id for d in decisions), None]


@pytest.mark.parametrize("found", [Rejected("motion", 0.5, 1.0), ValueError("no moov atom")])
def test_a_clip_without_a_window_is_one_decision(decide: Callable[..., FaceStage], found: Rejected | Exception) -> None:
    (decisions, *drafts) = decide(found).decide_apart(CLIP)
    (decision,) = decisions
    assert isinstance(decision, Decision)
    assert (decision.clip, decision.of_clip, decision.window) == (CLIP, None, 0)
    assert decision.outcome == found if isinstance(found, Rejected) else isinstance(decision.outcome, Failed)
    assert (decision.traceback is None) == isinstance(found, Rejected)
    assert decision.traceback is None or decision.traceback.endswith("ValueError: no moov atom\n")
    assert drafts == [None] * 4


def windows(candidates: list[Candidate], most: int = 4) -> list[int]:
    config = CurationConfig.model_validate({"window": {"most": most}})
    return [window.start for window in best_windows(candidates, OF_CLIP, config)]


def test_a_window_that_breaks_a_rule_is_none_of_the_samples_however_much_it_moves() -> None:
    moving = candidate(0, motion_score=3.0, yaw_p95_deg=80.0)
    assert windows([moving, candidate(100, motion_score=1.0), candidate(200, motion_score=2.0)]) == [200, 100]
    assert windows([moving, candidate(10, motion_score=1.0)]) == [10], "and takes no other's place"


def test_of_windows_that_all_break_a_rule_the_one_that_moves_most_tells_why() -> None:
    candidates = [candidate(0, motion_score=0.1, yaw_p95_deg=80.0), candidate(100, motion_score=0.2, yaw_p95_deg=70.0)]
    assert windows(candidates) == [100]


def test_no_more_windows_are_kept_than_the_most() -> None:
    candidates = [candidate(50 * i, motion_score=1.0 + i / 10) for i in range(6)]
    assert windows(candidates, most=1) == [250]
    assert windows(candidates, most=4) == [250, 200, 150, 100]
