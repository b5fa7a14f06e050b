"""The public configuration files of CogVideoX-5B-I2V, for what is known without its weights.

A run reads the files of its own checkpoint. These serve a plan that is made before anything is downloaded, and give a model
from scratch everything but its sizes. Source: ``config.json`` and ``scheduler_config.json`` of THUDM/CogVideoX-5b-I2V, the
entries that differ from diffusers' defaults, and those whose defaults differ between versions.
"""

from types import MappingProxyType
from typing import Any

HUB_ID = "THUDM/CogVideoX-5b-I2V"

TRANSFORMER: MappingProxyType[str, Any] = MappingProxyType(
    {
        "num_attention_heads": 48,
        "attention_head_dim": 64,
        "in_channels": 32,  # noise | image
        "out_channels": 16,
        "time_embed_dim": 512,
        "text_embed_dim": 4096,
        "num_layers": 42,
        "sample_width": 90,
        "sample_height": 60,
        "sample_frames": 49,  # in pixels: 13 latents
        "max_text_seq_length": 226,
        "use_rotary_positional_embeddings": True,
        "use_learned_positional_embeddings": True,
    }
)

VAE: MappingProxyType[str, Any] = MappingProxyType({"scaling_factor": 0.7, "latent_channels": 16})

SCHEDULER: MappingProxyType[str, Any] = MappingProxyType(
    {
        "_class_name": "CogVideoXDDIMScheduler",
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "trained_betas": None,
        "clip_sample": False,
        "clip_sample_range": 1.0,
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "sample_max_value": 1.0,
        "set_alpha_to_one": True,
        "snr_shift_scale": 1.0,  # the class's default is the 3.0 of the 2B model
        "steps_offset": 0,
        "timestep_spacing": "trailing",
    }
)
