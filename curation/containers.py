"""Opening footage that nobody vouches for: one local file, read as a container of footage, with pictures of bounded size.

FFmpeg guesses a format from the bytes, whatever the file is called, and some formats are lists of other files or of
addresses: an HLS or DASH playlist, a concat script, a session description, a pattern of picture names. A run that read one
would copy files of the machine into the dataset, or call out. Here only containers that hold their own pictures are read,
and of protocols only ``file``. QuickTime's references to other files are not followed, which is FFmpeg's default.
"""

import os
from collections.abc import Iterator
from typing import Any

import av

MAX_PIXELS = 8192 * 4352
"""Of one picture: 8K, with room. A header of a few bytes can ask for a thousand times as much memory."""
MAX_FRAMES = 5_000_000
"""Of one file: 23 hours at 60 a second. Tables can state more in a few bytes than a machine has memory for."""

# Of FFmpeg's three hundred demuxers those for what cameras, phones, studios and download tools write; and sound, which is
# told from a video by its lack of pictures.
_FORMATS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "mxf", "mxf_opatom", "gxf", "nut", "wtv", "rm", "dv"),
    *("h264", "hevc", "av1", "obu", "ivf", "m4v", "mpegvideo", "mjpeg", "dirac", "vvc", "yuv4mpegpipe", "swf", "gif"),
    *("mp3", "aac", "ac3", "eac3", "flac", "wav", "w64", "aiff", "amr", "caf", "au"),
)  # fmt: skip
_OPTIONS = {"format_whitelist": ",".join(_FORMATS), "protocol_whitelist": "file"}
DECODER_OPTIONS = {"max_pixels": str(MAX_PIXELS)}
"""For the codec context of a stream of pictures."""


def open_footage(path: str) -> av.container.InputContainer:
    """The container in the local file ``path``.

    Raises ``av.FFmpegError``, and of its kinds ``av.ArgumentError`` for a format that is not read.

    Set :data:`DECODER_OPTIONS` on the codec context of a stream of pictures before the first of them is decoded; what has
    to be decoded to open the file is under the same limit already.
    """
    # An absolute path begins with no protocol's name: a file called "concat:a|b" is one file.
    absolute = os.path.abspath(path)  # noqa: PTH100 - links are not resolved
    return av.open(absolute, options=_OPTIONS | DECODER_OPTIONS, metadata_errors="replace")


def packets_of(
    container: av.container.InputContainer, stream: av.VideoStream | av.AudioStream
) -> Iterator["av.Packet[Any]"]:
    """The packets of ``stream``, and after them the empty one that empties its decoder.

    PyAV ends in an IndexError, after all of them, where a broadcast brings in another stream on its way (seen with 18.1).
    """
    demuxed = container.demux(stream)
    while True:
        try:
            packet = next(demuxed)
        except (StopIteration, IndexError):
            return
        yield packet


def frames_of(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """The pictures of ``stream`` from where the container stands."""
    for packet in packets_of(container, stream):
        yield from stream.decode(packet)
