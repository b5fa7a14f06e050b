"""Small files to damage: a second and a half of each demo video at about 176×144, in the containers that footage comes in."""

import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from curation.sample_video import read_sound
from curation.video import FrameReader, probe
from faceloom.models import model_path

FPS = 15
FRAMES = 24
_WIDTH, _HEIGHT = 176, 144
_FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
MAN = "man.mp4"
"""The one that is kept as it is."""


def base_files() -> dict[str, bytes]:
    """The files by name. Needs the demo videos; raises :class:`faceloom.errors.UserError` naming one that is missing."""
    man = _footage("carphone_pristine", FPS)
    sound = read_sound(str(model_path("demo/bigbuckbunny.mp4", "bench.fuzz")), 0.0, FRAMES / FPS)
    assert sound is not None
    return {
        MAN: _write(man, "mp4", sound=sound),
        "faststart.mp4": _write(man, "mp4", options={"movflags": "faststart"}),
        "fragmented.mp4": _write(man, "mp4", options=_FRAGMENTED, sound=sound),
        "man.mov": _write(man, "mov", codec="mpeg4"),
        "man.mkv": _write(man, "matroska", sound=sound),
        "man.webm": _write(man, "webm", codec="libvpx"),
        "man.avi": _write(man, "avi", codec="mpeg4"),
        "man.ts": _write(man, "mpegts", sound=sound),
        "distorted.mp4": _write(_footage("carphone_distorted", FPS), "mp4"),
        "bikes.mp4": _write(_footage("bikes", FPS), "mp4", sound=sound),
        "cartoon.mp4": _write(_footage("bigbuckbunny", FPS), "mp4", options={"movflags": "faststart"}),
    }


def _footage(name: str, fps: int) -> np.ndarray:
    probed = probe(str(model_path(f"demo/{name}.mp4", "bench.fuzz")))
    times = np.searchsorted(probed.pts_s, probed.pts_s[0] + np.arange(FRAMES) / fps)
    return np.stack([_small(frame) for frame in FrameReader(probed).frames(times)])


def _small(frame: np.ndarray) -> np.ndarray:
    import cv2

    return np.asarray(cv2.resize(frame, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_AREA))


def _write(
    frames: np.ndarray,
    container: str,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    sound: np.ndarray | None = None,
) -> bytes:
    # FFmpeg opens a file a second time to move its tables to the front.
    with (
        tempfile.NamedTemporaryFile() as file,
        av.open(file.name, "w", format=container, options={"fflags": "+bitexact", **(options or {})}) as out,
    ):
        video = out.add_stream(codec, rate=FPS)
        video.width, video.height, video.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        video.codec_context.thread_count = 1
        video.codec_context.gop_size = 8
        if codec == "libx264":
            video.options = {"crf": "20", "preset": "veryfast", "x264-params": "threads=1"}
        else:
            video.bit_rate = 400_000
        audio = None if sound is None else out.add_stream("aac", rate=48_000, layout="stereo")
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if audio is not None and sound is not None:
            for block in _blocks(sound):
                out.mux(audio.encode(block))
            out.mux(audio.encode(None))
        out.close()
        return Path(file.name).read_bytes()


def _blocks(sound: np.ndarray) -> Iterator[av.AudioFrame]:
    stereo = np.repeat(sound[:1], 2, axis=0)
    for start in range(0, stereo.shape[1], 1024):
        block = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(stereo[:, start : start + 1024]), format="fltp", layout="stereo"
        )
        block.sample_rate, block.pts, block.time_base = 48_000, start, Fraction(1, 48_000)
        yield block
