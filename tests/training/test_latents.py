import numpy as np
import pytest
import torch

from training.latents import bfloat16_bits, bfloat16_values, check_frames, check_latents


def test_rounding_is_that_of_torch():
    values = np.random.default_rng(0).normal(0, 3, 100_000).astype(np.float32)
    expected = torch.from_numpy(values).to(torch.bfloat16).view(torch.uint16).numpy()
    assert np.array_equal(bfloat16_bits(values), expected)


def test_a_tie_goes_to_the_even_number():
    between = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8], np.float32)
    assert bfloat16_values(bfloat16_bits(between)).tolist() == [1.0, 1 + 2**-6, -1.0]


def test_bits_and_values_are_inverse():
    finite = np.array([bits for bits in range(2**16) if bits & 0x7F80 != 0x7F80], np.uint16)
    assert np.array_equal(bfloat16_bits(bfloat16_values(finite)), finite)


def test_the_shape_is_kept():
    values = np.zeros((2, 3, 4), np.float32).transpose(2, 0, 1)
    assert bfloat16_bits(values).shape == bfloat16_values(bfloat16_bits(values)).shape == (4, 2, 3)


@pytest.mark.parametrize("shape", [(48, 16, 16, 3), (5, 12, 16, 3), (5, 16, 12, 3), (5, 16, 16, 4), (16, 16, 3)])
def test_pictures_off_the_grid_are_refused(shape):
    with pytest.raises(ValueError, match="expected frames uint8"):
        check_frames(np.zeros(shape, np.uint8))


def test_numbers_that_are_not_latents_are_refused():
    with pytest.raises(ValueError, match="expected frames uint8"):
        check_frames(np.zeros((5, 16, 16, 3), np.float32))
    with pytest.raises(ValueError, match="expected latents float32"):
        check_latents(np.zeros((16, 1, 2, 2), np.uint16))
    with pytest.raises(ValueError, match="expected latents float32"):
        check_latents(np.zeros((32, 1, 2, 2), np.float32))


@pytest.mark.parametrize("bits", [0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000, 0x7F800000])
def test_what_is_not_finite_is_refused_whatever_its_bits(bits: int) -> None:
    values = np.array([1.0, 0.0], np.float32)
    values.view(np.uint32)[1] = bits
    with pytest.raises(ValueError, match="not finite"):
        bfloat16_bits(values)
