"""Video files: what is in them, when each frame is shown, and the pixels of the frames that are asked for.

Two decoders read frames: decord first, PyAV when decord cannot (or would get the file wrong). On the same file they
give the same pixels, so the choice never changes a result; the ledger records it all the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import av
import cv2
import numpy as np

from faceloom.config import Section

_CHUNK = 8  # frames decord converts at once; bounds memory at 4K to 200 MB


class VideoConfig(Section):
    """How frames are sampled in time (SkyReels-A1 §5.1: 49 frames at 12 fps)."""

    fps: float = 12.0
    max_fps: float = 16.0
    """Clips of 3 to 4 s are sampled faster than ``fps``, up to this, so that they still fill 49 frames."""
    max_repeated_share: float = 0.3
    """Largest share of sampled frames that merely repeat the one before (sources slower than ``fps``)."""


class VideoError(Exception):
    """The file is bad; the class says how, the message names the file and the remedy."""


class NotAFileError(VideoError):
    """Missing, or not a regular file."""


class EmptyFileError(VideoError):
    """Zero bytes."""


class NoVideoStreamError(VideoError):
    """A container without moving pictures: audio only, or audio with cover art."""


class TruncatedVideoError(VideoError):
    """The container promises more than the file holds."""


class UnreadableVideoError(VideoError):
    """The container or its frames cannot be decoded."""


@dataclass(frozen=True)
class Probe:
    """What a video file says of itself.

    ``width`` and ``height`` are in displayed pixels: after rotation metadata, and with square pixels. ``pts_s[N]`` is
    the presentation time of every frame in seconds, ascending and not shifted to 0.
    """

    path: str
    width: int
    height: int
    rotation_deg: int
    pts_s: np.ndarray
    codec: str
    pixel_format: str
    has_audio: bool

    @property
    def fps(self) -> float:
        """Median frame rate; 0 for a single frame."""
        return float(1.0 / np.median(np.diff(self.pts_s))) if len(self.pts_s) > 1 else 0.0

    @property
    def duration_s(self) -> float:
        """From the first to the last frame's presentation time."""
        return float(self.pts_s[-1] - self.pts_s[0])


def probe(path: str) -> Probe:
    """Read the container's tables and decode one frame.

    Raises a :class:`VideoError` whose class tells missing, empty, no video stream, truncated and unreadable apart.
    """
    file = Path(path)
    if not file.exists():
        raise NotAFileError(f"{path} does not exist; restore the file or remove it from the manifest")
    if not file.is_file():
        raise NotAFileError(f"{path} is not a regular file; remove it from the manifest")
    try:
        size = file.stat().st_size
        with file.open("rb"):
            pass
    except PermissionError:
        raise NotAFileError(f"{path} may not be read by this user; fix its permissions") from None
    if size == 0:
        raise EmptyFileError(f"{path} has zero bytes; download it again or remove it from the manifest")
    try:
        with av.open(path) as container:
            return _probe(container, path)
    except av.FFmpegError as error:
        reason = error.strerror or type(error).__name__
        if file.suffix.lower() in {".mp4", ".mov", ".m4v"} and isinstance(error, av.InvalidDataError):
            raise TruncatedVideoError(
                f"{path} has no readable movie table ({reason}): it is cut short or no video; download it again"
            ) from None
        raise UnreadableVideoError(f"{path} cannot be opened: {reason}; re-encode or remove it") from None


def _probe(container: av.container.InputContainer, path: str) -> Probe:
    pictures = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not pictures:
        raise NoVideoStreamError(f"{path} has no video stream; remove it from the manifest")
    stream = container.streams.best("video") or pictures[0]
    if stream not in pictures:
        stream = pictures[0]
    assert isinstance(stream, av.VideoStream)
    stream.thread_count = 1
    promised = stream.frames
    packets = [p for p in container.demux(stream) if p.size and not p.is_discard]
    if len(packets) < promised:
        raise TruncatedVideoError(
            f"{path} is cut short: {len(packets)} of the {promised} frames its table lists are there; download it again"
        )
    times = [float(p.pts * p.time_base) if p.pts is not None and p.time_base else None for p in packets]
    container.seek(0)
    first = next(container.decode(stream), None)
    if first is None:
        raise UnreadableVideoError(f"{path}: no frame of its video stream can be decoded; re-encode or remove it")
    if any(t is None for t in times):
        # Formats without presentation times (AVI, raw streams) run at their nominal rate.
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        times = [i / rate for i in range(len(times))]
    width, height = stream.width, stream.height
    aspect = stream.sample_aspect_ratio
    if aspect and aspect != 1:
        width = round(width * float(aspect))
    rotation = first.rotation % 360
    if rotation in (90, 270):
        width, height = height, width
    return Probe(
        path=path,
        width=width,
        height=height,
        rotation_deg=rotation,
        pts_s=np.sort(np.array(times, np.float64)),
        codec=stream.codec_context.name,
        pixel_format=stream.codec_context.pix_fmt or "unknown",
        has_audio=bool(container.streams.audio),
    )


class FrameReader:
    """Pixels of chosen frames, in display orientation.

    ``decoder`` names the library that served the last frames. decord is not tried on rotated sources (it returns them
    with a fourth channel) nor where its frame count differs from the container's (indices would mean other frames).
    """

    def __init__(self, probed: Probe) -> None:
        self._probe = probed
        self._decord = None if probed.rotation_deg else _open_decord(probed)
        self.decoder: Literal["decord", "pyav"] = "decord" if self._decord is not None else "pyav"

    def frames(self, indices: Sequence[int] | np.ndarray) -> Iterator[np.ndarray]:
        """RGB frames ``uint8[H, W, 3]`` for ascending ``indices`` into ``probe.pts_s``; repeats are allowed.

        Raises :class:`UnreadableVideoError` when neither decoder can produce a frame.
        """
        wanted = [int(i) for i in indices]
        for start in range(0, len(wanted), _CHUNK):
            chunk = wanted[start : start + _CHUNK]
            if self._decord is not None:
                try:
                    batch = self._decord.get_batch(chunk).asnumpy()
                except Exception as error:
                    if not _is_decord_error(error):
                        raise
                    self._decord, self.decoder = None, "pyav"
                else:
                    yield from (self._displayed(frame) for frame in batch)
                    continue
            yield from (self._displayed(frame) for frame in self._pyav(wanted[start:]))
            return

    def _displayed(self, frame: np.ndarray) -> np.ndarray:
        if self._probe.rotation_deg:
            frame = np.ascontiguousarray(np.rot90(frame, self._probe.rotation_deg // 90))
        if frame.shape[:2] != (self._probe.height, self._probe.width):
            frame = cv2.resize(frame, (self._probe.width, self._probe.height), interpolation=cv2.INTER_LINEAR)
        return frame

    def _pyav(self, wanted: list[int]) -> Iterator[np.ndarray]:
        times = self._probe.pts_s[wanted]
        half = 0.5 / self._probe.fps if self._probe.fps else 0.5
        pending = 0
        try:
            with av.open(self._probe.path) as container:
                stream = container.streams.best("video") or container.streams.video[0]
                assert isinstance(stream, av.VideoStream)
                stream.thread_count = 1
                if stream.time_base and wanted[0] > 0:
                    container.seek(int((times[0] - half) / float(stream.time_base)), stream=stream)
                for ordinal, frame in enumerate(container.decode(stream)):
                    shown = frame.time if frame.time is not None else float(self._probe.pts_s[ordinal])
                    pixels = None
                    while pending < len(wanted) and shown > times[pending] - 1e-4:
                        if shown > times[pending] + 2 * half:
                            break
                        pixels = frame.to_ndarray(format="rgb24") if pixels is None else pixels
                        yield pixels
                        pending += 1
                    if pending == len(wanted):
                        return
        except av.FFmpegError as error:
            raise UnreadableVideoError(
                f"{self._probe.path}: decoding stops at {times[pending]:.2f} s ({error.strerror}); "
                "re-encode or remove it"
            ) from None
        raise UnreadableVideoError(
            f"{self._probe.path}: no frame at {times[pending]:.2f} s can be decoded; re-encode or remove it"
        )


def _open_decord(probed: Probe):  # type: ignore[no-untyped-def]
    import decord

    try:
        # One thread: workers are parallel already, and results must not depend on how many cores a node has.
        reader = decord.VideoReader(probed.path, num_threads=1)
    except Exception as error:
        if not _is_decord_error(error):
            raise
        return None
    return reader if len(reader) == len(probed.pts_s) else None


def _is_decord_error(error: Exception) -> bool:
    # decord raises a DECORDError, its subclass DECORDLimitReachedError, or a bare RuntimeError or IndexError.
    return type(error).__name__.startswith("DECORD") or isinstance(error, RuntimeError | IndexError)


def in_span(pts_s: np.ndarray, t0_s: float, t1_s: float | None) -> np.ndarray:
    """Indices of the frames shown in ``[t0_s, t1_s)``, times counted from the first frame; ``None`` is the end."""
    since = pts_s - pts_s[0]
    inside = since >= t0_s - 1e-6
    if t1_s is not None:
        inside &= since < t1_s - 1e-6
    return np.flatnonzero(inside)


def analysis_fps(span_s: float, frames: int, config: VideoConfig, tolerance_s: float) -> float:
    """The rate to sample a clip at: ``config.fps``, or a little more so that 3 to 4 s still give ``frames``.

    ``span_s`` is the time from the clip's first to its last frame; ``tolerance_s`` is half a source frame. A clip that
    would need more than ``config.max_fps`` is sampled at ``config.fps`` and ends short of ``frames``.
    """
    intervals = frames - 1
    if span_s + tolerance_s >= intervals / config.fps:
        return config.fps
    fitted = intervals / span_s if span_s > 0 else float("inf")
    return fitted if fitted <= config.max_fps else config.fps


def sample_indices(pts_s: np.ndarray, fps: float) -> np.ndarray:
    """For each instant ``pts_s[0] + k / fps`` the index of the frame shown nearest to it (the earlier one in a tie).

    ``pts_s[N]`` ascending, seconds. The last instant lies at most half a source frame after the last frame. On a
    constant rate every chosen frame is within half a source frame of its instant; on a slower source frames repeat.
    """
    if len(pts_s) == 1:
        return np.zeros(1, np.int64)
    half = 0.5 * float(np.median(np.diff(pts_s)))
    count = int(np.floor((pts_s[-1] + half - pts_s[0]) * fps + 1e-9)) + 1
    instants = pts_s[0] + np.arange(count) / fps
    right = np.clip(np.searchsorted(pts_s, instants), 1, len(pts_s) - 1)
    earlier = instants - pts_s[right - 1] <= pts_s[right] - instants + 1e-9
    return np.where(earlier, right - 1, right)
