"""The model of a checkpoint, placed where it is to compute."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from animation.animate_config import LoadConfig
from faceloom.device import torch_device
from faceloom.errors import UserError
from faceloom.models import file_sha256

if TYPE_CHECKING:
    from animation.pipeline import PortraitAnimationPipeline

_FILES = ("*.json", "*/*.json", "*/*.safetensors")


def load_pipeline(checkpoint: str | Path, config: LoadConfig) -> "PortraitAnimationPipeline":
    """The pipeline of ``checkpoint`` as ``config`` wants it.

    Raises :class:`UserError` as :meth:`animation.pipeline.PortraitAnimationPipeline.from_pretrained` does, and for offloading
    without a GPU.
    """
    import torch

    from animation.pipeline import PortraitAnimationPipeline

    check_device(config)
    pipeline = PortraitAnimationPipeline.from_pretrained(
        checkpoint,
        # Parts that are brought to the GPU one by one must not be there all at once before.
        device="cpu" if config.offload else config.device,
        dtype=torch.bfloat16 if config.offload else None,
        siglip_model=config.siglip_model,
    )
    if config.offload:
        pipeline.enable_model_cpu_offload()
    if config.tiling:
        pipeline.enable_vae_tiling()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def check_device(config: LoadConfig) -> None:
    """Raise :class:`UserError` if this machine has not the GPU that ``config`` asks for."""
    found = torch_device(config.device, "device")
    if config.offload and found.type == "cpu":
        raise UserError("offloading spares the memory of a GPU, and torch sees none here; leave --offload out")


def checkpoint_digest(folder: Path) -> str:
    """Sha256 over the names and bytes of a checkpoint's JSON files and tensors; seconds for ten GB."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in _FILES for path in folder.glob(pattern)}):
        digest.update(f"{path.relative_to(folder).as_posix()} {file_sha256(path)}\n".encode())
    return digest.hexdigest()
