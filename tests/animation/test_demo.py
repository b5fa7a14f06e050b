import io
from copy import deepcopy

import pytest
from rich.console import Console

from animation.demo import FACE_SHARE, MAKERS, Results, mean, not_reached
from animation.demo_display import results_table

GOOD: Results = {
    clip: {
        "animated": {
            "truth_mae": 9.0 + n,
            "truth_lip_gap_correlation": 0.8,
            "truth_expression": 0.03,
            "truth_pose_deg": 2.0,
            FACE_SHARE: 0.9,
        },
        "still": {
            "truth_mae": 15.0,
            "truth_lip_gap_correlation": None,
            "truth_expression": 0.06,
            "truth_pose_deg": 9.0,
            FACE_SHARE: 1.0,
        },
        "noise": {
            "truth_mae": 17.0,
            "truth_lip_gap_correlation": 0.1,
            "truth_expression": 0.06,
            "truth_pose_deg": 9.0,
            FACE_SHARE: 1.0,
        },
    }
    for n, clip in enumerate(("a.mp4", "b.mp4"))
}


def test_a_mean_is_over_all_clips_or_is_none() -> None:
    assert mean(GOOD, "animated", "truth_mae") == 9.5
    assert mean(GOOD, "still", "truth_lip_gap_correlation") is None


def test_nothing_is_said_of_clips_that_are_nearer_to_the_truth_and_whose_lips_follow() -> None:
    assert not_reached(GOOD) == []


@pytest.mark.parametrize(
    ("metric", "value", "told"),
    [
        ("truth_mae", 21.0, "no nearer to the truth than still"),
        ("truth_lip_gap_correlation", 0.1, "the lips do not follow"),
        ("truth_lip_gap_correlation", None, "the lips do not follow"),
        (
            FACE_SHARE,
            0.05,
            "the lips do not follow: their gap correlates with the true one by 0.8, over the share 0.475",
        ),
    ],
)
def test_what_is_no_better_than_no_model_is_said(metric: str, value: float | None, told: str) -> None:
    results = deepcopy(GOOD)
    results["b.mp4"]["animated"][metric] = value
    assert any(told in line for line in not_reached(results))


def test_the_table_has_a_row_for_each_maker_and_dashes_for_what_there_is_not() -> None:
    screen = io.StringIO()
    Console(file=screen, width=200).print(results_table(GOOD))
    lines = [line for line in screen.getvalue().splitlines() if "│" in line]
    rows = [line for line in lines if "first frame" in line or "animated" in line]
    assert len(rows) == len(MAKERS)
    assert "9.5" in rows[0]
    assert " - " in rows[1]
