import dataclasses
import itertools
import os
import stat
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from curation.video import (
    EmptyFileError,
    FrameReader,
    NotAFileError,
    NoVideoStreamError,
    Probe,
    TruncatedVideoError,
    UnreadableVideoError,
    VideoConfig,
    VideoError,
    analysis_fps,
    in_span,
    probe,
    sample_indices,
)
from tests.videos import clicks, number_of, numbered, rotate, write, write_sound

FRAMES = [numbered(i) for i in range(40)]
FASTSTART = {"movflags": "faststart"}


def reader(probed: Probe, decoder: str) -> FrameReader:
    made = FrameReader(dataclasses.replace(probed, decord_exact=decoder == "decord"))
    assert made.decoder == decoder
    return made


def numbers(probed: Probe, indices: list[int], decoder: str | None = None) -> list[int]:
    made = FrameReader(probed) if decoder is None else reader(probed, decoder)
    return [number_of(frame) for frame in made.frames(indices)]


def cut_at(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


# What the probe says of files that are no good.


def test_a_missing_file_is_named_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(NotAFileError, match=r"gone\.mp4 does not exist; restore"):
        probe(str(tmp_path / "gone.mp4"))


def test_a_directory_with_a_video_name_is_not_a_file(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").mkdir()
    with pytest.raises(NotAFileError, match=r"x\.mp4 is not a regular file"):
        probe(str(tmp_path / "x.mp4"))


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.mp4")
    with pytest.raises(NotAFileError, match="not a regular file"):
        probe(str(tmp_path / "x.mp4"))


def test_a_name_longer_than_the_file_system_allows_is_an_error_of_the_clip() -> None:
    with pytest.raises(NotAFileError, match="cannot be read"):
        probe("/" + 300 * "x" + ".mp4")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_or_folder_without_permission_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    path = write(folder / "x.mp4", FRAMES[:3])
    path.chmod(0)
    with pytest.raises(NotAFileError, match=r"may not be read.*permissions"):
        probe(str(path))
    folder.chmod(0)
    try:
        with pytest.raises(NotAFileError, match=r"may not be read.*permissions"):
            probe(str(path))
    finally:
        folder.chmod(stat.S_IRWXU)


def test_zero_bytes(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").touch()
    with pytest.raises(EmptyFileError, match=r"x\.mp4 has zero bytes"):
        probe(str(tmp_path / "x.mp4"))


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_an_mp4_cut_short_is_truncated_where_its_table_comes_last(tmp_path: Path, share: float) -> None:
    with pytest.raises(TruncatedVideoError, match="cut short"):
        probe(str(cut_at(write(tmp_path / "x.mp4", FRAMES), share)))


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6, 0.9])
def test_an_mp4_cut_short_is_truncated_where_its_table_comes_first(tmp_path: Path, share: float) -> None:
    with pytest.raises(TruncatedVideoError, match="cut short"):
        probe(str(cut_at(write(tmp_path / "x.mp4", FRAMES, container_options=FASTSTART), share)))


def test_an_mp4_that_lacks_its_last_byte_is_truncated(tmp_path: Path) -> None:
    path = write(tmp_path / "x.mp4", FRAMES, container_options=FASTSTART)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TruncatedVideoError, match="39 of the 40 frames"):
        probe(str(path))


@pytest.mark.parametrize("suffix", ["m4a", "mp4"])
def test_sound_alone_is_no_video(tmp_path: Path, suffix: str) -> None:
    path = write_sound(tmp_path / f"x.{suffix}", clicks(1, [0.5]))
    with pytest.raises(NoVideoStreamError, match="no video stream; remove it"):
        probe(str(path))


def test_sound_with_cover_art_is_no_video(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "x.mp3", clicks(1, [0.5]), cover=True)
    with pytest.raises(NoVideoStreamError):
        probe(str(path))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_web_page_with_a_video_name_is_a_clip_error(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"x.{suffix}").write_text("<html>404</html>" * 20)
    with pytest.raises(VideoError, match=rf"x\.{suffix}"):
        probe(str(tmp_path / f"x.{suffix}"))


def test_a_file_whose_pictures_are_noise_is_unreadable(tmp_path: Path) -> None:
    path = write(tmp_path / "x.mp4", FRAMES, container_options=FASTSTART)
    data = path.read_bytes()
    start = data.index(b"mdat") + 4
    path.write_bytes(data[:start] + np.random.default_rng(0).bytes(len(data) - start))
    with pytest.raises(UnreadableVideoError, match="no frame of its video stream can be decoded"):
        probe(str(path))


def test_a_codec_without_a_decoder_is_unreadable(tmp_path: Path) -> None:
    path = write(tmp_path / "x.mp4", FRAMES)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(UnreadableVideoError, match="no decoder"):
        probe(str(path))


# Files that are unusual, and good.


def test_one_frame(tmp_path: Path) -> None:
    probed = probe(str(write(tmp_path / "x.mp4", FRAMES[:1])))
    assert (len(probed.pts_s), probed.fps, probed.duration_s) == (1, 0.0, 0.0)
    assert numbers(probed, [0, 0, 0]) == [0, 0, 0]
    assert sample_indices(probed.pts_s, 12).tolist() == [0]


def test_a_path_with_spaces_signs_and_other_scripts(tmp_path: Path) -> None:
    probed = probe(str(write(tmp_path / "ein Fräulein, %03d #1? 視頻: x.mp4", FRAMES)))
    assert numbers(probed, [3, 30], "decord") == numbers(probed, [3, 30], "pyav") == [3, 30]


@pytest.mark.parametrize(
    ("degrees", "corners"),
    [
        # top left, top right, bottom left of what a player shows; turned clockwise, the top left goes to the right
        (90, ["blue", "red", "grey"]),
        (180, ["grey", "blue", "green"]),
        (270, ["green", "grey", "red"]),
    ],
)
def test_rotation_metadata_is_applied(tmp_path: Path, degrees: int, corners: list[str]) -> None:
    probed = probe(str(rotate(write(tmp_path / "x.mp4", FRAMES), degrees)))
    assert (probed.width, probed.height) == ((48, 64) if degrees != 180 else (64, 48))
    (frame,) = FrameReader(probed).frames([0])
    assert frame.shape == (probed.height, probed.width, 3)

    def colour(y: int, x: int) -> str:
        pixel = frame[y, x].astype(int)
        return "grey" if np.ptp(pixel) < 20 else ("red", "green", "blue")[int(pixel.argmax())]

    assert [colour(8, 8), colour(8, -8), colour(-8, 8)] == corners


def test_pixels_that_are_not_square_are_stretched(tmp_path: Path) -> None:
    probed = probe(str(write(tmp_path / "x.mp4", FRAMES, sample_aspect=Fraction(4, 3))))
    (frame,) = FrameReader(probed).frames([7])
    assert (probed.width, probed.height) == (85, 48)
    assert frame.shape == (48, 85, 3)


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "alpha"),
    [
        ("odd.mkv", "ffv1", "yuv420p", False),
        ("ten.mp4", "libx264", "yuv420p10le", False),
        ("full_range.mp4", "libx264", "yuvj420p", False),
        ("dense.mp4", "libx264", "yuv444p", False),
        ("qtrle.mov", "qtrle", "argb", True),
        ("png.mov", "png", "rgba", True),
        ("prores.mov", "prores_ks", "yuva444p10le", True),
        ("vp9.webm", "libvpx-vp9", "yuva420p", True),
    ],
)
def test_unusual_pixels_are_read_as_rgb(tmp_path: Path, name: str, codec: str, pixel_format: str, alpha: bool) -> None:
    shape = (47, 63) if name.startswith("odd") else (48, 64)
    frames = [numbered(i, *shape) for i in range(20)]
    if alpha:
        frames = [np.dstack([f, np.full(shape, 255, np.uint8)]) for f in frames]
    probed = probe(str(write(tmp_path / name, frames, codec=codec, pixel_format=pixel_format)))
    read = list(FrameReader(probed).frames(range(20)))
    assert all(f.shape == (*shape, 3) and f.dtype == np.uint8 for f in read)
    assert [number_of(f) for f in read] == list(range(20))
    for y, x in ((8, 8), (8, -8), (-8, 8)):  # within what 4:2:0 and compression do to flat colour
        assert np.abs(read[0][y, x].astype(int) - frames[0][y, x, :3]).max() <= 4


def test_frames_before_an_edit_list_are_not_shown_and_not_missed(tmp_path: Path) -> None:
    probed = probe(str(trimmed(tmp_path, skipped=5)))
    assert len(probed.pts_s) == 35
    assert numbers(probed, list(range(35))) == list(range(5, 40))


def trimmed(folder: Path, skipped: int) -> Path:
    """A stream copy that begins inside a group of pictures, as ``ffmpeg -ss … -c copy`` makes it."""
    source, path = write(folder / "whole.mp4", FRAMES), folder / "trimmed.mp4"
    with av.open(str(source)) as whole, av.open(str(path), "w") as copy:
        stream = whole.streams.video[0]
        target = copy.add_stream_from_template(stream)
        shift = int(Fraction(skipped, 25) / stream.time_base)
        for packet in whole.demux(stream):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, target
                copy.mux(packet)
    return path


# Which frame is which, whoever decodes it.

CONTAINERS = {
    "mp4": ("x.mp4", {}),
    "mp4 that starts late": ("x.mp4", {"times": range(100, 140), "time_base": Fraction(1, 25)}),
    "mp4 with open groups": ("x.mp4", {"options": {"x264-params": "open-gop=1:bframes=3"}}),
    "hevc with open groups": (
        "x.mp4",
        {"codec": "libx265", "options": {"crf": "4", "x265-params": "open-gop=1:keyint=12:log-level=none"}},
    ),
    "mkv": ("x.mkv", {}),
    "webm": ("x.webm", {"codec": "libvpx-vp9"}),
    "transport stream": ("x.ts", {}),
    "program stream": ("x.mpg", {"codec": "mpeg2video", "options": {"qmax": "2"}}),
    "flv": ("x.flv", {}),
    "avi": ("x.avi", {"codec": "mpeg4", "options": {"qmax": "2"}}),
    "avi with reordered frames": ("x.avi", {"codec": "mpeg4", "options": {"qmax": "2", "bf": "2"}}),
    "avi with h264": ("x.avi", {}),
    "raw h264": ("x.h264", {}),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_the_frames_asked_for_are_the_frames_given(tmp_path: Path, kind: str) -> None:
    name, settings = CONTAINERS[kind]
    probed = probe(str(write(tmp_path / name, FRAMES, **settings)))
    assert len(probed.pts_s) == 40
    assert probed.fps == pytest.approx(25, rel=0.03)
    assert numbers(probed, list(range(40))) == list(range(40))
    jumps = [0, 0, 5, 13, 14, 20, 26, 39]
    assert numbers(probed, jumps) == jumps
    for first in range(1, 40, 3):  # wherever reading begins
        assert numbers(probed, [first, 39]) == [first, 39]


@pytest.mark.parametrize("kind", CONTAINERS)
def test_without_decord_the_frames_are_the_same(tmp_path: Path, kind: str) -> None:
    name, settings = CONTAINERS[kind]
    probed = probe(str(write(tmp_path / name, FRAMES, **settings)))
    indices = [0, 3, 11, 12, 13, 25, 25, 39]
    own = list(FrameReader(probed).frames(indices))
    for mine, pyav in zip(own, reader(probed, "pyav").frames(indices), strict=True):
        np.testing.assert_array_equal(mine, pyav)
    for first in (9, 10, 11, 12, 13, 22, 23):  # entering around a keyframe, and among frames shown before it
        assert numbers(probed, [first], "pyav") == [first]


def test_common_video_is_read_by_decord(tmp_path: Path) -> None:
    assert FrameReader(probe(str(write(tmp_path / "x.mp4", FRAMES)))).decoder == "decord"
    assert FrameReader(probe(str(write(tmp_path / "x.mkv", FRAMES)))).decoder == "decord"


def test_reading_by_decord_leaves_torch_its_own_blas(tmp_path: Path) -> None:
    """In a process of its own, since what decord opens can be opened once only, and a wrong BLAS is the end of it."""
    code = """
import sys
from curation.video import FrameReader, probe
reader = FrameReader(probe(sys.argv[1]))
assert len(list(reader.frames([0, 20]))) == 2 and reader.decoder == "decord"
import torch
assert (torch.ones(64, 64) @ torch.ones(64, 64)).sum() == 64**3
"""
    path = write(tmp_path / "x.mp4", FRAMES)
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_pyav_takes_over_where_decord_stops(tmp_path: Path) -> None:
    made = FrameReader(probe(str(write(tmp_path / "x.mp4", FRAMES))))
    frames = made.frames(range(40))
    before = [number_of(next(frames)) for _ in range(8)]

    class Broken:
        def __getitem__(self, _: int) -> None:
            raise RuntimeError("decord is lost")

    made._decord = Broken()
    assert before + [number_of(f) for f in frames] == list(range(40))
    assert made.decoder == "pyav"


def test_frames_that_nobody_can_decode_are_an_error_that_says_when(tmp_path: Path) -> None:
    path = write(tmp_path / "x.mp4", FRAMES, options={"bf": "0"})
    with av.open(str(path)) as container:
        at = [packet.pos for packet in container.demux(video=0) if packet.size][30]
    data = path.read_bytes()
    path.write_bytes(data[:at] + b"\xff" * 4 + data[at + 4 :])
    with pytest.raises(UnreadableVideoError, match=r"x\.mp4: decoding stops at 1\.20 s"):
        list(FrameReader(probe(str(path))).frames(range(40)))


# Timing.

CONFIG = VideoConfig()


@pytest.mark.parametrize("rate", [25, 30, Fraction(30000, 1001), Fraction(24000, 1001)])
@pytest.mark.parametrize("name", ["x.mp4", "x.mkv"])
def test_presentation_times_of_a_constant_rate(tmp_path: Path, rate: Fraction, name: str) -> None:
    probed = probe(str(write(tmp_path / name, FRAMES, rate=rate)))
    rounding_s = 1e-3 if name.endswith("mkv") else 1e-6
    np.testing.assert_allclose(probed.pts_s - probed.pts_s[0], np.arange(40) / float(rate), atol=rounding_s)
    assert probed.fps == pytest.approx(float(rate), rel=0.02 if name.endswith("mkv") else 1e-5)


def test_presentation_times_of_a_variable_rate(tmp_path: Path) -> None:
    times_ms = np.cumsum(np.random.default_rng(1).integers(20, 90, 40)).tolist()
    probed = probe(str(write(tmp_path / "x.mp4", FRAMES, times=times_ms, time_base=Fraction(1, 1000))))
    np.testing.assert_allclose(probed.pts_s, np.array(times_ms) / 1000, atol=1e-4)
    assert numbers(probed, list(range(40)), "decord") == numbers(probed, list(range(40)), "pyav") == list(range(40))


@given(
    gaps_ms=st.lists(st.integers(1, 200), min_size=1, max_size=80),
    start_s=st.floats(-5, 50),
    fps=st.sampled_from([2.0, 12.0, 13.7, 16.0]),
)
def test_each_sampled_frame_is_the_one_shown_nearest(gaps_ms: list[int], start_s: float, fps: float) -> None:
    pts = start_s + np.cumsum([0, *gaps_ms]) / 1000
    chosen = sample_indices(pts, fps)
    for k, index in enumerate(chosen):
        distance = np.abs(pts - (pts[0] + k / fps))
        assert distance[index] <= distance.min() + 2e-9
    assert (np.diff(chosen) >= 0).all()
    # One more sample would lie more than half a frame beyond the last frame.
    half = float(np.median(np.diff(pts))) / 2
    assert (len(chosen) - 1) / fps <= pts[-1] - pts[0] + half + 1e-6 < len(chosen) / fps + 2e-6


@pytest.mark.parametrize("rate", [12.0, 23.976, 24.0, 25.0, 29.97, 30.0, 50.0, 60.0])
def test_at_a_constant_rate_frames_are_within_half_a_source_frame(rate: float) -> None:
    pts = 1.37 + np.arange(int(9 * rate)) / rate
    chosen = sample_indices(pts, 12)
    off = np.abs(pts[chosen] - (pts[0] + np.arange(len(chosen)) / 12))
    assert off.max() <= 0.5 / rate + 1e-6
    assert (np.diff(chosen) > 0).all()


def test_24_to_12_takes_every_second_frame() -> None:
    np.testing.assert_array_equal(sample_indices(np.arange(97) / 24, 12), np.arange(0, 97, 2))


def test_a_source_slower_than_the_sampling_repeats_frames() -> None:
    chosen = sample_indices(np.arange(50) / 10, 12)
    assert len(chosen) == 60
    assert (np.diff(chosen) == 0).mean() == pytest.approx(1 / 6, abs=0.01)


@given(rate=st.floats(12, 60), span_s=st.floats(3.0, 4.2))
def test_three_to_four_seconds_fill_49_frames(rate: float, span_s: float) -> None:
    pts = np.arange(int(span_s * rate) + 2) / rate  # lasts at least span_s
    fps = analysis_fps(float(pts[-1]), 49, CONFIG, 0.5 / rate)
    assert 12 <= fps <= 16
    assert len(sample_indices(pts, fps)) >= 49


@given(rate=st.floats(10, 60), span_s=st.floats(0.5, 2.99))
def test_shorter_clips_keep_the_nominal_rate(rate: float, span_s: float) -> None:
    assert analysis_fps(span_s, 49, CONFIG, 0.5 / rate) == 12


def test_a_span_counts_from_the_first_frame_and_ends_before_its_end() -> None:
    pts = 7.2 + np.arange(50) / 25
    assert in_span(pts, 0.4, 0.8).tolist() == list(range(10, 20))
    assert in_span(pts, 1.6, None).tolist() == list(range(40, 50))
    assert in_span(pts, 9.0, None).tolist() == []


@given(times=st.lists(st.integers(0, 50), min_size=2, max_size=5, unique=True))
def test_adjacent_spans_share_no_frame_and_lose_none(times: list[int]) -> None:
    pts = 3.3 + np.arange(51) / 25
    borders = [0.0, *sorted(t / 25 for t in times), None]
    parts = [in_span(pts, a, b) for a, b in itertools.pairwise(borders) if a is not None]
    assert np.concatenate(parts).tolist() == list(range(51))


@pytest.mark.parametrize("key", ["fps", "max_fps"])
def test_a_rate_of_zero_is_refused(key: str) -> None:
    with pytest.raises(ValidationError):
        VideoConfig.model_validate({key: 0})


def test_where_decord_gives_more_than_three_channels_pyav_is_asked(tmp_path):
    class SixChannels:  # what decord makes of pictures whose format changes on the way
        def __getitem__(self, _index: int) -> "SixChannels":
            return self

        def asnumpy(self) -> np.ndarray:
            return np.zeros((48, 64, 6), np.uint8)

    reader = FrameReader(probe(str(write(tmp_path / "x.mp4", FRAMES))))
    reader._decord = SixChannels()
    assert [number_of(frame) for frame in reader.frames([0, 5])] == [0, 5]
    assert reader.decoder == "pyav"
