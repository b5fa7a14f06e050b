"""OpenPose's body network, and the peaks of its heat maps: what the release's pose score looks at.

Cao et al., *OpenPose: Realtime Multi-Person 2D Pose Estimation* (2019); the network and what is done with it are those of
``pytorch-openpose``, as ``eval/pose_score.py`` has them. Limbs and persons, which the score does not read, are left out.
"""

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn import functional

from evaluation.checkpoints import load_into
from evaluation.footage import Frame
from faceloom.device import repeatable_inference

_PARTS = 18
_HEIGHT_PX = 368 * 0.5
_STRIDE = 8
_LEAST = 0.1
_PAD = 128
_TRUNK = (
    *((1, 1, 3, 64), (1, 2, 64, 64)),
    *((2, 1, 64, 128), (2, 2, 128, 128)),
    *((3, 1, 128, 256), (3, 2, 256, 256), (3, 3, 256, 256), (3, 4, 256, 256)),
    *((4, 1, 256, 512), (4, 2, 512, 512)),
)
"""Block, number, channels in and out of the 3×3 convolutions of the trunk; blocks 1 to 3 end in a pooling."""
_BRANCHES = {"L1": 38, "L2": 19}
_REFINEMENTS = range(2, 7)


class OpenPoseBody(nn.Module):
    """``[N, 3, H, W]`` BGR of -0.5 to 0.5 → heat maps ``[N, 19, H/8, W/8]``, the last of the background."""

    def __init__(self) -> None:
        super().__init__()
        for block, number, channels, out in _TRUNK:
            self.add_module(f"conv{block}_{number}", nn.Conv2d(channels, out, 3, padding=1))
        self.add_module("conv4_3_CPM", nn.Conv2d(512, 256, 3, padding=1))
        self.add_module("conv4_4_CPM", nn.Conv2d(256, 128, 3, padding=1))
        for branch, out in _BRANCHES.items():
            first = ((128, 128, 3), (128, 128, 3), (128, 128, 3), (128, 512, 1), (512, out, 1))
            for number, (a, b, kernel) in enumerate(first, 1):
                self.add_module(f"conv5_{number}_CPM_{branch}", nn.Conv2d(a, b, kernel, padding=kernel // 2))
            for stage in _REFINEMENTS:
                sizes = ((185, 128, 7), *[(128, 128, 7)] * 4, (128, 128, 1), (128, out, 1))
                for number, (a, b, kernel) in enumerate(sizes, 1):
                    self.add_module(
                        f"Mconv{number}_stage{stage}_{branch}", nn.Conv2d(a, b, kernel, padding=kernel // 2)
                    )

    def forward(self, x: Tensor) -> Tensor:
        """The heat maps."""
        for block, number, *_ in _TRUNK:
            x = self._layer(f"conv{block}_{number}", x)
            if (block, number) in {(1, 2), (2, 2), (3, 4)}:
                x = functional.max_pool2d(x, 2, 2)
        features = self._layer("conv4_4_CPM", self._layer("conv4_3_CPM", x))
        made = [self._chain(features, [f"conv5_{n}_CPM_{branch}" for n in range(1, 6)]) for branch in _BRANCHES]
        for stage in _REFINEMENTS:
            x = torch.cat([*made, features], 1)
            made = [self._chain(x, [f"Mconv{n}_stage{stage}_{branch}" for n in range(1, 8)]) for branch in _BRANCHES]
        # The release's list of layers without a ReLU names the last one of L1 twice, and so that of L2 has one.
        return functional.relu(made[1])

    def _layer(self, name: str, x: Tensor) -> Tensor:
        return functional.relu(self.get_submodule(name)(x))

    def _chain(self, x: Tensor, names: list[str]) -> Tensor:
        for name in names[:-1]:
            x = self._layer(name, x)
        made: Tensor = self.get_submodule(names[-1])(x)
        return made


class OpenPose:
    """The network with the weights of ``file``. Raises :class:`UserError` if they are not its weights."""

    def __init__(self, file: Path, device: torch.device) -> None:
        self._device = device
        self._model = load_into(OpenPoseBody(), file).to(device).eval()

    def candidates(self, frame: Frame) -> NDArray[np.float64]:
        """All peaks ``[P, 2]`` in px of ``frame`` (uint8 RGB ``[H, W, 3]``), part after part, each by rows."""
        height, width = frame.shape[:2]
        scale = _HEIGHT_PX / height
        picture = cv2.resize(frame[..., ::-1], (0, 0), fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        down, right = (-side % _STRIDE for side in picture.shape[:2])
        padded = np.pad(picture, ((0, down), (0, right), (0, 0)), constant_values=_PAD)
        pixels = torch.from_numpy(padded.astype(np.float32) / 256 - 0.5).permute(2, 0, 1)[None]
        with repeatable_inference():
            maps = self._model(pixels.to(self._device))[0].permute(1, 2, 0).cpu().numpy()
        maps = cv2.resize(maps, (0, 0), fx=_STRIDE, fy=_STRIDE, interpolation=cv2.INTER_CUBIC)
        maps = maps[: padded.shape[0] - down, : padded.shape[1] - right]
        return peaks(cv2.resize(maps, (width, height), interpolation=cv2.INTER_CUBIC))


def peaks(maps: NDArray[np.float32]) -> NDArray[np.float64]:
    """Where heat maps ``[H, W, 19]`` have a maximum above 0.1, as x, y: ``[P, 2]``, part after part, each by rows."""
    found = [np.empty((0, 2))]
    for part in range(_PARTS):
        smooth = gaussian_filter(maps[..., part].astype(np.float64), sigma=3)
        around = np.pad(smooth, 1)
        neighbours = (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:])
        is_peak = np.logical_and.reduce([smooth >= each for each in neighbours]) & (smooth > _LEAST)
        y, x = np.nonzero(is_peak)
        found.append(np.stack([x, y], axis=1).astype(np.float64))
    return np.concatenate(found)
