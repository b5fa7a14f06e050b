import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLCogVideoX
from safetensors.torch import load_file, save_file

from faceloom.errors import UserError
from tests.training.pictures import moving_picture
from tests.training.tiny import save_vae
from training.latents import bfloat16_values
from training.vae import VaeCodec

WEIGHTS = "diffusion_pytorch_model.safetensors"
WEIGHT = "encoder.conv_in.conv.bias"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_vae(tmp_path_factory.mktemp("vae"))


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return moving_picture(17, 64, 64)


def with_weights(tiny: Path, folder: Path, change) -> str:
    """A copy of the checkpoint whose weights ``change`` has edited in place."""
    shutil.copytree(tiny, folder)
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    return str(folder)


def direct(tiny: Path, frames: np.ndarray, dtype: torch.dtype, tiling: bool = False) -> torch.Tensor:
    """Moments [32, F, h, w] as diffusers gives them."""
    vae = AutoencoderKLCogVideoX.from_pretrained(tiny, torch_dtype=dtype, low_cpu_mem_usage=False).eval()
    if tiling:
        vae.enable_tiling()
    video = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    with torch.inference_mode():
        return vae.encode(video.to(dtype)).latent_dist.parameters[0]


def bits(values: torch.Tensor) -> np.ndarray:
    return values.to(torch.bfloat16).view(torch.uint16).numpy()


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
@pytest.mark.parametrize("tiling", [False, True])
def test_moments_are_those_of_diffusers(tiny, clip, name, dtype, tiling):
    moments = VaeCodec(str(tiny), name, tiling=tiling, device="cpu").encode_video(clip)
    assert (moments.dtype, moments.shape) == (np.uint16, (32, 5, 8, 8))
    assert np.array_equal(moments, bits(direct(tiny, clip, dtype, tiling)))


def test_tiling_and_the_dtype_take_effect(tiny, clip):
    plain, tiled, rough = (
        VaeCodec(str(tiny), dtype, tiling=tiling, device="cpu").encode_video(clip)
        for dtype, tiling in (("fp32", False), ("fp32", True), ("bf16", False))
    )
    assert not np.array_equal(plain, tiled)
    assert not np.array_equal(plain, rough)


def test_slicing_changes_nothing_for_one_video(tiny, clip):
    plain, sliced = (VaeCodec(str(tiny), "fp32", slicing=slicing, device="cpu") for slicing in (False, True))
    assert np.array_equal(plain.encode_video(clip), sliced.encode_video(clip))
    assert plain.fingerprint == sliced.fingerprint


def test_landmarks_are_the_mode(tiny, clip):
    codec = VaeCodec(str(tiny), "fp32", device="cpu")
    latents = codec.encode_landmarks(clip)
    assert latents.shape == (16, 5, 8, 8)
    assert np.array_equal(latents, bits(direct(tiny, clip, torch.float32).chunk(2)[0]))


def test_a_reference_is_a_video_of_one_frame(tiny, clip):
    reference = VaeCodec(str(tiny), "fp32", device="cpu").encode_reference(clip[3])
    assert reference.shape == (32, 1, 8, 8)
    assert np.array_equal(reference, bits(direct(tiny, clip[3:4], torch.float32)))


def test_encoding_repeats_bit_for_bit(tiny, clip):
    codec = VaeCodec(str(tiny), device="cpu")
    assert np.array_equal(codec.encode_video(clip), codec.encode_video(clip))


def test_decoding_is_that_of_diffusers(tiny, clip):
    codec = VaeCodec(str(tiny), "fp32", device="cpu")
    latents = bfloat16_values(codec.encode_landmarks(clip))
    decoded = codec.decode(latents)
    assert (decoded.dtype, decoded.shape) == (np.uint8, clip.shape)
    vae = AutoencoderKLCogVideoX.from_pretrained(tiny, low_cpu_mem_usage=False).eval()
    with torch.inference_mode():
        expected = vae.decode(torch.from_numpy(latents)[None]).sample[0].permute(1, 2, 3, 0).numpy()
    expected = ((expected.clip(-1, 1) + 1) * 127.5).round()
    assert np.abs(decoded - expected).max() <= 1
    assert expected.std() > 1


def test_decoding_an_even_number_of_latents_is_refused(tiny):
    with pytest.raises(ValueError, match="odd number of latent frames, not 4"):
        VaeCodec(str(tiny), device="cpu").decode(np.zeros((16, 4, 2, 2), np.float32))


def test_a_pipeline_folder_is_as_good_as_the_vaes_own(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "vae")
    (tmp_path / "model_index.json").write_text(json.dumps({"vae": ["diffusers", "AutoencoderKLCogVideoX"]}))
    fingerprints = {VaeCodec(str(folder), device="cpu").fingerprint for folder in (tiny, tmp_path)}
    assert len(fingerprints) == 1


def test_a_pipeline_in_the_hub_cache_is_found_by_its_id(tiny, tmp_path, monkeypatch):
    revision = "0" * 40
    pipeline = tmp_path / "models--somebody--cogvideox"
    shutil.copytree(tiny, pipeline / "snapshots" / revision / "vae")
    (pipeline / "refs").mkdir()
    (pipeline / "refs" / "main").write_text(revision)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached = VaeCodec("somebody/cogvideox", device="cpu")
    assert cached.fingerprint == VaeCodec(str(tiny), device="cpu").fingerprint


def test_the_fingerprint_follows_one_weight(tiny, tmp_path):
    def nudge(weights: dict[str, torch.Tensor]) -> None:
        weights[WEIGHT][0] += 0.5

    other = with_weights(tiny, tmp_path / "other", nudge)
    assert VaeCodec(other, device="cpu").fingerprint != VaeCodec(str(tiny), device="cpu").fingerprint


def test_the_fingerprint_follows_dtype_tiling_and_config(tiny, tmp_path):
    scaled = save_vae(tmp_path / "scaled", scaling_factor=0.7)
    codecs = [
        VaeCodec(str(tiny), "fp32", device="cpu"),
        VaeCodec(str(tiny), "bf16", device="cpu"),
        VaeCodec(str(tiny), "fp32", tiling=True, device="cpu"),
        VaeCodec(str(scaled), "fp32", device="cpu"),
    ]
    assert len({codec.fingerprint for codec in codecs}) == 4


def test_the_version_of_diffusers_that_saved_it_does_not_matter(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "older")
    path = tmp_path / "older" / "config.json"
    path.write_text(path.read_text().replace('"_diffusers_version": "', '"_diffusers_version": "0.30+'))
    assert VaeCodec(str(tmp_path / "older"), device="cpu").fingerprint == VaeCodec(str(tiny), device="cpu").fingerprint


@pytest.mark.parametrize(
    ("model", "download"), [("nobody/no-vae", "nobody/no-vae"), ("/nowhere/vae", "THUDM/CogVideoX-5b-I2V")]
)
def test_an_absent_vae_is_an_error_with_the_key_and_the_remedy(model, download):
    with pytest.raises(UserError) as raised:
        VaeCodec(model, device="cpu")
    assert f"codec.vae_model: '{model}' is neither" in str(raised.value)
    assert f"hf download {download} --include 'vae/*'" in str(raised.value)
    assert "--set codec.codec=pixels" in str(raised.value)


def test_another_class_of_model_is_refused(tmp_path):
    AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, latent_channels=16).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"class AutoencoderKL, not AutoencoderKLCogVideoX[\s\S]*hf download"):
        VaeCodec(str(tmp_path), device="cpu")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"latent_channels": 4}, "4 channels a latent"),
        ({"temporal_compression_ratio": 2}, "2 frames a latent"),
        (
            {
                "block_out_channels": (2, 2, 2),
                "down_block_types": ("CogVideoXDownBlock3D",) * 3,
                "up_block_types": ("CogVideoXUpBlock3D",) * 3,
            },
            "4 px a cell",
        ),
    ],
)
def test_another_grid_is_refused_with_the_reason(tmp_path, changes, reason):
    with pytest.raises(UserError, match=rf"has {reason} [\s\S]*hf download"):
        VaeCodec(str(save_vae(tmp_path, **changes)), device="cpu")


def test_a_missing_weight_is_refused_instead_of_drawn_at_random(tiny, tmp_path):
    model = with_weights(tiny, tmp_path / "vae", lambda weights: weights.pop(WEIGHT))
    with pytest.raises(UserError, match=rf"lacks {WEIGHT} \(and 0 more\)[\s\S]*hf download"):
        VaeCodec(model, device="cpu")


def test_a_weight_without_a_place_is_refused(tiny, tmp_path):
    model = with_weights(tiny, tmp_path / "vae", lambda weights: weights.update(stray=torch.zeros(1)))
    with pytest.raises(UserError, match="has no place for stray"):
        VaeCodec(model, device="cpu")


def test_a_weight_of_another_shape_is_refused_by_its_name(tiny, tmp_path):
    model = with_weights(tiny, tmp_path / "vae", lambda weights: weights.update({WEIGHT: torch.zeros(3)}))
    with pytest.raises(UserError, match=rf"size mismatch for {WEIGHT}"):
        VaeCodec(model, device="cpu")


def test_a_truncated_checkpoint_is_refused(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "vae")
    path = tmp_path / "vae" / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"cannot load[\s\S]*hf download"):
        VaeCodec(str(tmp_path / "vae"), device="cpu")
