"""The pictures of a sample, out of its own video."""

import io

import av
import numpy as np


def decode_video(video: bytes) -> np.ndarray:
    """All frames of ``video.mp4``, uint8 RGB ``[T, H, W, 3]``. Raises ``av.FFmpegError`` if it cannot be decoded."""
    with av.open(io.BytesIO(video), "r") as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
