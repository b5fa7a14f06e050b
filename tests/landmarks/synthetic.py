"""A made-up face under a known pose, seen through the camera model, so that tests need neither weights nor footage."""

import numpy as np

from landmarks.geometry import CanonicalFace

_rng = np.random.default_rng(7)
# A bumpy half ellipsoid of a head's size, in cm; the last ten points stand for the irises.
_angles = _rng.uniform([-1.2, -1.0], [1.2, 1.0], (478, 2))
HEAD = np.stack(
    [7.5 * np.sin(_angles[:, 0]), 9 * np.sin(_angles[:, 1]), 6 * np.cos(_angles[:, 0]) * np.cos(_angles[:, 1])], axis=1
) + _rng.normal(0, 0.3, (478, 3))
CANONICAL = CanonicalFace(HEAD[:468], np.arange(3, 468, 14), _rng.uniform(0.01, 0.2, 34))


def photograph(head: np.ndarray, pose: np.ndarray, width: int, height: int) -> np.ndarray:
    """What MediaPipe would ideally report, ``[478, 3]``: ``head[478, 3]`` (cm) under ``pose[4, 4]``.

    Depth is in units of the frame's width at the mean distance of the mesh, plus an offset that carries no meaning.
    """
    camera = head @ pose[:3, :3].T + pose[:3, 3]
    depth = -camera[:, 2]
    focal_px = height / 2 / np.tan(np.radians(31.5))
    x_px = width / 2 + focal_px * camera[:, 0] / depth
    y_px = height / 2 - focal_px * camera[:, 1] / depth
    z_px = focal_px * (depth / depth[:468].mean() - 1) + 0.02 * width
    return np.stack([x_px / width, y_px / height, z_px / width], axis=1)
