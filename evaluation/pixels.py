"""How far pictures are from the true ones, pixel by pixel, where there is a truth: a clip that was held out, say."""

import cv2
import numpy as np
from numpy.typing import NDArray

from evaluation.footage import Frame

_SIGMA_PX, _SIDE_PX = 1.5, 11
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def absolute_error(a: Frame, b: Frame) -> float:
    """Mean absolute difference, in levels of 255; ``a`` and ``b`` are uint8 ``[H, W, 3]``."""
    return float(cv2.absdiff(a, b).mean())


def squared_error(a: Frame, b: Frame) -> float:
    """Mean squared difference, in levels²; for :func:`psnr_db`."""
    return float(cv2.norm(a, b, cv2.NORM_L2SQR) / a.size)


def psnr_db(squared_error: float) -> float:
    """Peak signal-to-noise ratio of a mean squared error in levels²; infinite for 0."""
    return float(10 * np.log10(255**2 / squared_error)) if squared_error > 0 else float("inf")


def structural_similarity(a: Frame, b: Frame) -> float:
    """SSIM of the luma of two frames, 1 for equal ones.

    Wang et al., *Image quality assessment: from error visibility to structural similarity* (2004): Gaussian windows of 11 px,
    σ = 1.5, K = (0.01, 0.03). Without those that reach beyond the frame, whose sides must be 11 px or more.
    """
    x, y = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float64) for frame in (a, b))
    mean_x, mean_y = _window(x), _window(y)
    variances = _window(x * x) - mean_x**2 + _window(y * y) - mean_y**2
    covariance = _window(x * y) - mean_x * mean_y
    similar = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    similar /= (mean_x**2 + mean_y**2 + _C1) * (variances + _C2)
    return float(similar.mean())


def _window(values: NDArray[np.float64]) -> NDArray[np.float64]:
    inside = _SIDE_PX // 2
    blurred = cv2.GaussianBlur(values, (_SIDE_PX, _SIDE_PX), _SIGMA_PX)
    return np.asarray(blurred[inside:-inside, inside:-inside], np.float64)
