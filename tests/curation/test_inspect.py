from pathlib import Path

import cv2
import numpy as np
import pytest

from curation import inspect
from curation.inspect import draw_sheet, write_contact_sheets
from curation.ledger import Decision
from curation.outcome import Failed, Kept, Rejected
from curation.sample_video import SampleVideoConfig, encode_sample
from curation.sources import Clip
from faceloom.errors import UserError
from landmarks.record import quantise
from shards.dataset import tar_path
from shards.schema import FRAMES, HEIGHT, WIDTH
from tests.curation.datasets import blank_sample, write_dataset

KEPT = Clip("set", "dîner 晚饭.mp4", "/videos/a.mp4", licence="CC0")
ALSO_KEPT = Clip("set", "b.mp4", "/videos/b.mp4")
STILL = Clip("set", "still.mp4", "/videos/c.mp4")
BROKEN = Clip("set", "broken.mp4", "/videos/d.mp4")

SOURCE_WH = (1600, 900)
CROP_XYWH = (100.0, 50.0, 1200.0, 800.0)
NOSE_TIP = 4
GREY, RED, GREEN = (90, 90, 90), (200, 0, 0), (0, 200, 0)


def jpeg(colour: tuple[int, int, int], height: int, width: int) -> bytes:
    return bytes(cv2.imencode(".jpg", np.full((height, width, 3), colour[::-1], np.uint8))[1])


def sample(clip: Clip) -> dict[str, object]:
    """Grey frames; the nose tip in the middle of the crop, all else in its corner; motion in the frame's right third."""
    points = np.zeros((FRAMES, 478, 3), np.float32)
    points[:, NOSE_TIP, :2] = 700 / SOURCE_WH[0], 450 / SOURCE_WH[1]
    flow = np.zeros((13, 60, 90), np.float16)
    flow[:, :, 60:] = 20
    blank = blank_sample(clip)
    meta = blank["meta.json"] | {
        "n_valid": 40,
        "source_wh": list(SOURCE_WH),
        "crop_xywh": list(CROP_XYWH),
        "crop_mode": "wide",
        "found": [i != 8 for i in range(FRAMES)],
        "reference_frame": 3,
        "face_frame": 5,
        "face_encoder": "patches",
        "flow": {"model": "raft-small", "scale": 1.0, "iterations": 12, "p995": 20.0},
        "statistics": {"yaw_range_deg": 12.5},
    }
    return blank | {
        "video.mp4": encode_sample(
            np.full((FRAMES, HEIGHT, WIDTH, 3), GREY, np.uint8), 12.0, None, SampleVideoConfig()
        ),
        "landmarks.u16.npy": quantise(points),
        "flow.npy": flow,
        "face.jpg": jpeg(RED, 512, 512),
        "reference.jpg": jpeg(GREEN, HEIGHT, WIDTH),
        "meta.json": meta,
    }


@pytest.fixture(scope="module")
def sheet() -> np.ndarray:
    return draw_sheet(sample(KEPT))


@pytest.fixture
def dataset(tmp_path) -> Path:
    """Two blocks: one clip kept and one refused in the first, the same in the second."""
    root = tmp_path / "set"
    blocks = [
        [Decision(KEPT, Kept()), Decision(STILL, Rejected("motion", 0.25, 1.0))],
        [Decision(BROKEN, Failed("probe", "EmptyFileError", "it has zero bytes")), Decision(ALSO_KEPT, Kept())],
    ]
    write_dataset(root, blocks, {clip: sample(clip) for clip in (KEPT, ALSO_KEPT)})
    return root


def patches_of(sheet: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Where the sheet has ``colour``, within what JPEG and H.264 change."""
    return np.abs(sheet.astype(int) - colour).max(axis=2) <= 6


def test_face_and_reference_are_shown_in_their_colours(sheet):
    for colour, height, width in ((RED, 384, 384), (GREEN, 384, 576)):
        ys, xs = np.nonzero(patches_of(sheet, colour))
        assert (ys.max() - ys.min() + 1, xs.max() - xs.min() + 1) == (height, width)


def test_landmarks_lie_where_the_crop_puts_them(sheet):
    grey = patches_of(sheet, GREY)
    top = np.flatnonzero(grey.mean(axis=1) > 0.5)[0]
    left = np.flatnonzero(grey[top : top + 20].all(axis=0))[0]
    first = sheet[top:, left:][: inspect._THUMB_HEIGHT, : inspect._THUMB_WIDTH]
    nose_yx = np.argwhere((first == 255).all(axis=2)).mean(axis=0)
    # The crop's middle is the picture's middle.
    np.testing.assert_allclose(nose_yx, [inspect._THUMB_HEIGHT / 2, inspect._THUMB_WIDTH / 2], atol=1)


def test_heat_is_where_the_motion_is():
    frame = np.full((HEIGHT, WIDTH, 3), GREY, np.uint8)
    weights = np.ones((60, 90), np.float32)
    weights[:, 60:] = 1.5
    heat = inspect._heat(frame, weights).astype(int)
    assert heat[:, :480].max() < 60
    assert heat[:, 480:, 0].min() > 150


def test_frames_that_are_not_as_they_seem_say_so():
    meta = sample(KEPT)["meta.json"]
    assert inspect._frame_caption(meta, 0) == "frame 0, 0.00 s"
    assert inspect._frame_caption(meta, 8) == "frame 8, 0.67 s, landmarks interpolated"
    assert inspect._frame_caption(meta, 40) == "frame 40, 3.33 s, repeated"


def test_one_picture_for_every_kept_clip(dataset, sheet, tmp_path):
    written = write_contact_sheets(dataset, tmp_path / "new" / "out")
    assert [path.name for path in written] == [f"{KEPT.clip_id}.png", f"{ALSO_KEPT.clip_id}.png"]
    read = cv2.imread(str(written[0]))[..., ::-1]
    np.testing.assert_array_equal(read, sheet)


@pytest.mark.parametrize("name", [ALSO_KEPT.clip_id, ALSO_KEPT.source_key])
def test_a_clip_goes_by_its_id_or_its_source_key(dataset, tmp_path, name):
    assert [path.stem for path in write_contact_sheets(dataset, tmp_path, name)] == [ALSO_KEPT.clip_id]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("still.mp4", r"rejected by rule motion \(0.25, threshold 1\)"),
        (BROKEN.clip_id, r"failed in stage probe \(EmptyFileError: it has zero bytes\)"),
        ("nobody", "holds no clip nobody"),
    ],
)
def test_a_clip_without_a_sample_says_why(dataset, tmp_path, name, reason):
    with pytest.raises(UserError, match=reason):
        write_contact_sheets(dataset, tmp_path / "out", name)


def test_a_damaged_sample_is_named(dataset, tmp_path):
    tar = tar_path(dataset, 1)
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 1
    tar.write_bytes(data)
    with pytest.raises(UserError, match=rf"{ALSO_KEPT.clip_id}\.\S+ is damaged.*faceloom verify"):
        write_contact_sheets(dataset, tmp_path / "out", ALSO_KEPT.clip_id)


def test_a_folder_that_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(UserError, match="no readable dataset"):
        write_contact_sheets(tmp_path, tmp_path / "out")
