from pathlib import Path

import duckdb
import pytest

from curation.ledger import SCHEMA, Decision, read_ledger, write_fragment
from curation.outcome import Kept, Rejected
from curation.sources import Clip, label_text
from faceloom.errors import UserError
from shards.dataset import ledger_path

DECISIONS = [Decision(Clip("set", "a.mp4", "/a.mp4"), Kept()), Decision(Clip("set", "b.mp4", "/b.mp4"), Kept())]


def test_fragments_are_read_in_the_order_of_the_manifest(tmp_path: Path) -> None:
    for part, decision in enumerate([DECISIONS[0], Decision(DECISIONS[1].clip, Rejected("motion", 0.2, 1.0))]):
        write_fragment(tmp_path, part, [decision], "run")
    assert read_ledger(tmp_path, ["source_key", "outcome"]).to_pylist() == [
        {"source_key": "a.mp4", "outcome": "kept"},
        {"source_key": "b.mp4", "outcome": "rejected"},
    ]


def test_without_a_fragment_the_ledger_is_empty(tmp_path: Path) -> None:
    assert read_ledger(tmp_path).schema.names == SCHEMA.names
    assert read_ledger(tmp_path, ["outcome"]).shape == (0, 1)


@pytest.mark.parametrize("size", [0, 3, 200, -1])
def test_a_torn_fragment_is_named_with_the_remedy(tmp_path: Path, size: int) -> None:
    write_fragment(tmp_path, 0, DECISIONS, "run")
    write_fragment(tmp_path, 1, DECISIONS, "run")
    torn = ledger_path(tmp_path, 1)
    torn.write_bytes(torn.read_bytes()[:size])
    with pytest.raises(UserError, match=rf"{torn}.*delete it and run the same `faceloom curate` command again"):
        read_ledger(tmp_path)


def test_a_fragment_of_other_bytes_is_named(tmp_path: Path) -> None:
    write_fragment(tmp_path, 0, DECISIONS, "run")
    path = ledger_path(tmp_path, 0)
    data = bytearray(path.read_bytes())
    data[4 : len(data) // 2] = bytes(len(data) // 2 - 4)
    path.write_bytes(data)
    with pytest.raises(UserError, match=str(path)):
        read_ledger(tmp_path)


def test_what_a_dataset_says_of_a_clip_is_in_the_ledger_too(tmp_path: Path) -> None:
    clip = Clip("set", "a.mp4", "/a.mp4", person_id="ann", single_shot=True, labels=label_text(emotion="happy"))
    write_fragment(tmp_path, 0, [Decision(clip, Kept())], "run")
    happy = duckdb.read_parquet(str(ledger_path(tmp_path, 0))).filter("labels->>'emotion' = 'happy' AND single_shot")
    assert happy.project("person_id").fetchall() == [("ann",)]
