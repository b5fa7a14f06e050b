"""Inception v3's features of faces, as torchvision has it: 2048 numbers before the classes.

Szegedy et al., *Rethinking the Inception Architecture for Computer Vision* (2016).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.models import inception_v3

from evaluation.checkpoints import load_into
from evaluation.footage import Frame
from faceloom.device import repeatable_inference

_SIDE_PX = 299
_MEAN, _STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
_BATCH = 16


class Inception:
    """The network with the weights of ``file``. Raises :class:`UserError` if they are not its weights."""

    def __init__(self, file: Path, device: torch.device) -> None:
        self._device = device
        # With transform_input, as torchvision's own weights are used: the network undoes ImageNet's normalisation itself.
        model = inception_v3(weights=None, transform_input=True, init_weights=False)
        model = load_into(model, file)
        model.fc = nn.Identity()
        self._model = model.to(device).eval()

    def features(self, faces: Sequence[Frame], normalised: bool) -> NDArray[np.float32]:
        """Features ``[N, 2048]`` of faces uint8 RGB ``[H, W, 3]``, resized to 299 px.

        ``normalised`` by ImageNet's mean and deviation, which is what the network expects. The release leaves it out.
        """
        made = [np.empty((0, 2048), np.float32)]
        for start in range(0, len(faces), _BATCH):
            pixels = torch.stack([self._pixels(face, normalised) for face in faces[start : start + _BATCH]])
            with repeatable_inference():
                made.append(self._model(pixels.to(self._device)).cpu().numpy())
        return np.concatenate(made)

    @staticmethod
    def _pixels(face: Frame, normalised: bool) -> Tensor:
        resized = Image.fromarray(face).resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(resized, np.float32) / 255)
        return ((pixels - _MEAN) / _STD if normalised else pixels).permute(2, 0, 1)
