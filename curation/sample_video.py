"""The sample's own video: 49 frames, H.264 in MP4, with the clip's sound where it has any."""

import io
import itertools
import platform
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Literal

import av
import numpy as np
from pydantic import Field

from curation.containers import open_footage, packets_of
from faceloom.config import Section

_AUDIO_RATE = 48_000
# A frame this far from where the sound before it ends was recorded after a pause; less is rounding and the resampler's delay.
_GAP_S = 0.05
# ITU-T H.273 code points for BT.601, which is what an RGB frame of this size is converted to.
_BT601 = 6
# x264 with AVX-512 gives other bytes from run to run (its macroblock tree; seen with core 165). Held to SSE4.2 it repeats
# bit for bit, gives the same bytes as with AVX2, and takes no longer.
_X264_PARAMS = "threads=1" + (":asm=sse4.2" if platform.machine() in {"x86_64", "AMD64"} else "")


class SampleVideoConfig(Section):
    """How the sample video is compressed."""

    crf: int = Field(14, ge=0, le=51)
    """x264's constant rate factor; 14 is visually lossless."""
    preset: Literal[
        "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"
    ] = "medium"


def encode_sample(
    frames: Iterable[np.ndarray], fps: float, sound: np.ndarray | None, config: SampleVideoConfig
) -> bytes:
    """MP4 bytes of ``frames`` (uint8 RGB ``[H, W, 3]`` each) at ``fps``, with ``sound[channels, N]`` (float32, 48 kHz).

    At least one frame, all of one size; they are taken one at a time, so a long video need not be in memory. One encoder
    thread and no version strings: equal input gives equal bytes.
    """
    buffer = io.BytesIO()
    rate = Fraction(fps).limit_denominator(1001)
    frames = iter(frames)
    first = next(frames)
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        video = container.add_stream("libx264", rate=rate)
        video.height, video.width = first.shape[:2]
        video.pix_fmt = "yuv420p"
        video.options = {"crf": str(config.crf), "preset": config.preset, "x264-params": _X264_PARAMS}
        video.codec_context.thread_count = 1
        video.codec_context.colorspace = _BT601
        video.codec_context.color_primaries = _BT601
        video.codec_context.color_trc = _BT601
        audio = None
        if sound is not None:
            audio = container.add_stream("aac", rate=_AUDIO_RATE, layout="mono" if len(sound) == 1 else "stereo")
            audio.codec_context.flags |= av.codec.context.Flags.bitexact
        video.codec_context.flags |= av.codec.context.Flags.bitexact
        for i, pixels in enumerate(itertools.chain([first], frames)):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = i, 1 / rate
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None and sound is not None:
            for start in range(0, sound.shape[1], 1024):
                block = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(sound[:, start : start + 1024]), format="fltp", layout=audio.layout.name
                )
                block.sample_rate, block.pts, block.time_base = _AUDIO_RATE, start, Fraction(1, _AUDIO_RATE)
                container.mux(audio.encode(block))
            container.mux(audio.encode(None))
    return buffer.getvalue()


def read_sound(path: str, start_s: float, duration_s: float) -> np.ndarray | None:
    """Sound of ``[start_s, start_s + duration_s)`` in the container's clock, float32 ``[1 or 2, N]`` at 48 kHz.

    Silence fills where the track begins later, pauses or ends earlier. None when the file has no sound there. Raises
    ``av.FFmpegError`` when its audio cannot be decoded, ``ValueError`` when its rate or layout changes on the way.
    """
    count = round(duration_s * _AUDIO_RATE)
    with open_footage(path) as container:
        stream = container.streams.best("audio")
        if not isinstance(stream, av.AudioStream):
            return None
        if stream.codec_context is None:
            raise av.DecoderNotFoundError(0, "no decoder for its sound", path)
        stream.codec_context.thread_count = 1
        channels = min(2, stream.codec_context.channels)
        sound = np.zeros((channels, count), np.float32)
        heard = False
        if stream.time_base:
            # Half a second early: decoders need a run-up after a seek.
            container.seek(max(0, int((start_s - 0.5) / float(stream.time_base))), stream=stream)
        for time_s, block in _resampled(container, stream, channels):
            at = round((time_s - start_s) * _AUDIO_RATE)
            if at >= count:
                break
            low, high = max(0, at), min(count, at + block.shape[1])
            if high > low:
                sound[:, low:high] = block[:, low - at : high - at]
                heard = True
    return sound if heard else None


def _resampled(
    container: av.container.InputContainer, stream: av.AudioStream, channels: int
) -> Iterator[tuple[float, np.ndarray]]:
    layout = "mono" if channels == 1 else "stereo"
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=_AUDIO_RATE)
    time_s: float | None = None
    decoded = (frame for packet in packets_of(container, stream) for frame in stream.decode(packet))
    for frame in itertools.chain(decoded, [None]):
        if frame is not None:
            stated = frame.time
            if time_s is None:
                time_s = stated or 0.0
            elif stated is not None and abs(stated - time_s) > _GAP_S:
                time_s = stated
        for block in resampler.resample(frame):
            samples = block.to_ndarray()
            assert time_s is not None
            yield time_s, samples
            time_s += samples.shape[1] / _AUDIO_RATE
