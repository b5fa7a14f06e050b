from pathlib import Path

import cv2
import numpy as np
import pytest

from curation.landmark_videos import render_clip, retarget
from curation.ledger import Decision
from curation.outcome import Kept, Rejected
from curation.sample_video import SampleVideoConfig, encode_sample
from curation.sources import Clip
from curation.video import probe
from faceloom.errors import UserError
from landmarks.extract import extract
from landmarks.geometry import read_geometry
from landmarks.landmarker import Landmarker
from landmarks.record import LandmarkRecord, quantise
from shards.schema import FRAMES, HEIGHT, WIDTH
from shards.video import decode_video
from tests import videos
from tests.curation.datasets import blank_sample, write_dataset

MAN = Clip("set", "man.mp4", "/videos/a.mp4")
TWIN = Clip("set", "twin.mp4", "/videos/b.mp4")
SPANS = [Clip("set", "long.mp4", "/videos/c.mp4", t0_s=t, t1_s=t + 4) for t in (0.0, 4.0)]
STILL = Clip("set", "still.mp4", "/videos/d.mp4")

SOURCE_WH = (176, 144)
CROPS = {MAN: (8, 10, 168, 112), TWIN: (20, 24, 144, 96)}
COLOURS = {MAN: (90, 90, 90), TWIN: (0, 120, 0)}
REFERENCE = {MAN: 3, TWIN: 7}
OWN_FRAMES = 16
NOSE_TIP = 4


@pytest.fixture(scope="module")
def seen(task_file: Path, man: np.ndarray) -> LandmarkRecord:
    """Sixteen frames of the man, from where he leans over while he talks."""
    landmarker = Landmarker(task_file)
    record = extract(man[40:120:5], landmarker, read_geometry(task_file))
    landmarker.close()
    return record


@pytest.fixture(scope="module")
def dataset(seen: LandmarkRecord, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The man under two names: the windows and the colours of the frames differ. All end in repeated frames."""
    own = np.minimum(np.arange(FRAMES), OWN_FRAMES - 1)

    def sample(clip: Clip) -> dict[str, object]:
        colour = COLOURS.get(clip, COLOURS[MAN])
        blank = blank_sample(clip)
        meta = {
            "fps": 12.5,
            "n_valid": OWN_FRAMES,
            "landmark_backend": "mediapipe",
            "source_wh": list(SOURCE_WH),
            "crop_xywh": list(CROPS.get(clip, CROPS[MAN])),
            "reference_frame": REFERENCE.get(clip, 0),
        }
        return blank | {
            "video.mp4": encode_sample([np.full((HEIGHT, WIDTH, 3), colour, np.uint8)] * FRAMES, 12.5, None, CONFIG),
            "landmarks.u16.npy": quantise(seen.points[own]),
            "blendshapes.npy": seen.blendshapes[own].astype(np.float16),
            "pose.npy": seen.pose[own],
            "face.jpg": JPEG,
            "reference.jpg": JPEG,
            "meta.json": blank["meta.json"] | meta,
        }

    root = tmp_path_factory.mktemp("landmark videos") / "set"
    kept = [MAN, TWIN, *SPANS]
    decisions = [*(Decision(clip, Kept()) for clip in kept), Decision(STILL, Rejected("motion", 0.25, 1.0))]
    write_dataset(root, [decisions], {clip: sample(clip) for clip in kept})
    return root


CONFIG = SampleVideoConfig(preset="ultrafast")
JPEG = bytes(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1])


def read(path: Path) -> np.ndarray:
    return decode_video(path.read_bytes())


def pictures(path: Path, *widths: int) -> list[np.ndarray]:
    """The panels of a video: ``[T, H, w, 3]`` each."""
    video = read(path)
    assert video.shape[2] == sum(widths)
    return np.split(video, np.cumsum(widths)[:-1], axis=2)


def nose_of(drawn: np.ndarray) -> np.ndarray:
    """Centre of the one white square in each picture ``[T, H, W, 3]``: ``[T, 2]`` px."""
    places = [np.argwhere(picture.min(axis=2) > 170)[:, ::-1] for picture in drawn]
    assert all(len(place) for place in places)
    return np.array([place.mean(axis=0) + 0.5 for place in places])


def placed(seen: LandmarkRecord, clip: Clip, frame: int | slice) -> np.ndarray:
    """Where the nose tip of the source lies in the clip's window, written out."""
    x0, y0, w, h = CROPS[clip]
    x, y = np.moveaxis(seen.points[frame, NOSE_TIP, :2].astype(float), -1, 0)
    return np.stack([(x * SOURCE_WH[0] - x0) * WIDTH / w, (y * SOURCE_WH[1] - y0) * HEIGHT / h], axis=-1)


def is_all(picture: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(picture.astype(int) - colour).max() < 24)


def test_the_landmarks_of_a_clip_are_drawn_beside_its_own_frames(
    dataset: Path, seen: LandmarkRecord, tmp_path: Path
) -> None:
    out = tmp_path / "self.mp4"
    render_clip(dataset, "man.mp4", out)
    frames, drawn = pictures(out, WIDTH, WIDTH)
    assert len(frames) == OWN_FRAMES
    assert probe(str(out)).fps == pytest.approx(12.5)
    assert is_all(frames, COLOURS[MAN])
    np.testing.assert_allclose(nose_of(drawn), placed(seen, MAN, slice(None)), atol=1.5)


def test_relative_motion_stays_where_the_reference_frame_has_the_face(
    dataset: Path, seen: LandmarkRecord, tmp_path: Path
) -> None:
    out = tmp_path / "relative.mp4"
    render_clip(dataset, MAN.clip_id, out, mode="relative")
    frames, still, drawn = pictures(out, WIDTH, WIDTH, WIDTH)
    assert is_all(frames, COLOURS[MAN])
    assert is_all(still, COLOURS[MAN])
    # The nose swings about the head's place as the head turns, but does not go up and down with the man in his seat.
    nose, own = nose_of(drawn), placed(seen, MAN, slice(None))
    np.testing.assert_allclose(nose.mean(axis=0), own[REFERENCE[MAN]], atol=25)
    assert np.ptp(nose[:, 1]) < 0.6 * np.ptp(own[:, 1])


def test_another_frame_may_be_the_reference(dataset: Path, tmp_path: Path) -> None:
    own, relative = tmp_path / "self.mp4", tmp_path / "relative.mp4"
    render_clip(dataset, MAN.clip_id, own)
    render_clip(dataset, MAN.clip_id, relative, mode="relative", reference="0")
    # On its own first frame, the first frame is what it was.
    first, expected = (read(path)[0, :, -WIDTH:].astype(int) for path in (relative, own))
    assert (np.abs(first - expected) > 60).mean() < 1e-4 < (expected > 60).mean()


def test_cross_shows_the_other_clips_face_in_the_other_clips_window(dataset: Path, tmp_path: Path) -> None:
    cross, relative = tmp_path / "cross.mp4", tmp_path / "relative.mp4"
    render_clip(dataset, MAN.clip_id, cross, mode="cross", reference="twin.mp4")
    render_clip(dataset, MAN.clip_id, relative, mode="relative", reference=str(REFERENCE[TWIN]))
    frames, still, drawn = pictures(cross, WIDTH, WIDTH, WIDTH)
    assert is_all(frames, COLOURS[MAN])
    assert is_all(still, COLOURS[TWIN])
    # The two are the same footage, so the only difference is the window.
    source = nose_of(read(relative)[:, :, -WIDTH:]) * 168 / WIDTH + [8, 10]
    np.testing.assert_allclose(nose_of(drawn), (source - [20, 24]) * WIDTH / 144, atol=2)


def test_smoothing_steadies_the_landmarks(dataset: Path, tmp_path: Path) -> None:
    rough, steady = tmp_path / "rough.mp4", tmp_path / "steady.mp4"
    render_clip(dataset, MAN.clip_id, rough)
    render_clip(dataset, MAN.clip_id, steady, smoothed=True)
    rough_jerk, steady_jerk = (
        np.abs(np.diff(nose_of(read(path)[:, :, WIDTH:]), n=2, axis=0)).mean() for path in (rough, steady)
    )
    assert steady_jerk < 0.8 * rough_jerk


def test_a_style_is_drawn_as_asked(dataset: Path, tmp_path: Path) -> None:
    render_clip(dataset, MAN.clip_id, tmp_path / "fye.mp4", style="fye")
    drawn = read(tmp_path / "fye.mp4")[:, :, WIDTH:].astype(int)
    assert ((drawn[..., 0] > 150) & (drawn[..., 1:].max(axis=-1) < 90)).sum(axis=(1, 2)).min() > 20  # red pupils


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": "3"}, "--reference 3 has no meaning with --mode self"),
        ({"mode": "cross"}, "needs --reference"),
        ({"mode": "cross", "reference": "nobody"}, "holds no clip nobody"),
        ({"mode": "relative", "reference": "twin.mp4"}, f"0 to {OWN_FRAMES - 1}"),
        ({"mode": "relative", "reference": str(OWN_FRAMES)}, f"0 to {OWN_FRAMES - 1}"),
        ({"mode": "relative", "reference": "-1"}, f"0 to {OWN_FRAMES - 1}"),
        ({"style": "a1_4d"}, "no drawing style 'a1_4d'; there is a1_3d"),
        ({"clip": "still.mp4"}, "rejected by rule motion"),
        ({"clip": "long.mp4"}, f"several kept clips.*{SPANS[0].clip_id}, {SPANS[1].clip_id}"),
        ({"out": Path("/nowhere/at/all.mp4")}, "no such folder"),
    ],
)
def test_what_cannot_be_rendered_is_refused(
    dataset: Path, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    out = tmp_path / "out.mp4"
    with pytest.raises(UserError, match=message):
        render_clip(**{"dataset": dataset, "clip": MAN.clip_id, "out": out} | options)  # type: ignore[arg-type]
    assert not out.exists()


# Retargeting from files.


def write_image(path: Path, image: np.ndarray) -> Path:
    path.write_bytes(bytes(cv2.imencode(path.suffix, np.ascontiguousarray(image[..., ::-1]))[1]))
    return path


@pytest.fixture
def portrait(man: np.ndarray, tmp_path: Path) -> Path:
    """The man as he looks in frame 40, in a tall picture: 176 × 264, the face where it was."""
    return write_image(tmp_path / "portrait.png", np.pad(man[40], ((0, 120), (0, 0), (0, 0)), "edge"))


def test_a_portrait_moves_as_the_driver_does_from_the_driver_s_first_frame_on(
    man: np.ndarray, portrait: Path, seen: LandmarkRecord, tmp_path: Path
) -> None:
    driving, out = tmp_path / "driving.mp4", tmp_path / "out.mp4"
    videos.write(driving, list(man[40:120:5]), rate=12)
    lines: list[str] = []
    retarget(portrait, driving, out, report=lines.append)
    # 176 × 144 and 176 × 264, scaled to 480 lines: 586.7 and 320 columns.
    frames, still, drawn = pictures(out, 586, 320, 320)
    assert (len(frames), frames.shape[1]) == (OWN_FRAMES, 480)
    assert probe(str(out)).fps == pytest.approx(12)
    assert np.abs(frames[5].astype(int) - cv2.resize(man[65], (586, 480), interpolation=cv2.INTER_CUBIC)).mean() < 4
    assert np.abs(still[5].astype(int) - still[0]).max() < 24
    assert f"finding the face in {OWN_FRAMES} frames of {driving}" in lines[0]
    # In the padded picture the face lies at the same px as in the frame.
    first = seen.points[0, NOSE_TIP, :2] * SOURCE_WH * (480 / 264)
    nose = nose_of(drawn)
    np.testing.assert_allclose(nose[0], first, atol=3)
    assert np.linalg.norm(np.diff(nose, axis=0), axis=1).max() > 1


def test_a_driver_is_sampled_twelve_times_a_second(man: np.ndarray, portrait: Path, tmp_path: Path) -> None:
    driving, out = tmp_path / "driving.mp4", tmp_path / "out.mp4"
    videos.write(driving, list(man[:30]), rate=30)
    retarget(portrait, driving, out)
    assert len(read(out)) == 12


def test_where_the_driver_shows_no_face_nothing_is_drawn(man: np.ndarray, portrait: Path, tmp_path: Path) -> None:
    driving, out = tmp_path / "driving.mp4", tmp_path / "out.mp4"
    empty = np.full_like(man[0], 128)
    # Six frames are more than is filled, two are not.
    videos.write(driving, [*[empty] * 6, man[0], man[2], empty, empty, man[4]], rate=12)
    retarget(portrait, driving, out)
    drawn = pictures(out, 586, 320, 320)[2]
    assert (drawn.max(axis=(1, 2, 3)) > 100).tolist() == [False] * 6 + [True] * 5


def test_a_photograph_lies_as_its_camera_was_held(man: np.ndarray, tmp_path: Path) -> None:
    upright = cv2.resize(man[0], (352, 288), interpolation=cv2.INTER_CUBIC)
    path = write_image(tmp_path / "lying.jpg", np.rot90(upright))
    # Exif with the one tag that says the picture is to be turned clockwise for display (orientation 6).
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:])
    videos.write(tmp_path / "driving.mp4", [man[0]], rate=12)
    retarget(path, tmp_path / "driving.mp4", tmp_path / "out.mp4")
    _, still, drawn = pictures(tmp_path / "out.mp4", 586, 586, 586)
    assert np.abs(still[0].astype(int) - cv2.resize(upright, (586, 480), interpolation=cv2.INTER_CUBIC)).mean() < 6
    assert drawn.max() > 100


def no_face(path: Path) -> Path:
    return write_image(path, np.full((300, 400, 3), 128, np.uint8))


def test_files_of_no_use_are_named_with_the_remedy(man: np.ndarray, portrait: Path, tmp_path: Path) -> None:
    driving, out = videos.write(tmp_path / "driving.mp4", list(man[:4]), rate=12), tmp_path / "out.mp4"
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.mp4").write_text("no video")
    faceless = videos.write(tmp_path / "faceless.mp4", [np.full((144, 176, 3), 128, np.uint8)] * 4, rate=12)
    cases = [
        (tmp_path / "absent.png", driving, r"absent.png: No such file.* --portrait"),
        (tmp_path / "text.png", driving, r"text.png is no image .*convert"),
        (tmp_path / "empty.png", driving, r"empty.png is no image"),
        (no_face(tmp_path / "wall.png"), driving, r"wall.png: no face is found.* --portrait"),
        (portrait, tmp_path / "absent.mp4", r"absent.mp4 does not exist; give another file with --driving"),
        (portrait, tmp_path / "text.mp4", r"text.mp4 has no readable movie table.*; give another file with --driving"),
        (portrait, faceless, r"faceless.mp4: no face is found.* --driving"),
    ]
    for image, video, message in cases:
        with pytest.raises(UserError, match=message):
            retarget(image, video, out)
    assert not out.exists()
