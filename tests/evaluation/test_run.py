"""The command on real files, once: its driver again, a still picture, one without a face, and one that is cut short."""

import json
import shutil
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from evaluation.config import EvaluateConfig
from evaluation.measure import Measure, absent
from evaluation.metrics import METRICS
from evaluation.output import curves_table, metrics_table, summary
from evaluation.run import Evaluation
from evaluation.video import VideoReport
from faceloom import cli
from tests.evaluation.conftest import FPS
from tests.onnx_file import write_patch_means
from tests.videos import write

RESULTS = ("cut short", "faceless", "same <b>&", "still")
SAME = "same <b>&"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, man: np.ndarray, seen: object) -> Path:
    """Where the command has written to; in it ``printed.json`` is what it printed."""
    root = tmp_path_factory.mktemp("evaluation")
    for name in ("results", "references", "driving", "truth"):
        (root / name).mkdir()
    frames = man[:12]
    made = {SAME: frames, "still": np.repeat(frames[:1], 12, axis=0), "faceless": np.zeros_like(frames)}
    for name, pictures in made.items():
        write(root / "results" / f"{name}.mp4", list(pictures), rate=int(FPS))
    shutil.copy(root / "results" / f"{SAME}.mp4", root / "results" / "cut short.mp4")
    (root / "results" / "cut short.mp4").write_bytes((root / "results" / f"{SAME}.mp4").read_bytes()[:3000])
    for name in RESULTS:
        cv2.imwrite(str(root / "references" / f"{name}.png"), frames[0, ..., ::-1])
        shutil.copy(root / "results" / f"{SAME}.mp4", root / "driving" / f"{name}.mp4")
    shutil.copy(root / "driving" / "still.mp4", root / "truth" / "still.mp4")
    (root / "models" / "identity").mkdir(parents=True)
    write_patch_means(root / "models" / "identity" / "arcface.onnx")
    arguments = [
        "evaluate",
        *(word for name in ("results", "references", "driving", "truth") for word in (f"--{name}", str(root / name))),
    ]
    arguments += ["--out", str(root / "out"), "--mode", "both", "--set", "workers=1", "--json"]
    printed: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACELOOM_MODELS", str(root / "models"))
        for module, name in ((av, "open"), (cv2, "VideoCapture")):
            patch.setattr(module, name, lambda *_, **__: pytest.fail("a video is opened in the user's process"))
        patch.setattr("faceloom.cli.evaluate.print_json", lambda value: printed.append(json.dumps(value)))
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
    assert not ended.value.code
    (root / "out" / "printed.json").write_text(printed[0])
    return root / "out"


def rows(folder: Path) -> dict[tuple[str | None, str | None], dict[str, Any]]:
    return {(row["video"], row["metric"]): row for row in pq.read_table(folder / "metrics.parquet").to_pylist()}


def test_there_is_a_row_for_every_video_and_metric_and_one_for_a_video_that_failed(folder: Path):
    found = rows(folder)
    single = [metric.name for metric in METRICS.values() if not metric.pooled]
    expected = {(video, metric) for video in RESULTS[1:] for metric in single}
    assert found.keys() == expected | {("cut short", None), (None, "face_fid")}
    assert "cut short.mp4" in found["cut short", None]["reason"]
    for row in found.values():
        assert row["value"] is not None or row["reason"]


def test_each_video_has_what_was_done_to_it(folder: Path):
    found = rows(folder)
    assert found[SAME, "expression"]["value"] == pytest.approx(0, abs=1e-6)
    assert found[SAME, "lip_gap_correlation"]["value"] == pytest.approx(1)
    assert found[SAME, "facesim_arc"]["value"] > 0.9
    assert (found[SAME, "expression"]["coverage"], found[SAME, "expression"]["offset"]) == (1, 0)
    assert found["still", "expression"]["value"] > 0.01
    assert found["still", "truth_mae"]["value"] > 1
    assert found["still", "flicker"]["value"] < found[SAME, "flicker"]["value"]
    assert found[SAME, "truth_mae"]["reason"] == "there is no truth"
    for metric in ("expression", "pose_deg", "lip_gap_correlation", "flicker", "facesim_arc"):
        row = found["faceless", metric]
        assert (row["value"], row["coverage"]) == (None, 0), metric


def test_metrics_without_their_networks_say_what_is_missing(folder: Path):
    found = rows(folder)
    for metric, file in {
        "facesim_cur": "curricular",
        "legacy_pose": "body_pose_model.pth",
        "legacy_fid": "inception",
    }.items():
        assert found[SAME, metric]["value"] is None
        assert file in found[SAME, metric]["reason"]
    assert "inception" in found[None, "face_fid"]["reason"]


def test_curves_have_a_value_a_frame_and_none_where_there_is_no_face(folder: Path):
    table = pq.read_table(folder / "curves.parquet").to_pylist()
    same = [row for row in table if row["video"] == SAME]
    assert [row["frame"] for row in same] == list(range(12))
    assert same[5]["time_s"] == pytest.approx(0.5)
    assert all(row["lip_gap_cm"] == pytest.approx(row["driver_lip_gap_cm"]) for row in same)
    faceless = [row for row in table if row["video"] == "faceless"]
    assert {row["expression"] for row in faceless} == {None}


def test_the_summary_is_what_is_printed_and_counts_what_failed(folder: Path):
    told = json.loads((folder / "summary.json").read_text())
    assert told == json.loads((folder / "printed.json").read_text())
    assert [failure["video"] for failure in told["failed"]] == ["cut short"]
    expression = told["metrics"]["expression"]
    values = [rows(folder)[video, "expression"]["value"] for video in (SAME, "still")]
    assert (told["videos"], expression["videos"]) == (4, 2)
    assert expression["mean"] == pytest.approx(np.mean(values))
    # The frame or two at an end that an offset takes are not covered either.
    used = sum(rows(folder)[video, "expression"]["frames"] for video in RESULTS[1:])
    assert expression["coverage"] == pytest.approx(used / 36)
    assert set(told["models"]) == {"face_landmarker", "arcface"}


def evaluated(values: dict[str, list[float | None]], frames: int = 10) -> Evaluation:
    metrics = tuple(METRICS[name] for name in values)
    count = len(next(iter(values.values())))
    reports = tuple(
        VideoReport(
            f"video {i}",
            measures={
                name: absent("none", frames) if column[i] is None else Measure(column[i], frames, frames)
                for name, column in values.items()
            },
            frames=frames,
            fps=10,
        )
        for i in range(count)
    )
    return Evaluation(metrics, (), reports, {})


def test_means_are_of_the_videos_that_have_a_value_and_coverage_of_all():
    told = summary(evaluated({"expression": [0.1, None, 0.3]}), EvaluateConfig())["metrics"]["expression"]
    assert told["mean"] == pytest.approx(0.2)
    assert told["videos"] == 2
    assert told["coverage"] == pytest.approx(2 / 3)
    none = summary(evaluated({"expression": [None, None]}), EvaluateConfig())["metrics"]["expression"]
    assert (none["mean"], none["reason"], none["coverage"]) == (None, "none", 0)


def test_the_releases_mean_pose_leaves_out_what_its_script_leaves_out():
    told = summary(evaluated({"legacy_pose": [0.0, 0.2, 0.4], "legacy_fid": [0.0, 2.0, 4.0]}), EvaluateConfig())[
        "metrics"
    ]
    assert told["legacy_pose"]["mean"] == pytest.approx(0.3)
    assert told["legacy_fid"]["mean"] == pytest.approx(2)


def test_an_evaluation_in_which_all_failed_still_has_its_tables():
    evaluation = Evaluation((METRICS["expression"],), (), (VideoReport("a", "no video"),), {})
    assert metrics_table(evaluation).to_pylist()[0]["reason"] == "no video"
    assert len(curves_table(evaluation)) == 0
    assert summary(evaluation, EvaluateConfig())["failed"] == [{"video": "a", "reason": "no video"}]


def test_wrong_use_is_told_with_the_way_out(run: Any, tmp_path: Path):
    code, _, said = run("evaluate", "--out", tmp_path)
    assert code == 2
    assert "--pairs" in said
    code, _, said = run("evaluate", "--out", tmp_path, "--pairs", tmp_path / "x.csv", "--results", tmp_path)
    assert code == 2
    assert "leave --results" in said
    code, _, said = run("evaluate", "--out", tmp_path, "--pairs", tmp_path / "x.csv", "--set", "max_ofset=1")
    assert code == 2
    assert "nearest is max_offset" in said
