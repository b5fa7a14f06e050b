"""File names reach the terminal as they are, whatever a markup language would make of them."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from curation.display import print_clips
from curation.ledger import Decision, read_ledger, write_fragment
from curation.outcome import Failed, Kept, Rejected
from curation.sources import Clip
from faceloom import cli
from faceloom.progress import Progress, progress_display
from shards.dataset import DatasetRecord, ManifestSummary

NAMES = ["Talk [dQw4w9WgXcQ].mp4", "a[/b].mp4", "[bold]loud.mp4", "x:cat:.mp4", "back\\[b].mp4"]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    root = tmp_path / "Set [x9] [/b]"
    outcomes = [Kept(), Rejected("motion", 0.2, 1.0), Failed("probe", "EmptyFileError", "[/i] has zero bytes")]
    clips = [Clip("set", name, f"/{name}") for name in NAMES]
    write_fragment(root, 0, [Decision(clip, outcomes[i % 3]) for i, clip in enumerate(clips)], "run")
    DatasetRecord(
        complete=False,
        config={},
        config_fingerprint="",
        fingerprints={},
        licences=(),
        manifest=ManifestSummary(sha256="", clips=len(NAMES), blocks=1, block_clips=len(NAMES)),
    ).save(root)
    return root


def test_clips_are_listed_by_their_names(dataset: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    print_clips(read_ledger(dataset), console)
    shown = console.file.getvalue()
    assert all(name in shown for name in NAMES)
    assert "[/i] has zero bytes" in shown


def test_the_status_of_a_folder_with_brackets_is_shown_by_its_name(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit) as stopped:
        cli.main(["status", str(dataset), "--clips"])
    shown = capsys.readouterr().out
    assert not stopped.value.code
    assert all(text in shown for text in [str(dataset), *NAMES])


@pytest.mark.parametrize("terminal", [True, False])
def test_a_clip_long_in_work_is_shown_by_its_name(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    monkeypatch.setattr("faceloom.progress._PLAIN_EVERY_S", 0.0)
    console = Console(file=io.StringIO(), width=200, force_terminal=terminal)
    for name in NAMES:
        with progress_display(console, "curating", ("kept",)) as report:
            report(Progress(clips=2, oldest=(name, 61.0)))
    assert all(name in console.file.getvalue() for name in NAMES)
