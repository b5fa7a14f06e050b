"""How far a run is, in words and numbers."""

import io
import json
from collections import Counter
from typing import Any

import pytest
from rich.console import Console

from faceloom.progress import Oldest, Pace, Progress, describe, duration, progress_display


def under_way(**changes: Any) -> Progress:
    """400 of 1000 clips, 100 of them decided by earlier runs; 1 clip/s at first, 2 clips/s in the last five minutes."""
    progress = Progress(clips=1000, decided=400)
    for now in range(401):
        progress.pace.note(100 + min(now, 100) + 2 * max(0, now - 100), float(now))
    for name, value in changes.items():
        setattr(progress, name, value)
    return progress


def test_the_pace_counts_what_this_run_decided_and_the_rest_is_timed_by_the_last_five_minutes() -> None:
    state = under_way().state()
    assert (state["clips_per_s"], state["clips_per_s_overall"]) == (2.0, 700 / 400)
    assert state["left_s"] == 600 / 2.0


def test_a_run_that_stands_still_has_no_time_left_to_tell() -> None:
    pace = Pace()
    for now in range(400):
        pace.note(7, float(now))
    assert (pace.recent, pace.overall) == (0.0, 0.0)
    progress = Progress(clips=10, decided=7, pace=pace)
    assert progress.state()["left_s"] is None
    assert describe(progress.state())[0] == "0 clips/s"


def test_a_block_that_is_done_anew_does_not_make_the_pace_negative() -> None:
    pace = Pace()
    pace.note(50, 0.0)
    pace.note(20, 10.0)
    assert pace.recent == 0.0


def test_before_anything_came_there_is_no_pace() -> None:
    assert describe(Progress(clips=5).state()) == []


def test_before_a_worker_has_loaded_its_models_that_is_said() -> None:
    assert describe(Progress(clips=5, workers={"face": 0, "flow": 0}).state()) == ["no worker is ready yet"]
    assert describe(Progress(clips=5, workers={"face": 1, "flow": 0}).state()) == []


def test_a_pace_keeps_few_points_however_often_it_is_told() -> None:
    pace = Pace()
    for tick in range(100_000):
        pace.note(tick, tick / 100)
    assert len(pace._recent) <= 301


def test_all_that_matters_is_told_in_a_few_lines() -> None:
    progress = under_way(
        outcomes=Counter(
            {
                "kept": 90,
                "rejected: motion": 150,
                "rejected: yaw": 40,
                "failed: EmptyFileError": 20,
                "rejected: roll": 1,
            }
        ),
        in_work={"face": 8, "flow": 0},
        oldest=Oldest("hdtf:a.mp4", "3f2a", "face", 75.0),
        losses=Counter({"face: WorkerDied": 2, "flow: DeadlineExceeded": 1}),
        retries=Counter({"face": 2}),
        recycled={"face": 3, "flow": 1},
        waiting={"flow": "it needs 1 GPU, and the cluster has 0"},
    )
    assert describe(progress.state()) == [
        "2 clips/s (1.75 clips/s since the start), 5 min left",
        "90 kept, 191 rejected, 20 failed; most often: motion 150, yaw 40, EmptyFileError 20",
        "8 in face work, longest: hdtf:a.mp4, 1 min 15 s in face",
        "3 workers lost (face: WorkerDied 2, flow: DeadlineExceeded 1), 2 tries again, 4 workers recycled",
        "no flow worker yet: it needs 1 GPU, and the cluster has 0",
    ]


def test_the_state_is_told_the_same_from_json() -> None:
    state = under_way(oldest=Oldest("a", "b", "face", 1.0), outcomes=Counter(kept=1)).state()
    assert describe(json.loads(json.dumps(state))) == describe(state)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.4, "0 s"), (59.6, "1 min"), (725, "12 min 5 s"), (7200, "2 h"), (12_000, "3 h 20 min"), (187_200, "2 d 4 h")],
)
def test_a_duration_is_told_in_its_two_largest_units(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_without_a_terminal_there_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    clock = [0.0]
    monkeypatch.setattr("faceloom.progress.time.monotonic", lambda: clock[0])
    with progress_display(Console(file=written, width=40), "curating") as show:
        for clock[0] in (1.0, 9.0, 11.0, 12.0, 22.0):
            show(under_way(outcomes=Counter({"kept": 2, "failed: [odd]": 1})))
    lines = written.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("curating: 400 of 1000 clips; 2 clips/s")
    assert lines[0].endswith("2 kept, 1 failed; most often: [odd] 1")


def test_on_a_terminal_the_last_picture_shows_bar_and_lines() -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=100)
    with progress_display(console, "curating") as show:
        show(under_way(oldest=Oldest("[red]a.mp4", "b", "face", 3.0)))
    last = written.getvalue()
    assert "400/1000" in last
    assert "longest: [red]a.mp4, 3 s in face" in last
