import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings

from curation.explain import explain
from curation.ledger import Decision
from curation.outcome import Failed, Rejected
from curation.rules import RULES
from faceloom.errors import UserError
from shards.dataset import ledger_path
from tests.curation.ledgers import decided, decisions, write_whole_dataset

Run = Callable[..., tuple[int, str, str]]


def verdicts(root: Path, clip: str) -> dict[str, str]:
    return {asked.rule: asked.verdict for asked in explain(root, clip).rules}


def test_every_rule_is_told_with_value_threshold_and_margin(dataset: Path) -> None:
    story = explain(dataset, "3.mp4")
    assert [asked.rule for asked in story.rules] == [rule.name for rule in RULES]
    asked = {asked.rule: asked for asked in story.rules}
    assert (asked["yaw"].value, asked["yaw"].threshold, asked["yaw"].margin) == (44.0, 45.0, 1.0)
    assert (asked["face_too_small"].value, asked["face_too_small"].margin) == (200.0, 136.0)
    assert {each.verdict for each in story.rules} == {"passed"}
    assert story.statistics["yaw_p95_deg"] == 44.0


def test_what_comes_after_the_rule_that_decided_was_not_reached(tmp_path: Path) -> None:
    rows = [decided(0, until="census", face_height_px=60.0), decided(1, face_height_px=60.0, until="window")]
    write_whole_dataset(tmp_path / "dataset", [rows])
    told = verdicts(tmp_path / "dataset", "0.mp4")
    assert (told["second_face"], told["face_too_small"], told["face_lost"]) == ("passed", "failed", "not reached")
    assert explain(tmp_path / "dataset", "0.mp4").outcome["rule"] == "face_too_small"
    # Of a clip that was measured on, for an audit, the later rules are told too.
    assert verdicts(tmp_path / "dataset", "1.mp4")["face_lost"] == "passed"


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(decisions())
def test_the_first_rule_that_failed_is_the_one_of_the_ledger(
    tmp_path_factory: pytest.TempPathFactory, row: Decision
) -> None:
    root = tmp_path_factory.mktemp("explain") / "dataset"
    write_whole_dataset(root, [[row]])
    failed = [asked for asked in explain(root, row.clip.clip_id).rules if asked.verdict == "failed"]
    if isinstance(row.outcome, Rejected):
        first = failed[0]
        assert Rejected(first.rule, first.value or 0.0, first.threshold or 0.0) == row.outcome
        assert first.margin is not None
        assert first.margin < 0
    else:
        assert failed == []


def test_a_sample_is_told_by_shard_position_and_bytes(dataset: Path, tmp_path: Path) -> None:
    story = explain(dataset, "1.mp4")
    (lies,) = story.sample
    assert (lies.layer, lies.position) == ("base", 1)
    part = (dataset / lies.file).read_bytes()[lies.offset : lies.offset + lies.nbytes]
    (tmp_path / "sample.tar").write_bytes(part)
    with tarfile.open(tmp_path / "sample.tar") as tar:
        names = tar.getnames()
    with tarfile.open(dataset / lies.file) as tar:
        assert names == [name for name in tar.getnames() if name.startswith(story.clip["clip_id"])]
    assert explain(dataset, "4.mp4").sample == ()


def test_cost_decoder_and_origin_are_told(tmp_path: Path) -> None:
    row = replace(
        decided(0), decoder="decord", wall_s={"probe": 0.5, "census": 2.0}, cpu_s={"probe": 0.25, "census": 1.0}
    )
    record = write_whole_dataset(tmp_path / "dataset", [[row]])
    story = explain(tmp_path / "dataset", row.clip.clip_id)
    assert (story.wall_s, story.cpu_s) == ({"probe": 0.5, "census": 2.0}, {"probe": 0.25, "census": 1.0})
    assert story.decoder == "decord"
    assert story.made_by == {
        "config": "the-run",
        "fields": {"video": "the-video"},
        "manifest": record.manifest.sha256,
    }
    assert (story.clip["path"], story.clip["licence"]) == ("/0.mp4", "unknown")


def test_a_failure_is_told_in_full(tmp_path: Path, run: Run) -> None:
    row = replace(decided(0), outcome=Failed("probe", "EmptyFileError", "/0.mp4 has zero [bytes]; download it again"))
    write_whole_dataset(tmp_path / "dataset", [[replace(row, statistics={})]])
    code, out, _ = run("explain", tmp_path / "dataset", "0.mp4")
    assert code == 0
    assert "failed in probe: EmptyFileError: /0.mp4 has zero [bytes]; download it again" in out
    assert "not reached" in out


def test_a_source_of_several_clips_is_asked_for_by_id(tmp_path: Path) -> None:
    first = decided(0)
    second = replace(decided(0), clip=replace(first.clip, t0_s=4.0, t1_s=9.5))
    write_whole_dataset(tmp_path / "dataset", [[first, second]])
    with pytest.raises(UserError, match=rf"2 clips .*{first.clip.clip_id} \(0 s to the end\), .*\(4 s to 9.5 s\)"):
        explain(tmp_path / "dataset", "0.mp4")
    assert explain(tmp_path / "dataset", second.clip.clip_id).clip["t0_s"] == 4.0


def test_a_clip_is_told_with_its_other_windows(dataset: Path) -> None:
    table = pq.read_table(ledger_path(dataset, 0))
    clips = table["clip_id"].to_pylist()
    for name, values in {
        "source_key": ["0.mp4", "0.mp4", "2.mp4"],
        "of_clip": [None, clips[0], None],
        "window": [0, 1, 0],
    }.items():
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))
    pq.write_table(table, ledger_path(dataset, 0))
    story = explain(dataset, "0.mp4")
    assert story.clip["clip_id"] == clips[0]
    assert [(each["clip_id"], each["window"], each["outcome"]) for each in story.windows] == [(clips[1], 1, "kept")]
    assert [each["clip_id"] for each in explain(dataset, clips[1]).windows] == [clips[0]]
    assert explain(dataset, "2.mp4").windows == ()


def test_an_unknown_clip_and_a_damaged_ledger_are_named(dataset: Path) -> None:
    with pytest.raises(UserError, match=r"no clip nobody\.mp4, by id or source key"):
        explain(dataset, "nobody.mp4")
    path = ledger_path(dataset, 1)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"part-00001\.parquet.*faceloom verify"):
        explain(dataset, "0.mp4")


def test_the_command_tells_a_person_or_a_program(dataset: Path, run: Run) -> None:
    code, out, _ = run("explain", dataset, "4.mp4")
    assert code == 0
    assert "rejected: yaw, 60 against 45" in out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
    assert ["yaw", "window", "failed", "60", "≤ 45", "-15"] in rows
    _, out, _ = run("explain", dataset, "4.mp4", "--json")
    story = json.loads(out)
    assert story["outcome"]["rule"] == "yaw"
    assert {"rule": "yaw", "margin": -15.0}.items() <= next(r for r in story["rules"] if r["rule"] == "yaw").items()
