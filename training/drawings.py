"""What the landmark guider sees of a sample: its landmarks drawn on black, for `faceloom encode` and for training alike."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from landmarks.backend import Backend
from landmarks.drawing import draw_clip
from landmarks.record import to_crop
from landmarks.stored import record_of
from shards.schema import FRAMES, HEIGHT, WIDTH
from training.encode_config import Layout, RenderConfig

LANDMARK_FIELDS = (
    "landmarks.u16.npy",
    "blendshapes.npy",
    "pose.npy",
    "smirk.npy",
    "smirk_shape.npy",
    "smirk_crop.npy",
    "meta.json",
)
"""The fields of the base that drawings are made from; those of SMIRK are there only where it is the backend."""

REFERENCE_STYLE = "a1_2d"
"""What SkyReels-A1's inference draws the landmarks of the reference in, whatever the style of the driving frames."""


def draw_landmarks(
    fields: Mapping[str, Any], backend: Backend, config: RenderConfig, layout: Layout = "contiguous49"
) -> np.ndarray:
    """The landmarks of a sample in its crop, uint8 RGB [49, 480, 720, 3], one for each picture of ``layout``.

    ``fields`` are :data:`LANDMARK_FIELDS`, decoded. Frames that only repeat the clip's last do so here too, and take no part
    in what ``relative`` learns of the face. In the layout ``ref1+48`` the first drawing is of the reference frame: what
    MediaPipe found there, in :data:`REFERENCE_STYLE`. Raises ``ValueError`` if the sample was recorded for another backend.
    """
    meta = fields["meta.json"]
    if meta["landmark_backend"] != backend.name:
        raise ValueError(f"landmarks recorded for {meta['landmark_backend']}, the dataset's config says {backend.name}")
    record = record_of(fields)
    frame = meta["reference_frame"]
    reference = record.frames(slice(frame, frame + 1))
    points = backend.own(record) if config.mode == "self" else backend.onto(record, reference)

    def in_crop(normalised: np.ndarray) -> np.ndarray:
        return to_crop(normalised, meta["source_wh"], meta["crop_xywh"], (WIDTH, HEIGHT))

    drawn = draw_clip(in_crop(points), HEIGHT, WIDTH, config.style)
    drawn = np.concatenate([drawn, np.repeat(drawn[-1:], FRAMES - len(drawn), axis=0)])
    if layout == "ref1+48":
        drawn[:1] = draw_clip(in_crop(reference.points), HEIGHT, WIDTH, REFERENCE_STYLE)
    return drawn
