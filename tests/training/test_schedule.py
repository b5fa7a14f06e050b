"""The noise schedule against formulas in float64, against diffusers, and where bfloat16 breaks diffusers'."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler

from faceloom.errors import UserError
from training.schedule import NoiseSchedule

CONFIG_5B: dict[str, Any] = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "set_alpha_to_one": True,
    "snr_shift_scale": 1.0,
    "steps_offset": 0,
    "timestep_spacing": "trailing",
    "trained_betas": None,
}
T = torch.arange(1000)


def reference_alphas(shift: float) -> np.ndarray:
    """ᾱ from the definitions: β_t between the ends by evenly spaced roots; SNR/shift; √ᾱ moved and stretched to end at 0."""
    roots = [math.sqrt(0.00085) + t / 999 * (math.sqrt(0.012) - math.sqrt(0.00085)) for t in range(1000)]
    product, alphas = 1.0, []
    for root in roots:
        product *= 1 - root**2
        snr = product / (1 - product) / shift
        alphas.append(snr / (1 + snr))
    first, last = math.sqrt(alphas[0]), math.sqrt(alphas[-1])
    return np.array([((math.sqrt(a) - last) * first / (first - last)) ** 2 for a in alphas])


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_alpha_bar_is_that_of_its_definition_in_double_precision(shift: float) -> None:
    schedule = NoiseSchedule(CONFIG_5B | {"snr_shift_scale": shift})
    assert schedule.alphas_cumprod.dtype == torch.float64
    np.testing.assert_allclose(schedule.alphas_cumprod.numpy(), reference_alphas(shift), rtol=1e-9, atol=1e-15)
    assert schedule.alphas_cumprod[-1] == 0
    assert len(schedule) == 1000


@pytest.mark.parametrize("scheduler", [CogVideoXDPMScheduler, CogVideoXDDIMScheduler])
@pytest.mark.parametrize("changes", [{}, {"snr_shift_scale": 3.0}, {"rescale_betas_zero_snr": False}])
def test_alpha_bar_is_that_of_diffusers(scheduler: Any, changes: dict[str, Any]) -> None:
    theirs = scheduler.from_config(CONFIG_5B | changes).alphas_cumprod
    torch.testing.assert_close(NoiseSchedule(CONFIG_5B | changes).alphas_cumprod, theirs, rtol=1e-12, atol=0)


def test_noisy_latents_and_velocities_at_all_timesteps() -> None:
    x0, noise = random(1000, 6), random(1000, 6, seed=1)
    alpha = torch.from_numpy(reference_alphas(1.0))[:, None]
    noisy = alpha.sqrt() * x0.double() + (1 - alpha).sqrt() * noise.double()
    velocity = alpha.sqrt() * noise.double() - (1 - alpha).sqrt() * x0.double()

    schedule = NoiseSchedule(CONFIG_5B)
    for found, wanted in (
        (schedule.noisy(x0, noise, T), noisy),
        (schedule.velocity(x0, noise, T), velocity),
        (schedule.clean(velocity.float(), noisy.float(), T), x0.double()),
    ):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=1e-6)


def test_each_sample_has_its_own_timestep_whatever_its_shape() -> None:
    x0, noise, timestep = random(2, 3, 4, 5, 6), random(2, 3, 4, 5, 6, seed=1), torch.tensor([999, 10])
    schedule = NoiseSchedule(CONFIG_5B)
    both = schedule.noisy(x0, noise, timestep)
    assert torch.equal(both[0], noise[0]), "nothing is left of the latents at the last timestep"
    assert torch.equal(both[1:], schedule.noisy(x0[1:], noise[1:], timestep[1:]))


def test_bfloat16_latents_get_their_noise_where_diffusers_gives_them_none() -> None:
    x0, noise = random(1000, 4096).bfloat16(), random(1000, 4096, seed=1).bfloat16()
    sigma = torch.from_numpy(np.sqrt(1 - reference_alphas(1.0)))

    def noise_level(noisy: torch.Tensor) -> torch.Tensor:
        """√(1 − ᾱ) as it is in ``noisy``: its projection on the noise."""
        signal = torch.from_numpy(np.sqrt(reference_alphas(1.0)))[:, None] * x0.double()
        return ((noisy.double() - signal) * noise.double()).sum(1) / noise.double().square().sum(1)

    def off(noisy: torch.Tensor) -> torch.Tensor:
        return (noise_level(noisy) / sigma - 1).abs()

    naive = off(CogVideoXDPMScheduler.from_config(CONFIG_5B).add_noise(x0, noise, T))
    assert (naive[:2] > 0.9).all()
    assert (naive > 0.05).sum() >= 8
    assert off(NoiseSchedule(CONFIG_5B).noisy(x0, noise, T)).max() < 1e-5


@pytest.mark.parametrize("key", ["snr_shift_scale", "beta_start", "prediction_type"])
def test_a_config_that_leaves_a_value_to_diffusers_default_is_refused(key: str) -> None:
    with pytest.raises(UserError, match=f"lacks {key}"):
        NoiseSchedule({name: value for name, value in CONFIG_5B.items() if name != key})


@pytest.mark.parametrize(("key", "value"), [("prediction_type", "epsilon"), ("beta_schedule", "linear")])
def test_another_kind_of_schedule_is_refused(key: str, value: str) -> None:
    with pytest.raises(UserError, match=f"{key} is '{value}'"):
        NoiseSchedule(CONFIG_5B | {key: value})
