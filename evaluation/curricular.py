"""CurricularFace: who a face is, by the IR-101 that the release's FaceSim-Cur uses.

Huang et al., *CurricularFace: Adaptive Curriculum Learning Loss for Deep Face Recognition* (2020). Layers are named as in
Tencent's TFace, whose checkpoint it is, so that the file loads as it is.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evaluation.checkpoints import load_into
from evaluation.footage import Frame
from faceloom.device import repeatable_inference

_STAGES = ((64, 64, 3), (64, 128, 13), (128, 256, 30), (256, 512, 3))  # channels in and out, blocks


class _Block(nn.Module):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if channels != out:
            self.shortcut_layer = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.PReLU(out),
            nn.Conv2d(out, out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out),
        )

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.res_layer(x) + self.shortcut_layer(x)
        return made


class Ir101(nn.Module):
    """``[N, 3, 112, 112]`` of -1 to 1, RGB → embeddings ``[N, 512]``."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        self.body = nn.Sequential(
            *(
                _Block(channels if number == 0 else out, out, 2 if number == 0 else 1)
                for channels, out, blocks in _STAGES
                for number in range(blocks)
            )
        )
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(512 * 7 * 7, 512),
            nn.BatchNorm1d(512, affine=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The embeddings."""
        made: Tensor = self.output_layer(self.body(self.input_layer(x)))
        return made


class CurricularFace:
    """The network with the weights of ``file``. Raises :class:`UserError` if they are not its weights."""

    def __init__(self, file: Path, device: torch.device) -> None:
        self._device = device
        self._model = load_into(Ir101(), file).to(device).eval()

    def embed_aligned(self, aligned: Frame) -> NDArray[np.float32]:
        """The embedding ``[512]``, of length 1, of a face uint8 RGB ``[112, 112, 3]`` in its place."""
        pixels = torch.from_numpy(aligned).to(self._device).permute(2, 0, 1)[None].float() / 127.5 - 1
        with repeatable_inference():
            embedding = self._model(pixels)[0].cpu().numpy()
        return np.asarray(embedding / np.linalg.norm(embedding), np.float32)
