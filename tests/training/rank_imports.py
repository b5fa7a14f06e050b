"""What the server of :mod:`tests.training.ranks` imports once for all ranks."""

import diffusers.models.transformers.cogvideox_transformer_3d
import torch.distributed.checkpoint
import torch.distributed.fsdp
import torch.distributed.tensor  # noqa: F401
