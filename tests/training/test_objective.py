"""The loss against Eq. 8 in float64, and where the forms of diffusers' scripts lose it to bfloat16."""

import numpy as np
import torch
from diffusers import CogVideoXDPMScheduler

from tests.training.test_schedule import CONFIG_5B, T, random, reference_alphas
from training.objective import velocity_loss
from training.schedule import NoiseSchedule

SHAPE = (3, 2, 4, 6)  # F, C, h, w


def ones(batch: int) -> torch.Tensor:
    return torch.ones(batch, SHAPE[0], *SHAPE[2:])


def test_a_weight_of_1_is_the_plain_mean_square_error() -> None:
    prediction, target = random(5, *SHAPE), random(5, *SHAPE, seed=1)
    loss = velocity_loss(prediction, target, ones(5))
    assert loss.dtype == torch.float32
    wanted = [torch.nn.functional.mse_loss(p.double(), t.double()) for p, t in zip(prediction, target, strict=True)]
    torch.testing.assert_close(loss.double(), torch.stack(wanted), rtol=1e-6, atol=0)


def test_each_error_counts_by_the_weight_of_its_frame_and_cell() -> None:
    prediction, target = random(2, *SHAPE), random(2, *SHAPE, seed=1)
    weight = random(2, SHAPE[0], *SHAPE[2:], seed=2).abs()
    total = np.zeros(2)
    for b, f, c, y, x in np.ndindex(2, *SHAPE):
        total[b] += float(weight[b, f, y, x]) * (float(prediction[b, f, c, y, x]) - float(target[b, f, c, y, x])) ** 2
    np.testing.assert_allclose(velocity_loss(prediction, target, weight).numpy(), total / np.prod(SHAPE), rtol=1e-6)


def losses_at_all_timesteps(error: float) -> tuple[torch.Tensor, ...]:
    """x0, noise, and a bfloat16 model's answer that is ``error`` off the true velocity, for each of the 1000 timesteps."""
    x0, noise = random(1000, *SHAPE).bfloat16(), random(1000, *SHAPE, seed=1).bfloat16()
    alpha = torch.from_numpy(reference_alphas(1.0)).view(-1, 1, 1, 1, 1)
    velocity = alpha.sqrt() * noise.double() - (1 - alpha).sqrt() * x0.double()
    return x0, noise, velocity, (velocity + error).float()


def test_the_loss_is_right_at_all_timesteps_for_bfloat16_latents() -> None:
    x0, noise, velocity, answer = losses_at_all_timesteps(0.1)
    wanted = (answer.double() - velocity).square().mean(dim=(1, 2, 3, 4))
    loss = velocity_loss(answer, NoiseSchedule(CONFIG_5B).velocity(x0, noise, T), ones(1000))
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-4, atol=0)


def test_the_naive_form_of_diffusers_script_is_not() -> None:
    x0, noise, velocity, answer = losses_at_all_timesteps(0.1)
    wanted = (answer.double() - velocity).square().mean(dim=(1, 2, 3, 4))

    # train_cogvideox_image_to_video_lora.py: x̂0 by get_velocity, weighted by 1 / (1 − ᾱ).
    scheduler = CogVideoXDPMScheduler.from_config(CONFIG_5B)
    noisy = scheduler.add_noise(x0, noise, T)
    x0_hat = scheduler.get_velocity(answer, noisy, T)
    weight = 1 / (1 - scheduler.alphas_cumprod[T])
    naive = (weight.view(-1, 1, 1, 1, 1) * (x0_hat - x0).square()).reshape(1000, -1).mean(dim=1)

    off = (naive / wanted - 1).abs()
    assert off[0] > 10
    assert (off > 0.05).sum() >= 10


def test_a_prediction_in_bfloat16_still_has_a_gradient_at_the_least_noise() -> None:
    x0, noise, _, _ = losses_at_all_timesteps(0.0)
    target = NoiseSchedule(CONFIG_5B).velocity(x0, noise, T)
    prediction = (target + 0.01).bfloat16().requires_grad_()
    velocity_loss(prediction, target, ones(1000)).sum().backward()
    assert prediction.grad is not None
    wanted = 2 * (prediction.detach().double() - target.double()) / np.prod(SHAPE)
    cosine = torch.nn.functional.cosine_similarity(prediction.grad.double().flatten(1), wanted.flatten(1))
    assert cosine.min() > 0.999
