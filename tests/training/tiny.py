"""Tiny but real checkpoints on disk, in the layouts of the true ones: VAE, CogVideoX-5B-I2V, SkyReels-A1's release."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
from safetensors.torch import load_file, save_file

CONFIG: dict[str, Any] = {
    "block_out_channels": (2, 2, 2, 2),
    "norm_num_groups": 1,
    "layers_per_block": 1,
    "latent_channels": 16,
    "temporal_compression_ratio": 4,
    "sample_height": 96,  # tiles of 48×40 px, 40×32 apart
    "sample_width": 80,
}


def save_vae(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """Write one with the weights of ``seed`` and return ``folder``; 8 000 parameters.

    On one CPU thread a clip of 49 frames of 480×720 takes it about 30 s in fp32 and 6 s in bf16.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vae = AutoencoderKLCogVideoX(**CONFIG | changes)
    vae.save_pretrained(folder)
    return folder


WEIGHTS = "diffusion_pytorch_model.safetensors"
GRID = (4, 6)
"""(h, w) of the latents of the tiny transformers."""

TRANSFORMER: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 32,
    "time_embed_dim": 16,
    "text_embed_dim": 24,
    "num_layers": 2,
    "sample_height": GRID[0],
    "sample_width": GRID[1],
    "use_rotary_positional_embeddings": True,
    "use_learned_positional_embeddings": True,
}


def save_base(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """Write a CogVideoX-5B-I2V with 226 text tokens and return ``folder``; no two of its tensors are alike."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer = CogVideoXTransformer3DModel(**TRANSFORMER | changes).float()
        for tensor in transformer.state_dict().values():
            tensor.normal_(std=0.2)
    transformer.save_pretrained(folder / "transformer")
    CogVideoXDDIMScheduler(
        clip_sample=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=1.0,
        timestep_spacing="trailing",
    ).save_pretrained(folder / "scheduler")
    save_vae(folder / "vae", seed, scaling_factor=0.7)
    return folder


def save_release(folder: Path, seed: int = 0) -> Path:
    """Write a SkyReels-A1: 48 channels, four tensors of ``pose_proj``, a ``config.json`` that says 226 tokens for its 729."""
    save_base(folder, seed, in_channels=48, max_text_seq_length=729)
    text = TRANSFORMER["text_embed_dim"]
    shapes = {"0.weight": (3456, 1152), "0.bias": (3456,), "2.weight": (text, 3456), "2.bias": (text,)}
    generator = torch.Generator().manual_seed(seed)
    projector = {
        f"patch_embed.pose_proj.{name}": 0.02 * torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }
    edit_weights(folder / "transformer", lambda weights: weights.update(projector))
    edit_config(folder / "transformer", max_text_seq_length=226)
    save_vae(folder / "pose_guider", seed + 1, scaling_factor=0.7)
    return folder


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Let ``change`` edit the tensors of a model's folder in place."""
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def edit_config(folder: Path, **changes: Any) -> None:
    """Set entries of a model's ``config.json``."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def into_shards(folder: Path) -> None:
    """Split a model's one file of tensors into two and an index, as large models are saved."""
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(weights)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"diffusion_pytorch_model-{number:05d}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, file))
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def into_hub_cache(folder: Path, cache: Path, name: str) -> None:
    """Copy a checkpoint to where the Hugging Face hub would have put ``name`` (owner/model)."""
    revision = "0" * 40
    repository = cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
