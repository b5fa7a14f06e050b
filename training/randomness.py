"""What is drawn at random for a sample: by the seed and its position in the run, and by nothing else.

Neither rank nor world size nor batch size nor what was drawn before has a part in it. So the same global batch gives the same
loss on any number of ranks, and a resumed run needs no generator's state.

Each quantity has a stream of its own: a 128-bit key, the blake2b of (purpose, seed, position), for numpy's Philox. A
``torch.Generator`` on the CPU would not do: it takes 32 bits of its seed, so that of three million positions a thousand pairs
would share their noise; and the last bits of its normals depend on the processor.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

TIMESTEPS = 1000
"""Timesteps are drawn from 0 … 999; all schedules of CogVideoX have so many."""

SIGMA_LOG_MEAN, SIGMA_LOG_STD = -3.0, 0.5
"""Of ln σ of a reference's pixel noise (CogVideoX, §3.2 and its fine-tuning scripts)."""

_HELD_OUT = "held out"


@dataclass(frozen=True)
class Chances:
    """With what probability the parts of a sample's input are zeroed."""

    face: float = 0.0
    landmarks: float = 0.0
    reference: float = 0.0


@dataclass(frozen=True)
class Shapes:
    """Which noise is needed for a sample, and in what shape."""

    latents: tuple[int, int, int, int]
    """[F, C, h, w]."""
    posterior: bool
    """Whether latents are sampled from a distribution, and so need noise of their own."""
    pixels: tuple[int, int] | None = None
    """Height and width of a reference whose pixels get noise; ``None``: it gets none."""


@dataclass(frozen=True, eq=False)
class Draws:
    """What was drawn for B samples."""

    timestep: Tensor  # int64 [B], 0 … 999
    noise: Tensor  # float32 [B, F, C, h, w], like all noise of unit variance
    video_noise: Tensor | None  # float32 [B, F, C, h, w], of the posterior
    reference_noise: Tensor | None  # float32 [B, 1, C, h, w], of the posterior
    pixel_noise: Tensor | None  # float32 [B, 3, H, W]
    pixel_sigma: Tensor | None  # float32 [B]
    drop_face: Tensor  # bool [B]
    drop_landmarks: Tensor  # bool [B]
    drop_reference: Tensor  # bool [B]


def draw(seed: int, positions: Sequence[int], shapes: Shapes, chances: Chances) -> Draws:
    """What is drawn for the samples at ``positions`` of a training run."""
    return _stacked([_Sample((seed, position)) for position in positions], shapes, chances, timestep=None)


def draw_held_out(seed: int, clip_ids: Sequence[str], timestep: int, shapes: Shapes) -> Draws:
    """The draws of held-out samples at a fixed timestep: by clip and timestep, apart from training's; nothing is dropped."""
    samples = [_Sample((seed, _HELD_OUT, clip_id, timestep)) for clip_id in clip_ids]
    return _stacked(samples, shapes, Chances(), timestep)


def choose(seed: int, position: int, count: int, purpose: str) -> int:
    """One of ``count`` things for the sample at ``position``, all equally likely."""
    return int(_stream(purpose, (seed, position)).integers(count))


class _Sample:
    """The streams of one sample."""

    def __init__(self, key: tuple[int | str, ...]) -> None:
        self._key = key

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(_stream(purpose, self._key).standard_normal(shape, dtype=np.float32))

    def timestep(self) -> int:
        return int(_stream("timestep", self._key).integers(TIMESTEPS))

    def happens(self, purpose: str, chance: float) -> bool:
        return bool(_stream(purpose, self._key).random() < chance)

    def sigma(self) -> float:
        return float(np.exp(_stream("pixel sigma", self._key).normal(SIGMA_LOG_MEAN, SIGMA_LOG_STD)))


def _stacked(samples: Sequence[_Sample], shapes: Shapes, chances: Chances, timestep: int | None) -> Draws:
    frames, *cell = shapes.latents

    def normal(purpose: str, shape: Sequence[int]) -> Tensor:
        return torch.stack([sample.normal(purpose, tuple(shape)) for sample in samples])

    def dropped(purpose: str, chance: float) -> Tensor:
        return torch.tensor([sample.happens(purpose, chance) for sample in samples])

    steps = [sample.timestep() if timestep is None else timestep for sample in samples]
    return Draws(
        timestep=torch.tensor(steps),
        noise=normal("noise", shapes.latents),
        video_noise=normal("video posterior", (frames, *cell)) if shapes.posterior else None,
        reference_noise=normal("reference posterior", (1, *cell)) if shapes.posterior else None,
        pixel_noise=None if shapes.pixels is None else normal("pixel noise", (3, *shapes.pixels)),
        pixel_sigma=None if shapes.pixels is None else torch.tensor([sample.sigma() for sample in samples]),
        drop_face=dropped("drop face", chances.face),
        drop_landmarks=dropped("drop landmarks", chances.landmarks),
        drop_reference=dropped("drop reference", chances.reference),
    )


def _stream(purpose: str, key: tuple[int | str, ...]) -> np.random.Generator:
    """The random numbers that belong to ``purpose`` and ``key``, always the same ones."""
    digest = hashlib.blake2b(json.dumps([purpose, *key]).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest, "<u8").astype(np.uint64)))
