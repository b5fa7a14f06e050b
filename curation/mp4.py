"""Pictures and sound into an MP4, H.264 and AAC, a picture at a time; equal input gives equal bytes."""

import platform
from collections.abc import Iterator
from fractions import Fraction
from types import TracebackType
from typing import BinaryIO

import av
import numpy as np

AUDIO_RATE = 48_000
_BLOCK = 1024  # what AAC encodes at a time
# ITU-T H.273 code points for BT.601, which is what an RGB frame of this size is converted to.
_BT601 = 6
# x264 with AVX-512 gives other bytes from run to run (its macroblock tree; seen with core 165). Held to SSE4.2 it repeats
# bit for bit, gives the same bytes as with AVX2, and takes no longer.
_X264_PARAMS = "threads=1" + (":asm=sse4.2" if platform.machine() in {"x86_64", "AMD64"} else "")


class Mp4Writer:
    """Writes frames, uint8 RGB ``[H, W, 3]`` with even sides, and sound beside them; use it with ``with``.

    ``target`` is a path or a stream that can seek; ``crf`` and ``preset`` are x264's. ``sound`` yields blocks float32
    ``[1 or 2, n]`` at 48 kHz, which begin with the first frame; they are taken as frames come, and what is left of them
    at the end. Without a block there is no track. One encoder thread and no version strings. With ``faststart``, which
    needs a path, a player can begin before it has the whole file.
    """

    def __init__(
        self,
        target: str | BinaryIO,
        fps: float,
        sound: Iterator[np.ndarray],
        *,
        crf: int,
        preset: str,
        faststart: bool = False,
    ) -> None:
        self._rate = Fraction(fps).limit_denominator(1001)
        options = {"fflags": "+bitexact"} | ({"movflags": "+faststart"} if faststart else {})
        self._container = av.open(target, "w", format="mp4", options=options)
        self._video = self._container.add_stream("libx264", rate=self._rate)
        self._video.pix_fmt = "yuv420p"
        self._video.options = {"crf": str(crf), "preset": preset, "x264-params": _X264_PARAMS}
        self._video.codec_context.thread_count = 1
        self._video.codec_context.colorspace = _BT601
        self._video.codec_context.color_primaries = _BT601
        self._video.codec_context.color_trc = _BT601
        self._video.codec_context.flags |= av.codec.context.Flags.bitexact
        self._frames = 0
        self._sound = sound
        self._pending = next(sound, np.zeros((0, 0), np.float32))
        self._samples = 0
        self._audio = None
        if len(self._pending):
            layout = "mono" if len(self._pending) == 1 else "stereo"
            self._audio = self._container.add_stream("aac", rate=AUDIO_RATE, layout=layout)
            self._audio.codec_context.flags |= av.codec.context.Flags.bitexact

    def add(self, pixels: np.ndarray) -> None:
        """The next frame; all have the size of the first."""
        if not self._frames:
            self._video.height, self._video.width = pixels.shape[:2]
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame.pts, frame.time_base = self._frames, 1 / self._rate
        self._container.mux(self._video.encode(frame))
        self._frames += 1
        self._encode_sound(until=int(self._frames / self._rate * AUDIO_RATE))

    def __enter__(self) -> "Mp4Writer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._container.mux(self._video.encode(None))
                self._encode_sound(until=None)
        finally:
            self._container.close()

    def _encode_sound(self, until: int | None) -> None:
        """Encode whole blocks up to the sample ``until``; with None all that is left."""
        if self._audio is None:
            return
        while until is None or self._samples < until:
            while self._pending.shape[1] < _BLOCK and (more := next(self._sound, None)) is not None:
                self._pending = np.concatenate([self._pending, more], axis=1)
            samples, self._pending = self._pending[:, :_BLOCK], self._pending[:, _BLOCK:]
            if not samples.shape[1]:
                break
            block = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(samples), format="fltp", layout=self._audio.layout.name
            )
            block.sample_rate, block.pts, block.time_base = AUDIO_RATE, self._samples, Fraction(1, AUDIO_RATE)
            self._container.mux(self._audio.encode(block))
            self._samples += samples.shape[1]
        if until is None:
            self._container.mux(self._audio.encode(None))
