"""Small looping videos of clips with their landmarks: of kept ones from their shard, of others from their source.

Sources are decoded in processes of their own, each clip with a deadline: what is shown here may be what a decoder dies of.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np

from curation.faces import CensusConfig, FaceFinder
from curation.sources import Clip
from curation.video import FrameReader, VideoError, in_span, probe, sample_indices
from faceloom.apart import apart
from faceloom.errors import UserError
from faceloom.location import is_remote, location
from faceloom.models import model_path
from landmarks.drawing import draw_on
from landmarks.landmarker import Face
from landmarks.record import dequantise, to_crop
from shards.dataset import index_path, tar_path
from shards.index import DamageError, read_field, read_index
from shards.schema import HEIGHT, WIDTH, decode_field
from shards.video import decode_video, encode_video

PREVIEW_HEIGHT = 160
_WIDEST = 284
_FPS = 12
_FRAMES = 30
_CRF = 27
_DRAWN = 2
"""Lines are drawn on a picture this many times as large, so that they are thin and smooth when it is scaled down."""
_CENSUS_EVERY = 6
_DEADLINE_S = 120.0


@dataclass(frozen=True)
class Preview:
    """``video`` is MP4, or None where there is nothing to show; ``note`` says why, or what is missing in it."""

    video: bytes | None
    note: str = ""


def kept_preview(dataset: Path, part: int, clip_id: str) -> Preview:
    """The beginning of a kept clip's sample in shard ``part``, under its stored landmarks."""
    if not index_path(dataset, part).is_file():
        return Preview(None, f"{index_path(dataset, part)} is not there")
    try:
        index, tar = read_index(index_path(dataset, part)), tar_path(dataset, part)
        video, landmarks, meta = (
            decode_field(name, read_field(tar, index.entry(clip_id, name)))
            for name in ("video.mp4", "landmarks.u16.npy", "meta.json")
        )
        frames = decode_video(video)[:_FRAMES]
        size = (PREVIEW_HEIGHT * WIDTH // HEIGHT * _DRAWN, PREVIEW_HEIGHT * _DRAWN)
        points = to_crop(dequantise(landmarks), meta["source_wh"], meta["crop_xywh"], size)
        pictures = [_small(draw_on(_resized(frame, size), at)) for frame, at in zip(frames, points, strict=False)]
        return Preview(encode_video(pictures, round(meta["fps"]), _CRF))
    except KeyError:
        return Preview(None, f"{index_path(dataset, part)} does not list this clip")
    except (DamageError, av.FFmpegError, ValueError) as error:
        return Preview(None, str(error))


def source_previews(clips: Sequence[Clip]) -> Iterator[Preview]:
    """A stretch from the middle of each clip's span, read from its source, under landmarks that are found anew.

    Never raises for a bad source: its preview then has no video and a note.
    """
    try:
        task_file, missing = model_path("face_landmarker", "faceloom audit"), ""
    except UserError as error:
        task_file, missing = None, f"without landmarks: {error}"
    present = [Path(clip.path).is_file() for clip in clips]
    tried = [clip for clip, here in zip(clips, present, strict=True) if here]
    made = apart(_source_preview, tried, os.cpu_count() or 1, _DEADLINE_S, partial(_start, task_file))
    for clip, here in zip(clips, present, strict=True):
        if not here:
            remote = is_remote(location(clip.path))
            reason = "is remote, and previews are made of local sources" if remote else "is not there any more"
            yield Preview(None, f"{clip.path} {reason}")
        elif (preview := next(made)) is None:
            yield Preview(None, f"its decoder died, or took more than {_DEADLINE_S:g} s")
        else:
            yield Preview(preview.video, preview.note or missing)


_finder: FaceFinder | None = None


def _start(task_file: Path | None) -> None:
    global _finder  # there is nowhere else for a process to keep what it needs for every clip
    # MediaPipe and FFmpeg write to the process's own stderr, in the middle of the progress display.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    _finder = FaceFinder(task_file, CensusConfig()) if task_file else None


def _source_preview(clip: Clip) -> Preview:
    try:
        probed = probe(clip.path)
        span = in_span(probed.pts_s, clip.t0_s, clip.t1_s)
        if not len(span):
            return Preview(None, "its span lies outside the video")
        chosen = span[sample_indices(probed.pts_s[span], _FPS)]
        first = max(0, (len(chosen) - _FRAMES) // 2)
        frames = FrameReader(probed).frames(chosen[first : first + _FRAMES])
        return Preview(encode_video(_drawn(frames), _FPS, _CRF))
    except VideoError as error:
        return Preview(None, str(error))
    except Exception as error:  # whatever else a decoder or a model raises: the page goes on without this picture
        return Preview(None, f"{type(error).__name__}: {error}")


def _drawn(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Each frame scaled down, with the landmarks of every face in it."""
    faces: list[Face] = []
    for number, frame in enumerate(frames):
        faces = _faces(frame, faces, look=number % _CENSUS_EVERY == 0)
        height, width = frame.shape[:2]
        scale = min(PREVIEW_HEIGHT / height, _WIDEST / width)
        size = (_even(width * scale) * _DRAWN, _even(height * scale) * _DRAWN)
        picture = _resized(frame, size)
        for face in faces:
            picture = draw_on(picture, face.points[:, :2] * np.array(size, np.float32))
        yield _small(picture)


def _faces(frame: np.ndarray, before: Sequence[Face], look: bool) -> list[Face]:
    if _finder is None:
        return []
    if look:
        return _finder.census(frame)
    followed = (_finder.follow(frame, face.box) for face in before)
    return [face for face in followed if face is not None]


def _resized(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA))


def _small(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    return _resized(picture, (width // _DRAWN, height // _DRAWN))


def _even(length: float) -> int:
    return max(2, round(length / 2) * 2)
