"""Video files: what is in them, when each frame is shown, and the pixels of the frames that are asked for.

Two decoders read frames: decord where it is known to be exact, PyAV everywhere else and when decord fails. Where both
are exact they give the same pixels, so the choice never changes a result; the ledger records it all the same.
"""

import importlib
import itertools
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av
import cv2
import numpy as np
from pydantic import Field

from curation.containers import DECODER_OPTIONS, MAX_FRAMES, MAX_PIXELS, frames_of, open_footage, packets_of
from faceloom.config import Section


class VideoConfig(Section):
    """How frames are sampled in time (SkyReels-A1 §5.1: 49 frames at 12 fps)."""

    fps: float = Field(12.0, gt=0)
    max_fps: float = Field(16.0, gt=0)
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


class SpanError(VideoError):
    """The manifest asks for a span that the video does not have."""


class OversizedVideoError(VideoError):
    """Pictures larger, or more of them, than any footage has: a damaged header, or a file made to exhaust the machine."""


class UnreadableVideoError(VideoError):
    """The container or its frames cannot be decoded."""


@dataclass(frozen=True)
class Probe:
    """What a video file says of itself.

    ``width`` and ``height`` are in displayed pixels: after rotation metadata, and with square pixels. ``pts_s[N]`` is
    the presentation time of every frame in seconds, ascending and not shifted to 0. ``timed`` is False where the format
    knows no presentation times (AVI, raw streams): there ``pts_s`` is made up, and frame k is the k-th that is decoded.
    ``decord_exact`` says whether decord gives the pixels of the very frames it is asked for.
    """

    path: str
    width: int
    height: int
    rotation_deg: int
    pts_s: np.ndarray
    codec: str
    pixel_format: str
    has_audio: bool
    timed: bool
    decord_exact: bool

    @property
    def fps(self) -> float:
        """Median frame rate; 0 for a single frame."""
        step = float(np.median(np.diff(self.pts_s))) if len(self.pts_s) > 1 else 0.0
        return 1.0 / step if step > 0 else 0.0

    @property
    def duration_s(self) -> float:
        """From the first to the last frame's presentation time."""
        return float(self.pts_s[-1] - self.pts_s[0])


def probe(path: str) -> Probe:
    """Read the container's tables and decode one frame.

    Raises a :class:`VideoError` whose class tells missing, empty, no video stream, truncated and unreadable apart.
    """
    file = Path(path)
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise NotAFileError(f"{path} is not a regular file; remove it from the manifest")
        with file.open("rb"):
            pass
    except FileNotFoundError:
        raise NotAFileError(f"{path} does not exist; restore the file or remove it from the manifest") from None
    except PermissionError:
        raise NotAFileError(f"{path} may not be read by this user; fix its permissions") from None
    except OSError as error:
        raise NotAFileError(
            f"{path} cannot be read ({error.strerror}); restore it or remove it from the manifest"
        ) from None
    if status.st_size == 0:
        raise EmptyFileError(f"{path} has zero bytes; download it again or remove it from the manifest")
    try:
        container = open_footage(path)
    except av.ArgumentError:
        raise UnreadableVideoError(
            f"{path} is no container of footage but a playlist, a picture or raw data; re-encode or remove it"
        ) from None
    except av.FFmpegError as error:
        reason = error.strerror or type(error).__name__
        if file.suffix.lower() in {".mp4", ".mov", ".m4v"} and isinstance(error, av.InvalidDataError | av.EOFError):
            raise TruncatedVideoError(
                f"{path} has no readable movie table ({reason}): it is cut short or no video; download it again"
            ) from None
        raise UnreadableVideoError(f"{path} cannot be opened: {reason}; re-encode or remove it") from None
    with container:
        try:
            return _probe(container, path)
        except av.FFmpegError as error:
            reason = error.strerror or type(error).__name__
            raise UnreadableVideoError(f"{path} cannot be decoded: {reason}; re-encode or remove it") from None


@dataclass(frozen=True)
class _Packet:
    pts: int | None
    dts: int | None
    is_keyframe: bool
    is_discard: bool


def _probe(container: av.container.InputContainer, path: str) -> Probe:
    stream = _pictures(container)
    if stream is None:
        raise NoVideoStreamError(f"{path} has no video stream; remove it from the manifest")
    if stream.codec_context is None:
        raise UnreadableVideoError(f"{path}: FFmpeg has no decoder for its video stream; re-encode or remove it")
    promised = stream.frames
    _refuse_many(path, promised)
    packets: list[_Packet] = []
    first: av.VideoFrame | None = None
    reason = "it holds none"
    for packet in packets_of(container, stream):
        # The last packet of a file that is cut inside it is there, but short.
        if packet.size and not (promised and packet.is_corrupt):
            packets.append(_Packet(packet.pts, packet.dts, packet.is_keyframe, packet.is_discard))
            _refuse_many(path, len(packets))
        if first is None:
            try:
                first = next(iter(stream.codec_context.decode(packet)), None)
            except av.FFmpegError as error:
                reason = error.strerror or type(error).__name__
    if len(packets) < promised:
        raise TruncatedVideoError(
            f"{path} is cut short: {len(packets)} of the {promised} frames its table lists are there; download it again"
        )
    if first is None:
        raise UnreadableVideoError(
            f"{path}: no frame of its video stream can be decoded ({reason}); re-encode or remove it"
        )
    # Frames before an edit list's start are in the file for the sake of those that refer to them; they are not shown.
    shown = [packet for packet in packets if not packet.is_discard]
    pts_s, timed = _times(shown, stream, container.format.name)
    width, height = stream.width, stream.height
    aspect = stream.sample_aspect_ratio
    if aspect and aspect != 1:
        width = round(width * float(aspect))
    _refuse_large(path, width, height)
    rotation = first.rotation % 360
    if rotation in (90, 270):
        width, height = height, width
    pixel_format = stream.codec_context.pix_fmt or "unknown"
    return Probe(
        path=path,
        width=width,
        height=height,
        rotation_deg=rotation,
        pts_s=pts_s,
        codec=stream.codec_context.name,
        pixel_format=pixel_format,
        has_audio=bool(container.streams.audio),
        timed=timed,
        decord_exact=(
            rotation == 0
            and timed
            and container.format.name.startswith(_INDEXED_FORMATS)
            and pixel_format in _SAME_PIXELS
            and stream.width % 2 == stream.height % 2 == 0
            and _groups_closed(packets)
        ),
    )


def _refuse_large(path: str, width: int, height: int) -> None:
    if not 0 < width * height <= MAX_PIXELS:
        raise OversizedVideoError(
            f"{path} has pictures of {width}x{height} px when shown, up to {MAX_PIXELS / 1e6:.0f} million are read; "
            "re-encode or remove it"
        )


def _refuse_many(path: str, frames: int) -> None:
    if frames > MAX_FRAMES:
        raise OversizedVideoError(f"{path} states more than {MAX_FRAMES} frames; split, re-encode or remove it")


# Where a seek lands exactly on a keyframe. In an MPEG transport stream it does not, and decord returns other frames.
_INDEXED_FORMATS = ("mov,", "matroska,")
# 8-bit formats that decord and PyAV turn into the same RGB; they interpolate the chroma of others differently.
_SAME_PIXELS = frozenset(
    {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "yuva420p", "rgb24", "gray"}
)


def _pictures(container: av.container.InputContainer) -> av.VideoStream | None:
    """The stream of moving pictures, set to one thread; None where there is at most cover art."""
    moving = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not moving:
        return None
    best = container.streams.best("video")
    stream = best if isinstance(best, av.VideoStream) and best in moving else moving[0]
    if stream.codec_context is not None:
        stream.thread_count = 1
        stream.codec_context.options = DECODER_OPTIONS
    return stream


def _times(packets: list[_Packet], stream: av.VideoStream, format_name: str) -> tuple[np.ndarray, bool]:
    """Presentation times of all frames in seconds, ascending, and whether the file itself states them."""
    # FFmpeg gives AVI packets presentation times, but for reordered frames they are guesses.
    timed = format_name != "avi" and all(packet.pts is not None for packet in packets)
    ticks = [packet.pts if timed else packet.dts for packet in packets]
    if stream.time_base and all(tick is not None for tick in ticks):
        return np.sort(np.array(ticks, np.float64)) * float(stream.time_base), timed
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    return np.arange(len(packets)) / rate, timed


def _groups_closed(packets: list[_Packet]) -> bool:
    """Whether every keyframe is shown after all that are stored before it and before all that are stored after it.

    decord takes a keyframe's place in the file for its place in time, so after a seek into an open group of pictures
    it would return neighbouring frames.
    """
    rank = np.argsort(np.argsort([packet.pts or 0 for packet in packets], kind="stable"), kind="stable")
    return all(rank[i] == i for i, packet in enumerate(packets) if packet.is_keyframe)


class FrameReader:
    """Pixels of chosen frames, in display orientation.

    ``decoder`` names the library that served the last frames. decord is tried only where it is exact
    (:class:`Probe`) and counts as many frames as the container (else indices would mean other frames).
    """

    def __init__(self, probed: Probe) -> None:
        self._probe = probed
        self._decord = _open_decord(probed) if probed.decord_exact else None
        self.decoder: Literal["decord", "pyav"] = "decord" if self._decord is not None else "pyav"

    def frames(self, indices: Sequence[int] | np.ndarray) -> Iterator[np.ndarray]:
        """RGB frames ``uint8[H, W, 3]`` for ascending ``indices`` into ``probe.pts_s``; repeats are allowed.

        Raises :class:`UnreadableVideoError` when neither decoder can produce a frame.
        """
        wanted = [int(i) for i in indices]
        for position, index in enumerate(wanted):
            frame = self._by_decord(index)
            if frame is None:
                yield from (self._displayed(pixels) for pixels in self._pyav(wanted[position:]))
                return
            yield self._displayed(frame)

    def _by_decord(self, index: int) -> np.ndarray | None:
        """One frame; None when decord does not serve this file, or no longer."""
        if self._decord is None:
            return None
        try:
            # One at a time: batches of 1080p frames cost half as much again, in fresh memory.
            frame = np.asarray(self._decord[index].asnumpy())
        except Exception as error:
            if not _is_decord_error(error):
                raise
            frame = np.empty(0)
        if frame.ndim != 3 or frame.shape[2] != 3:  # pictures of another format in the midst come with six channels
            self._decord, self.decoder = None, "pyav"
            return None
        return frame

    def _displayed(self, frame: np.ndarray) -> np.ndarray:
        if self._probe.rotation_deg:
            frame = np.ascontiguousarray(np.rot90(frame, self._probe.rotation_deg // 90))
        if frame.shape[:2] != (self._probe.height, self._probe.width):
            frame = cv2.resize(frame, (self._probe.width, self._probe.height), interpolation=cv2.INTER_LINEAR)
        return frame

    def _pyav(self, wanted: list[int]) -> Iterator[np.ndarray]:
        if self._probe.timed and wanted[0] > 0:
            with open_footage(self._probe.path) as container:
                decoded = self._decoded_from(container, wanted[0])
                if decoded is not None:
                    yield from self._chosen(decoded, wanted)
                    return
        with open_footage(self._probe.path) as container:
            stream = _pictures(container)
            assert stream is not None
            yield from self._chosen(frames_of(container, stream), wanted)

    def _decoded_from(self, container: av.container.InputContainer, index: int) -> Iterator[av.VideoFrame] | None:
        """The frames from ``index``, or some before it, on; None where the file cannot be entered there."""
        stream = _pictures(container)
        assert stream is not None
        assert stream.time_base is not None
        time_s = float(self._probe.pts_s[index])
        try:
            container.seek(int((time_s - self._half_s) / float(stream.time_base)), stream=stream)
            decoded = frames_of(container, stream)
            first = next(decoded, None)
        except av.FFmpegError:
            return None
        if first is None or first.time is None or first.time > time_s + _SAME_INSTANT_S:
            return None
        return itertools.chain([first], decoded)

    @property
    def _half_s(self) -> float:
        return 0.5 / self._probe.fps if self._probe.fps else 0.5

    def _chosen(self, decoded: Iterator[av.VideoFrame], wanted: list[int]) -> Iterator[np.ndarray]:
        """Of the frames ``decoded`` in order of presentation, the pixels of those at ``wanted``."""
        times = self._probe.pts_s[wanted]
        pending = 0
        try:
            for ordinal, frame in enumerate(decoded):
                stated = self._probe.timed and frame.time is not None
                shown = frame.time if stated else float(self._probe.pts_s[min(ordinal, len(self._probe.pts_s) - 1)])
                pixels = None
                while pending < len(wanted) and shown > times[pending] - _SAME_INSTANT_S:
                    if shown > times[pending] + 2 * self._half_s:
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


_SAME_INSTANT_S = 1e-4


def _open_decord(probed: Probe):  # type: ignore[no-untyped-def]
    decord = _import_decord()
    try:
        # One thread: workers are parallel already, and results must not depend on how many cores a node has.
        # Any frame it would replace by a neighbour is an error, so that PyAV is asked instead.
        reader = decord.VideoReader(probed.path, num_threads=1, fault_tol=1e-9)
    except Exception as error:
        if not _is_decord_error(error):
            raise
        return None
    return reader if len(reader) == len(probed.pts_s) else None


def _import_decord() -> Any:
    """Import decord without the CUDA libraries that it would open, of which decoding on the CPU needs none.

    decord2 opens every library below the namespace package ``nvidia`` (torch brings it) with RTLD_GLOBAL. One is libnvblas,
    whose ``sgemm_`` then takes the place of torch's own, so that a process which imports torch later dies in its first
    product. The others cost 650 MiB and one to three seconds a worker.
    """
    if "decord" in sys.modules:
        return sys.modules["decord"]
    hidden = sys.modules.get("nvidia")
    sys.modules["nvidia"] = None  # type: ignore[assignment] # find_spec then says that there is none
    try:
        return importlib.import_module("decord")
    finally:
        del sys.modules["nvidia"]
        if hidden is not None:
            sys.modules["nvidia"] = hidden


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
    return np.asarray(np.where(earlier, right - 1, right))
