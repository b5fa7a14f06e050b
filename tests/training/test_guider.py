import gc
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLCogVideoX

from faceloom.errors import UserError
from tests.training.pictures import moving_picture
from tests.training.tiny import GRID, save_base, save_release, save_vae
from training.codec import CodecConfig
from training.guider import LandmarkGuider, PictureEncoder, PixelsGuider, drawing_latents, latent_scale, pixel_latents
from training.latents import bfloat16_bits, bfloat16_values
from training.model import build_model, guider_source
from training.model_config import ModelConfig
from training.pixels import PixelsCodec
from training.shrink import shrunk
from training.vae import VaeCodec, load_vae

PIXELS = CodecConfig(codec="pixels")


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_vae(tmp_path_factory.mktemp("vae"), scaling_factor=0.7)


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return moving_picture(49, 32, 48)


def pixels_of(frames: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def guider_of(vae: Path) -> LandmarkGuider:
    model = load_vae(str(vae), "fp32")
    return LandmarkGuider(model.encoder, model.config.scaling_factor)


def test_the_guider_gives_the_codecs_landmark_latents_times_the_scaling_factor(vae, clip):
    stored = bfloat16_values(VaeCodec(str(vae), "fp32", device="cpu").encode_landmarks(clip))
    with torch.no_grad():
        latents = guider_of(vae)(pixels_of(clip))
    assert latents.shape == (1, 16, 13, 4, 6)
    assert np.array_equal(bfloat16_bits((latents[0] / 0.7).numpy()), bfloat16_bits(stored))


@pytest.mark.parametrize("frames", [1, 5, 9, 17, 49])
@pytest.mark.parametrize("learning", [False, True])
def test_frames_go_through_in_the_groups_of_diffusers(vae, clip, frames, learning):
    reference = AutoencoderKLCogVideoX.from_pretrained(vae, low_cpu_mem_usage=False).eval()
    pixels = pixels_of(clip[:frames])
    with torch.set_grad_enabled(learning):
        latents = guider_of(vae)(pixels)
    with torch.no_grad():
        expected = 0.7 * reference.encode(pixels).latent_dist.mode()
    assert torch.equal(latents.detach(), expected)


def test_gradients_reach_every_parameter_and_are_those_of_diffusers(vae, clip):
    guider = guider_of(vae)
    reference = AutoencoderKLCogVideoX.from_pretrained(vae, low_cpu_mem_usage=False)
    pixels = pixels_of(clip)
    weight = torch.randn(1, 16, 13, 4, 6, generator=torch.Generator().manual_seed(0))
    (guider(pixels) * weight).sum().backward()
    (0.7 * reference.encode(pixels).latent_dist.mode() * weight).sum().backward()
    ours = {name: parameter.grad for name, parameter in guider.named_parameters()}
    theirs = {name: p.grad for name, p in reference.named_parameters() if name.startswith("encoder.")}
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        assert gradient is not None, name
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-4, atol=1e-5)
    # The last layer's log-variance half takes no part.
    assert all(gradient.any() for gradient in ours.values())


def test_the_backward_pass_keeps_the_groups_inputs_and_caches_only(vae, clip):
    def kept(run) -> int:
        """Bytes that the result holds: saved in the graph, and reachable from Python."""
        saved = []

        def remember(tensor: torch.Tensor) -> torch.Tensor:
            saved.append(tensor)
            return tensor

        gc.collect()
        before = {id(thing) for thing in gc.get_objects()}
        with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
            result = run()
        assert result.requires_grad
        gc.collect()
        new = [thing for thing in gc.get_objects() if id(thing) not in before and type(thing) is torch.Tensor]
        storages = [tensor.untyped_storage() for tensor in (*saved, *new)]
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

    pixels = pixels_of(clip)
    guider = guider_of(vae)
    reference = AutoencoderKLCogVideoX.from_pretrained(vae, low_cpu_mem_usage=False)
    assert kept(lambda: guider(pixels)) < 0.3 * kept(lambda: reference.encode(pixels).latent_dist.mode())


def test_the_torch_twin_of_the_pixels_codec_is_the_codec(clip):
    frames = np.stack([clip, clip[::-1]])
    latents = pixel_latents(torch.cat([pixels_of(video) for video in frames]))
    assert latents.dtype == torch.float32
    for ours, video in zip(latents.numpy(), frames, strict=True):
        expected = bfloat16_values(PixelsCodec().encode_video(video))
        # One rounding to bfloat16, 8 significant bits, lies between them; and float32's in going through [-1, 1].
        np.testing.assert_allclose(ours, expected, rtol=2**-8, atol=1e-5)


def test_the_pixels_guider_starts_as_the_codec_and_learns(clip):
    guider = PixelsGuider((4, 6))
    pixels = pixels_of(clip)
    latents = guider(pixels)
    assert torch.equal(latents, drawing_latents(pixels))
    expected = bfloat16_values(PixelsCodec().encode_landmarks(clip))
    np.testing.assert_allclose(latents[0].detach().numpy(), expected, rtol=2**-8, atol=1e-3)
    latents.square().mean().backward()
    assert all(parameter.grad.any() for parameter in guider.parameters())


def test_the_pixels_guider_shrinks_to_a_coarser_grid(clip):
    pixels = pixels_of(clip)
    with torch.no_grad():
        coarse = PixelsGuider((2, 3))(pixels)
    assert torch.equal(coarse, shrunk(drawing_latents(pixels), 2))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("tiling", [False, True])
def test_the_picture_encoder_gives_the_codecs_moments(vae, dtype, tiling):
    image = moving_picture(1, 96, 96)[0]
    codec = CodecConfig(codec="vae", vae_model=str(vae), dtype=dtype, tiling=tiling)
    expected = VaeCodec(str(vae), dtype, tiling=tiling, device="cpu").encode_reference(image)
    moments = PictureEncoder(codec)(pixels_of(image[None]))
    assert moments.shape == (1, 32, 1, 12, 12)
    assert moments.dtype == torch.float32
    assert np.array_equal(bfloat16_bits(moments[0].numpy()), expected)


def test_the_picture_encoder_of_pixels_gives_its_latents(clip):
    encoder = PictureEncoder(PIXELS)
    assert torch.equal(encoder(pixels_of(clip[:1])), pixel_latents(pixels_of(clip[:1])))


def test_the_picture_encoder_is_frozen_and_carries_no_decoder(vae):
    encoder = PictureEncoder(CodecConfig(codec="vae", vae_model=str(vae)))
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not [name for name, _ in encoder.named_parameters() if "decoder" in name]
    assert not encoder(torch.zeros(1, 3, 1, 16, 16, requires_grad=True)).requires_grad


def test_the_scale_of_latents_is_the_vaes_or_one(vae):
    assert latent_scale(CodecConfig(codec="vae", vae_model=str(vae))) == 0.7
    assert latent_scale(PIXELS) == 1


def test_the_guider_starts_as_the_releases_own_or_as_the_codecs_vae(vae, tmp_path):
    codec = CodecConfig(codec="vae", vae_model=str(vae))
    base, release = save_base(tmp_path / "base"), save_release(tmp_path / "release")
    assert guider_source(ModelConfig(init="scratch"), codec) == str(vae)
    assert guider_source(ModelConfig(init=str(base)), codec) == str(vae)
    assert guider_source(ModelConfig(init=str(release)), codec) == str(release / "pose_guider")
    assert guider_source(ModelConfig(init=str(base), guider=str(release)), codec) == str(release / "pose_guider")
    assert guider_source(ModelConfig(init=str(release), guider=str(base)), codec) == str(base)

    built = build_model(ModelConfig(init=str(release)), codec, GRID, guider=True).guider.state_dict()
    own = load_vae(str(release / "pose_guider"), "fp32").state_dict()
    assert built
    assert all(torch.equal(value, own[name]) for name, value in built.items())


def test_a_guider_of_the_wrong_kind_is_refused_by_its_key(vae, tmp_path):
    with pytest.raises(UserError, match=r"model.guider: .* no guider for the codec pixels; leave model.guider out"):
        build_model(ModelConfig(init="scratch", guider=str(vae)), PIXELS, GRID, guider=True)
    codec = CodecConfig(codec="vae", vae_model=str(vae))
    with pytest.raises(UserError, match=r"model.guider: [\s\S]*--set model.guider=DIR"):
        build_model(ModelConfig(init="scratch", guider=str(tmp_path)), codec, GRID, guider=True)
