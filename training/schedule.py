"""The noise schedule, in double precision: noisy latents, velocities, and back.

diffusers' schedulers cast ᾱ to the dtype of the sample. In bfloat16 ᾱ is then 1 at the first timesteps, so that they get no
noise at all, and √(1 − ᾱ) is off by more than 5 % at ten of them. Here ᾱ stays float64, its two roots are rounded once to
float32, and everything that is computed with them is float32.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from faceloom.errors import UserError

_REQUIRED = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type", "snr_shift_scale")


class NoiseSchedule:
    """The schedule that the ``scheduler_config.json`` of a CogVideoX checkpoint describes.

    ``config`` is that file's content; it must name all that decides the schedule, since a default of diffusers'
    classes (``snr_shift_scale: 3``) is another model's. As there: betas are the squares of evenly spaced roots, the SNR is
    shifted by ``snr_shift_scale``, and with ``rescale_betas_zero_snr`` nothing is left of the latents at the last timestep
    (Lin et al., 2024, Algorithm 1). Raises :class:`UserError` for a file that lacks a key, or is of another kind of schedule.
    """

    def __init__(self, config: Mapping[str, Any], device: torch.device | str = "cpu") -> None:
        missing = [key for key in _REQUIRED if key not in config]
        if missing:
            raise UserError(
                f"the scheduler_config.json lacks {', '.join(missing)}, which decide the noise; take the checkpoint's own"
            )
        for key, wanted in (("beta_schedule", "scaled_linear"), ("prediction_type", "v_prediction")):
            if config[key] != wanted:
                raise UserError(f"scheduler_config.json: {key} is {config[key]!r}; CogVideoX's is {wanted!r}")
        if config.get("trained_betas") is not None:
            raise UserError("scheduler_config.json: trained_betas are given; CogVideoX has none")
        self.alphas_cumprod = _alphas_cumprod(config)
        """ᾱ, float64 [timesteps], on the CPU."""
        self._signal = self.alphas_cumprod.sqrt().float().to(device)
        self._noise = (1 - self.alphas_cumprod).sqrt().float().to(device)

    def __len__(self) -> int:
        """The number of timesteps."""
        return len(self.alphas_cumprod)

    def noisy(self, x0: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """√ᾱ·x0 + √(1 − ᾱ)·noise: the latents at ``timestep`` int64 [B], float32 in the shape [B, …] of ``x0``."""
        signal, sigma = self._roots(timestep, x0)
        return signal * x0.float() + sigma * noise.float()

    def velocity(self, x0: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """√ᾱ·noise − √(1 − ᾱ)·x0: what the model is to predict (Salimans & Ho, 2022), float32 [B, …]."""
        signal, sigma = self._roots(timestep, x0)
        return signal * noise.float() - sigma * x0.float()

    def clean(self, velocity: Tensor, noisy: Tensor, timestep: Tensor) -> Tensor:
        """√ᾱ·noisy − √(1 − ᾱ)·velocity: the latents that ``velocity`` implies, float32 [B, …]."""
        signal, sigma = self._roots(timestep, noisy)
        return signal * noisy.float() - sigma * velocity.float()

    def _roots(self, timestep: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """√ᾱ and √(1 − ᾱ) at ``timestep`` [B], in a shape that broadcasts over ``like`` [B, …]."""
        shape = (-1, *[1] * (like.dim() - 1))
        return self._signal[timestep].view(shape), self._noise[timestep].view(shape)


def _alphas_cumprod(config: Mapping[str, Any]) -> Tensor:
    roots = (config["beta_start"] ** 0.5, config["beta_end"] ** 0.5)
    betas = torch.linspace(*roots, config["num_train_timesteps"], dtype=torch.float64).square()
    alphas: Tensor = (1 - betas).cumprod(dim=0)
    shift = config["snr_shift_scale"]
    alphas = alphas / (shift + (1 - shift) * alphas)
    if config.get("rescale_betas_zero_snr", False):
        signal = alphas.sqrt()
        alphas = ((signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])).square()
    return alphas
