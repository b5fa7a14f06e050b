import io
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from curation.sample_video import SampleVideoConfig, encode_sample, read_sound
from shards.video import decode_video
from tests.videos import SOUND_RATE, clicks, first_click_s, number_of, numbered, write

CONFIG = SampleVideoConfig(preset="veryfast")
FRAMES = np.stack([numbered(i) for i in range(40)])


def scenery(count: int, height: int, width: int) -> np.ndarray:
    """Frames with texture and motion, so that every part of the encoder has work."""
    rng = np.random.default_rng(3)
    wide = rng.integers(0, 256, (height // 8, (width + 8 * count) // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    return np.stack([wide[:height, 5 * i : 5 * i + width] for i in range(count)])


def test_a_preset_that_x264_does_not_know_is_refused() -> None:
    with pytest.raises(ValidationError, match="veryslow"):
        SampleVideoConfig.model_validate({"preset": "quick"})


def test_two_encodes_give_equal_bytes() -> None:
    frames, sound = scenery(13, 480, 720), clicks(13 / 12, [0.3])
    config = SampleVideoConfig()
    assert encode_sample(frames, 12, sound, config) == encode_sample(frames, 12, sound, config)


def test_frames_may_come_one_at_a_time() -> None:
    frames = scenery(13, 96, 144)
    one_by_one = encode_sample((frame for frame in frames), 12, None, CONFIG)
    assert one_by_one == encode_sample(frames, 12, None, CONFIG)


def test_another_process_gives_the_same_bytes() -> None:
    script = (
        "import hashlib; from tests.curation.test_sample_video import *;"
        "print(hashlib.sha256(encode_sample(scenery(13, 96, 144), 12, None, CONFIG)).hexdigest())"
    )
    runs = {
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(runs) == 1


def test_frames_come_back_in_order_and_nearly_unchanged() -> None:
    frames = scenery(49, 480, 720)
    decoded = decode_video(encode_sample(frames, 12, None, SampleVideoConfig()))
    assert decoded.shape == (49, 480, 720, 3)
    assert decoded.dtype == np.uint8
    grey = np.array([0.299, 0.587, 0.114])
    error = (decoded @ grey - frames @ grey)[:, 8:-8, 8:-8]
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 40  # dB of luma: visually lossless


def test_flat_colours_survive_the_colour_matrix() -> None:
    decoded = decode_video(encode_sample(FRAMES, 12, None, CONFIG))
    for y, x in ((8, 8), (8, -8), (-8, 8)):
        assert np.abs(decoded[0][y, x].astype(int) - FRAMES[0][y, x]).max() <= 3
    assert [number_of(frame) for frame in decoded] == list(range(40))


@pytest.mark.parametrize("fps", [12.0, 12.5, 48 / 3.1, 48 / 3.7, 16.0])
def test_the_rate_is_kept(fps: float) -> None:
    with av.open(io.BytesIO(encode_sample(FRAMES, fps, None, CONFIG))) as container:
        times = [frame.time for frame in container.decode(video=0)]
    np.testing.assert_allclose(times, np.arange(40) / fps, atol=1e-3)


def test_the_file_says_nothing_of_the_encoder_version() -> None:
    video = encode_sample(FRAMES, 12, None, CONFIG)
    assert b"Lavf" not in video
    assert b"Lavc" not in video


def test_sound_of_a_sample_starts_with_its_first_frame(tmp_path: Path) -> None:
    path = tmp_path / "sample.mp4"
    path.write_bytes(encode_sample(FRAMES, 12, clicks(40 / 12, [1.25]), CONFIG))
    sound = read_sound(str(path), 0.0, 40 / 12)
    assert sound is not None
    assert first_click_s(sound) == pytest.approx(1.25, abs=0.01)


SOUNDTRACKS = {
    "aac": ("x.mp4", {}),
    "aac at 44.1 kHz": ("x.mp4", {"sound_rate": 44_100}),
    "mp3": ("x.mp4", {"sound_codec": "libmp3lame", "sound_rate": 44_100}),
    "pcm at 16 kHz": ("x.mov", {"sound_codec": "pcm_s16le", "sound_rate": 16_000}),
    "opus": ("x.mkv", {"sound_codec": "libopus"}),
    "transport stream": ("x.ts", {}),
}


@pytest.mark.parametrize("kind", SOUNDTRACKS)
@pytest.mark.parametrize("start_s", [0.0, 0.77, 2.0])
def test_a_click_is_heard_when_it_sounds(tmp_path: Path, kind: str, start_s: float) -> None:
    name, how = SOUNDTRACKS[kind]
    track = clicks(4, [2.5], how.get("sound_rate", SOUND_RATE))
    path = write(tmp_path / name, [numbered(i % 40) for i in range(100)], sound=track, **how)
    with av.open(str(path)) as container:
        first_frame_s = next(container.decode(video=0)).time
    sound = read_sound(str(path), first_frame_s + start_s, 1.9)
    assert sound is not None
    assert sound.shape == (1, round(1.9 * SOUND_RATE))
    if start_s + 1.9 > 2.6:
        assert start_s + first_click_s(sound) == pytest.approx(2.5, abs=0.01)
    else:
        assert np.abs(sound).max() < 0.05


def test_sound_from_frames_to_sample_keeps_its_place(tmp_path: Path) -> None:
    """The whole way: source at 25 fps, a window that begins at 1.2 s, and its sample at 12 fps."""
    source = write(tmp_path / "x.mp4", [numbered(i % 40) for i in range(150)], sound=clicks(6, [3.0]))
    sound = read_sound(str(source), 1.2, 40 / 12)
    (tmp_path / "sample.mp4").write_bytes(encode_sample(FRAMES, 12, sound, CONFIG))
    heard = read_sound(str(tmp_path / "sample.mp4"), 0, 40 / 12)
    assert heard is not None
    assert first_click_s(heard) == pytest.approx(1.8, abs=0.01)


def test_sound_that_begins_after_the_pictures_is_preceded_by_silence(tmp_path: Path) -> None:
    path = write(tmp_path / "x.mp4", [numbered(i) for i in range(40)], sound=clicks(0.6, [0.2]), sound_start=SOUND_RATE)
    sound = read_sound(str(path), 0.0, 1.6)
    assert sound is not None
    assert first_click_s(sound) == pytest.approx(1.2, abs=0.01)
    assert not sound[:, : int(0.95 * SOUND_RATE)].any()


def test_a_pause_in_the_track_stays_a_pause(tmp_path: Path) -> None:
    path = tmp_path / "x.mka"
    with av.open(str(path), "w") as container:
        audio = container.add_stream("pcm_s16le", rate=SOUND_RATE, layout="mono")
        for start in (0, 2 * SOUND_RATE):  # half a second of sound, a pause of one and a half, and a click
            samples = clicks(0.5, [0.1 if start else 0.4])
            for at in range(0, samples.shape[1], 1200):
                block = av.AudioFrame.from_ndarray(
                    (samples[:, at : at + 1200] * 32767).astype(np.int16), format="s16", layout="mono"
                )
                block.sample_rate, block.pts, block.time_base = SOUND_RATE, start + at, Fraction(1, SOUND_RATE)
                container.mux(audio.encode(block))
        container.mux(audio.encode(None))
    sound = read_sound(str(path), 1.0, 1.5)
    assert sound is not None
    assert first_click_s(sound) == pytest.approx(1.1, abs=0.01)


def test_the_end_of_a_resampled_track_is_heard(tmp_path: Path) -> None:
    tone = np.full((1, 16_000), 0.5, np.float32)
    path = write(
        tmp_path / "x.mov",
        [numbered(i % 40) for i in range(50)],
        sound=tone,
        sound_codec="pcm_s16le",
        sound_rate=16_000,
    )
    sound = read_sound(str(path), 0.0, 1.0)
    assert sound is not None
    assert np.abs(sound[0, -10:] - 0.5).max() < 0.2


def test_stereo_stays_stereo_and_more_becomes_stereo(tmp_path: Path) -> None:
    for channels in (1, 2, 6):
        track = clicks(1.5, [0.5]).repeat(channels, axis=0)
        path = write(tmp_path / f"{channels}.mp4", [numbered(i) for i in range(38)], sound=track)
        sound = read_sound(str(path), 0, 1)
        assert sound is not None
        assert len(sound) == min(channels, 2)


def test_no_sound_is_none(tmp_path: Path) -> None:
    silent = write(tmp_path / "silent.mp4", [numbered(i) for i in range(10)])
    assert read_sound(str(silent), 0, 1) is None
    brief = write(tmp_path / "brief.mp4", [numbered(i % 40) for i in range(100)], sound=clicks(0.5, [0.2]))
    assert read_sound(str(brief), 2.0, 1.0) is None


def test_sound_without_a_decoder_is_ffmpegs_error(tmp_path: Path) -> None:
    path = write(tmp_path / "x.mov", [numbered(0)], sound=clicks(1, [0.5]), sound_codec="pcm_s16le")
    path.write_bytes(path.read_bytes().replace(b"sowt", b"zzzz"))
    with pytest.raises(av.FFmpegError):
        read_sound(str(path), 0, 1)


@settings(max_examples=10, deadline=None)
@given(height=st.integers(1, 30), width=st.integers(1, 30), count=st.integers(1, 5))
def test_any_even_size_and_length_round_trips(height: int, width: int, count: int) -> None:
    frames = np.full((count, 16 + 2 * height, 16 + 2 * width, 3), 99, np.uint8)
    decoded = decode_video(encode_sample(frames, 12, None, CONFIG))
    assert decoded.shape == frames.shape
    assert np.abs(decoded.astype(int) - 99).max() <= 2
