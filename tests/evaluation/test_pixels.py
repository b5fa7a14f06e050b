"""Pixel measures against definitions written out, and what must move them."""

import numpy as np
import pytest

from evaluation.pixels import absolute_error, psnr_db, squared_error, structural_similarity
from tests.evaluation.conftest import noisy


def luma(frame: np.ndarray) -> np.ndarray:
    return np.rint(frame @ [0.299, 0.587, 0.114])


def ssim_by_hand(a: np.ndarray, b: np.ndarray) -> float:
    """One window after the other, as the paper defines it."""
    at = np.arange(-5, 6)
    bell = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * 1.5**2))
    bell /= bell.sum()
    values = []
    for y in range(5, a.shape[0] - 5):
        for x in range(5, a.shape[1] - 5):
            p, q = a[y - 5 : y + 6, x - 5 : x + 6], b[y - 5 : y + 6, x - 5 : x + 6]
            mp, mq = (bell * p).sum(), (bell * q).sum()
            vp, vq, c = (bell * (p - mp) ** 2).sum(), (bell * (q - mq) ** 2).sum(), (bell * (p - mp) * (q - mq)).sum()
            values.append((2 * mp * mq + 6.5025) * (2 * c + 58.5225) / ((mp**2 + mq**2 + 6.5025) * (vp + vq + 58.5225)))
    return float(np.mean(values))


@pytest.fixture
def pair(man: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return man[0, 40:70, 60:100], man[3, 40:70, 60:100]


def test_errors_are_those_of_the_definitions(pair: tuple[np.ndarray, np.ndarray]):
    a, b = (x.astype(float) for x in pair)
    assert absolute_error(*pair) == pytest.approx(np.abs(a - b).mean())
    assert squared_error(*pair) == pytest.approx(((a - b) ** 2).mean())
    assert psnr_db(((a - b) ** 2).mean()) == pytest.approx(20 * np.log10(255 / np.sqrt(((a - b) ** 2).mean())))


def test_structural_similarity_is_that_of_the_paper(pair: tuple[np.ndarray, np.ndarray]):
    assert structural_similarity(*pair) == pytest.approx(ssim_by_hand(*map(luma, pair)), abs=1e-3)


def test_noise_moves_every_measure_one_way(man: np.ndarray):
    frame = man[0]
    noise = [noisy(frame, sigma) for sigma in (0, 3, 8, 20)]
    assert absolute_error(frame, noise[0]) == 0
    assert structural_similarity(frame, noise[0]) == pytest.approx(1)
    assert psnr_db(squared_error(frame, noise[0])) == np.inf
    assert (np.diff([absolute_error(frame, n) for n in noise]) > 0).all()
    assert (np.diff([structural_similarity(frame, n) for n in noise]) < 0).all()
    assert (np.diff([psnr_db(squared_error(frame, n)) for n in noise[1:]]) < 0).all()
