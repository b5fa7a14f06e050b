from typing import Any

import pytest
import torch
from torch import Tensor

from faceloom.errors import UserError
from training.sampling import sample

SHAPE = (2, 3, 16, 4, 6)
SCHEDULE: dict[str, Any] = {
    "_class_name": "CogVideoXDDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "set_alpha_to_one": True,
    "snr_shift_scale": 1.0,
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "sample_max_value": 1.0,
    "steps_offset": 0,
}


def alphas_cumprod() -> Tensor:
    """Zero-terminal-SNR schedule of CogVideoX-5B in float64, by Algorithm 1 of arXiv 2305.08891."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    root = (1 - betas).cumprod(0).sqrt()
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Oracle:
    """Gives the velocity that leads from the noisy latents to ``x0``, and remembers what it was asked."""

    def __init__(self, x0: Tensor) -> None:
        self.x0 = x0.double()
        self.calls: list[dict[str, Tensor]] = []

    def __call__(self, noisy: Tensor, timestep: Tensor, reference: Tensor, face: Tensor, landmarks: Tensor) -> Tensor:
        self.calls.append({"timestep": timestep, "reference": reference, "face": face, "landmarks": landmarks})
        alpha = alphas_cumprod()[timestep].view(-1, 1, 1, 1, 1)
        x0 = self.x0.repeat(len(noisy) // len(self.x0), 1, 1, 1, 1)
        noise = (noisy.double() - alpha.sqrt() * x0) / (1 - alpha).sqrt()
        return (alpha.sqrt() * noise - (1 - alpha).sqrt() * x0).float()


def inputs() -> dict[str, Tensor]:
    return {
        "reference": normal(1, *SHAPE),
        "landmarks": normal(2, *SHAPE),
        "face_tokens": normal(3, SHAPE[0], 729, 8),
        "noise": normal(4, *SHAPE),
    }


@pytest.mark.parametrize("scheduler", ["CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"])
@pytest.mark.parametrize("steps", [1, 8, 10, 50])
def test_the_true_velocity_leads_to_the_true_latents(steps: int, scheduler: str) -> None:
    x0 = normal(0, *SHAPE)
    schedule, generator = SCHEDULE | {"_class_name": scheduler}, torch.Generator()
    made = sample(Oracle(x0), schedule, **inputs(), steps=steps, guidance=3.0, generator=generator)
    assert made.dtype == torch.float32
    torch.testing.assert_close(made, x0, rtol=0, atol=2e-5)


def test_steps_that_diffusers_scheduler_does_not_end_at_no_noise_with_are_refused() -> None:
    with pytest.raises(ValueError, match="steps must divide 1000, 7 does not"):
        sample(Oracle(normal(0, *SHAPE)), SCHEDULE, **inputs(), steps=7)


def test_a_scheduler_that_draws_noise_is_not_left_to_draw_it_anywhere() -> None:
    with pytest.raises(ValueError, match="give a generator"):
        sample(Oracle(normal(0, *SHAPE)), SCHEDULE | {"_class_name": "CogVideoXDPMScheduler"}, **inputs(), steps=4)


def test_a_scheduler_of_another_class_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="the scheduler is EulerDiscreteScheduler; there is CogVideoXDDIMScheduler and"):
        sample(Oracle(normal(0, *SHAPE)), SCHEDULE | {"_class_name": "EulerDiscreteScheduler"}, **inputs(), steps=4)


def test_what_is_given_back_after_a_step_goes_on() -> None:
    seen: list[int] = []

    def twice(done: int, latents: Tensor) -> Tensor:
        seen.append(done)
        return 2 * latents

    given = inputs()
    made = sample(lambda noisy, *_, **__: 0 * noisy, SCHEDULE, **given, steps=4, guidance=1.0, on_step=twice)
    left = sample(lambda noisy, *_, **__: 0 * noisy, SCHEDULE, **given, steps=4, guidance=1.0)
    assert seen == [1, 2, 3, 4]
    torch.testing.assert_close(made, 16 * left)


def test_one_steps_path_is_the_ddim_step_of_the_formula() -> None:
    velocity = normal(5, *SHAPE)
    given = inputs()
    made = sample(lambda noisy, *_, **__: velocity[: len(noisy)], SCHEDULE, **given, steps=2, guidance=1.0)
    latents, alphas = given["noise"].double(), alphas_cumprod()
    for now, then in ((999, 499), (499, -1)):
        a, b = alphas[now], alphas[then] if then >= 0 else torch.tensor(1.0)
        x0 = a.sqrt() * latents - (1 - a).sqrt() * velocity
        noise = a.sqrt() * velocity + (1 - a).sqrt() * latents
        latents = b.sqrt() * x0 + (1 - b).sqrt() * noise
    torch.testing.assert_close(made.double(), latents, rtol=0, atol=2e-5)


def test_the_null_branch_has_zeros_for_a_face_and_the_same_landmarks_and_reference() -> None:
    oracle, given = Oracle(normal(0, *SHAPE)), inputs()
    sample(oracle, SCHEDULE, **given, steps=4)
    assert [int(call["timestep"][0]) for call in oracle.calls] == [999, 749, 499, 249]
    for call in oracle.calls:
        null, face = call["face"].chunk(2)
        assert not null.any()
        assert torch.equal(face, given["face_tokens"])
        for name in ("reference", "landmarks"):
            assert all(torch.equal(half, given[name]) for half in call[name].chunk(2))


def face_follower(noisy: Tensor, timestep: Tensor, reference: Tensor, face: Tensor, landmarks: Tensor) -> Tensor:
    return noisy * 0.1 + face.mean((1, 2)).view(-1, 1, 1, 1, 1) * landmarks


def test_drawings_go_to_the_guider_of_both_branches() -> None:
    drawings = torch.randint(0, 256, (2, 9, 8, 8, 3), dtype=torch.uint8)
    seen = []

    def model(noisy: Tensor, *_: Tensor, renders: Tensor) -> Tensor:
        seen.append(renders)
        return noisy

    sample(model, SCHEDULE, **inputs() | {"landmarks": drawings}, steps=1)
    assert torch.equal(seen[0], torch.cat([drawings, drawings]))


def test_guidance_moves_away_from_the_null_branch() -> None:
    given = inputs()
    null = torch.zeros_like(given["face_tokens"])
    for guidance in (1.0, 3.0):
        made = sample(face_follower, SCHEDULE, **given, steps=1, guidance=guidance)
        v_face = face_follower(
            given["noise"], torch.zeros(2), given["reference"], given["face_tokens"], given["landmarks"]
        )
        v_null = face_follower(given["noise"], torch.zeros(2), given["reference"], null, given["landmarks"])
        # At the last timestep there is nothing but noise, and one step gives minus the velocity.
        torch.testing.assert_close(made, -(v_null + guidance * (v_face - v_null)))


def test_guidance_one_asks_the_model_for_the_face_branch_alone() -> None:
    oracle, given = Oracle(normal(0, *SHAPE)), inputs()
    sample(oracle, SCHEDULE, **given, steps=2, guidance=1.0)
    assert all(torch.equal(call["face"], given["face_tokens"]) for call in oracle.calls)
    almost = sample(face_follower, SCHEDULE, **given, steps=4, guidance=1.0 + 1e-6)
    torch.testing.assert_close(sample(face_follower, SCHEDULE, **given, steps=4, guidance=1.0), almost)


def test_steps_are_taken_in_float32_for_a_model_in_bfloat16() -> None:
    x0 = normal(0, *SHAPE)
    oracle = Oracle(x0)
    made = sample(lambda *a, **k: oracle(*a, **k).bfloat16(), SCHEDULE, **inputs(), steps=4)
    assert made.dtype == torch.float32
    torch.testing.assert_close(made, x0, rtol=0, atol=0.05)
