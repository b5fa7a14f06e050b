"""From a prepared batch to what the model is called with and what it should answer; runs where the batch lies."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from training.guider import PictureEncoder
from training.latents import CHANNELS
from training.prepared import Prepared
from training.schedule import NoiseSchedule
from training.shrink import shrunk


class Inputs(NamedTuple):
    """One call of the model, and how its answer is judged."""

    arguments: dict[str, Tensor]
    """Of :meth:`training.model.PortraitModel.forward`; latents and tokens in the dtype asked for."""
    target: Tensor
    """The true velocity, float32 [B, F, 16, h, w]."""
    weight: Tensor
    """For :func:`training.objective.velocity_loss`, float32 [B, F, h, w]."""


def model_inputs(
    batch: Prepared, schedule: NoiseSchedule, encoder: PictureEncoder | None, dtype: torch.dtype
) -> Inputs:
    """Noise the clip, make its reference and leave out what is dropped, all in float32, and cast to ``dtype`` at the end.

    ``encoder`` encodes references that come as pixels, and is not needed else; without it they are a ``ValueError``. The
    reference stands in frame 0 and is followed by zeros, as in CogVideoX's image-to-video training. A dropped reference or
    face is all zeros, the face before its projector; dropped landmarks are left to the model, which may have to encode them.
    """
    draws = batch.draws
    clean = batch.scale * _sampled(batch.video, draws.video_noise)
    reference = batch.scale * _sampled(_reference_moments(batch, encoder), draws.reference_noise)
    reference = functional.pad(reference, (0, 0, 0, 0, 0, 0, 0, clean.shape[1] - 1))
    noisy = schedule.noisy(clean, draws.noise, draws.timestep)
    arguments = {
        "noisy": noisy.to(dtype),
        "timestep": draws.timestep,
        "reference": _without(reference, draws.drop_reference).to(dtype),
        "face_tokens": _without(batch.face_tokens, draws.drop_face).to(dtype),
        "drop_landmarks": draws.drop_landmarks,
    }
    if batch.landmarks is not None:
        arguments["landmarks"] = (batch.scale * batch.landmarks.float()).transpose(1, 2).to(dtype)
    if batch.renders is not None:
        arguments["renders"] = batch.renders
    return Inputs(arguments, schedule.velocity(clean, draws.noise, draws.timestep), batch.weight)


def _sampled(moments: Tensor, noise: Tensor | None) -> Tensor:
    """Latents float32 [B, F, 16, h, w] of ``moments`` [B, 16 or 32, F, h, w]: mean, or mean and log-variance.

    As diffusers' ``DiagonalGaussianDistribution.sample``, which clamps the log-variance, but in float32.
    """
    moments = moments.float().transpose(1, 2)
    mean, log_variance = moments[:, :, :CHANNELS], moments[:, :, CHANNELS:]
    if noise is None:
        return mean
    return mean + torch.exp(0.5 * log_variance.clamp(-30.0, 20.0)) * noise


def _reference_moments(batch: Prepared, encoder: PictureEncoder | None) -> Tensor:
    if batch.reference is not None:
        return batch.reference
    if batch.reference_pixels is None or encoder is None:
        raise ValueError("the references come as pixels: they need an encoder")
    pixels = batch.reference_pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
    if batch.draws.pixel_noise is not None and batch.draws.pixel_sigma is not None:
        pixels = pixels + batch.draws.pixel_sigma.view(-1, 1, 1, 1) * batch.draws.pixel_noise
    moments: Tensor = encoder(pixels.unsqueeze(2))
    # As the stored latents were.
    return shrunk(moments, moments.shape[-2] // batch.video.shape[-2])


def _without(values: Tensor, dropped: Tensor) -> Tensor:
    """Zeros for the samples that are ``dropped`` bool [B]."""
    return values.masked_fill(dropped.view(-1, *[1] * (values.dim() - 1)), 0)
