"""SMIRK's encoder (Retsinas et al. 2024, §3.1): from a picture of a face to the parameters of FLAME.

The layers are named as in the release (``src/smirk_encoder.py`` of georgeretsi/smirk, MIT), so that its checkpoint fits.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import nn

from faceloom.errors import UserError
from landmarks.angles import Floats
from landmarks.smirk_crop import cut, face_crop
from landmarks.smirk_motion import EYELIDS, JAW, PARAMETERS, SHAPE, SmirkMotion

_POSE_AND_CAMERA = 6
_PREFIX = "smirk_encoder."  # the checkpoint holds SMIRK's generator as well
_BATCH = 8  # bounds the memory, about 0.2 GB
_JAW_LIMIT = 0.2  # radians that the jaw turns sideways


class SmirkEncoder:
    """The encoder with the weights of ``checkpoint``, on ``device``."""

    def __init__(self, checkpoint: Path, device: str | torch.device = "cpu") -> None:
        self._device = torch.device(device)
        self._network = _Network()
        _load(self._network, checkpoint)
        self._network.to(self._device).eval()

    @torch.inference_mode()
    def encode(self, frames: Iterable[NDArray[np.uint8]], points: Floats, found: NDArray[np.bool_]) -> SmirkMotion:
        """What the face does over a clip.

        ``frames`` are T RGB pictures ``[H, W, 3]``, ``points[T, 478, 2 or 3]`` the landmarks normalised to them, ``found[T]``
        the frames that have a face. Between those, parameters and crops are interpolated linearly; before the first and
        after the last, held. Raises ``ValueError`` if no frame has a face, or if the three lengths differ.
        """
        if not found.any():
            raise ValueError("no frame has a face; SMIRK needs one at least")
        crops: list[NDArray[np.float64]] = []
        pictures: list[NDArray[np.uint8]] = []
        parameters, shapes = [], []

        def regress() -> None:
            batch = torch.from_numpy(np.stack(pictures)).to(self._device)
            pictures.clear()
            of_frames, shape = self._network(batch.permute(0, 3, 1, 2).float() / 255)
            parameters.append(of_frames.cpu().numpy())
            shapes.append(shape.cpu().numpy())

        for frame, face, has_face in zip(frames, points, found, strict=True):
            if has_face:
                height, width = frame.shape[:2]
                crops.append(face_crop(face[:, :2] * [width, height]))
                pictures.append(cut(frame, crops[-1]))
            if len(pictures) == _BATCH:
                regress()
        if pictures:
            regress()
        return SmirkMotion(
            parameters=_spread(np.concatenate(parameters), found),
            shape=np.median(np.concatenate(shapes), axis=0),
            crop=_spread(np.reshape(crops, (-1, 6)), found).reshape(-1, 2, 3),
        )


class _Regressor(nn.Module):
    """A MobileNetV3 and one linear layer on the mean of its last feature map."""

    def __init__(self, backbone: str, head: str, outputs: int) -> None:
        super().__init__()
        encoder: Any = timm.create_model(backbone, pretrained=False, features_only=True)
        self.encoder = encoder
        self._head = head
        self.add_module(head, nn.Sequential(nn.Linear(encoder.feature_info.channels()[-1], outputs)))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        features = self.encoder(pictures)[-1].mean(dim=(2, 3))
        regressed: torch.Tensor = self.get_submodule(self._head)(features)
        return regressed


class _Network(nn.Module):
    """Three regressors that share nothing: head pose and camera, shape, expression."""

    def __init__(self) -> None:
        super().__init__()
        small, large = "tf_mobilenetv3_small_minimal_100", "tf_mobilenetv3_large_minimal_100"
        self.pose_encoder = _Regressor(small, "pose_cam_layers", _POSE_AND_CAMERA)
        self.shape_encoder = _Regressor(large, "shape_layers", SHAPE)
        self.expression_encoder = _Regressor(large, "expression_layers", PARAMETERS - _POSE_AND_CAMERA)

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Parameters ``[B, 61]`` and shapes ``[B, 300]`` of ``pictures[B, 3, 224, 224]``, RGB in 0..1."""
        parameters = torch.cat([self.pose_encoder(pictures), self.expression_encoder(pictures)], dim=1)
        eyelids, jaw = parameters[:, EYELIDS], parameters[:, JAW]
        eyelids.clamp_(0, 1)
        jaw[:, 0].clamp_(min=0)  # the jaw opens, it does not close beyond shut
        jaw[:, 1:].clamp_(-_JAW_LIMIT, _JAW_LIMIT)
        return parameters, self.shape_encoder(pictures)


def _load(network: nn.Module, checkpoint: Path) -> None:
    try:
        stored = torch.load(checkpoint, map_location="cpu", weights_only=True)
        weights = {name.removeprefix(_PREFIX): w for name, w in stored.items() if name.startswith(_PREFIX)}
    except Exception as error:  # torch.load raises what its readers raise: RuntimeError, EOFError, UnpicklingError, ...
        raise UserError(f"{checkpoint} is no readable checkpoint ({error}); supply SMIRK_em1.pt as released") from error
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"{checkpoint} does not hold SMIRK's encoder; supply SMIRK_em1.pt as released. {error}"
        ) from error


def _spread(values: NDArray[np.floating], found: NDArray[np.bool_]) -> NDArray[np.float32]:
    """``values[F, K]`` of the found frames to all T frames."""
    frames, known = np.arange(len(found)), np.flatnonzero(found)
    columns = [np.interp(frames, known, column) for column in values.T]
    return np.stack(columns, axis=1).astype(np.float32)
