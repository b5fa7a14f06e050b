"""The codec ``vae``: the causal 3D autoencoder of CogVideoX, from a local checkpoint."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from faceloom.device import Device, repeatable_inference, torch_device
from faceloom.errors import UserError
from faceloom.fingerprint import fingerprint
from training.codec import CodecConfig
from training.latents import CELL, CHANNELS, STRIDE, bfloat16_bits, check_frames, check_latents

if TYPE_CHECKING:
    from torch import Tensor


class VaeCodec:
    """``AutoencoderKLCogVideoX`` of diffusers.

    Video and reference are stored as moments: 16 channels of mean, then 16 of log-variance as the network gives it, before
    diffusers clamps it to [−30, 20]. Landmarks are stored as the mean, which is how SkyReels-A1 feeds them. Nothing is drawn
    at random. On the CPU the last bits depend on torch's thread count.

    Raises :class:`UserError` if the checkpoint cannot be had, is incomplete, or is not of a VAE with 16 channels, 8×8 px a
    cell and 4 frames a latent.
    """

    name = "vae"
    moment_channels = 2 * CHANNELS

    def __init__(
        self,
        model: str,
        dtype: Literal["fp32", "bf16"] = "bf16",
        *,
        tiling: bool = False,
        slicing: bool = False,
        device: Device = "auto",
    ) -> None:
        self.device = torch_device(device, "codec.device")
        self._config = read_config(model)
        self._vae = load_vae(model, dtype).to(self.device)
        if tiling:
            self._vae.enable_tiling()
        if slicing:
            self._vae.enable_slicing()
        self._tiling = tiling
        self._fingerprint: str | None = None

    @property
    def fingerprint(self) -> str:
        """Over the weights themselves, wherever they were loaded from; takes seconds at first use."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint(
                codec="vae",
                version=1,
                config=self._config,
                dtype=str(self._vae.dtype),
                tiling=self._tiling,
                weights=_digest(self._vae.state_dict()),
            )
        return self._fingerprint

    def encode_video(self, frames: np.ndarray) -> np.ndarray:
        """``frames`` uint8 [4F−3, 8h, 8w, 3] → bits uint16 [32, F, h, w]: mean, log-variance."""
        import torch

        check_frames(frames)
        pixels = torch.tensor(frames, device=self.device).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        with repeatable_inference():
            moments = self._vae.encode(pixels.to(self._vae.dtype).contiguous()).latent_dist.parameters[0]
        return bfloat16_bits(moments.float().cpu().numpy())

    def encode_landmarks(self, frames: np.ndarray) -> np.ndarray:
        """``frames`` uint8 [4F−3, 8h, 8w, 3] → bits uint16 [16, F, h, w]: the mean, which is a Gaussian's mode."""
        return self.encode_video(frames)[:CHANNELS]

    def encode_reference(self, image: np.ndarray) -> np.ndarray:
        """``image`` uint8 [8h, 8w, 3] → bits uint16 [32, 1, h, w]: mean, log-variance."""
        return self.encode_video(image[None])

    def decode_landmarks(self, latents: np.ndarray) -> np.ndarray:
        """As :meth:`decode`: drawings are encoded as any video."""
        return self.decode(latents)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """``latents`` float32 [16, F, h, w], F odd → frames uint8 [4F−3, 8h, 8w, 3].

        Raises ``ValueError`` for an even F: diffusers then decodes latent 0 as four frames instead of one.
        """
        import torch

        check_latents(latents)
        if latents.shape[1] % 2 == 0:
            raise ValueError(f"the VAE decodes an odd number of latent frames, not {latents.shape[1]}")
        with repeatable_inference():
            pixels = self._vae.decode(torch.tensor(latents[None], device=self.device, dtype=self._vae.dtype)).sample[0]
            return to_frames(pixels)


def to_frames(pixels: "Tensor") -> np.ndarray:
    """What a VAE decodes, [3, T, H, W] in [-1, 1] and beyond → frames uint8 [T, H, W, 3]."""
    frames = ((pixels.float() + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 3, 0)
    result: np.ndarray = frames.contiguous().cpu().numpy()
    return result


def read_config(model: str, key: str = "codec.vae_model") -> dict[str, Any]:
    """The ``config.json`` of the VAE ``model``, which the config key ``key`` names, without diffusers' own entries.

    Raises :class:`UserError` if there is none, or if it belongs to another class of model.
    """
    from diffusers import AutoencoderKLCogVideoX

    try:
        config = AutoencoderKLCogVideoX.load_config(model, subfolder=_subfolder(model), local_files_only=True)
    except (OSError, ValueError) as error:
        reason = "neither a folder that holds a VAE nor the id of a pipeline in the local Hugging Face cache"
        raise UserError(f"{key}: {model!r} is {reason}\n{_remedy(model, key)}") from error
    kind = config.get("_class_name")
    if kind != "AutoencoderKLCogVideoX":
        raise UserError(
            f"{key}: {model!r} holds a model of class {kind}, not AutoencoderKLCogVideoX\n{_remedy(model, key)}"
        )
    return {name: value for name, value in config.items() if not name.startswith("_")}


def load_vae(model: str, dtype: Literal["fp32", "bf16"], key: str = "codec.vae_model") -> Any:
    """The ``AutoencoderKLCogVideoX`` of a checkpoint in evaluation mode.

    ``model`` is a folder or the id of a pipeline in the local Hugging Face cache, as the config key ``key`` names it. Raises
    :class:`UserError` if its weights cannot be read, if any would be left at its random initial value or unused, or if its
    latents are of another grid than that of :mod:`training.latents`.
    """
    import torch
    from diffusers import AutoencoderKLCogVideoX

    try:
        vae, report = AutoencoderKLCogVideoX.from_pretrained(
            model,
            subfolder=_subfolder(model),
            torch_dtype={"fp32": torch.float32, "bf16": torch.bfloat16}[dtype],
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=False,  # True would need accelerate
            output_loading_info=True,
        )
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2])  # the first one may be a bare heading
        raise UserError(f"{key}: cannot load {model!r}: {reason}\n{_remedy(model, key)}") from error
    for problem, names in (
        ("lacks", report["missing_keys"]),
        ("does not fit its config.json, which has no place for", report["unexpected_keys"]),
    ):
        if names:
            first = f"{min(names)} (and {len(names) - 1} more)"
            raise UserError(f"{key}: the checkpoint {model!r} {problem} {first}\n{_remedy(model, key)}")
    _check_grid(model, vae.config, key)
    return vae.eval()


def _check_grid(model: str, config: Any, key: str) -> None:
    grid = (
        ("channels a latent (latent_channels)", config.latent_channels, CHANNELS),
        ("px a cell (2 to the power of its downsamplings)", 2 ** (len(config.block_out_channels) - 1), CELL),
        ("frames a latent (temporal_compression_ratio)", config.temporal_compression_ratio, STRIDE),
        ("colours (in_channels)", config.in_channels, 3),
    )
    for what, found, wanted in grid:
        if found != wanted:
            raise UserError(
                f"{key}: {model!r} has {found} {what}, samples have room for {wanted}\n{_remedy(model, key)}"
            )


def _subfolder(model: str) -> str | None:
    """Where a checkpoint has its VAE: a pipeline in ``vae/``, a VAE's own folder at its top."""
    return None if (Path(model) / "config.json").is_file() else "vae"


def _remedy(model: str, key: str) -> str:
    default = CodecConfig.model_fields["vae_model"].default
    source = default if model.startswith(("/", ".", "~")) else model
    return (
        f"get it with: hf download {source} --include 'vae/*'\n"
        f"or, into a folder to copy elsewhere: hf download {source} --include 'vae/*' --local-dir DIR, "
        f"then --set {key}=DIR\n"
        "or take the latents that need no model: --set codec.codec=pixels"
    )


def _digest(weights: dict[str, Any]) -> str:
    import torch

    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
