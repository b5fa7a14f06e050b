"""The release's arithmetic, against its scripts written down again step by step, and what their numbers really are.

Source: Skywork/SkyReels-A1, ``eval/arc_score.py``, ``eval/expression_score.py``, ``eval/pose_score.py``.
"""

import math

import numpy as np
import pytest
import torch

from evaluation import legacy


def released_fid(real: np.ndarray, fake: np.ndarray) -> float:
    """``calculate_fid`` on what ``get_activations`` makes of one picture each."""
    mean, covariance = [], []
    for row in (real, fake):
        twice = torch.from_numpy(np.repeat(row[None], 2, axis=0))
        mean.append(twice.mean(dim=0))
        covariance.append(torch.cov(twice.T))
    values, vectors = torch.linalg.eigh(covariance[0].mm(covariance[1]))
    root = (vectors * torch.sqrt(torch.clamp(values, min=0))).mm(vectors.T)
    return float(torch.sum((mean[0] - mean[1]) ** 2) + torch.trace(covariance[0] + covariance[1] - 2 * root))


def released_similarity(reference: np.ndarray, frames: list[np.ndarray]) -> float:
    scores = []
    for frame in frames:
        cosine = torch.nn.functional.cosine_similarity(torch.tensor(reference), torch.tensor(frame), dim=-1)
        scores.append(max(0.0, cosine.item()))
    return sum(scores) / len(scores) if scores else 0.0


def released_expression(first: np.ndarray, second: np.ndarray) -> float:
    distances = []
    for points in first.tolist():
        least = (480 + 720) * 5 + 1
        for others in second.tolist():
            total = 0.0
            for (x, y), (u, v) in zip(points, others, strict=True):
                total += abs(x - u) + abs(y - v)
            least = min(least, total)
        distances.append(least / (480 + 720) / 10)
    return sum(distances) / len(distances)


def released_pose(first: list[np.ndarray], second: list[np.ndarray]) -> float:
    distances = []
    for peaks in first:
        least = (480 + 720) * 17 + 1
        for others in second:
            one, two = np.array(peaks.tolist()), np.array(others.tolist())
            shared = min(one.shape[0], two.shape[0])
            try:
                least = min(least, np.abs(one[:shared, :] - two[:shared, :]).sum(axis=1).sum())
            except IndexError:  # a list without peaks has one dimension
                continue
        if least / (480 + 720) / 16 <= 1:
            distances.append(least / (480 + 720) / 16)
    return sum(distances) / len(distances) if distances else 0.0


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def embeddings(rng: np.random.Generator, rows: int, size: int = 64) -> list[np.ndarray]:
    return list(rng.normal(0.2, 1, (rows, size)).astype(np.float32))


def test_similarity_is_the_releases(rng: np.random.Generator):
    reference, *frames = embeddings(rng, 17)
    assert legacy.similarity(reference, frames) == pytest.approx(released_similarity(reference, frames), abs=1e-6)
    assert legacy.similarity(reference, [reference * 3]) == pytest.approx(1)


def test_similarity_hides_what_is_opposite_or_without_a_face(rng: np.random.Generator):
    (reference,) = embeddings(rng, 1)
    assert legacy.similarity(reference, [-reference]) == 0
    assert legacy.similarity(reference, [reference, -reference]) < legacy.similarity(reference, [reference])
    assert legacy.similarity(reference, []) == released_similarity(reference, []) == 0


def test_the_releases_fid_is_a_squared_distance(rng: np.random.Generator):
    reference, *frames = embeddings(rng, 6)
    for frame in frames:
        assert released_fid(reference, frame) == pytest.approx(float(((reference - frame) ** 2).sum()), rel=1e-5)
    expected = np.mean([released_fid(reference, frame) for frame in frames])
    assert legacy.inception_distance(reference, frames) == pytest.approx(expected, rel=1e-5)


def test_the_releases_fid_has_its_best_value_for_a_video_without_a_face(rng: np.random.Generator):
    (reference,) = embeddings(rng, 1)
    assert legacy.inception_distance(reference, []) == legacy.inception_distance(reference, [reference]) == 0


def test_expression_is_the_releases(rng: np.random.Generator):
    result, driver = rng.uniform(0, 480, (6, 5, 2)), rng.uniform(0, 480, (9, 5, 2))
    assert legacy.expression(result, driver) == pytest.approx(released_expression(result, driver))
    assert legacy.expression(driver, driver) == 0


def test_expression_of_the_release_takes_a_still_picture_and_a_reversed_video_for_perfect(rng: np.random.Generator):
    driver = rng.uniform(0, 480, (9, 5, 2))
    assert legacy.expression(np.repeat(driver[4:5], 9, axis=0), driver) == 0
    assert legacy.expression(driver[::-1], driver) == 0


def peaks(rng: np.random.Generator, counts: list[int]) -> list[np.ndarray]:
    return [rng.uniform(0, 480, (count, 2)) for count in counts]


def test_pose_is_the_releases_with_lists_of_any_length(rng: np.random.Generator):
    result, driver = peaks(rng, [18, 5, 0, 1, 20]), peaks(rng, [18, 0, 12, 19])
    assert legacy.pose(result, driver) == pytest.approx(released_pose(result, driver))
    assert legacy.pose(driver, driver) == pytest.approx(released_pose(driver, driver)) == 0


def test_pose_leaves_out_what_is_too_far_and_is_nothing_where_nothing_is_left(rng: np.random.Generator):
    far = [np.full((18, 2), 1_500.0)]
    near = peaks(rng, [18])
    assert legacy.pose(far, near) == released_pose(far, near) == 0
    assert legacy.pose(far + near, near) == released_pose(far + near, near)
    assert legacy.pose([np.empty((0, 2))], near) == released_pose([np.empty((0, 2))], near) == 0


def test_a_pose_of_nearly_nothing_is_not_in_the_mean():
    assert not legacy.counts_in_the_mean("legacy_pose", 0.0)
    assert not legacy.counts_in_the_mean("legacy_pose", 1e-4)
    assert legacy.counts_in_the_mean("legacy_pose", math.nextafter(1e-4, 1))
    assert legacy.counts_in_the_mean("legacy_expression", 0.0)


def test_the_sixteen_frames_are_the_releases():
    assert legacy.frames_of_similarity(49).tolist() == np.linspace(0, 48, 16, dtype=int).tolist()
    assert legacy.frames_of_similarity(1).tolist() == [0] * 16
