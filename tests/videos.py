"""Synthetic video files for the tests, written with PyAV: every frame says which one it is."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

_IDENTITY = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
SOUND_RATE = 48_000


def numbered(index: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A frame that tells its number and its orientation: uint8 RGB ``[height, width, 3]``.

    The top left quarter is red, the top right green, the bottom left blue; the bottom right is grey ``8 + 6 · index``.
    """
    frame = np.zeros((height, width, 3), np.uint8)
    h, w = height // 2, width // 2
    frame[:h, :w], frame[:h, w:], frame[h:, :w] = (200, 0, 0), (0, 200, 0), (0, 0, 200)
    frame[h:, w:] = 8 + 6 * index
    return frame


def number_of(frame: np.ndarray) -> int:
    """The index that :func:`numbered` was given, read back from the pixels."""
    h, w = frame.shape[0] // 2, frame.shape[1] // 2
    return round((float(np.median(frame[h + 4 : -4, w + 4 : -4])) - 8) / 6)


def write(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    rate: Fraction | int = 25,
    times: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    sound: np.ndarray | None = None,
    sound_codec: str = "aac",
    sound_rate: int = SOUND_RATE,
    sound_start: int = 0,
    gop: int = 12,
    sample_aspect: Fraction | None = None,
) -> Path:
    """Write ``frames`` (RGB, or RGBA for a format with alpha) at ``rate``, or at ``times`` counted in ``time_base``.

    ``sound[channels, N]`` is float32 at ``sound_rate`` and begins ``sound_start`` samples into the file.
    """
    with av.open(str(path), "w", options=container_options or {}) as container:
        video = container.add_stream(codec, rate=Fraction(rate))
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = pixel_format
        if codec in {"libx264", "libvpx", "libvpx-vp9", "libx265", "mpeg4"}:
            video.codec_context.gop_size = gop
        if codec == "libx264":
            video.options = {"crf": "4", "preset": "veryfast", **(options or {})}
        elif options:
            video.options = options
        if sample_aspect is not None:
            video.codec_context.sample_aspect_ratio = sample_aspect
        base = time_base or 1 / Fraction(rate)
        if time_base is not None:
            video.codec_context.time_base = time_base
            video.time_base = time_base
        audio = None
        if sound is not None:
            layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(sound)]
            audio = container.add_stream(sound_codec, rate=sound_rate, layout=layout)
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(pixels), format="rgba" if pixels.shape[2] == 4 else "rgb24"
            )
            frame.pts, frame.time_base = (i if times is None else times[i]), base
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None and sound is not None:
            _encode_sound(container, audio, sound, sound_rate, sound_start)
    return path


def write_sound(path: Path, sound: np.ndarray, cover: bool = False) -> Path:
    """An audio file of ``sound[channels, N]``; with ``cover`` it carries a picture, as music files do."""
    with av.open(str(path), "w") as container:
        codec = "libmp3lame" if path.suffix == ".mp3" else "aac"
        audio = container.add_stream(codec, rate=SOUND_RATE, layout="mono" if len(sound) == 1 else "stereo")
        picture = None
        if cover:
            picture = container.add_stream("mjpeg")
            picture.width, picture.height, picture.pix_fmt = 64, 48, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
        if picture is not None:
            frame = av.VideoFrame.from_ndarray(numbered(0), format="rgb24")
            frame.pts = 0
            container.mux(picture.encode(frame))
            container.mux(picture.encode(None))
        _encode_sound(container, audio, sound, SOUND_RATE, 0)
    return path


def clicks(seconds: float, at_s: Sequence[float], rate: int = SOUND_RATE) -> np.ndarray:
    """Silence with one short loud burst at each of ``at_s``: float32 ``[1, N]``."""
    sound = np.zeros((1, round(seconds * rate)), np.float32)
    burst = np.sin(np.arange(rate // 400) * 2 * np.pi * 2000 / rate).astype(np.float32) * 0.9
    for time in at_s:
        start = round(time * rate)
        sound[0, start : start + len(burst)] = burst[: sound.shape[1] - start]
    return sound


def first_click_s(sound: np.ndarray, rate: int = SOUND_RATE) -> float:
    """When ``sound[channels, N]`` first exceeds half of its loudest sample."""
    loud = np.abs(sound).max(axis=0)
    return float(np.argmax(loud > 0.5 * loud.max()) / rate)


def rotate(path: Path, degrees: int) -> Path:
    """Give an MP4 a display matrix that turns its pictures ``degrees`` clockwise."""
    data = path.read_bytes()
    with av.open(str(path)) as container:
        width, height = container.streams.video[0].width, container.streams.video[0].height
    one = 0x10000
    a, b, c, d, x, y = {
        90: (0, one, -one, 0, height, 0),
        180: (-one, 0, 0, -one, width, height),
        270: (0, -one, one, 0, 0, width),
    }[degrees]
    matrix = struct.pack(">9i", a, b, 0, c, d, 0, x << 16, y << 16, 0x40000000)
    at = data.index(_IDENTITY, data.index(b"tkhd"))
    path.write_bytes(data[:at] + matrix + data[at + len(matrix) :])
    return path


def _encode_sound(
    container: av.container.OutputContainer, audio: av.AudioStream, sound: np.ndarray, rate: int, start: int
) -> None:
    planar = audio.codec_context.format.name.endswith("p")
    resampler = av.AudioResampler(format=audio.codec_context.format.name, layout=audio.layout.name, rate=rate)
    for at in range(0, sound.shape[1], 1024):
        block = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(sound[:, at : at + 1024]), format="fltp", layout=audio.layout.name
        )
        block.sample_rate, block.pts, block.time_base = rate, start + at, Fraction(1, rate)
        for converted in [block] if planar else resampler.resample(block):
            container.mux(audio.encode(converted))
    container.mux(audio.encode(None))
