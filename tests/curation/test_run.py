"""What the run makes of decisions before it writes them."""

from dataclasses import replace
from typing import Any

from curation.ledger import Decision
from curation.outcome import Kept, Rejected
from curation.run import _distinct
from curation.sources import Clip

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
