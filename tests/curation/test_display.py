"""File names reach the terminal as they are, whatever a markup language would make of them."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from curation.display import outcome_table, print_clips
from curation.ledger import Decision, manifest_rows, read_ledger, write_fragment
from curation.outcome import Failed, Kept, Rejected
from curation.sources import Clip
from faceloom.progress import Oldest, Progress, progress_display
from tests.conftest import Run
from tests.curation.datasets import record_of

NAMES = ["Talk [dQw4w9WgXcQ].mp4", "a[/b].mp4", "[bold]loud.mp4", "x:cat:.mp4", "back\\[b].mp4"]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    root = tmp_path / "Set [x9] [/b]"
    outcomes = [Kept(), Rejected("motion", 0.2, 1.0), Failed("probe", "EmptyFileError", "[/i] has zero bytes")]
    clips = [Clip("set", name, f"/{name}") for name in NAMES]
    write_fragment(root, 0, [Decision(clip, outcomes[i % 3]) for i, clip in enumerate(clips)], "run")
    record_of(len(NAMES), complete=False).save(root)
    return root


def test_clips_are_listed_by_their_names(dataset: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    print_clips(read_ledger(dataset), console)
    shown = console.file.getvalue()
    assert all(name in shown for name in NAMES)
    assert "[/i] has zero bytes" in shown


def test_the_status_of_a_folder_with_brackets_is_shown_by_its_name(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    code, shown, _ = run("status", dataset, "--clips")
    assert not code
    assert all(text in shown for text in [str(dataset), *NAMES])


@pytest.mark.parametrize("terminal", [True, False])
def test_a_clip_long_in_work_is_shown_by_its_name(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    monkeypatch.setattr("faceloom.progress._PLAIN_EVERY_S", 0.0)
    console = Console(file=io.StringIO(), width=200, force_terminal=terminal)
    for name in NAMES:
        with progress_display(console, "curating") as report:
            report(Progress(clips=2, oldest=Oldest(name, "id", "face", 61.0)))
    assert all(name in console.file.getvalue() for name in NAMES)


@pytest.fixture
def two_samples(tmp_path: Path) -> Path:
    """Two clips of the manifest; the first has two further windows, of which one has failed."""
    clips = [Clip("set", "long.mp4", "/long.mp4"), Clip("set", "still.mp4", "/still.mp4")]
    windows = [Clip("set", "long.mp4", "/long.mp4", t0, t0 + 4.0) for t0 in (8.0, 20.5)]
    decisions = [
        Decision(clips[0], Kept()),
        Decision(windows[0], Kept(), of_clip=clips[0].clip_id, window=1),
        Decision(windows[1], Failed("flow", "WorkerDied", "lost"), of_clip=clips[0].clip_id, window=2),
        Decision(clips[1], Rejected("motion", 0.2, 1.0)),
    ]
    write_fragment(tmp_path, 0, decisions, "run")
    record_of(2).save(tmp_path)
    return tmp_path


def test_clips_are_counted_once_and_their_further_windows_beside_them(two_samples: Path) -> None:
    ledger = read_ledger(two_samples)
    assert manifest_rows(ledger)["source_key"].to_pylist() == ["long.mp4", "still.mp4"]
    console = Console(file=io.StringIO(), width=200)
    console.print(outcome_table(ledger))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in console.file.getvalue().splitlines()]
    assert [row for row in rows if row] == [
        ["kept", "", "1", "1"],
        ["rejected", "motion", "1", "0"],
        ["failed", "WorkerDied", "0", "1"],
    ]


def test_a_further_window_is_listed_by_its_number_and_span(two_samples: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    print_clips(read_ledger(two_samples), console)
    assert "long.mp4, window 2, 20.50 to 24.50 s" in console.file.getvalue()


def test_the_status_counts_clips_of_the_manifest_and_samples(two_samples: Path, run: Run) -> None:
    shown = json.loads(run("status", two_samples, "--json")[1])
    assert (shown["clips"], shown["decided"], shown["samples"]) == (2, 2, 2)
    assert [(row["outcome"], row["clips"]) for row in shown["outcomes"]] == [("kept", 1), ("rejected", 1)]
