"""``faceloom animate`` with a tiny model: one pair, and a batch on Ray."""

import json
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray

from animation import loading
from animation.animate_config import AnimateConfig
from animation.batch import BatchRunner, plan_batch
from animation.pairs import Row
from animation.results import TABLE
from faceloom.engine import Loss
from faceloom.errors import UserError
from shards.video import decode_video
from tests import videos
from tests.animation.conftest import write_image
from tests.animation.dying_worker import DIES, DIES_ONCE, DyingAnimator
from tests.animation.exports import save_export
from training.export import RECORD

QUICK = ("--steps", 2, "--set", "video.preset=ultrafast", "--device", "cpu")


def batch(checkpoint, table, out):
    """The command that animates the pairs of ``table``."""
    pairs = ("--checkpoint", checkpoint, "--batch", table, "--out", out)
    return ("animate", *pairs, *QUICK, "--set", "batch.workers=1")


pytestmark = pytest.mark.usefixtures("reader")  # where its model is


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_export(tmp_path_factory.mktemp("exports") / "model")


@pytest.fixture(scope="module")
def files(man, tmp_path_factory):
    """A portrait, and five frames of a driver."""
    folder = tmp_path_factory.mktemp("files")
    write_image(folder / "man.png", man[0])
    write_image(folder / "wall.png", np.full((200, 300, 3), 128, np.uint8))
    videos.write(folder / "talk.mp4", list(man[:25:5]), rate=12, sound=videos.clicks(0.4, [0.2]))
    return folder


def test_one_command_makes_the_video_and_tells_a_program_what_it_made(checkpoint, files, run, tmp_path):
    out, beside = tmp_path / "out.mp4", tmp_path / "beside.mp4"
    pair = ("--checkpoint", checkpoint, "--portrait", files / "man.png", "--driving", files / "talk.mp4")
    code, told, notes = run("animate", *pair, "--out", out, "--side-by-side", beside, "--seed", 3, *QUICK, "--json")
    assert code == 0, notes
    made = json.loads(told)
    assert {key: made[key] for key in ("frames", "fps", "width", "height", "seed", "sound", "stitched")} == {
        "frames": 5,
        "fps": 12,
        "width": 720,
        "height": 480,
        "seed": 3,
        "sound": True,
        "stitched": False,
    }
    assert made["duration_s"] == pytest.approx(5 / 12)
    assert len(made["checkpoint_digest"]) == 64
    assert decode_video(out.read_bytes()).shape == (5, 480, 720, 3)
    assert decode_video(beside.read_bytes()).shape[2] > 1800
    # The same command gives the same bytes, another seed others; without --json a person is told.
    code, told, _ = run("animate", *pair, "--out", tmp_path / "again.mp4", "--seed", 3, *QUICK)
    assert code == 0
    assert re.search(r"animating: [01] of 2", told)
    assert "again.mp4: 5 frames, 0.42 s at 12 a second, 720x480 px, with the driver's sound; seed 3" in told
    assert (tmp_path / "again.mp4").read_bytes() == out.read_bytes()
    run("animate", *pair, "--out", tmp_path / "other.mp4", "--seed", 4, *QUICK)
    assert (tmp_path / "other.mp4").read_bytes() != out.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--portrait", "a.png"), "needs --portrait IMAGE and --driving VIDEO, or --batch"),
        (("--batch", "t.csv", "--portrait", "a.png"), "--batch takes its pairs from a table"),
        (("--portrait", "a.png", "--driving", "b.mp4", "--fps", 99), "fps: "),
        (("--portrait", "a.png", "--driving", "b.mp4", "--offload", "--device", "cpu"), "offloading spares the memory"),
        (("--portrait", "a.png", "--driving", "b.mp4", "--steps", 3), "steps must divide 1000, 3 does not"),
        (("--portrait", "absent.png", "--driving", "b.mp4"), r"cannot read .*absent.png"),
        (("--portrait", "a.png", "--driving", "b.mp4", "--out", "."), "it is a folder; name a file in it with --out"),
    ],
)
def test_wrong_use_is_told_with_the_remedy(checkpoint, run, tmp_path, arguments, message):
    code, _, error = run("animate", "--checkpoint", checkpoint, "--out", tmp_path / "x.mp4", *arguments)
    assert code == 2
    assert re.search(message, error)


def test_missing_files_of_smirk_are_told_of_before_the_model_is_loaded(checkpoint, files, run, tmp_path, monkeypatch):
    export = shutil.copytree(checkpoint, tmp_path / "model")
    record = json.loads((export / RECORD).read_text())
    record["drawings"]["backend"] = "smirk"
    (export / RECORD).write_text(json.dumps(record))

    def absent(_names, wanted_by):
        raise UserError(f"{wanted_by} asks for SMIRK_em1.pt")

    monkeypatch.setattr("faceloom.models.user_paths", absent)
    monkeypatch.setattr("animation.loading.load_pipeline", lambda *_: pytest.fail("the model is loaded"))
    pair = ("--portrait", files / "man.png", "--driving", files / "talk.mp4", "--out", tmp_path / "x.mp4")
    code, _, error = run("animate", "--checkpoint", export, *pair, *QUICK)
    assert code == 2
    assert "faceloom animate with SMIRK's landmarks asks for SMIRK_em1.pt" in error


def test_a_wrong_file_is_told_before_the_model_is_loaded(checkpoint, files, run, tmp_path, monkeypatch):
    def load(*_):
        raise UserError("loading")

    monkeypatch.setattr(loading, "load_pipeline", load)
    (tmp_path / "notes.txt").write_text("no video")
    for portrait, driving, message in (
        (files / "wall.png", files / "talk.mp4", r"wall.png: no face is found"),
        (files / "man.png", tmp_path / "notes.txt", r"notes.txt .*; give another file with --driving"),
        (files / "man.png", files / "talk.mp4", r"error: loading"),
    ):
        pair = ("--portrait", portrait, "--driving", driving, "--out", tmp_path / "x.mp4")
        code, _, error = run("animate", "--checkpoint", checkpoint, *pair, *QUICK)
        assert code == 2
        assert re.search(message, error)


@pytest.fixture(scope="module")
def ray_once():
    """The commands of this module start Ray once."""
    yield
    ray.shutdown()


@pytest.mark.usefixtures("ray_once")
def test_a_batch_animates_what_it_can_and_goes_on_where_it_was(checkpoint, files, run, tmp_path):
    out, table = tmp_path / "out", files / "pairs.csv"
    table.write_text(
        "portrait,driving,name,seed\nman.png,talk.mp4,good,3\nwall.png,talk.mp4,wall,\nman.png,absent.mp4,absent,\n"
    )
    command = batch(checkpoint, table, out)
    code, told, error = run(*command)
    assert code == 1, error
    assert f"{out}: 1 animated, 2 failed" in told
    rows = pq.read_table(out / TABLE).to_pylist()
    assert [(row["name"], row["outcome"], row["stage"], row["error"]) for row in rows] == [
        ("good", "animated", None, None),
        ("wall", "failed", "prepare", "UserError"),
        ("absent", "failed", "prepare", "NotAFileError"),
    ]
    assert (rows[0]["frames"], rows[0]["seed"], rows[0]["sound"]) == (5, 3, True)
    assert rows[0]["seconds"] > 0
    assert "wall.png: no face is found" in rows[1]["message"]
    # What is whole stays; what failed is tried again, and what is gone is made again with the same bytes.
    first = (out / "good.mp4").read_bytes()
    made_at = (out / "good.mp4").stat().st_mtime_ns
    shutil.copy(files / "man.png", files / "wall2.png")
    table.write_text("portrait,driving,name,seed\nman.png,talk.mp4,good,3\nwall2.png,talk.mp4,wall,3\n")
    code, told, error = run(*command)
    assert code == 0, error
    assert f"{out}: 2 animated, 0 failed" in told
    assert (out / "good.mp4").stat().st_mtime_ns == made_at
    assert (out / "wall.mp4").read_bytes() == first
    code, told, _ = run(*command)
    assert code == 0
    assert "nothing to do: all 2 pairs" in told
    code, _, error = run(*command, "--guidance", 2)
    assert code == 2
    assert "were made otherwise; choose another --out" in error


@pytest.mark.usefixtures("ray_once")
def test_a_pair_is_tried_again_when_its_worker_is_killed_and_has_failed_when_the_next_is_too(
    checkpoint, files, run, tmp_path, monkeypatch
):
    monkeypatch.setattr("animation.batch.AnimateWorker", ray.remote(DyingAnimator))
    out, table = tmp_path / "out", files / "deadly.csv"
    lines = [f"man.png,talk.mp4,{name},{seed}" for name, seed in [("poison", DIES), ("good", 0), ("once", DIES_ONCE)]]
    table.write_text("\n".join(["portrait,driving,name,seed", *lines]))
    code, told, error = run(*batch(checkpoint, table, out))
    assert code == 1, error
    assert f"{out}: 2 animated, 1 failed" in told
    rows = {row["name"]: row for row in pq.read_table(out / TABLE).to_pylist()}
    assert {name: (row["outcome"], row["stage"], row["error"]) for name, row in rows.items()} == {
        "poison": ("failed", "worker", "WorkerDied"),
        "good": ("animated", None, None),
        "once": ("animated", None, None),
    }
    assert "was killed, as for want of memory, or crashed, 2 times over this pair" in rows["poison"]["message"]
    # Nothing half-written, and of a video that was begun twice one that is whole.
    assert {path.name for path in out.iterdir() if path.is_file()} == {TABLE, "good.mp4", "once.mp4"}
    assert len(decode_video((out / "once.mp4").read_bytes())) == 5
    assert (tmp_path / "came_to").read_text().split() == [str(seed) for seed in (DIES, DIES, 0, DIES_ONCE, DIES_ONCE)]


def test_a_pair_over_which_workers_are_lost_is_one_failed_row(checkpoint, tmp_path):
    row = Row("poison", tmp_path / "a.png", tmp_path / "b.mp4", 0)
    plan = plan_batch(checkpoint, AnimateConfig(), [row], tmp_path / "out")
    runner = BatchRunner(plan, 1, lambda _progress: None)
    given_up = runner.given_up(row, None, Loss("animation", 2, "DeadlineExceeded"))
    assert not runner.verdict(given_up).passed
    assert given_up.cells()["error"] == "DeadlineExceeded"
    assert "was not done by its deadline, 2 times over this pair" in given_up.cells()["message"]
