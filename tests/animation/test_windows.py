import itertools

import numpy as np
import pytest

from animation.windows import MOST_OVERLAP, Window, cross_faded, joined, window_drawings, windows

LAYOUTS = ("contiguous49", "ref1+48")


def drawings_of(frames: int) -> np.ndarray:
    """Frame t is full of t, modulo 250; [T, 1, 2, 3]."""
    return np.broadcast_to((np.arange(frames) % 250).astype(np.uint8)[:, None, None, None], (frames, 1, 2, 3))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("overlap", [0, 1, 8, 9, MOST_OVERLAP])
@pytest.mark.parametrize("frames", [1, 47, 48, 49, 50, 88, 89, 90, 200])
def test_windows_cover_every_frame_and_share_what_was_asked_for_or_up_to_three_more(layout, overlap, frames):
    plan = windows(frames, layout, overlap)
    assert (plan[0].begin, plan[-1].end) == (0, frames)
    for before, after in itertools.pairwise(plan):
        assert overlap <= before.end - after.begin <= overlap + 3
        assert before.begin < after.begin
        assert after.end > before.end
    for before, after in zip(plan, plan[2:], strict=False):
        assert before.end <= after.begin


@pytest.mark.parametrize("layout", LAYOUTS)
def test_shared_latents_stand_for_the_shared_frames(layout):
    def frames_of(window: Window, latent: int) -> set[int]:
        pictures = range(4 * latent - 3, 4 * latent + 1) if latent else range(1)
        return {window.begin + picture - window.lead for picture in pictures}

    first, second, third = windows(120, layout, 8)
    for before, after in ((first, second), (second, third)):
        shared = set()
        for number in range(after.shared_latents):
            of_after = frames_of(after, after.first_shared + number)
            # The single frame of latent 0 is the last of four in the window before.
            assert of_after <= frames_of(before, 13 - after.shared_latents + number)
            shared |= of_after
        assert shared == set(range(after.begin, first.begin + before.begin + 49 - before.lead))


def test_a_short_drivers_first_frame_is_doubled_and_the_reference_leads():
    (window,) = windows(5, "ref1+48", 8)
    seen = window_drawings(window, drawings_of(5), np.full((1, 2, 3), 200, np.uint8))
    assert seen.shape == (49, 1, 2, 3)
    assert seen[:, 0, 0, 0].tolist() == [200, 0, 0, 1, 2, 3, 4] + [4] * 42
    assert window.lead == 2


def test_every_window_of_a_long_driver_begins_with_the_reference():
    reference, drawings = np.full((1, 2, 3), 200, np.uint8), drawings_of(100)
    first, second, third = windows(100, "ref1+48", 8)
    assert window_drawings(first, drawings, reference)[:, 0, 0, 0].tolist() == [200, *range(48)]
    assert window_drawings(second, drawings, reference)[:, 0, 0, 0].tolist() == [200, *range(40, 88)]
    assert window_drawings(third, drawings, reference)[:, 0, 0, 0].tolist() == [200, *range(80, 100)] + [99] * 28


def test_contiguous_windows_hold_the_drivers_frames_alone():
    drawings = drawings_of(50)
    first, second = windows(50, "contiguous49", 8)
    assert window_drawings(first, drawings, None)[:, 0, 0, 0].tolist() == list(range(49))
    assert window_drawings(second, drawings, None)[:, 0, 0, 0].tolist() == [*range(40, 50)] + [49] * 39


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("frames", [1, 47, 48, 49, 50, 500])
def test_every_frame_comes_out_once_and_is_made_of_its_own_drawing(layout, frames):
    drawings, reference = drawings_of(frames), np.full((1, 2, 3), 255, np.uint8)
    made = []

    def make(window: Window) -> np.ndarray:
        made.append(window)
        return window_drawings(window, drawings, reference if layout == "ref1+48" else None)

    plan = windows(frames, layout, 8)
    assert [int(frame[0, 0, 0]) for frame in joined(plan, make)] == [t % 250 for t in range(frames)]
    assert made == plan


def test_a_window_is_made_when_the_frames_before_it_are_taken():
    made = []
    plan = windows(500, "contiguous49", 8)
    frames = joined(plan, lambda window: made.append(window) or np.zeros((49, 1, 2, 3), np.uint8))
    for _ in range(40):
        next(frames)
    assert made == plan[:1]
    next(frames)
    assert made == plan[:2]


def test_shared_frames_go_from_the_one_window_to_the_other_in_equal_steps():
    before, after = np.zeros((3, 1, 1, 3), np.uint8), np.full((3, 1, 1, 3), 200, np.uint8)
    assert cross_faded(before, after)[:, 0, 0, 0].tolist() == [50, 100, 150]


def test_a_driver_without_frames_and_an_overlap_of_too_much_are_refused():
    with pytest.raises(ValueError, match="the driver has no frame"):
        windows(0, "contiguous49", 8)
    with pytest.raises(ValueError, match="share 0 to 21 frames, not 25"):
        windows(100, "ref1+48", 25)
