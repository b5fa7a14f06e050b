"""Which 49 frames of a track become a sample, or which several times 49."""

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from curation.character import CharacterConfig, runs_of
from faceloom.config import Section
from shards.schema import FRAMES

_MAX_SHARED = 0.5
"""Of a sample's frames, with any other sample of the same clip."""


class WindowConfig(Section):
    """The windows of a clip (SkyReels-A1 §5.1: 49 frames)."""

    most: int = Field(4, ge=1)
    """Samples that a clip of the manifest may become, each a window of its own: those that move most. Bounded, so that a long
    source does not outweigh many short ones; 4 samples are 8 to 16 s of it, and those of 256 clips fill ``run.held_mib``."""
    stride: int = Field(25, ge=1)
    """Frames between candidate windows. At 25, neighbours share 24 of 49 frames, and may both be taken."""
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


def top_windows(windows: Sequence[tuple[int, int]], scores: Sequence[float], most: int) -> list[int]:
    """The positions of up to ``most`` windows ``(start, stop)``, the highest score first; of equals the earlier one.

    A window that shares more than half of a sample's frames with a better one is passed over.
    """
    taken: list[int] = []
    for position in sorted(range(len(windows)), key=lambda i: -scores[i]):
        if len(taken) == most:
            break
        if all(_shared(windows[position], windows[other]) <= _MAX_SHARED * FRAMES for other in taken):
            taken.append(position)
    return taken


def pad_to_window(indices: np.ndarray) -> np.ndarray:
    """``indices[n]``, n ≤ 49, with the last one repeated up to 49."""
    return np.concatenate([indices, np.repeat(indices[-1:], FRAMES - len(indices), axis=0)])


def _shared(a: tuple[int, int], b: tuple[int, int]) -> int:
    return max(0, min(a[1], b[1]) - max(a[0], b[0]))


def _followed(found: np.ndarray, character: CharacterConfig) -> bool:
    gaps = [stop - start for start, stop in runs_of(~found)]
    return bool(
        found[0]
        and found[-1]
        and found.mean() >= character.min_found_share
        and max(gaps, default=0) <= character.max_gap
    )
