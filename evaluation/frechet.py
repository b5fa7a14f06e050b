"""The Fréchet distance between two clouds of features, for face-FID.

Heusel et al., *GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium* (2017).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def frechet_distance(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]]) -> float:
    """``|μ₁ - μ₂|² + tr(Σ₁ + Σ₂ - 2 (Σ₁Σ₂)^½)`` of features ``a[N, D]`` and ``b[M, D]``, at least two rows each.

    With fewer rows than features the covariances are singular and the distance is biased: who calls this asks for enough.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # Σ₁Σ₂ has the eigenvalues of the symmetric Σ₁^½ Σ₂ Σ₁^½, whose root needs no complex arithmetic.
    root = _root(np.atleast_2d(first))
    product = root @ np.atleast_2d(second) @ root
    shared = np.sqrt(np.clip(np.linalg.eigvalsh((product + product.T) / 2), 0, None)).sum()
    means = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum()
    return float(max(0.0, means + np.trace(np.atleast_2d(first)) + np.trace(np.atleast_2d(second)) - 2 * shared))


def _root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T)
