"""What the model is called with and what it should answer, against the formulas in float64."""

import inspect
from dataclasses import replace

import pytest
import torch

from tests.training.test_schedule import CONFIG_5B, reference_alphas
from training.codec import CodecConfig
from training.conditioning import model_inputs
from training.guider import PictureEncoder, pixel_latents
from training.model import PortraitModel
from training.prepared import Prepared
from training.randomness import Chances, Shapes, draw
from training.schedule import NoiseSchedule
from training.shrink import shrunk

B, F, C, H, W = 3, 5, 16, 4, 6
SCALE = 0.7
SCHEDULE = NoiseSchedule(CONFIG_5B)


def batch(moments: int = 32, pixels: tuple[int, int] | None = None, chances: Chances | None = None) -> Prepared:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return Prepared(
        clip_ids=("a", "b", "c"),
        video=normal(B, moments, F, H, W).bfloat16(),
        reference=normal(B, moments, 1, H, W).bfloat16(),
        reference_pixels=None,
        landmarks=normal(B, C, F, H, W).bfloat16(),
        renders=None,
        face_tokens=normal(B, 729, 1152).half(),
        weight=normal(B, F, H, W),
        draws=draw(0, range(B), Shapes((F, C, H, W), posterior=moments > C, pixels=pixels), chances or Chances()),
        scale=SCALE,
        mean_weight=1.0,
        above_1=0.0,
    )


def sampled(moments: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
    """float64 [B, F, C, h, w]."""
    moments = moments.double().transpose(1, 2)
    if noise is None:
        return moments
    return moments[:, :, :C] + (moments[:, :, C:].clamp(-30, 20) / 2).exp() * noise.double()


@pytest.mark.parametrize("moments", [16, 32])
def test_noisy_latents_and_velocity_are_those_of_the_sampled_and_scaled_latents(moments: int) -> None:
    given = batch(moments)
    inputs = model_inputs(given, SCHEDULE, None, torch.float32)
    x0 = SCALE * sampled(given.video, given.draws.video_noise)
    alpha = torch.from_numpy(reference_alphas(1.0))[given.draws.timestep].view(-1, 1, 1, 1, 1)
    noise = given.draws.noise.double()
    noisy, velocity = alpha.sqrt() * x0 + (1 - alpha).sqrt() * noise, alpha.sqrt() * noise - (1 - alpha).sqrt() * x0
    torch.testing.assert_close(inputs.arguments["noisy"].double(), noisy, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(inputs.target.double(), velocity, rtol=1e-5, atol=1e-5)
    assert torch.equal(inputs.arguments["timestep"], given.draws.timestep)
    assert torch.equal(inputs.weight, given.weight)


def test_the_target_is_not_rounded_with_the_models_input() -> None:
    given = batch()
    exact, rounded = (model_inputs(given, SCHEDULE, None, dtype) for dtype in (torch.float32, torch.bfloat16))
    assert torch.equal(exact.target, rounded.target)
    assert rounded.target.dtype == torch.float32
    for name in ("noisy", "reference", "landmarks", "face_tokens"):
        assert rounded.arguments[name].dtype == torch.bfloat16
        assert torch.equal(rounded.arguments[name], exact.arguments[name].bfloat16()), name


def test_an_extreme_variance_is_clamped_as_in_diffusers() -> None:
    given = batch()
    given.video[:, C:] = 100
    clamped = replace(given, video=torch.cat([given.video[:, :C], torch.full_like(given.video[:, C:], 20)], dim=1))
    target, wanted = (model_inputs(each, SCHEDULE, None, torch.float32).target for each in (given, clamped))
    assert torch.equal(target, wanted)
    assert target.isfinite().all()


def test_the_reference_is_followed_by_zeros() -> None:
    given = batch()
    reference = model_inputs(given, SCHEDULE, None, torch.float32).arguments["reference"]
    assert reference.shape == (B, F, C, H, W)
    wanted = SCALE * sampled(given.reference, given.draws.reference_noise)
    torch.testing.assert_close(reference[:, :1].double(), wanted, rtol=1e-5, atol=1e-6)
    assert not reference[:, 1:].any()


def test_cached_landmarks_are_scaled() -> None:
    given = batch()
    landmarks = model_inputs(given, SCHEDULE, None, torch.float32).arguments["landmarks"]
    torch.testing.assert_close(landmarks.double(), SCALE * sampled(given.landmarks, None), rtol=1e-6, atol=0)


def test_renders_are_passed_on() -> None:
    renders = torch.zeros(B, 49, 8, 8, 3, dtype=torch.uint8)
    arguments = model_inputs(
        replace(batch(), landmarks=None, renders=renders), SCHEDULE, None, torch.bfloat16
    ).arguments
    assert arguments["renders"] is renders
    assert "landmarks" not in arguments


def test_what_is_dropped_is_zero_and_the_rest_is_untouched() -> None:
    given = batch()
    draws = replace(
        given.draws,
        drop_face=torch.tensor([True, False, False]),
        drop_reference=torch.tensor([False, True, False]),
        drop_landmarks=torch.tensor([False, False, True]),
    )
    plain = model_inputs(given, SCHEDULE, None, torch.float32)
    found = model_inputs(replace(given, draws=draws), SCHEDULE, None, torch.float32)
    for name, row in (("face_tokens", 0), ("reference", 1)):
        kept = [other for other in range(B) if other != row]
        assert not found.arguments[name][row].any()
        assert torch.equal(found.arguments[name][kept], plain.arguments[name][kept])
    assert found.arguments["drop_landmarks"].tolist() == [False, False, True]
    assert torch.equal(found.target, plain.target)


def test_the_model_takes_these_arguments() -> None:
    for arguments in (
        model_inputs(batch(), SCHEDULE, None, torch.float32).arguments,
        model_inputs(replace(batch(), landmarks=None, renders=torch.zeros(1)), SCHEDULE, None, torch.float32).arguments,
    ):
        inspect.signature(PortraitModel.forward).bind(None, **arguments)


class Recorder(PictureEncoder):
    """Gives back noise moments, and keeps what it was called with."""

    def __init__(self) -> None:
        super().__init__(CodecConfig())

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.pixels = pixels
        return torch.ones(B, 32, 1, H, W)


def test_a_reference_of_pixels_gets_its_noise_before_it_is_encoded() -> None:
    images = torch.randint(0, 256, (B, 24, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    given = replace(batch(pixels=(24, 48)), reference=None, reference_pixels=images)
    encoder = Recorder()
    reference = model_inputs(given, SCHEDULE, encoder, torch.float32).arguments["reference"]

    sigma, noise = given.draws.pixel_sigma, given.draws.pixel_noise
    assert sigma is not None
    assert noise is not None
    for row in range(B):
        wanted = images[row].double().permute(2, 0, 1) / 255 * 2 - 1 + float(sigma[row]) * noise[row].double()
        torch.testing.assert_close(encoder.pixels[row, :, 0].double(), wanted, rtol=1e-5, atol=1e-6)
    assert encoder.pixels.shape == (B, 3, 1, 24, 48)
    std = torch.exp(torch.tensor(0.5))
    torch.testing.assert_close(reference[:, :1], SCALE * (1 + std * given.draws.reference_noise), rtol=1e-5, atol=1e-6)


def test_without_noise_the_picture_is_encoded_as_it_is() -> None:
    images = torch.full((B, 24, 48, 3), 255, dtype=torch.uint8)
    encoder = Recorder()
    model_inputs(replace(batch(), reference=None, reference_pixels=images), SCHEDULE, encoder, torch.float32)
    assert (encoder.pixels == 1).all()


def test_a_reference_of_pixels_is_shrunk_as_the_stored_latents_were() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (B, 24 * H, 24 * W, 3), dtype=torch.uint8, generator=generator)
    given = replace(batch(moments=C), reference=None, reference_pixels=images)
    reference = model_inputs(given, SCHEDULE, PictureEncoder(CodecConfig()), torch.float32).arguments["reference"]
    pixels = (images.permute(0, 3, 1, 2).float() / 127.5 - 1).unsqueeze(2)
    wanted = SCALE * shrunk(pixel_latents(pixels), 3).transpose(1, 2)
    torch.testing.assert_close(reference[:, :1], wanted, rtol=1e-5, atol=1e-6)


def test_pixels_without_an_encoder_are_refused() -> None:
    with pytest.raises(ValueError, match="need an encoder"):
        model_inputs(
            replace(batch(), reference=None, reference_pixels=torch.zeros(B, 8, 8, 3, dtype=torch.uint8)),
            SCHEDULE,
            None,
            torch.float32,
        )
