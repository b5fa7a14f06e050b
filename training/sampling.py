"""Latents out of noise: DDIM with classifier-free guidance of the face."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers import CogVideoXDDIMScheduler
from torch import Tensor


@torch.no_grad()
def sample(
    model: Callable[..., Tensor],
    schedule_config: Mapping[str, Any],
    reference: Tensor,
    landmarks: Tensor,
    face_tokens: Tensor,
    noise: Tensor,
    steps: int,
    guidance: float = 3.0,
) -> Tensor:
    """Latents float32 [B, F, 16, h, w] that ``model`` makes of ``noise`` in ``steps`` steps.

    ``model`` takes what :class:`training.model.PortraitModel` takes and gives a velocity. ``reference`` and ``landmarks``
    are scaled latents [B, F, 16, h, w]; landmarks may be drawings instead, uint8 [B, 4F−3, H, W, 3], which then go through
    the model's guider at every step. ``face_tokens`` are [B, 729, 1152], ``noise`` [B, F, 16, h, w]. The model sees noisy
    latents in the dtype of ``reference``. ``schedule_config`` is the checkpoint's ``scheduler_config.json``: its SNR shift is
    not the class's default.

    The velocity is null + guidance · (face − null). The null branch sees zeros for face tokens, before the projector, and the
    same landmarks and reference: so SkyReels-A1's inference code does it. Both branches go through the model as one batch;
    ``guidance`` 1 takes the face branch alone. All steps are taken in float32, whatever the model computes in.

    Raises ``ValueError`` unless ``steps`` divides the schedule's length: diffusers' scheduler rounds the distance from one
    timestep to the next down, so that it then steps to other noise levels than it goes on from, and ends before the last.
    """
    scheduler = CogVideoXDDIMScheduler.from_config(dict(schedule_config))
    if scheduler.config.num_train_timesteps % steps:
        raise ValueError(f"steps must divide {scheduler.config.num_train_timesteps}, {steps} does not")
    scheduler.set_timesteps(steps, device=noise.device)
    guided = guidance != 1
    if guided:
        reference, landmarks = reference.repeat(2, 1, 1, 1, 1), landmarks.repeat(2, 1, 1, 1, 1)
        face_tokens = torch.cat([torch.zeros_like(face_tokens), face_tokens])
    motion = {"renders" if landmarks.dtype == torch.uint8 else "landmarks": landmarks}
    latents: Tensor = noise.float() * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        noisy = latents.repeat(2, 1, 1, 1, 1) if guided else latents
        timesteps = timestep.expand(len(noisy))
        velocity = model(noisy.to(reference.dtype), timesteps, reference, face_tokens, **motion).float()
        if guided:
            null, face = velocity.chunk(2)
            velocity = null + guidance * (face - null)
        latents = scheduler.step(velocity, int(timestep), latents, return_dict=False)[0]
    return latents
