import pytest
import torch
from torch.nn import functional

from training.guider import drawing_latents, pixel_latents
from training.shrink import shrunk


def _pixels(cells: tuple[int, int]) -> torch.Tensor:
    return 2 * torch.rand(2, 3, 9, 8 * cells[0], 8 * cells[1], generator=torch.Generator().manual_seed(0)) - 1


def _smaller(pixels: torch.Tensor, times: int) -> torch.Tensor:
    return functional.avg_pool3d(pixels, (1, times, times))


@pytest.mark.parametrize("times", [1, 3, 5])
def test_shrunk_latents_are_those_of_a_smaller_video(times: int) -> None:
    pixels = _pixels((15, 30))
    torch.testing.assert_close(
        shrunk(pixel_latents(pixels), times), pixel_latents(_smaller(pixels, times)), atol=2e-6, rtol=0
    )
    torch.testing.assert_close(
        shrunk(drawing_latents(pixels), times), drawing_latents(_smaller(pixels, times)), atol=4e-5, rtol=0
    )


def test_they_keep_their_type() -> None:
    latents = pixel_latents(_pixels((6, 3))).bfloat16()
    assert shrunk(latents, 3).dtype == torch.bfloat16
    assert shrunk(latents, 3).shape == (2, 16, 3, 2, 1)


def test_a_grid_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(ValueError, match="6×3 cells"):
        shrunk(torch.zeros(16, 3, 6, 3), 5)
