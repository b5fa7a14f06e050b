"""What is drawn for a sample depends on the seed and its position, and on nothing else."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from training.randomness import Chances, Draws, Shapes, choose, draw, draw_held_out

SHAPES = Shapes(latents=(3, 4, 5, 6), posterior=True, pixels=(8, 10))
CHANCES = Chances(face=0.1, landmarks=0.2, reference=0.05)


def rows(draws: Draws) -> dict[str, torch.Tensor]:
    return {field.name: getattr(draws, field.name) for field in fields(draws)}


def test_a_position_draws_the_same_in_any_batch() -> None:
    together = rows(draw(7, range(10), SHAPES, CHANCES))
    for batch in ([3], [9, 3, 4], range(2, 6)):
        apart = rows(draw(7, batch, SHAPES, CHANCES))
        for name, values in apart.items():
            assert torch.equal(values, together[name][list(batch)]), name


def test_shapes_and_types() -> None:
    found = {name: (tuple(v.shape), v.dtype) for name, v in rows(draw(0, range(2), SHAPES, CHANCES)).items()}
    real, yes = torch.float32, torch.bool
    assert found == {
        "timestep": ((2,), torch.int64),
        "noise": ((2, 3, 4, 5, 6), real),
        "video_noise": ((2, 3, 4, 5, 6), real),
        "reference_noise": ((2, 1, 4, 5, 6), real),
        "pixel_noise": ((2, 3, 8, 10), real),
        "pixel_sigma": ((2,), real),
        "drop_face": ((2,), yes),
        "drop_landmarks": ((2,), yes),
        "drop_reference": ((2,), yes),
    }


def test_noise_that_nothing_needs_is_not_drawn() -> None:
    found = draw(0, range(2), Shapes((1, 2, 3, 4), posterior=False), CHANCES)
    assert found.video_noise is found.reference_noise is found.pixel_noise is found.pixel_sigma is None


def test_positions_seeds_and_purposes_are_independent() -> None:
    shapes = Shapes((13, 16, 8, 8), posterior=True, pixels=(64, 64))
    one, other = draw(0, [0, 1], shapes, CHANCES), draw(1, [0, 1], shapes, CHANCES)
    streams = [
        one.noise[0],
        one.noise[1],
        other.noise[0],
        one.video_noise[0],
        one.reference_noise[0],
        one.pixel_noise[0],
    ]
    streams = [stream.flatten()[:1024].numpy() for stream in streams]
    correlation = np.corrcoef(streams)
    assert np.abs(correlation - np.eye(len(streams))).max() < 5 / np.sqrt(1024)


def test_noise_is_normal_with_unit_variance() -> None:
    noise = draw(0, range(4), Shapes((13, 16, 20, 30), posterior=False), CHANCES).noise.numpy()
    assert abs(noise.mean()) < 0.005
    assert noise.std() == pytest.approx(1, abs=0.005)
    assert (np.abs(noise) < 1).mean() == pytest.approx(0.6827, abs=0.003)


def test_timesteps_are_uniform_over_all_and_not_the_same_for_a_step() -> None:
    shapes = Shapes((1, 1, 1, 1), posterior=False)
    steps = draw(0, range(20_000), shapes, Chances()).timestep.numpy()
    assert (steps.min(), steps.max()) == (0, 999)
    counts = np.bincount(steps // 50, minlength=20)
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # χ² with 19 degrees of freedom, p = 0.001
    assert len(set(steps[:512].tolist())) > 350


def test_parts_are_dropped_with_their_probabilities_and_independently() -> None:
    found = draw(0, range(20_000), Shapes((1, 1, 1, 1), posterior=False), Chances(0.1, 0.5, 0.05))
    assert float(found.drop_face.float().mean()) == pytest.approx(0.1, abs=0.01)
    assert float(found.drop_landmarks.float().mean()) == pytest.approx(0.5, abs=0.015)
    assert float(found.drop_reference.float().mean()) == pytest.approx(0.05, abs=0.006)
    both = (found.drop_face & found.drop_landmarks).float().mean()
    assert float(both) == pytest.approx(0.05, abs=0.006)


@pytest.mark.parametrize(("chance", "dropped"), [(0.0, 0), (1.0, 500)])
def test_never_and_always(chance: float, dropped: int) -> None:
    found = draw(0, range(500), Shapes((1, 1, 1, 1), posterior=False), Chances(face=chance))
    assert int(found.drop_face.sum()) == dropped


def test_a_higher_probability_drops_the_same_and_more() -> None:
    less, more = (draw(0, range(500), Shapes((1, 1, 1, 1), posterior=False), Chances(face=p)) for p in (0.1, 0.3))
    assert (more.drop_face | ~less.drop_face).all()
    assert torch.equal(less.noise, more.noise)


def test_the_logarithm_of_a_references_sigma_is_normal() -> None:
    sigma = draw(0, range(5000), Shapes((1, 1, 1, 1), posterior=False, pixels=(1, 1)), CHANCES).pixel_sigma
    assert sigma is not None
    assert float(sigma.log().mean()) == pytest.approx(-3, abs=0.03)
    assert float(sigma.log().std()) == pytest.approx(0.5, abs=0.02)


def test_held_out_draws_are_by_clip_and_timestep_and_apart_from_training() -> None:
    held_out = draw_held_out(0, ["a", "b"], 300, SHAPES)
    assert held_out.timestep.tolist() == [300, 300]
    assert torch.equal(draw_held_out(0, ["b"], 300, SHAPES).noise[0], held_out.noise[1])
    assert not torch.equal(held_out.noise[0], held_out.noise[1])
    assert not torch.equal(draw_held_out(0, ["a"], 500, SHAPES).noise[0], held_out.noise[0])
    assert not (held_out.drop_face | held_out.drop_landmarks | held_out.drop_reference).any()
    training = draw(0, range(300), SHAPES, CHANCES).noise
    assert not (training == held_out.noise[:1]).flatten(1).all(1).any()


def test_no_two_positions_share_their_noise_as_those_of_a_32_bit_seed_would() -> None:
    steps = draw(0, range(2000), Shapes((1, 2, 1, 1), posterior=False), Chances()).noise.flatten(1)
    assert len(np.unique(steps.numpy(), axis=0)) == 2000


def test_the_draws_of_a_position_are_these() -> None:
    # A change of any of them makes resumed runs go on with other noise than they would have had.
    found = draw(0, [5], Shapes((1, 1, 1, 2), posterior=False), Chances(face=0.5))
    assert found.timestep.tolist() == [99]
    assert found.noise.flatten().tolist() == pytest.approx([-1.5929608, 1.1419870], abs=1e-6)


def test_one_of_several_is_chosen_by_position_and_all_alike() -> None:
    chosen = [choose(0, position, 5, "frame") for position in range(2000)]
    assert chosen[:9] == [choose(0, position, 5, "frame") for position in range(9)]
    assert np.bincount(chosen, minlength=5) == pytest.approx(400, abs=80)
