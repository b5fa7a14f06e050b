"""Every kind of bad or unusual file in one folder: each gets its ledger row, and the good clip is kept all the same."""

import os
import shutil
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from curation.ledger import read_ledger
from curation.sources import Clip
from curation.video import FrameReader, probe
from tests import videos
from tests.e2e.command import CHEAP_SETTINGS, faceloom

pytestmark = pytest.mark.e2e

GOOD = "good man.mp4"
COPY = "good man, again.mp4"
UNICODE = "späti 日本/Ünïcode 50% a:b 'q'.mp4"

# What is no usable video: the class of the error, and what its message tells to do.
BAD = {
    "zero bytes.mp4": ("EmptyFileError", "download it again"),
    "cut, table at end.mp4": ("TruncatedVideoError", "download it again"),
    "cut, table first.mp4": ("TruncatedVideoError", "download it again"),
    "text.mp4": ("TruncatedVideoError", "download it again"),
    "sound only.mp4": ("NoVideoStreamError", "remove it from the manifest"),
    "folder.mp4": ("NotAFileError", "remove it from the manifest"),
    "gone.mp4": ("NotAFileError", "restore the file"),
    "broken link.mp4": ("NotAFileError", "restore the file"),
}
# What is unusual but a video: a still portrait in it gets as far as the rule on frozen pictures, so its face was found.
UNUSUAL = ("4k.mp4", "10 bit.mp4", "alpha.mov", "odd size.mov", "rotated.mp4", "variable rate.mp4")
SECONDS = 3


@dataclass(frozen=True)
class Run:
    """What became of the folder."""

    rows: list[dict[str, Any]]
    listed: str


def _portrait(man: Clip) -> np.ndarray:
    return next(FrameReader(probe(man.path)).frames([0]))[:, :176]


def _sized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC))


def _make_unusual(root: Path, portrait: np.ndarray) -> None:
    still = [_sized(portrait, 288, 352)] * (SECONDS * 12)
    ultrafast = {"preset": "ultrafast"}
    uhd = [_sized(portrait, 2160, 2640)] * (SECONDS * 12)
    videos.write(
        root / "4k.mp4", [np.pad(frame, ((0, 0), (600, 600), (0, 0))) for frame in uhd], rate=12, options=ultrafast
    )
    videos.write(root / "10 bit.mp4", still, rate=12, pixel_format="yuv420p10le")
    opaque = [np.dstack([frame, np.full(frame.shape[:2], 128, np.uint8)]) for frame in still]
    videos.write(root / "alpha.mov", opaque, rate=12, codec="qtrle", pixel_format="argb")
    videos.write(
        root / "odd size.mov", [_sized(portrait, 287, 351)] * len(still), rate=12, codec="png", pixel_format="rgb24"
    )
    lying = [np.ascontiguousarray(np.rot90(frame)) for frame in still]
    videos.rotate(videos.write(root / "rotated.mp4", lying, rate=12), 90)
    steps = np.random.default_rng(7).integers(40, 140, len(still))
    times = [int(t) for t in np.cumsum(steps)]
    videos.write(root / "variable rate.mp4", still, times=times, time_base=Fraction(1, 1000))


def _make_bad(root: Path, man: Clip) -> None:
    (root / "zero bytes.mp4").touch()
    (root / "text.mp4").write_text("not a video\n" * 100)
    (root / "folder.mp4").mkdir()
    (root / "broken link.mp4").symlink_to(root / "nothing.mp4")
    videos.write_sound(root / "sound only.mp4", videos.clicks(SECONDS, [1.0]))
    frames = [videos.numbered(i % 40) for i in range(SECONDS * 25)]
    for name, options in (("cut, table at end.mp4", {}), ("cut, table first.mp4", {"movflags": "faststart"})):
        whole = videos.write(root / name, frames, container_options=options).read_bytes()
        (root / name).write_bytes(whole[: len(whole) * 6 // 10])
    videos.write(root / "one frame.mp4", frames[:1])
    shutil.copy(man.path, root / "gone.mp4")
    with (root / "gone.mp4").open("ab") as file:
        file.write(b"\0\0\0\x08free")


@pytest.fixture(scope="module")
def run(footage: dict[str, Clip], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The folder, listed and curated."""
    folder = tmp_path_factory.mktemp("bad input")
    root, manifest, out = folder / "ro ot", folder / "manifest.parquet", folder / "dataset"
    (root / UNICODE).parent.mkdir(parents=True)
    man = footage["talking_man.mp4"]
    for name in (GOOD, COPY):
        shutil.copy(man.path, root / name)
    portrait = _portrait(man)
    videos.write(root / UNICODE, [_sized(portrait, 288, 352)] * (SECONDS * 12), rate=12)
    _make_bad(root, man)
    _make_unusual(root, portrait)
    if os.geteuid() != 0:
        shutil.copy(root / "one frame.mp4", root / "forbidden.mp4")
        (root / "forbidden.mp4").chmod(0)
    listed = faceloom("ingest", "folder", "--root", root, "--out", manifest).stdout
    (root / "gone.mp4").unlink()
    settings = [argument for setting in CHEAP_SETTINGS for argument in ("--set", setting)]
    faceloom("curate", "--config", "demo", *settings, "--manifest", manifest, "--out", out)
    faceloom("verify", out)
    return Run(read_ledger(out).to_pylist(), listed)


def _row(run: Run, name: str) -> dict[str, Any]:
    (row,) = [row for row in run.rows if row["source_key"] == name]
    return row


def test_every_source_has_exactly_one_row(run: Run) -> None:
    names = [row["source_key"] for row in run.rows]
    expected = {GOOD, COPY, UNICODE, "one frame.mp4", *BAD, *UNUSUAL, *(["forbidden.mp4"] if os.geteuid() else [])}
    assert sorted(names) == sorted(expected)
    assert f"{len(names)} clips, 1 of them" in run.listed


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_fails_by_a_message_with_its_name_and_a_remedy(run: Run, name: str) -> None:
    error, remedy = BAD[name]
    row = _row(run, name)
    assert (row["outcome"], row["stage"], row["error"]) == ("failed", "probe", error)
    assert row["path"] in row["message"]
    assert remedy in row["message"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_file_fails_by_a_message_with_its_name_and_a_remedy(run: Run) -> None:
    row = _row(run, "forbidden.mp4")
    assert (row["outcome"], row["error"]) == ("failed", "NotAFileError")
    assert "fix its permissions" in row["message"]


def test_one_frame_is_too_short(run: Run) -> None:
    row = _row(run, "one frame.mp4")
    assert (row["outcome"], row["rule"], row["value"]) == ("rejected", "too_short", 0.0)


@pytest.mark.parametrize("name", [*UNUSUAL, UNICODE])
def test_the_face_in_an_unusual_file_is_found(run: Run, name: str) -> None:
    row = _row(run, name)
    assert (row["outcome"], row["rule"], row["message"]) == ("rejected", "frozen", None)
    assert row["found_share"] == 1.0


def test_the_good_clip_is_kept_and_its_copy_is_a_duplicate(run: Run) -> None:
    first, second = sorted((GOOD, COPY))
    assert _row(run, first)["outcome"] == "kept"
    row = _row(run, second)
    assert (row["outcome"], row["rule"], row["duplicate_of"]) == ("rejected", "duplicate", first)
