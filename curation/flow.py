"""Optical flow of a clip, reduced to the foreground motion that weights the training loss.

From 49 frames to the stored field, in order: RAFT on consecutive frames (content without bars) → magnitude in px →
foreground threshold at full resolution (SkyReels-A1 Eq. 6) → mean over each 8×8 cell → mean over the frames of each
latent. The loss weight itself (Eq. 7) is a cheap function of that field and is made when it is needed, by
:mod:`shards.motion_weight`, so that its variant can change without computing flow again.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
from pydantic import Field

from faceloom.config import Section
from faceloom.device import Device, repeatable_inference, torch_device
from faceloom.errors import UserError

if TYPE_CHECKING:
    import torch

CELL = 8
"""Pixels of the frame per latent pixel, along each side (CogVideoX VAE)."""

STRIDE = 4
"""Frames per latent frame; the causal VAE gives the first frame a latent of its own."""

RAFT_MULTIPLE = 8
RAFT_MINIMUM = 128
"""RAFT's input sides are multiples of 8, and long enough for its four-level correlation pyramid."""


class FlowConfig(Section):
    """How flow is estimated. Everything but ``device`` can change the result, ``threads`` in its last bits."""

    model: Literal["raft-small", "raft-large"] = "raft-large"
    scale: float = Field(default=1.0, gt=0, le=1)
    """RAFT sees frames shrunk by this factor; its flow is brought back to the full frame."""
    iterations: int = Field(default=12, ge=1)
    device: Device = "auto"
    batch_pairs: int = Field(default=4, ge=1)
    threads: int = Field(default=1, ge=1)
    """CPU threads. The process that owns the estimator sets them (``torch.set_num_threads``)."""


@dataclass(frozen=True)
class ForegroundStats:
    """One frame pair: Eq. 6's threshold and what lies above it, all in px of the frame."""

    tau: float
    mean: float  # over the foreground pixels; 0 when there are none
    p995: float  # of F over all pixels, background zeros included
    maximum: float


@dataclass(frozen=True)
class FlowResult:
    """Foreground flow of one clip, px of the frame it was given."""

    flow: np.ndarray  # float16 [13, 60, 90]: F pooled over cells and grouped to latent frames; 0 in bars
    pairs: np.ndarray  # float32 [48, 4]: tau, mean, p99.5, max of each pair
    p995: float  # 99.5th percentile of the full-resolution F over all content pixels of all pairs


class FlowEstimator:
    """RAFT with the weights its authors published, run through torchvision's modules.

    The same frames give the same bits for the same config, device and library versions. On the CPU that takes a fixed
    thread count, so :meth:`pairs` refuses to run under another one than ``config.threads``.
    Raises :class:`UserError` if the weights do not fit the model or CUDA is asked for and absent.
    """

    def __init__(self, config: FlowConfig, weights: Path) -> None:
        self.config = config
        self.device = torch_device(config.device, "flow.device")
        self._raft = load_raft(config.model, weights).to(self.device)

    def pairs(self, frames: np.ndarray) -> Iterator[np.ndarray]:
        """Flow from each frame to the next, in order.

        ``frames`` uint8 [T, H, W, 3] RGB. Yields T−1 arrays float32 [H, W, 2]: (dx, dy) in px of the given frames, x to
        the right, y down, at the pixel of the earlier frame.
        """
        import torch

        if self.device.type == "cpu" and torch.get_num_threads() != self.config.threads:
            raise RuntimeError(
                f"torch runs {torch.get_num_threads()} threads, flow.threads is {self.config.threads}: results would "
                "differ in their last bits; call torch.set_num_threads before using the estimator"
            )
        height, width = frames.shape[1:3]
        small_height, small_width = (max(1, round(side * self.config.scale)) for side in (height, width))
        carried: torch.Tensor | None = None
        for start in range(0, len(frames) - 1, self.config.batch_pairs):
            batch = frames[start : start + self.config.batch_pairs + 1]
            with repeatable_inference():
                images = self._images(batch, small_height, small_width)
                # A frame is the second of one pair and the first of the next; its features are computed once.
                fresh = self._raft.feature_encoder(images if carried is None else images[1:])
                features = fresh if carried is None else torch.cat([carried, fresh])
                carried = features[-1:]
                flow = raft_flow(self._raft, images[:-1], features[:-1], features[1:], self.config.iterations)
                # Cut the padding off, which is at the right and the bottom.
                array = flow[:, :, :small_height, :small_width].permute(0, 2, 3, 1).cpu().numpy()
            for pair in array:
                yield _to_full_size(pair, height, width)

    def _images(self, frames: np.ndarray, height: int, width: int) -> "torch.Tensor":
        """Frames as RAFT's input: float32 [T, 3, H', W'] in [−1, 1], shrunk, edges repeated up to a legal size."""
        import torch

        if (height, width) != frames.shape[1:3]:
            frames = np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in frames])
        images = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        right, bottom = (_legal_side(side) - side for side in (width, height))
        return torch.nn.functional.pad(images, (0, right, 0, bottom), mode="replicate")


def raft_flow(
    raft: Any, images: "torch.Tensor", first: "torch.Tensor", second: "torch.Tensor", iterations: int
) -> "torch.Tensor":
    """Flow float32 [N, 2, H, W] of N pairs: ``images`` [N, 3, H, W] of the first frames, encoded features of both.

    What torchvision's ``RAFT.forward`` computes, except that it upsamples only the last of the iterated estimates and
    leaves the feature encoder to the caller, which saves a tenth (small) to a fifth (large) of the time.
    """
    import torch
    from torchvision.models.optical_flow._utils import make_coords_grid, upsample_flow

    raft.corr_block.build_pyramid(first, second)
    context = raft.context_encoder(images)
    size = raft.update_block.hidden_state_size
    hidden, context = torch.split(context, [size, context.shape[1] - size], dim=1)
    hidden, context = torch.tanh(hidden), torch.relu(context)
    origin = make_coords_grid(len(images), *first.shape[-2:], device=images.device)
    target = origin
    for _ in range(iterations):
        correlation = raft.corr_block.index_pyramid(centroids_coords=target)
        hidden, delta = raft.update_block(hidden, context, correlation, target - origin)
        target = target + delta
    mask = None if raft.mask_predictor is None else raft.mask_predictor(hidden)
    upsampled: torch.Tensor = upsample_flow(flow=target - origin, up_mask=mask)
    return upsampled


# princeton-vl/RAFT's parameter names → torchvision's, applied top to bottom. Both sizes use the same names.
_RENAMES = (
    (r"^module\.", ""),  # the checkpoints were saved from DataParallel
    (r"^fnet\.", "feature_encoder."),
    (r"^cnet\.", "context_encoder."),
    (r"^(\w+_encoder)\.conv1\.", r"\1.convnormrelu.0."),
    (r"^(\w+_encoder)\.norm1\.", r"\1.convnormrelu.1."),
    (r"^(\w+_encoder)\.conv2\.", r"\1.conv."),
    (r"(\.layer\d\.\d)\.conv(\d)\.", r"\1.convnormrelu\2.0."),
    (r"(\.layer\d\.\d)\.norm(\d)\.", r"\1.convnormrelu\2.1."),
    (r"^update_block\.encoder\.convc(\d)\.", r"update_block.motion_encoder.convcorr\1.0."),
    (r"^update_block\.encoder\.convf(\d)\.", r"update_block.motion_encoder.convflow\1.0."),
    (r"^update_block\.encoder\.conv\.", "update_block.motion_encoder.conv.0."),
    (r"^update_block\.gru\.conv([zrq])(\d)\.", r"update_block.recurrent_block.convgru\2.conv\1."),
    (r"^update_block\.gru\.conv([zrq])\.", r"update_block.recurrent_block.convgru1.conv\1."),
    (r"^update_block\.mask\.0\.", "mask_predictor.convrelu.0."),
    (r"^update_block\.mask\.2\.", "mask_predictor.conv."),
)

# A residual block registers the norm of its shortcut twice, as norm3 and as downsample.1: the same tensors.
_DUPLICATE = re.compile(r"\.norm3\.")


def torchvision_name(name: str) -> str | None:
    """A parameter of princeton-vl/RAFT by its name in torchvision's model; ``None`` for a stored duplicate."""
    if _DUPLICATE.search(name):
        return None
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def load_raft(model: str, weights: Path) -> Any:
    """A RAFT of torchvision, in evaluation mode, with a checkpoint of princeton-vl/RAFT.

    Every parameter must be matched by name and shape, else :class:`UserError` names the first that is not.
    """
    import torch
    from torchvision.models import optical_flow

    builder = {"raft-small": optical_flow.raft_small, "raft-large": optical_flow.raft_large}[model]
    raft = builder(weights=None, progress=False).eval()
    stored = torch.load(weights, map_location="cpu", weights_only=True)
    renamed = {new: value for old, value in stored.items() if (new := torchvision_name(old)) is not None}
    wanted_shapes = {name: tuple(value.shape) for name, value in raft.state_dict().items()}
    found_shapes = {name: tuple(value.shape) for name, value in renamed.items()}
    wrong = sorted(dict(wanted_shapes.items() ^ found_shapes.items()))
    if wrong:
        name = wrong[0]
        raise UserError(
            f"{weights} is not the {model} checkpoint that flow.model asks for: {name} should be "
            f"{wanted_shapes.get(name, 'absent')} and is {found_shapes.get(name, 'absent')} (and {len(wrong) - 1} more)"
            f"; get the right file with: faceloom models fetch {model}"
        )
    raft.load_state_dict(renamed)
    return raft


def foreground(magnitude: np.ndarray) -> tuple[np.ndarray, ForegroundStats]:
    """Foreground flow of one pair (SkyReels-A1 Eq. 6): F = [|f| > τ]·|f| with τ the mean of |f|.

    ``magnitude`` float32 [H, W] in px, content only: bars would pull τ down. Returns F, same shape, and its statistics.
    """
    tau = float(magnitude.mean(dtype=np.float64))
    moving = magnitude > tau
    F = np.where(moving, magnitude, np.float32(0))
    mean = float(F.sum(dtype=np.float64) / max(1, np.count_nonzero(moving)))
    return F, ForegroundStats(tau, mean, float(np.quantile(F, 0.995)), float(F.max()))


def pool(F: np.ndarray) -> np.ndarray:
    """Mean of each 8×8 cell: [H, W] → [H/8, W/8]. Raises ``ValueError`` if a side is not a multiple of 8."""
    height, width = F.shape
    if height % CELL or width % CELL:
        raise ValueError(f"a {height}×{width} frame does not split into {CELL}×{CELL} cells")
    cells: np.ndarray = F.reshape(height // CELL, CELL, width // CELL, CELL).mean(axis=(1, 3))
    return cells


def group_49_to_13(pooled: np.ndarray) -> np.ndarray:
    """Pair-wise maps [48, h, w] → latent maps [13, h, w], as the causal VAE groups frames.

    Pair i belongs to its earlier frame i; the last frame has no successor and takes the pair before it. Latent 0 is
    frame 0, latent k is the mean of frames 4k−3 … 4k. Any number of pairs divisible by 4 will do.
    """
    if len(pooled) % STRIDE:
        raise ValueError(f"{len(pooled)} pairs do not split into latents of {STRIDE} frames")
    by_frame = np.concatenate([pooled, pooled[-1:]])
    later = by_frame[1:].reshape(-1, STRIDE, *pooled.shape[1:]).mean(axis=1)
    return np.concatenate([by_frame[:1], later])


def clip_flow(frames: np.ndarray, valid_x0x1: tuple[int, int], n_valid: int, estimator: FlowEstimator) -> FlowResult:
    """Foreground flow of a sample video.

    ``frames`` uint8 [49, 480, 720, 3] RGB; content lies in columns x0 ≤ x < x1, the rest is black bars. RAFT, τ and
    every statistic see the content alone, so bars change nothing inside it; outside it the flow is 0, also within a
    cell that the edge of the content divides. Only the first ``n_valid`` ≥ 2 frames are the clip's own: the flow between
    the repeats that follow them is 0 by definition, and counts for nothing. The clip's ``p995`` is an exact quantile
    (linear interpolation) over the content pixels of all pairs of its own frames, background zeros included.
    """
    x0, x1 = valid_x0x1
    count, height, width = len(frames) - 1, *frames.shape[1:3]
    if not 0 <= x0 < x1 <= width:
        raise ValueError(f"content columns {x0}..{x1} do not lie within a frame {width} px wide")
    if not 2 <= n_valid <= len(frames):
        raise ValueError(f"n_valid is {n_valid}, not between 2 and the number of frames, {len(frames)}")
    content = np.empty((n_valid - 1, height, x1 - x0), np.float32)
    pooled = np.zeros((count, height // CELL, width // CELL), np.float32)
    pairs = np.zeros((count, 4), np.float32)
    full = np.zeros((height, width), np.float32)
    for i, flow in enumerate(estimator.pairs(frames[:n_valid, :, x0:x1])):
        content[i], stats = foreground(np.hypot(flow[..., 0], flow[..., 1]))
        full[:, x0:x1] = content[i]
        pooled[i] = pool(full)
        pairs[i] = stats.tau, stats.mean, stats.p995, stats.maximum
    p995 = float(np.quantile(content, 0.995, overwrite_input=True))
    return FlowResult(group_49_to_13(pooled).astype(np.float16), pairs, p995)


def _legal_side(side: int) -> int:
    return max(RAFT_MINIMUM, math.ceil(side / RAFT_MULTIPLE) * RAFT_MULTIPLE)


def _to_full_size(flow: np.ndarray, height: int, width: int) -> np.ndarray:
    small_height, small_width = flow.shape[:2]
    if (small_height, small_width) == (height, width):
        return np.ascontiguousarray(flow)
    stretch = np.array([width / small_width, height / small_height], np.float32)
    resized: np.ndarray = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR) * stretch
    return resized
