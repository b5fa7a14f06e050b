import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from curation.calibrate import calibrate, limits_under
from curation.calibrate_display import calibration_lines
from curation.config import CurationConfig
from curation.ledger import Decision, read_ledger, write_fragment
from curation.outcome import Failed, Kept, Rejected
from curation.rules import first_failure
from curation.sources import Clip
from curation.statistics import NOISE_MARGIN, STATISTICS
from faceloom import config
from faceloom.errors import UserError
from shards.dataset import DatasetRecord
from tests.conftest import Run
from tests.curation.datasets import record_of
from tests.curation.test_rules import GOOD

EARLY = ("probe", "census")


def record_with(clips: int, **run: Any) -> DatasetRecord:
    config = CurationConfig().model_dump(mode="json", exclude={"run"}) | {"run": {"block_clips": 256, **run}}
    return record_of(clips, config=config)


def write(root: Path, decisions: Sequence[Decision], **run: Any) -> Path:
    write_fragment(root, 0, decisions, "run")
    record_with(sum(decision.of_clip is None for decision in decisions), **run).save(root)
    return root


def clip(number: int) -> Clip:
    return Clip("set", f"{number}.mp4", f"/{number}.mp4")


def measured(number: int, random: np.random.Generator) -> dict[str, float]:
    """A clip's statistics, spread around those of a good one."""
    return {name: value * float(random.uniform(0.2, 2.0)) for name, value in GOOD.items()}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 clips: every fifth has ended early, every seventh has failed; kept ones have a further window that moves wildly."""
    random = np.random.default_rng(3)
    decisions = []
    for number in range(300):
        statistics = measured(number, random)
        if number % 5 == 0:
            statistics = {name: value for name, value in statistics.items() if STATISTICS[name].stage in EARLY}
            decisions.append(Decision(clip(number), Rejected("second_face", 0.5, 0.05), statistics))
        elif number % 7 == 0:
            decisions.append(Decision(clip(number), Failed("probe", "TruncatedVideoError", "cut short")))
        elif rejected := first_failure(statistics, CurationConfig()):
            decisions.append(Decision(clip(number), rejected, statistics))
        else:
            wild = {name: 1000 * value for name, value in statistics.items()}
            decisions += [
                Decision(clip(number), Kept(), statistics),
                Decision(clip(1000 + number), Kept(), wild, of_clip=clip(number).clip_id, window=1),
            ]
    return write(tmp_path_factory.mktemp("corpus"), decisions)


def column(root: Path, name: str) -> np.ndarray:
    """What is known of a statistic of the manifest's clips."""
    rows = read_ledger(root, ["of_clip", name]).to_pylist()
    return np.array([row[name] for row in rows if row["of_clip"] is None and row[name] is not None])


@pytest.mark.parametrize("name", ["face_height_px", "head_range_deg", "pitch_median_deg", "flow_mean_px"])
def test_percentiles_are_those_of_the_clips_of_the_manifest(corpus: Path, name: str) -> None:
    (row,) = calibrate(corpus, [name]).statistics
    ledger = read_ledger(corpus)  # noqa: F841 - DuckDB finds it by its name
    query = f"SELECT count({name}), quantile_cont({name}, [0.01, 0.1, 0.5, 0.99]) FROM ledger WHERE of_clip IS NULL"  # noqa: S608
    count, expected = duckdb.sql(query).fetchall()[0]
    assert row.clips == count
    assert [row.percentiles[p] for p in (1, 10, 50, 99)] == pytest.approx(expected)


def test_a_lower_limit_leaves_out_the_lowest_and_an_upper_one_a_tenth_of_that(corpus: Path) -> None:
    cuts = calibrate(corpus, quantile=0.2).cuts
    heights, yaws = column(corpus, "face_height_px"), column(corpus, "yaw_p95_deg")
    assert np.mean(heights < cuts["character.min_face_px"]) == pytest.approx(0.2, abs=0.006)
    assert np.mean(yaws > cuts["motion.max_yaw_deg"]) == pytest.approx(0.02, abs=0.006)


def test_what_passes_now_is_counted(corpus: Path) -> None:
    (row,) = calibrate(corpus, ["pitch_median_deg"]).statistics
    ((limit, share, _),) = row.limits
    assert (limit.setting, limit.threshold, limit.at_most, limit.absolute) == ("motion.max_pitch_deg", 30.0, True, True)
    assert share == pytest.approx(np.mean(np.abs(column(corpus, "pitch_median_deg")) <= 30))


def test_a_setting_of_two_statistics_cuts_by_the_one_that_cuts_less(corpus: Path) -> None:
    found = calibrate(corpus)
    cuts = [cut for row in found.statistics for limit, _, cut in row.limits if limit.setting == "motion.max_pitch_deg"]
    assert len(cuts) == 2
    assert found.cuts["motion.max_pitch_deg"] == max(cut for cut in cuts if cut is not None)


def test_a_lower_limit_is_never_proposed_inside_the_noise(tmp_path: Path) -> None:
    still = [{**GOOD, "head_range_deg": 0.01 * n, "jaw_open_range": 0.5 + 0.001 * n} for n in range(200)]
    write(tmp_path, [Decision(clip(n), Kept(), statistics) for n, statistics in enumerate(still)])
    cuts = calibrate(tmp_path).cuts
    noise = STATISTICS["head_range_deg"].noise
    assert noise is not None
    assert cuts["motion.min_head_range_deg"] == pytest.approx(NOISE_MARGIN * noise, rel=0.01)
    assert cuts["motion.min_jaw_open_range"] == pytest.approx(0.5 + 0.001 * 19.9, rel=0.01)


def test_the_printed_cuts_are_a_file_that_curate_takes(corpus: Path, tmp_path: Path) -> None:
    found = calibrate(corpus)
    lines = list(calibration_lines(found))
    file = tmp_path / "cuts.yaml"
    file.write_text("\n".join(lines[lines.index("curate:") :]), "utf-8")
    settings = config.load(CurationConfig, str(file))
    assert settings != CurationConfig()
    for path, value in found.cuts.items():
        section, _, name = path.partition(".")
        assert getattr(getattr(settings, section), name) == value


def test_every_limit_on_one_statistic_is_found_once() -> None:
    limits = [limit for limit in limits_under(CurationConfig()) if limit.setting is not None]
    settings = [limit.setting for limit in dict.fromkeys(limits)]
    for name in ("head_range_deg", "mouth_aspect_range", "lip_gap_range_cm", "jaw_open_range", "expression_activity"):
        assert settings.count(f"motion.min_{name}") == 1
    assert {"character.min_face_px", "motion.max_yaw_deg", "motion.max_speed_deg_s", "crop.max_upscale"} <= {*settings}


def notes_of(root: Path) -> str:
    return "\n".join(calibrate(root).notes)


def test_what_ended_clips_before_they_were_measured_is_told(corpus: Path) -> None:
    notes = notes_of(corpus)
    assert "statistics of the window are known of 206 of 300 clips" in notes
    assert "second_face (60), a failure (34); curate with --all-statistics" in notes
    assert "statistics of the census are known of 266 of 300 clips" in notes
    assert "below 100" not in notes


def test_a_run_with_all_statistics_has_no_more_to_measure(tmp_path: Path) -> None:
    decisions = [Decision(clip(n), Kept(), {**GOOD, "yaw_p95_deg": float(n)}) for n in range(120)]
    blank = Decision(clip(500), Rejected("no_face", 0.0, 2.7), {"duration_s": 9.0})
    write(tmp_path, [*decisions, blank], all_statistics=True)
    assert "no_face (1)" in notes_of(tmp_path)
    assert "--all-statistics" not in notes_of(tmp_path)


def test_few_clips_are_warned_of(tmp_path: Path) -> None:
    write(tmp_path, [Decision(clip(n), Kept(), {**GOOD, "yaw_p95_deg": float(n)}) for n in range(99)])
    assert "rest on 99 clips" in notes_of(tmp_path)


def test_where_all_clips_are_alike_nothing_is_proposed(tmp_path: Path) -> None:
    write(tmp_path, [Decision(clip(n), Kept(), GOOD) for n in range(3)])
    found = calibrate(tmp_path)
    assert found.cuts == {}
    assert "no cuts to propose" in list(calibration_lines(found))[-1]


def test_what_cannot_be_calibrated_is_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nearest is head_range_deg"):
        calibrate(corpus, ["head_range"])
    with pytest.raises(UserError, match="must lie between 0 and"):
        calibrate(corpus, quantile=0.5)
    record_with(0).save(tmp_path)
    with pytest.raises(UserError, match="no decided clips yet"):
        calibrate(tmp_path)


def test_the_command_prints_json_with_the_configuration(corpus: Path, run: Run) -> None:
    code, out, _ = run("calibrate", corpus, "--statistic", "yaw_p95_deg", "--json")
    assert not code
    shown = json.loads(out)
    assert shown["clips"] == 300
    assert list(shown["config"]["curate"]) == ["motion"]
    assert shown["statistics"][0]["limits"][0]["setting"] == "motion.max_yaw_deg"
