"""What the run makes of decisions before it writes them."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from curation.ledger import Decision
from curation.outcome import Failed, Kept, Rejected
from curation.run import Runner, _distinct
from curation.sources import Clip
from faceloom.engine import Loss
from faceloom.lease_file import lease_path
from faceloom.progress import Progress
from faceloom.watch import Watch

LONG, LONGER = (Clip("set", "a.mp4", "/a.mp4", 0.0, t1_s) for t1_s in (20.0, 30.0))
WINDOW = replace(LONG, t0_s=4.0, t1_s=8.083333)


def test_a_window_that_two_overlapping_spans_gave_is_written_once_with_its_sample() -> None:
    decisions = [
        Decision(LONG, Kept()),
        Decision(WINDOW, Kept(), of_clip=LONG.clip_id, window=1),
        Decision(LONGER, Rejected("motion", 0.5, 1.0)),
        Decision(LONGER, Kept()),
        Decision(WINDOW, Kept(), of_clip=LONGER.clip_id, window=1),
        Decision(replace(WINDOW, t0_s=9.0), Kept(), of_clip=LONGER.clip_id, window=2),
    ]
    samples: Any = ["a", "a1", "b", "b1", "b2"]
    chosen, kept = _distinct(decisions, samples)
    assert chosen == [*decisions[:4], decisions[5]]
    assert kept == ["a", "a1", "b", "b2"]


def test_a_window_that_is_a_clip_of_the_manifest_gives_way_to_it() -> None:
    decisions = [
        Decision(LONG, Kept()),
        Decision(WINDOW, Kept(), of_clip=LONG.clip_id, window=1),
        Decision(WINDOW, Kept()),
    ]
    samples: Any = ["a", "a1", "own"]
    assert _distinct(decisions, samples) == ([decisions[0], decisions[2]], ["a", "own"])


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        ("WorkerDied", "was lost 2 times over this clip; re-encode it"),
        ("DeadlineExceeded", "was not done by its deadline, 2 times over this clip; raise run.flow.deadline_s"),
        ("MemoryLimitError", "grew beyond run.flow.memory_mib 2 times over this clip; raise it"),
        ("OSError", "met a OSError 2 times over this clip; mend the machine"),
    ],
)
def test_a_window_that_is_given_up_has_failed_with_cause_and_remedy_and_keeps_what_was_measured(
    error: str, remedy: str
) -> None:
    known = Decision(WINDOW, Kept(), {"yaw_p95_deg": 3.0}, of_clip=LONG.clip_id, window=1)
    runner: Any = object.__new__(Runner)

    given_up = runner.given_up(LONG, known, Loss("flow", 2, error))

    assert isinstance(given_up.outcome, Failed)
    assert (given_up.outcome.stage, given_up.outcome.error) == ("flow", error)
    assert given_up.outcome.message.startswith(f"/a.mp4: the flow worker {remedy}")
    assert replace(given_up, outcome=Kept()) == known


@pytest.mark.parametrize(
    ("error", "level", "traced"), [("TruncatedVideoError", "INFO", False), ("ValueError", "WARNING", True)]
)
def test_a_failure_is_a_line_with_the_clips_id_and_with_its_place_unless_the_file_is_to_blame(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: str, level: str, traced: bool
) -> None:
    caplog.set_level("INFO", "faceloom")
    runner = Runner.__new__(Runner)  # its plan plays no part in this
    runner._watch = Watch("curate", lease_path(tmp_path), tmp_path, lambda _: None)
    runner.decided(LONG, Decision(LONG, Failed("census", error, "/a.mp4: broken"), traceback="Traceback …"))
    runner.decided(LONG, Decision(LONG, Rejected("motion", 0.5, 1.0)))

    line: Any
    (line,) = caplog.records
    assert line.levelname == level
    assert line.getMessage() == f"a.mp4 failed in census: {error}: /a.mp4: broken"
    assert (line.clip_id, line.clip, line.stage, line.cause) == (LONG.clip_id, "a.mp4", "census", error)
    assert line.traceback == ("Traceback …" if traced else None)


def test_sources_that_were_fetched_again_are_counted() -> None:
    runner: Any = object.__new__(Runner)
    runner.progress, runner._watch = Progress(clips=2), Mock()

    for retries in (2, 0, 1):
        runner.decided(LONG, Decision(LONG, Kept(), retries=retries))

    assert runner.progress.retries == {"fetch": 3}
