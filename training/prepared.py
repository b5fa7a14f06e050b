"""A batch as the training step takes it: fields of samples, their loss weights, and what was drawn for them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from landmarks.backend import Backend
from shards.video import decode_video
from training.codec import CodecConfig
from training.data_config import DataConfig, ReferenceConfig, WeightConfig
from training.drawings import LANDMARK_FIELDS, draw_landmarks
from training.encode_config import RenderConfig
from training.loss_weight import sample_weight
from training.randomness import Draws, choose
from training.shrink import shrunk

Landmarks = Literal["cached", "rendered"]


@dataclass(frozen=True)
class Recipe:
    """How samples become input: the sections of a configuration that say so, and what a stage adds to them."""

    data: DataConfig
    codec: CodecConfig
    reference: ReferenceConfig
    weight: WeightConfig
    landmarks: Landmarks = "cached"
    face_dropout: float = 0.0
    landmark_dropout: float = 0.0
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Prepared:
    """B samples. Latents are as stored, unscaled; on the CPU until :meth:`to` moves them."""

    clip_ids: tuple[str, ...]
    video: Tensor  # bfloat16 [B, 16 or 32, F, h, w]: moments
    reference: Tensor | None  # bfloat16 [B, 16 or 32, 1, h, w]: moments; None where there are pixels
    reference_pixels: Tensor | None  # uint8 [B, 480, 720, 3] RGB, to be encoded
    landmarks: Tensor | None  # bfloat16 [B, 16, F, h, w]; None where there are renders
    renders: Tensor | None  # uint8 [B, 49, 480, 720, 3] RGB
    face_tokens: Tensor  # float16 [B, 729, 1152]
    weight: Tensor  # float32 [B, F, h, w]
    draws: Draws
    scale: float
    """What the codec's latents are multiplied by for the model."""
    mean_weight: float
    above_1: float
    """Share of the cells whose loss weight is more than 1."""

    def __len__(self) -> int:
        """B."""
        return len(self.clip_ids)

    def to(self, device: torch.device | str) -> Self:
        """The same on ``device``; from pinned memory without waiting for the copy."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Self:
        """The same in memory that a GPU can copy from while it computes."""
        return self._each(lambda tensor: tensor if tensor.is_pinned() else tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        moved: Self = replace(_changed(self, change), draws=_changed(self.draws, change))
        return moved


class Preparer:
    """Makes :class:`Prepared` batches of decoded fields; ``render`` is how their layer's landmarks were drawn.

    ``backend`` is needed where landmarks are rendered. May be used by one thread at a time.
    """

    def __init__(self, recipe: Recipe, scale: float, render: RenderConfig, backend: Backend | None) -> None:
        self._recipe = recipe
        self._scale = scale
        self._render = render
        self._backend = backend

    def __call__(self, raw: Mapping[str, Any], draws: Draws) -> Prepared:
        """``raw`` has the fields of B samples as :class:`shards.loader.Loader` gives them: tensors [B, …] and lists."""
        recipe, layer = self._recipe, f"{self._recipe.data.layer}/"
        samples = [_sample(raw, row) for row in range(len(raw["__key__"]))]
        weights = [sample_weight(sample, recipe.weight, recipe.data.layout) for sample in samples]
        rendered = recipe.landmarks == "rendered"
        pixels = np.stack([self._picture(sample) for sample in samples]) if recipe.reference.of_pixels else None
        return Prepared(
            clip_ids=tuple(raw["__key__"]),
            video=self._latents(raw[layer + "video_moments.safetensors"]),
            reference=None if pixels is not None else self._latents(raw[layer + "reference_moments.safetensors"]),
            reference_pixels=None if pixels is None else torch.from_numpy(pixels),
            landmarks=None if rendered else self._latents(raw[layer + "landmark_latents.safetensors"]),
            renders=torch.from_numpy(np.stack([self._draw(sample) for sample in samples])) if rendered else None,
            face_tokens=raw["face_tokens.npy"],
            weight=functional.avg_pool2d(
                torch.from_numpy(np.stack([weight.weight for weight in weights])), self._recipe.data.shrink
            ),
            draws=draws,
            scale=self._scale,
            mean_weight=float(np.mean([weight.mean for weight in weights])),
            above_1=float(np.mean([weight.above_1 for weight in weights])),
        )

    def _latents(self, stored: Tensor) -> Tensor:
        """[B, C, F, 60, 90] → [B, C, F, h, w]."""
        return shrunk(stored, self._recipe.data.shrink)

    def _draw(self, sample: Mapping[str, Any]) -> np.ndarray:
        assert self._backend is not None
        return draw_landmarks(sample, self._backend, self._render, self._recipe.data.layout)

    def _picture(self, sample: Mapping[str, Any]) -> np.ndarray:
        """The reference before it is encoded, uint8 [480, 720, 3] RGB."""
        if self._recipe.reference.frame == "stored":
            picture = cv2.imdecode(np.frombuffer(sample["reference.jpg"], np.uint8), cv2.IMREAD_COLOR_RGB)
            return np.asarray(picture, np.uint8)
        frame = 0
        if self._recipe.reference.frame == "random_in_clip":
            own = sample["meta.json"]["n_valid"]
            frame = choose(self._recipe.seed, int(sample["__position__"]), own, "reference frame")
        return np.asarray(decode_video(sample["video.mp4"])[frame])


def needed_fields(recipe: Recipe, backend: str) -> tuple[str, ...]:
    """The fields that a dataset is to be opened with, whose landmarks were recorded for ``backend``."""
    latents = ["video_moments"]
    base = ["meta.json", "flow.npy", "face_tokens.npy"]
    if recipe.landmarks == "cached":
        latents.append("landmark_latents")
    else:
        base += [name for name in LANDMARK_FIELDS if backend == "smirk" or not name.startswith("smirk")]
    if recipe.weight.variant == "face":
        base.append("landmarks.u16.npy")
    if recipe.reference.frame != "stored":
        base.append("video.mp4")
    elif recipe.reference.noise:
        base.append("reference.jpg")
    else:
        latents.append("reference_moments")
    names = [f"{recipe.data.layer}/{name}.safetensors" for name in latents]
    return tuple(dict.fromkeys([*names, *base]))


def _sample(raw: Mapping[str, Any], row: int) -> dict[str, Any]:
    """One sample of a batch, without the layer's arrays, whose bfloat16 numpy does not know."""
    return {
        name: values[row].numpy() if isinstance(values, Tensor) else values[row]
        for name, values in raw.items()
        if "/" not in name
    }


def _changed(record: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A dataclass with each of its tensors changed."""
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return replace(record, **{name: change(value) for name, value in values.items() if isinstance(value, Tensor)})
