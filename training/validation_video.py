"""A video that shows a generated clip beside what it was made from and what it should be."""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from shards.schema import FPS, WIDTH
from shards.storage import write_atomic
from shards.video import encode_video
from training.codec import Codec
from training.data import HeldOut
from training.decoding import whole_frames

_CAPTION_PX = 32


def write_comparison(
    path: Path, codec: Codec, held_out: HeldOut, number: int, landmarks: Tensor, latents: Tensor, scale: float
) -> None:
    """Write ``path``: reference | landmarks | truth | generated, 480×720 each, below a caption.

    ``number`` is the clip's in ``held_out``. ``landmarks`` are what the model was given: scaled latents [1, F, 16, h, w], or
    drawings uint8 [1, 49, 480, 720, 3]. ``latents`` float32 [1, F, 16, h, w] are what it made, ``scale`` times those of
    ``codec``. Shrunk latents are enlarged.
    """
    truth = held_out.frames(number)
    drawn = (
        landmarks[0].cpu().numpy()
        if landmarks.dtype == torch.uint8
        else whole_frames(codec.decode_landmarks, landmarks, scale)
    )
    panels = {
        "reference": np.broadcast_to(held_out.reference(number), truth.shape),
        "landmarks": drawn,
        "truth": truth,
        "generated": whole_frames(codec.decode, latents, scale),
    }
    heading = np.concatenate([_caption(name) for name in panels], axis=1)
    frames = (
        np.concatenate([heading, np.concatenate(pictures, axis=1)]) for pictures in zip(*panels.values(), strict=True)
    )
    write_atomic(path, encode_video(frames, FPS))


def _caption(text: str) -> np.ndarray:
    bar = np.zeros((_CAPTION_PX, WIDTH, 3), np.uint8)
    return np.asarray(cv2.putText(bar, text, (8, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255, 255, 255), 1, cv2.LINE_AA))
