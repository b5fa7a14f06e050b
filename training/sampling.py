"""Latents out of noise: the steps of the checkpoint's scheduler with classifier-free guidance of the face."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler
from torch import Tensor

from faceloom.errors import UserError

DDIM = "CogVideoXDDIMScheduler"
_SCHEDULERS = {DDIM: CogVideoXDDIMScheduler, "CogVideoXDPMScheduler": CogVideoXDPMScheduler}


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
    generator: torch.Generator | None = None,
    on_step: Callable[[int, Tensor], Tensor] | None = None,
) -> Tensor:
    """Latents float32 [B, F, 16, h, w] that ``model`` makes of ``noise`` in ``steps`` steps.

    ``model`` takes what :class:`training.model.PortraitModel` takes and gives a velocity. ``reference`` and ``landmarks``
    are scaled latents [B, F, 16, h, w]; landmarks may be drawings instead, uint8 [B, 4F−3, H, W, 3], which then go through
    the model's guider at every step. ``face_tokens`` are [B, 729, 1152], ``noise`` [B, F, 16, h, w]. The model sees noisy
    latents in the dtype of ``reference``. ``schedule_config`` is the checkpoint's ``scheduler_config.json``: its SNR shift is
    not the class's default, and its ``_class_name`` says whether steps are DDIM's, or those of DPM-Solver++ (2M, SDE), which
    add noise of ``generator``. ``on_step`` is given the number of steps done and the latents, and returns those that go on.

    The velocity is null + guidance · (face − null). The null branch sees zeros for face tokens, before the projector, and the
    same landmarks and reference: so SkyReels-A1's inference code does it. Both branches go through the model as one batch;
    ``guidance`` 1 takes the face branch alone. All steps are taken in float32, whatever the model computes in.

    Raises ``ValueError`` unless ``steps`` divides the schedule's length: diffusers' schedulers round the distance from one
    timestep to the next down, so that they then step to other noise levels than they go on from, and end before the last.
    So it does if a scheduler that draws noise has no ``generator``. Raises :class:`UserError` for one of another class.
    """
    scheduler = load_scheduler(schedule_config)
    if scheduler.config.num_train_timesteps % steps:
        raise ValueError(f"steps must divide {scheduler.config.num_train_timesteps}, {steps} does not")
    if isinstance(scheduler, CogVideoXDPMScheduler) and generator is None:
        raise ValueError("CogVideoXDPMScheduler adds noise at every step; give a generator")
    scheduler.set_timesteps(steps, device=noise.device)
    guided = guidance != 1
    if guided:
        reference, landmarks = reference.repeat(2, 1, 1, 1, 1), landmarks.repeat(2, 1, 1, 1, 1)
        face_tokens = torch.cat([torch.zeros_like(face_tokens), face_tokens])
    motion = {"renders" if landmarks.dtype == torch.uint8 else "landmarks": landmarks}
    latents: Tensor = noise.float() * scheduler.init_noise_sigma
    clean_before, timestep_before = None, None
    for done, timestep in enumerate(scheduler.timesteps, start=1):
        noisy = latents.repeat(2, 1, 1, 1, 1) if guided else latents
        timesteps = timestep.expand(len(noisy))
        velocity = model(noisy.to(reference.dtype), timesteps, reference, face_tokens, **motion).float()
        if guided:
            null, face = velocity.chunk(2)
            velocity = null + guidance * (face - null)
        if isinstance(scheduler, CogVideoXDPMScheduler):
            latents, clean_before = scheduler.step(
                velocity, clean_before, int(timestep), timestep_before, latents, generator=generator, return_dict=False
            )
            timestep_before = int(timestep)
        else:
            latents = scheduler.step(velocity, int(timestep), latents, return_dict=False)[0]
        if on_step is not None:
            latents = on_step(done, latents)
    return latents


def load_scheduler(config: Mapping[str, Any]) -> CogVideoXDDIMScheduler | CogVideoXDPMScheduler:
    """The scheduler of a ``scheduler_config.json``, of the class that it names. Raises :class:`UserError` for another one."""
    name = config.get("_class_name")
    if name not in _SCHEDULERS:
        raise UserError(
            f"scheduler_config.json: the scheduler is {name}; there is {' and '.join(_SCHEDULERS)}: take the checkpoint's own"
        )
    return _SCHEDULERS[name].from_config(dict(config))
