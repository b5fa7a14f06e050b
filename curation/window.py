"""Which 49 frames of a track become the sample."""

import numpy as np
from pydantic import Field

from curation.character import CharacterConfig, runs_of
from faceloom.config import Section
from shards.schema import FRAMES


class WindowConfig(Section):
    """The window of a clip (SkyReels-A1 §5.1: 49 frames)."""

    stride: int = Field(24, ge=1)
    """Frames between candidate windows; the one that moves most is taken."""
    min_frames: int = Field(33, ge=2, le=FRAMES)
    """Shorter stretches are dropped; from here to 49 the last frame is repeated and ``n_valid`` says how many are real."""


def candidate_windows(
    stretch: tuple[int, int], found: np.ndarray, window: WindowConfig, character: CharacterConfig
) -> list[tuple[int, int]]:
    """Windows ``(start, stop)`` inside ``stretch``, at most 49 frames long, whose face is followed almost throughout.

    They begin every ``window.stride`` frames, and the last one ends with the stretch. ``found[T]`` says in which frames the
    face was followed: a window with less than ``character.min_found_share`` of it, a longer gap than ``character.max_gap``
    or none at either end is no candidate.
    """
    start, stop = stretch
    length = min(FRAMES, stop - start)
    if length < window.min_frames:
        return []
    begins = sorted({*range(start, stop - length + 1, window.stride), stop - length})
    return [(b, b + length) for b in begins if _followed(found[b : b + length], character)]


def pad_to_window(indices: np.ndarray) -> np.ndarray:
    """``indices[n]``, n ≤ 49, with the last one repeated up to 49."""
    return np.concatenate([indices, np.repeat(indices[-1:], FRAMES - len(indices), axis=0)])


def _followed(found: np.ndarray, character: CharacterConfig) -> bool:
    gaps = [stop - start for start, stop in runs_of(~found)]
    return bool(
        found[0]
        and found[-1]
        and found.mean() >= character.min_found_share
        and max(gaps, default=0) <= character.max_gap
    )
