"""Pictures out of a sample's own video, and pictures into a video to look at."""

import io
import itertools
from collections.abc import Iterable

import av
import numpy as np

_MAX_FRAMES = 10_000
# The dataset may be by others: MP4 and no playlist, by which FFmpeg would read other files, and of a size that can be held.
_LIMITS = {"protocol_whitelist": "", "max_pixels": str(8192 * 4352)}


def decode_video(video: bytes) -> np.ndarray:
    """All frames of ``video.mp4``, uint8 RGB ``[T, H, W, 3]``. Raises ``av.FFmpegError`` if it cannot be decoded."""
    with av.open(io.BytesIO(video), "r", format="mp4", options=_LIMITS, metadata_errors="replace") as container:
        if not container.streams.video:
            raise av.InvalidDataError(0, "it has no video stream")
        stream = container.streams.video[0]
        stream.thread_count = 1
        stream.codec_context.options = {"max_pixels": _LIMITS["max_pixels"]}
        frames = itertools.islice(container.decode(stream), _MAX_FRAMES)
        return np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


def encode_video(frames: Iterable[np.ndarray], fps: int, crf: int = 18) -> bytes:
    """MP4 bytes (H.264) of ``frames``, uint8 RGB ``[H, W, 3]`` each, sides even; to look at.

    At least one frame, all of one size; they are taken one at a time.
    """
    buffer = io.BytesIO()
    frames = iter(frames)
    first = next(frames)
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(crf), "preset": "veryfast"}
        for pixels in itertools.chain([first], frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()
