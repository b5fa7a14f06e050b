"""Who the person is: a frame to take the face from, the face aligned to a template, and its tokens.

The alignment is that of the release (facexlib's 512 px template on five points), with the points taken from the
478 landmarks that the clip already has instead of from another detector.
"""

import hashlib
from typing import Any, Literal, Protocol

import cv2
import numpy as np
from PIL import Image

from faceloom.config import Section
from faceloom.device import Device, repeatable_inference, torch_device
from faceloom.errors import UserError
from faceloom.fingerprint import fingerprint
from landmarks.topology import EYES, MOUTH_CORNERS
from shards.schema import FACE_DIM, FACE_SIZE, FACE_TOKENS

MAX_YAW_DEG = 30.0
"""A face turned further hides too much of itself to stand for the person."""

TEMPLATE = np.array(
    [
        [192.98138, 239.94708],
        [318.90277, 240.1936],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.15118],
    ],
    np.float64,
)
"""Where the five points go, px of the 512×512 face: eye, eye, nose, mouth corner, mouth corner, image left first.
Source: facexlib `FaceRestoreHelper`, which has it from FFHQ."""

# Not the tip itself, 4: the template's nose lies lower. On the release's eight driving videos the aligned landmark 1 is
# a median 1 px from the template's height, landmark 4 is 10 px above it.
NOSE = 1
BORDER_RGB = (132, 133, 135)
"""Fills what lies outside the frame. facexlib writes (135, 133, 132) into a BGR image."""


class FaceConfig(Section):
    """Which face tokens a sample holds. The aligned face itself is always stored, so tokens can be made later."""

    encoder: Literal["patches", "siglip", "none"] = "patches"
    """``patches``: the pixels themselves, no network; ``siglip``: what SkyReels-A1 trains on; ``none``: no tokens."""
    siglip_model: str = "google/siglip-so400m-patch14-384"
    """A folder, or the id of a model that is already in the Hugging Face cache: nothing is downloaded during a run."""
    device: Device = "auto"


class FaceEncoder(Protocol):
    """Turns an aligned face into tokens for the identity projector."""

    name: str
    shape: tuple[int, int]  # tokens, values per token

    @property
    def fingerprint(self) -> str:
        """Sha256 over everything that decides the tokens of a given face."""

    def __call__(self, face: np.ndarray) -> np.ndarray:
        """``face`` uint8 [512, 512, 3] RGB → float16 ``[*shape]``."""


def face_encoder(config: FaceConfig) -> FaceEncoder | None:
    """The encoder that ``config`` names; ``None`` for ``none``. Raises :class:`UserError` if its model cannot be had."""
    if config.encoder == "patches":
        return PatchTokens()
    if config.encoder == "siglip":
        return SiglipTokens(config.siglip_model, config.device)
    return None


def choose_frame(clip_id: str, purpose: str, found: np.ndarray, yaw_deg: np.ndarray) -> int:
    """A frame of the clip to show the person, drawn uniformly from the suitable ones (SkyReels-A1 §3.3).

    Suitable: a face was ``found`` [T] bool, turned at most 30° (``yaw_deg`` [T], any value where not found). Without a
    suitable frame: the most frontal found one. The draw depends on ``clip_id`` and ``purpose`` alone, so a clip gets the
    same frame in every run and different purposes (face, reference) draw independently. Raises ``ValueError`` if no
    frame has a face.
    """
    if not found.any():
        raise ValueError(f"clip {clip_id}: no frame with a face to choose from")
    turned = np.where(found, np.abs(yaw_deg), np.inf)
    candidates = np.flatnonzero(turned <= MAX_YAW_DEG)
    if len(candidates) == 0:
        return int(turned.argmin())
    draw = int.from_bytes(hashlib.sha256(f"{clip_id}:{purpose}".encode()).digest(), "big")
    return int(candidates[draw % len(candidates)])


def five_points(points_px: np.ndarray) -> np.ndarray:
    """Eye centres, nose and mouth corners float64 [5, 2], in the template's order, from ``points_px`` [478, 2]."""
    points = points_px.astype(np.float64)
    eyes = [points[list(eye.contour)].mean(axis=0) for eye in EYES]
    return np.stack([*eyes, points[NOSE], *points[list(MOUTH_CORNERS)]])


def align_face(frame: np.ndarray, points_px: np.ndarray) -> np.ndarray:
    """The face in template position: uint8 [512, 512, 3] RGB.

    ``frame`` uint8 [H, W, 3] RGB, ``points_px`` [478, 2] landmarks in px of it. The map is the similarity (rotation,
    one scale, shift; never a mirror image) that brings the five points nearest to the template in the sense of the
    least median of squares, as in facexlib. Raises ``ValueError`` if the points do not determine one.
    """
    matrix, _ = cv2.estimateAffinePartial2D(five_points(points_px), TEMPLATE, method=cv2.LMEDS)
    if matrix is None:
        raise ValueError(
            "the five points of the face coincide or are not finite; no similarity maps them to the template"
        )
    face: np.ndarray = cv2.warpAffine(
        frame, matrix, (FACE_SIZE, FACE_SIZE), borderMode=cv2.BORDER_CONSTANT, borderValue=BORDER_RGB
    )
    return face


class PatchTokens:
    """The pixels of the face as tokens: no weights, and no claim to be more than pixels.

    The face is shrunk to 378 px and cut into 27×27 patches of 14 px, row by row. A token holds one patch in [−1, 1] as
    [3, 14, 14], which is what SigLIP's first layer multiplies with its weights, then zeros up to SigLIP's width.
    """

    PATCH = 14
    GRID = 27

    name = "patches"
    shape = (FACE_TOKENS, FACE_DIM)
    fingerprint = fingerprint(encoder="patches", version=1, patch=PATCH, grid=GRID, resize="area")

    def __call__(self, face: np.ndarray) -> np.ndarray:
        """``face`` uint8 [512, 512, 3] RGB → float16 [729, 1152]."""
        side = self.GRID * self.PATCH
        pixels = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32) / 127.5 - 1
        patches = pixels.reshape(self.GRID, self.PATCH, self.GRID, self.PATCH, 3).transpose(0, 2, 4, 1, 3)
        tokens = np.zeros(self.shape, np.float16)
        tokens[:, : 3 * self.PATCH**2] = patches.reshape(len(tokens), -1)
        return tokens


class SiglipTokens:
    """SigLIP's last hidden state: what the released identity projector was trained on.

    The face is resized with antialiased bicubic interpolation to the model's own input size and scaled to [−1, 1], as
    SigLIP's image processor does it. ``shape`` follows from the model; the paper's gives [729, 1152]. The network runs in
    float32; on the CPU its last bits depend on torch's thread count.
    """

    name = "siglip"

    def __init__(self, model: str, device: Device = "auto") -> None:
        self.device = torch_device(device, "face.device")
        self._model = load_siglip(model).to(self.device)
        self._fingerprint: str | None = None
        config = self._model.config
        self.size: int = config.image_size
        self.shape: tuple[int, int] = ((config.image_size // config.patch_size) ** 2, config.hidden_size)

    @property
    def fingerprint(self) -> str:
        """Over the weights themselves, wherever they were loaded from; takes seconds at first use."""
        if self._fingerprint is None:
            digest = hashlib.sha256()
            for name, value in sorted(self._model.state_dict().items()):
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
                digest.update(value.cpu().contiguous().numpy().data)
            self._fingerprint = fingerprint(encoder="siglip", version=1, size=self.size, weights=digest.hexdigest())
        return self._fingerprint

    def __call__(self, face: np.ndarray) -> np.ndarray:
        """``face`` uint8 [512, 512, 3] RGB → float16 ``[*shape]``."""
        import torch

        pixels = torch.from_numpy(self.pixels(face)).to(self.device)
        with repeatable_inference():
            hidden = self._model(pixel_values=pixels[None]).last_hidden_state[0]
        tokens: np.ndarray = hidden.cpu().numpy().astype(np.float16)
        return tokens

    def pixels(self, face: np.ndarray) -> np.ndarray:
        """The model's input float32 [3, size, size] in [−1, 1]."""
        return siglip_pixels(face, self.size)


def siglip_pixels(face: np.ndarray, size: int) -> np.ndarray:
    """What SigLIP's image processor makes of ``face`` uint8 [512, 512, 3] RGB: float32 [3, size, size] in [−1, 1]."""
    resized = Image.fromarray(face).resize((size, size), Image.Resampling.BICUBIC)
    return np.ascontiguousarray((np.asarray(resized, np.float32) / 127.5 - 1).transpose(2, 0, 1))


def load_siglip(model: str) -> Any:
    """The vision tower of a SigLIP checkpoint (vision-only or with text), float32, in evaluation mode.

    ``model`` is a folder or the id of a model in the local Hugging Face cache. Raises :class:`UserError` if it is not
    there, or if any parameter would be left at its random initial value.
    """
    import torch
    from transformers import SiglipVisionModel

    try:
        tower, report = SiglipVisionModel.from_pretrained(
            model, dtype=torch.float32, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except OSError as error:
        reason = "neither a folder that holds a model nor the id of one in the local Hugging Face cache"
        raise UserError(f"face.siglip_model: {model!r} is {reason}\n{_remedy(model)}") from error
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"face.siglip_model: cannot load {model!r}: {reason}\n{_remedy(model)}") from error
    if report["missing_keys"]:
        absent = sorted(report["missing_keys"])
        raise UserError(
            f"face.siglip_model: {model!r} is not a SigLIP checkpoint: it lacks {absent[0]} (and {len(absent) - 1} more)\n"
            + _remedy(model)
        )
    return tower.eval()


def _remedy(model: str) -> str:
    default = FaceConfig.model_fields["siglip_model"].default
    source = default if model.startswith(("/", ".", "~")) else model
    return (
        f"get it with: hf download {source}\n"
        f"or, into a folder to copy elsewhere: hf download {source} --local-dir DIR, then --set face.siglip_model=DIR\n"
        "or take the tokens that need no model: --set face.encoder=patches"
    )
