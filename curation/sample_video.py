"""The sample's own video: 49 frames, H.264 in MP4, with the clip's sound where it has any."""

import io
import itertools
from collections.abc import Iterable, Iterator
from typing import Literal

import av
import numpy as np
from pydantic import Field

from curation.containers import open_footage, packets_of
from curation.mp4 import AUDIO_RATE, Mp4Writer
from faceloom.config import Section

# A frame this far from where the sound before it ends was recorded after a pause; less is rounding and the resampler's delay.
_GAP_S = 0.05


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
    blocks = iter(() if sound is None else (sound,))
    with Mp4Writer(buffer, fps, blocks, crf=config.crf, preset=config.preset) as writer:
        for frame in frames:
            writer.add(frame)
    return buffer.getvalue()


def read_sound(path: str, start_s: float, duration_s: float) -> np.ndarray | None:
    """All of :func:`sound_blocks` at once; None when the file has no sound there."""
    blocks = list(sound_blocks(path, start_s, duration_s))
    return np.concatenate(blocks, axis=1) if blocks else None


def sound_blocks(path: str, start_s: float, duration_s: float) -> Iterator[np.ndarray]:
    """Sound of ``[start_s, start_s + duration_s)`` in the container's clock, in blocks float32 ``[1 or 2, n]`` at 48 kHz.

    Silence fills where the track begins later, pauses or ends earlier. No block when the file has no sound there. Raises
    ``av.FFmpegError`` when its audio cannot be decoded, ``ValueError`` when its rate or layout changes on the way.
    """
    count, position = round(duration_s * AUDIO_RATE), 0
    with open_footage(path) as container:
        stream = container.streams.best("audio")
        if not isinstance(stream, av.AudioStream):
            return
        if stream.codec_context is None:
            raise av.DecoderNotFoundError(0, "no decoder for its sound", path)
        stream.codec_context.thread_count = 1
        channels = min(2, stream.codec_context.channels)
        if stream.time_base:
            # Half a second early: decoders need a run-up after a seek.
            container.seek(max(0, int((start_s - 0.5) / float(stream.time_base))), stream=stream)
        for time_s, block in _resampled(container, stream, channels):
            at = round((time_s - start_s) * AUDIO_RATE)
            if at >= count:
                break
            low, high = max(position, at), min(count, at + block.shape[1])
            if high > low:
                yield from _silence(channels, low - position)
                yield block[:, low - at : high - at]
                position = high
        if position:
            yield from _silence(channels, count - position)


def _silence(channels: int, samples: int) -> Iterator[np.ndarray]:
    for start in range(0, samples, AUDIO_RATE):
        yield np.zeros((channels, min(AUDIO_RATE, samples - start)), np.float32)


def _resampled(
    container: av.container.InputContainer, stream: av.AudioStream, channels: int
) -> Iterator[tuple[float, np.ndarray]]:
    layout = "mono" if channels == 1 else "stereo"
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=AUDIO_RATE)
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
            time_s += samples.shape[1] / AUDIO_RATE
