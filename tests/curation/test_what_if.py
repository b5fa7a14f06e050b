import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.config import CurationConfig
from curation.ledger import Decision
from curation.outcome import Rejected
from curation.rules import RULES
from curation.what_if import WhatIf, what_if
from shards.dataset import DatasetRecord
from tests.curation.ledgers import CONFIG, decided, ledgers, table_of

Run = Callable[..., tuple[int, str, str]]

# Thresholds and nothing else, as (setting, stricter, looser).
THRESHOLDS = [
    ("motion.max_yaw_deg", 10, 90),
    ("motion.max_pitch_deg", 4, 90),
    ("motion.min_head_range_deg", 60, 0.1),
    ("character.min_face_px", 500, 1),
    ("character.max_face_frame_share", 0.1, 1),
    ("crop.max_pad_share", -1, 1),
    ("video.max_repeated_share", -1, 1),
]


def with_settings(*settings: tuple[str, Any]) -> CurationConfig:
    tree: dict[str, dict[str, Any]] = {}
    for path, value in settings:
        section, name = path.split(".")
        tree.setdefault(section, {})[name] = value
    return CurationConfig.model_validate(tree)


def asked(decision: Decision, *settings: tuple[str, Any]) -> WhatIf:
    return what_if(table_of([decision]), CONFIG, with_settings(*settings))


def now_of(result: WhatIf) -> str:
    [(outcome, rule)] = [label for label, clips in result.funnel(result.now).items() if clips]
    return f"{outcome} {rule}".strip()


@settings(max_examples=50)
@given(ledgers, st.lists(st.sampled_from(THRESHOLDS), max_size=3, unique=True), st.booleans())
def test_the_funnels_add_up_to_the_manifest(rows: list[Decision], moved: list[tuple[str, Any, Any]], up: bool) -> None:
    result = what_if(table_of(rows), CONFIG, with_settings(*((name, a if up else b) for name, a, b in moved)))
    for decisions in (result.before, result.now):
        assert sum(result.funnel(decisions).values()) == len(rows)
    moves, then, now = result.moves(), result.funnel(result.before), result.funnel(result.now)
    for label in then.keys() | now.keys():
        gone = sum(clips for (a, _), clips in moves.items() if a == label)
        come = sum(clips for (_, b), clips in moves.items() if b == label)
        assert then.get(label, 0) - gone + come == now.get(label, 0)


@settings(max_examples=50)
@given(ledgers)
def test_under_the_same_configuration_nothing_moves(rows: list[Decision]) -> None:
    result = what_if(table_of(rows), CONFIG, CONFIG)
    assert result.affected == ()
    assert result.moves() == {}
    assert not result.recompute.any()
    expected: dict[tuple[str, str], int] = {}
    for row in rows:
        name = type(row.outcome).__name__.lower()
        label = (name, row.outcome.rule if isinstance(row.outcome, Rejected) else "")
        expected[label] = expected.get(label, 0) + 1
    assert {label: clips for label, clips in result.funnel(result.now).items() if clips} == expected


@settings(max_examples=50)
@given(ledgers, st.sampled_from(THRESHOLDS))
def test_a_threshold_moves_clips_one_way_only(rows: list[Decision], threshold: tuple[str, Any, Any]) -> None:
    name, stricter, looser = threshold
    table = table_of(rows)
    strict = what_if(table, CONFIG, with_settings((name, stricter)))
    loose = what_if(table, CONFIG, with_settings((name, looser)))
    assert all(b[0] == "rejected" for _, b in strict.moves())
    assert all(a[0] == "rejected" for a, _ in loose.moves())
    # Nothing that a looser threshold rejects is kept by a stricter one.
    rejected = loose.now.outcome == 1
    assert (strict.now.outcome[rejected] == 1).all()


def test_a_clip_that_lacks_its_sample_only_is_told_from_one_that_was_not_measured() -> None:
    seen = asked(decided(until="window", yaw_p95_deg=50.0), ("motion.max_yaw_deg", 60))
    unseen = asked(decided(until="census", face_height_px=60.0), ("character.min_face_px", 50))
    assert now_of(seen) == now_of(unseen) == "unknown"
    assert (seen.count(seen.would_be_kept), seen.count(seen.not_measured)) == (1, 0)
    assert (unseen.count(unseen.would_be_kept), unseen.count(unseen.not_measured)) == (0, 1)
    assert seen.recompute.all()
    assert unseen.recompute.all()


def test_what_not_even_the_kept_clips_have_is_not_missed() -> None:
    table = table_of([decided(), decided(until="window", yaw_p95_deg=50.0)])
    table = table.set_column(table.schema.names.index("pad_share"), "pad_share", pa.nulls(2, pa.float64()))
    result = what_if(table, CONFIG, with_settings(("motion.max_yaw_deg", 60)))
    assert result.would_be_kept.tolist() == [False, True]


@pytest.mark.parametrize(
    ("setting", "changed", "outcome"),
    [
        (("census.fps", 4), {}, "unknown"),
        (("census.fps", 4), {"duration_s": 1.0}, "rejected too_short"),
        (("census.fps", 4), {"face_height_px": 10.0}, "unknown"),
        (("shots.min_content", 12), {"face_height_px": 10.0}, "rejected face_too_small"),
        (("shots.min_content", 12), {"yaw_p95_deg": 50.0}, "unknown"),
        (("crop.mode", "wide"), {}, "unknown"),
        (("crop.mode", "wide"), {"yaw_p95_deg": 50.0}, "rejected yaw"),
        (("window.min_frames", 40), {"duration_s": 3.0}, "rejected too_short"),
        (("window.min_frames", 40), {}, "unknown"),
        (("character.max_gap", 2), {"found_share": 1.0}, "kept"),
        (("character.max_gap", 2), {"found_share": 0.97}, "unknown"),
        (("crop.max_upscale", 2), {"upscale": 1.0}, "kept"),
        (("crop.max_upscale", 0.9), {"upscale": 1.0}, "unknown"),
        (("flow.scale", 0.5), {}, "kept"),
        (("run.block_clips", 8), {}, "kept"),
    ],
)
def test_what_a_setting_makes_stale_is_no_longer_known(
    setting: tuple[str, Any], changed: dict[str, float], outcome: str
) -> None:
    assert now_of(asked(decided(**changed), setting)) == outcome


def test_a_window_that_was_not_recorded_may_pass_where_a_rule_asks_for_less() -> None:
    rejected = decided(until="window", yaw_p95_deg=60.0, windows=3.0)
    assert asked(rejected, ("motion.max_yaw_deg", 50)).other_window.all()
    assert not asked(rejected, ("motion.max_yaw_deg", 40)).other_window.any()
    assert not asked(rejected, ("motion.max_roll_deg", 20)).other_window.any()
    assert asked(rejected, ("motion.max_yaw_deg", 40), ("motion.max_roll_deg", 60)).other_window.all()
    assert not asked(decided(yaw_p95_deg=60.0, windows=1.0), ("motion.max_yaw_deg", 50)).other_window.any()


def test_a_kept_clip_whose_window_fails_now_may_have_another_that_passes() -> None:
    assert asked(decided(yaw_p95_deg=30.0, windows=3.0), ("motion.max_yaw_deg", 20)).other_window.all()
    assert not asked(decided(yaw_p95_deg=30.0, windows=1.0), ("motion.max_yaw_deg", 20)).other_window.any()


def test_further_windows_of_a_clip_are_no_clips_of_the_manifest() -> None:
    table = table_of([decided(), decided(), decided(yaw_p95_deg=40.0)])
    if "of_clip" in table.column_names:
        table = table.drop_columns("of_clip")
    table = table.append_column("of_clip", pa.array([None, "a", "a"], pa.string()))
    result = what_if(table, CONFIG, with_settings(("motion.max_yaw_deg", 20)))
    assert result.count(result.clip) == 1
    assert sum(result.funnel(result.now).values()) == 1
    assert result.moves() == {}
    assert result.now.outcome.tolist() == [0, 0, 1]


def test_the_command_shows_the_funnel_then_and_now(dataset: Path, run: Run) -> None:
    code, out, _ = run("what-if", dataset, "--set", "motion.max_yaw_deg=25")
    assert code == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
    assert ["kept", "", "4", "2", "-2"] in rows
    assert ["rejected", "yaw", "1", "3", "+2"] in rows
    assert ["kept", "rejected: yaw", "2"] in rows


def test_the_command_gives_json(dataset: Path, run: Run) -> None:
    code, out, _ = run("what-if", dataset, "--set", "motion.max_yaw_deg=90", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["clips"] == 5
    assert found["before"] == {
        "kept": 4,
        "rejected": {rule.name: int(rule.name == "yaw") for rule in RULES},
        "failed": 0,
        "unknown": 0,
    }
    assert (found["now"]["kept"], found["now"]["rejected"]["yaw"], found["now"]["unknown"]) == (4, 0, 1)
    assert found["moves"] == [
        {"from": {"outcome": "rejected", "rule": "yaw"}, "to": {"outcome": "unknown", "rule": None}, "clips": 1}
    ]
    assert [change["setting"] for change in found["changes"]] == ["motion.max_yaw_deg"]


def test_another_configuration_is_compared_as_a_whole(dataset: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "mine.yaml").write_text("curate: {motion: {max_yaw_deg: 15}}")
    code, out, _ = run("what-if", dataset, "--config", tmp_path / "mine.yaml", "--json")
    assert code == 0
    assert json.loads(out)["now"]["kept"] == 1


def test_of_an_unfinished_dataset_what_is_decided_is_asked(dataset: Path, run: Run) -> None:
    assert run("what-if", dataset, "--json")[2] == ""
    (dataset / "ledger" / "part-00001.parquet").unlink()
    DatasetRecord.load(dataset).model_copy(update={"complete": False, "shards": (), "ledger": ()}).save(dataset)
    code, out, err = run("what-if", dataset, "--json")
    assert (code, json.loads(out)["clips"]) == (0, 3)
    assert "is not finished" in err


def test_bad_use_is_told_with_its_remedy(dataset: Path, tmp_path: Path, run: Run) -> None:
    code, _, err = run("what-if", dataset, "--set", "motion.max_yaw=25")
    assert (code, "nearest is motion.max_yaw_deg" in err) == (2, True)
    code, _, err = run("what-if", tmp_path / "nowhere")
    assert (code, "no readable dataset" in err) == (2, True)
