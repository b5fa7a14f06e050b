"""One sample's latents: its fields are read from the base, its landmarks drawn, pictures encoded."""

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import ray

from faceloom.engine import machine_is_at_fault
from faceloom.errors import UserError
from faceloom.location import location
from landmarks.backend import BackendName, load_backend
from shards.dataset import tar_path
from shards.index import DamageError, Entry, read_field
from shards.schema import FRAMES, HEIGHT, WIDTH, decode_field, encode_field
from shards.video import decode_video
from training.codec import load_codec
from training.drawings import LANDMARK_FIELDS, draw_landmarks
from training.encode_config import EncodeConfig

SOURCE_FIELDS = frozenset({"video.mp4", *LANDMARK_FIELDS})
"""The fields of the base that latents are made from."""


@dataclass(frozen=True)
class BaseSample:
    """A sample of the base, and where its :data:`SOURCE_FIELDS` lie in the tar of ``part``."""

    part: int
    clip_id: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Failure:
    """``stage`` (read, video, landmarks, codec) broke with ``error`` (a class name) and ``message``."""

    stage: str
    error: str
    message: str
    of_sample: bool = False
    """Whether the sample's bytes are to blame beyond doubt."""


@dataclass(frozen=True)
class Encoded:
    """What became of a sample: latents, unless there is a failure."""

    clip_id: str
    failure: Failure | None = None
    traceback: str | None = None
    """Where it failed, for the driver's log."""


class SampleEncoder:
    """Encodes samples of the dataset at ``root`` whose landmarks were recorded for ``backend``.

    Raises :class:`UserError` if a model is missing, or if the codec here has not the fingerprint ``codec``.
    """

    def __init__(self, root: str, config: EncodeConfig, backend: BackendName, codec: str) -> None:
        # Workers are parallel already; threads of their own would only get in each other's way.
        cv2.setNumThreads(1)
        if config.codec.codec == "vae":
            import torch

            torch.set_num_threads(config.run.threads)
        self._root = location(root)
        self._render = config.landmarks
        self._layout = config.layout
        self._codec = load_codec(config.codec)
        if self._codec.fingerprint != codec:
            raise UserError(
                f"the codec has fingerprint {self._codec.fingerprint[:12]} on this node and {codec[:12]} where the command "
                "runs: put the same files on every node"
            )
        self._backend = load_backend(backend, root)

    def encode(self, sample: BaseSample) -> tuple[Encoded, dict[str, bytes] | None]:
        """The outcome and, unless it is a failure, the encoded fields of the layer."""
        stage = "read"
        try:
            fields = read_source(self._root, sample)
            stage = "video"
            frames = decode_video(fields["video.mp4"])
            if frames.shape != (FRAMES, HEIGHT, WIDTH, 3):
                raise ValueError(f"video.mp4 decodes to {list(frames.shape)}, not {[FRAMES, HEIGHT, WIDTH, 3]}")
            stage = "landmarks"
            drawn = draw_landmarks(fields, self._backend, self._render, self._layout)
            stage = "codec"
            # Of the decoded video, like the video's own latents; reference.jpg has been compressed once more.
            reference = frames[fields["meta.json"]["reference_frame"]]
            if self._layout == "ref1+48":
                frames = np.concatenate([reference[None], frames[1:]])
            latents = {
                "video_moments.safetensors": self._codec.encode_video(frames),
                "landmark_latents.safetensors": self._codec.encode_landmarks(drawn),
                "reference_moments.safetensors": self._codec.encode_reference(reference),
            }
            return Encoded(sample.clip_id), {name: encode_field(name, value) for name, value in latents.items()}
        except Exception as error:
            if machine_is_at_fault(error):
                raise  # the engine tries the sample in another worker
            # Without the place of the dataset, which is another one after a copy.
            message = (str(error).strip() or repr(error)).replace(f"{self._root}/", "")
            of_sample = isinstance(error, DamageError | av.FFmpegError)
            failure = Failure(stage, type(error).__name__, message, of_sample)
            return Encoded(sample.clip_id, failure, traceback.format_exc()), None


EncodeWorker: Any = ray.remote(SampleEncoder)
"""As an actor; ``encode`` is called with ``num_returns=2``, so that the latents are an object of their own."""


def read_source(root: Path, sample: BaseSample) -> dict[str, Any]:
    """The decoded :data:`SOURCE_FIELDS` of a sample.

    Raises :class:`DamageError` if the tar does not hold what the index says.
    """
    tar = tar_path(root, sample.part)
    return {entry.field: decode_field(entry.field, read_field(tar, entry)) for entry in sample.entries}
