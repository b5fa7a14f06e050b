"""The face-aware loss weight (SkyReels-A1 Eq. 7), made of a sample's stored flow whenever it is needed.

Eq. 7 weights the loss by clip(F/255 + 0.5, 1, 1.5), with F the foreground flow of Eq. 6. Taken in px that is 1 everywhere:
nothing moves 128 px from one frame to the next. MotionCharacter (Fang et al., 2024), which has the same equation, says in
its later version that the flow is normalised; how, nobody says, hence the variants.
"""

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from shards.schema import FRAMES, HEIGHT, LATENT_FRAMES, LATENT_HEIGHT, LATENT_WIDTH, WIDTH

Variant = Literal["norm", "literal", "norm_frame", "delta", "face"]
Weights = NDArray[np.float32]

DELTAS: dict[Variant, float] = {"norm": 0.5, "literal": 0.5, "norm_frame": 0.5, "delta": 1.0, "face": 1.0}
"""δ of Eq. 7 where none is given. With δ = 1 there is no dead zone: every motion counts."""

FACE_GROWTH = 1.3
"""The face of the variant ``face`` is this many times as wide and high as its landmarks: they end at the brows, and the flow
of a moving chin or cheek lies on both sides of its outline."""

_STRIDE = (FRAMES - 1) // (LATENT_FRAMES - 1)


def motion_weight(
    flow: NDArray[np.float16 | np.float32],
    p995: float,
    variant: Variant = "norm",
    delta: float | None = None,
    face: Weights | None = None,
) -> Weights:
    """Loss weight float32 [13, 60, 90] in [1, 1 + δ] of a stored flow field F (same shape, px): clip(F8/255 + δ, 1, 1 + δ).

    ``delta`` is at most 1, and by default :data:`DELTAS`' value, so that where nothing moves, bars included, the weight is 1.
    The variants differ in F8, the flow in the 0 … 255 that the division by 255 presumes:

    - ``norm``: 255 · min(F/s, 1), s the clip's 99.5th percentile ``p995`` but at least 1 px, so that the noise of a still
      clip is not blown up;
    - ``literal``: F in px, as written: weights nothing;
    - ``norm_frame``: as ``norm``, s the maximum of each latent frame: noise of still ones counts in full;
    - ``delta``: as ``norm``, usually with δ = 1;
    - ``face``: as ``delta``, and what goes beyond 1 is multiplied by ``face`` [13, 60, 90], the share of :func:`face_region`
      in each cell. Without it, hands, body and camera count like the face.
    """
    F = flow.astype(np.float32)
    delta = DELTAS[variant] if delta is None else delta
    if variant == "literal":
        F8 = F
    else:
        peak = F.max(axis=(1, 2), keepdims=True) if variant == "norm_frame" else max(p995, 1.0)
        F8 = 255 * np.minimum(F / np.where(F > 0, peak, 1), 1)
    weights: Weights = np.clip(F8 / 255 + np.float32(delta), 1, 1 + np.float32(delta)).astype(np.float32)
    if variant == "face":
        if face is None:
            raise ValueError("the variant 'face' needs the face's region")
        weights = 1 + (weights - 1) * face
    return weights


def face_region(points_px: NDArray[np.float32]) -> Weights:
    """Share of each latent cell that belongs to the face: float32 [13, 60, 90], 0 … 1.

    ``points_px`` [49, 478, 2] are landmarks in px of the 480×720 frame. The face is the convex hull of a frame's landmarks,
    grown by :data:`FACE_GROWTH` about the middle of its box. A frame with a landmark that is not finite has no face.
    """
    frames = np.zeros((len(points_px), LATENT_HEIGHT, LATENT_WIDTH), np.float32)
    for frame, points in zip(frames, points_px, strict=True):
        if np.isfinite(points).all():
            hull = cv2.convexHull(points.astype(np.float32))
            middle = (hull.min(axis=0) + hull.max(axis=0)) / 2
            grown = np.rint(middle + FACE_GROWTH * (hull - middle)).astype(np.int32)
            pixels = cv2.fillConvexPoly(np.zeros((HEIGHT, WIDTH), np.float32), grown, 1.0)
            frame[:] = cv2.resize(pixels, (LATENT_WIDTH, LATENT_HEIGHT), interpolation=cv2.INTER_AREA)
    return by_latent(frames)


def by_latent(frames: Weights) -> Weights:
    """One map a frame [49, h, w] → one a latent [13, h, w]: frame 0 alone, then the means of four."""
    later = frames[1:].reshape(-1, _STRIDE, *frames.shape[1:]).mean(axis=1)
    return np.concatenate([frames[:1], later]).astype(np.float32)


def valid_shares(n_valid: int) -> Weights:
    """Share of each latent's frames that are the clip's own, float32 [13]: those from ``n_valid`` on only repeat the last."""
    if not 1 <= n_valid <= FRAMES:
        raise ValueError(f"n_valid is {n_valid}, not between 1 and {FRAMES}")
    own = (np.arange(FRAMES) < n_valid).astype(np.float32)
    return by_latent(own)
