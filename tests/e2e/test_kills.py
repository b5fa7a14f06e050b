"""Workers, nodes and drivers are killed, on a cluster of several raylets; ``bench.kills`` does it at length."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.kills import Attack, Raylets, Shot, Trial, check, raylets
from bench.witness import calls, in_hand, noted
from curation.sources import Clip
from tests.e2e.command import tree

pytestmark = pytest.mark.e2e


@pytest.fixture
def three_nodes() -> Iterator[Raylets]:
    """A head and two nodes of one CPU each, with object stores of their own."""
    with raylets() as cluster:
        yield cluster


def test_a_worker_two_nodes_and_the_driver_are_killed_and_the_bytes_are_those_of_an_undisturbed_run(
    three_nodes: Raylets, manifest: Path, undisturbed: Path, tmp_path: Path
) -> None:
    trial = Trial(tmp_path / "dataset")
    shots = [Shot(kind, 0.2) for kind in ("worker", "node, not replaced", "driver", "node, replaced")]

    Attack(three_nodes, manifest, seed=0).carry_out(trial, shots)
    check(trial, manifest, tree(undisturbed))

    assert shots == [], "the run ended before all were fired"
    assert trial.resumes == 1
    assert trial.faults == []


def test_notes_tell_what_a_worker_has_in_hand_also_while_its_file_is_still_empty(tmp_path: Path) -> None:
    clip = Clip("test", "a", "a.mp4")
    (tmp_path / "1.txt").touch()
    with noted(tmp_path, "face", clip):
        during = in_hand(tmp_path, os.getpid())
    with noted(tmp_path, "flow", clip):
        pass

    assert during is not None
    assert (during.stage, during.clip_id, during.ended) == ("face", clip.clip_id, False)
    assert in_hand(tmp_path, os.getpid()) is None
    assert in_hand(tmp_path, 1) is None
    assert [(call.stage, call.ended) for call in calls(tmp_path)] == [("face", True), ("flow", True)]
