"""A window that passed, on its way to becoming a sample: its frames and landmarks encoded, its provenance written down."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from curation.candidates import Candidate
from curation.config import CurationConfig
from curation.crop import CropWindow, render_window
from curation.sample_video import encode_sample, read_sound
from curation.sampling import Sampling
from curation.sources import Clip
from curation.video import Probe
from landmarks.record import LandmarkRecord, quantise
from shards.schema import encode_field

if TYPE_CHECKING:
    from landmarks.smirk_encoder import SmirkEncoder


@dataclass(frozen=True)
class Draft:
    """A window that passed every rule: its encoded fields so far, and the provenance that becomes ``meta.json``."""

    fields: dict[str, bytes]
    meta: dict[str, Any]


def shown_frames(
    source: Iterable[np.ndarray], record: LandmarkRecord, at: np.ndarray, crop: CropWindow, smirk: "SmirkEncoder | None"
) -> tuple[np.ndarray, LandmarkRecord]:
    """The frames of the sample, and its record with SMIRK's part; from one reading of the ``source`` frames.

    ``record`` is of the window, ``at`` says which of its frames the ``source`` shows: all, and the last again as padding,
    which plays no part in what SMIRK makes of the clip.
    """
    rendered: list[np.ndarray] = []

    def rendering() -> Iterator[np.ndarray]:
        for frame in source:
            rendered.append(render_window(frame, crop))
            yield frame

    frames = rendering()
    if smirk is not None:
        motion = smirk.encode(islice(frames, len(record)), record.points, record.found)
        record = replace(record, smirk=motion)
    deque(frames, maxlen=0)
    return np.stack(rendered), record.frames(at)


def draft_of(
    clip: Clip,
    probed: Probe,
    sampling: Sampling,
    best: Candidate,
    shown: np.ndarray,
    frames: np.ndarray,
    record: LandmarkRecord,
    config: CurationConfig,
) -> Draft:
    """The draft of the window ``best``, which is ``clip``, of ``frames[49]`` and ``record``, sampled frames ``shown[49]``."""
    n_valid = best.stop - best.start
    audio = "none"
    sound = None
    if probed.has_audio:
        try:
            sound = read_sound(probed.path, float(sampling.times_s[best.start]), n_valid / sampling.fps)
            audio = "none" if sound is None else "kept"
        except (av.FFmpegError, ValueError):  # ValueError: the resampler, when rate or layout changes mid-stream
            audio = "unreadable"
    crop = best.crop
    fields = {
        "video.mp4": encode_sample(frames, sampling.fps, sound, config.sample_video),
        "landmarks.u16.npy": encode_field("landmarks.u16.npy", quantise(record.points)),
        "blendshapes.npy": encode_field("blendshapes.npy", record.blendshapes.astype(np.float16)),
        "pose.npy": encode_field("pose.npy", record.pose),
    }
    if record.smirk is not None:
        motion = {
            "smirk.npy": record.smirk.parameters,
            "smirk_shape.npy": record.smirk.shape,
            "smirk_crop.npy": record.smirk.crop,
        }
        fields |= {name: encode_field(name, values) for name, values in motion.items()}
    meta = {
        "clip_id": clip.clip_id,
        "dataset": clip.dataset,
        "source_key": clip.source_key,
        "person_id": clip.person_id,
        "licence": clip.licence,
        "fps": sampling.fps,
        "n_valid": n_valid,
        "source_wh": [probed.width, probed.height],
        "pts_s": [round(float(t), 6) for t in sampling.times_s[shown]],
        "crop_xywh": [crop.x, crop.y, crop.w, crop.h],
        "valid_x0x1": list(crop.valid_x0x1),
        "crop_mode": crop.mode,
        "found": record.found.tolist(),
        "landmark_backend": config.landmarks.backend,
        "audio": audio,
    }
    return Draft(fields, meta)
