from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from animation.output import find_sound, write_videos
from curation.sample_video import SampleVideoConfig, read_sound
from faceloom.errors import UserError
from tests.animation.synthetic import driver_of
from tests.videos import clicks, first_click_s, number_of, numbered, write

CONFIG = SampleVideoConfig(preset="ultrafast")
STILL = np.full((96, 64, 3), 70, np.uint8)
DARK, BRIGHT = np.full((48, 64, 3), 20, np.uint8), np.full((48, 64, 3), 230, np.uint8)
EVENT_S = 1.61


def decoded(path):
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def source(kind, path):
    """Three seconds in which at :data:`EVENT_S` it grows bright and a click is heard, and when it is seen."""
    sound = clicks(3, [EVENT_S])
    if kind == "vfr":
        gaps = np.random.default_rng(1).integers(20, 60, 80)
        times = np.concatenate([[0], np.cumsum(gaps)]).tolist()
        rate = {"times": times, "time_base": Fraction(1, 1000)}
        shown = [t / 1000 for t in times]
    else:
        shown = [float(i / kind) for i in range(int(3 * kind))]
        rate = {"rate": kind}
    write(path, [BRIGHT if t >= EVENT_S - 1e-9 else DARK for t in shown], sound=sound, **rate)
    return path


@pytest.mark.parametrize("fps", [12, 25])
@pytest.mark.parametrize("kind", [Fraction(25), Fraction(30000, 1001), "vfr"])
def test_sound_and_pictures_stay_within_a_frame_of_each_other(kind, fps, tmp_path):
    driver = driver_of(source(kind, tmp_path / "driving.mp4"), fps)
    assert find_sound(driver) == (True, None)
    write_videos(driver.frames(), driver, tmp_path / "out.mp4", CONFIG, sound=True, portrait=STILL)
    frames = decoded(tmp_path / "out.mp4")
    assert len(frames) == len(driver)
    seen_s = next(time for time, pixels in frames if pixels.mean() > 120)
    heard = read_sound(str(tmp_path / "out.mp4"), 0.0, 3.0)
    heard_s = first_click_s(heard)
    assert heard_s == pytest.approx(EVENT_S, abs=0.012)
    assert abs(seen_s - heard_s) <= 1 / fps


def test_sound_of_a_driver_whose_clock_does_not_begin_at_zero_begins_with_its_first_frame(tmp_path):
    path = tmp_path / "late.mkv"
    pictures = [BRIGHT if i >= 10 else DARK for i in range(25)]
    write(path, pictures, times=[1000 + 40 * i for i in range(25)], time_base=Fraction(1, 1000), sound=clicks(3, [1.4]))
    driver = driver_of(path, 25)
    assert driver.start_s == pytest.approx(1.0)
    write_videos(driver.frames(), driver, tmp_path / "out.mp4", CONFIG, sound=True, portrait=STILL)
    assert first_click_s(read_sound(str(tmp_path / "out.mp4"), 0.0, 1.0)) == pytest.approx(0.4, abs=0.012)


def silent(tmp_path, frames=12):
    return driver_of(write(tmp_path / "silent.mp4", [numbered(i) for i in range(frames)], rate=12))


def test_a_silent_driver_gives_a_silent_video(tmp_path):
    driver = silent(tmp_path)
    assert find_sound(driver) == (False, None)
    write_videos(driver.frames(), driver, tmp_path / "out.mp4", CONFIG, sound=False, portrait=STILL)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert not container.streams.audio
        video = container.streams.video[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert video.average_rate == 12


def test_sound_that_cannot_be_decoded_is_known_before_any_work(tmp_path):
    path = write(tmp_path / "x.mov", [numbered(0)] * 12, rate=12, sound=clicks(1, [0.5]), sound_codec="pcm_s16le")
    path.write_bytes(path.read_bytes().replace(b"sowt", b"zzzz"))
    heard, lost = find_sound(driver_of(path))
    assert not heard
    assert f"the sound of {path} cannot be decoded" in lost


def test_a_player_can_begin_before_it_has_the_whole_file(tmp_path):
    driver = silent(tmp_path)
    write_videos(driver.frames(), driver, tmp_path / "out.mp4", CONFIG, sound=False, portrait=STILL)
    data = (tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_frames_are_taken_one_at_a_time_and_come_back_in_order(tmp_path):
    driver = silent(tmp_path, 30)
    buffer = np.empty((48, 64, 3), np.uint8)

    def reused():
        for i in range(30):
            buffer[:] = numbered(i)
            yield buffer

    write_videos(reused(), driver, tmp_path / "out.mp4", SampleVideoConfig(), sound=False, portrait=STILL)
    assert [number_of(pixels) for _, pixels in decoded(tmp_path / "out.mp4")] == list(range(30))


def test_side_by_side_shows_portrait_driver_and_result_at_the_same_moment(tmp_path):
    driver = silent(tmp_path)
    results = (numbered(2 * i) for i in range(12))
    write_videos(
        results,
        driver,
        tmp_path / "out.mp4",
        SampleVideoConfig(),
        sound=False,
        portrait=STILL,
        side_by_side=tmp_path / "three.mp4",
    )
    for i, (_, panels) in enumerate(decoded(tmp_path / "three.mp4")):
        assert panels.shape == (480, 320 + 640 + 640, 3)
        still, shown, result = np.split(panels, [320, 960], axis=1)
        assert np.abs(still.astype(int) - 70).max() < 6
        assert number_of(cv2.resize(shown, (64, 48))) == i
        assert number_of(cv2.resize(result, (64, 48))) == 2 * i
    assert [number_of(pixels) for _, pixels in decoded(tmp_path / "out.mp4")] == [2 * i for i in range(12)]


def test_a_video_is_written_whole_or_not_at_all(tmp_path):
    driver = silent(tmp_path)
    out, beside = tmp_path / "out.mp4", tmp_path / "three.mp4"
    out.write_bytes(b"what was there before")

    def breaking():
        yield numbered(0)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        write_videos(breaking(), driver, out, CONFIG, sound=False, portrait=STILL, side_by_side=beside)
    assert out.read_bytes() == b"what was there before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4", "silent.mp4"]


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot write .*absent/out.mp4: No such file"):
        write_videos(
            iter([numbered(0)]), silent(tmp_path), tmp_path / "absent/out.mp4", CONFIG, sound=False, portrait=STILL
        )
