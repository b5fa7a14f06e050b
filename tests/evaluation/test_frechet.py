"""The Fréchet distance against its closed form, and against the root that SciPy takes."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from evaluation.frechet import frechet_distance


def cloud(rows: int, scale: np.ndarray | float = 1.0, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 6)) * scale + shift


def test_it_is_nothing_between_a_cloud_and_itself_and_the_squared_shift_of_one_that_is_moved():
    points = cloud(200)
    assert frechet_distance(points, points) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(points, points + 2) == pytest.approx(6 * 4)


def test_it_is_the_closed_form_of_two_normal_distributions_of_one_direction():
    points = cloud(500)
    scale = np.array([1, 2, 3, 1, 0.5, 4])
    _, basis = np.linalg.eigh(np.cov(points, rowvar=False))
    turned = points @ basis
    expected = (np.cov(turned, rowvar=False).diagonal() * (scale - 1) ** 2).sum() + (
        (turned.mean(0) * (scale - 1)) ** 2
    ).sum()
    assert frechet_distance(turned, turned * scale) == pytest.approx(expected)


def test_it_is_what_the_matrix_root_of_scipy_gives():
    a, b = cloud(100), cloud(80, 1.5, 0.3, seed=1) @ np.random.default_rng(2).normal(size=(6, 6))
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert frechet_distance(a, b) == pytest.approx(expected)


def test_it_grows_with_what_is_added():
    points = cloud(400)
    distances = [frechet_distance(points, points + cloud(400, noise, seed=1)) for noise in (0, 0.5, 1, 2)]
    assert (np.diff(distances) > 0).all()
