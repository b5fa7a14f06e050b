"""A driving video of any length in windows of 49 pictures, and what is made of them joined again.

Two neighbours share some driver frames, which are cross-faded. They meet between latents, so that they have latents in common
as well: latent 0 stands for picture 0 alone, each of the other twelve for four.

================== ============================== ============================================================
layout             a window's 49 pictures         latents in common, in the one window and in the one before
================== ============================== ============================================================
``contiguous49``   49 driver frames               0, …, n − 1 are 13 − n, …, 12; frames: 4n − 3
``ref1+48``        the reference, 48 frames       1, …, n are 13 − n, …, 12; frames: 4n
================== ============================== ============================================================

In ``ref1+48`` the reference comes first in every window. The first frame of a driver of less than 48 is doubled, and the
first of the two is dropped with the reference: that is the timing of SkyReels-A1's ``inference.py``. Longer drivers have that
of its ``inference_long_video.py``: nothing doubled, 8 frames shared.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from shards.schema import FRAMES
from training.encode_config import Layout
from training.latents import STRIDE

MOST_OVERLAP = 21
"""Rounded up to the next latent, it leaves no frame in three windows."""


@dataclass(frozen=True)
class Window:
    """Driver frames ``begin`` to ``end`` (exclusive), after ``lead`` pictures that are dropped."""

    begin: int
    end: int
    lead: int
    shared_latents: int
    """How many latents it has in common with the window before it."""
    first_shared: int
    """Its first latent that may be shared: 1 where latent 0 is the reference's."""


def windows(frames: int, layout: Layout, overlap: int) -> list[Window]:
    """The windows of a driver of ``frames`` frames, each of which shares at least ``overlap`` of them with the next.

    It is at most three more, until they meet between latents. Raises ``ValueError`` without a frame, and for an ``overlap``
    of more than :data:`MOST_OVERLAP`.
    """
    if frames < 1:
        raise ValueError("the driver has no frame")
    if not 0 <= overlap <= MOST_OVERLAP:
        raise ValueError(f"windows may share 0 to {MOST_OVERLAP} frames, not {overlap}")
    lead = 1 if layout == "ref1+48" else 0
    room = FRAMES - lead
    if lead and frames < room:
        return [Window(0, frames, 2, 0, 1)]
    if lead:
        latents = -(-overlap // STRIDE)
        shared = STRIDE * latents
    else:
        latents = 1 - (1 - overlap) // STRIDE if overlap else 0
        shared = STRIDE * (latents - 1) + 1 if overlap else 0
    begins = range(0, max(1, frames - shared), room - shared)
    return [Window(begin, min(begin + room, frames), lead, latents if begin else 0, lead) for begin in begins]


def window_drawings(
    window: Window, drawings: Sequence[np.ndarray] | np.ndarray, reference: np.ndarray | None
) -> np.ndarray:
    """What the model is driven by in ``window``: uint8 [49, H, W, 3]. The last drawing is repeated until there are as many.

    ``drawings`` uint8 [T, H, W, 3] are the driver's, ``reference`` uint8 [H, W, 3] is the portrait's, for ``ref1+48`` only.
    """
    own = np.asarray(drawings[window.begin : window.end])
    first = np.empty((0, *own.shape[1:]), np.uint8) if reference is None else reference[None]
    known = np.concatenate([first, own[:1].repeat(window.lead - len(first), axis=0), own])
    return np.concatenate([known, known[-1:].repeat(FRAMES - len(known), axis=0)])


def joined(plan: Sequence[Window], make: Callable[[Window], np.ndarray]) -> Iterator[np.ndarray]:
    """The driver's frames in order, uint8 [H, W, 3], out of windows of which ``make`` gives the 49 pictures.

    A window is made when all frames before it are taken; no more than one and what it shares with the next is held.
    """
    held = None
    for window, following in zip(plan, [*plan[1:], None], strict=True):
        own = make(window)[window.lead : window.lead + window.end - window.begin]
        if held is not None:
            own = np.concatenate([cross_faded(held, own[: len(held)]), own[len(held) :]])
        alone = (window.end if following is None else following.begin) - window.begin
        yield from own[:alone]
        held = own[alone:]


def cross_faded(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Frames uint8 [n, H, W, 3] that go from ``before`` to ``after`` in n + 1 equal steps."""
    weight = np.linspace(0, 1, len(after) + 2, dtype=np.float32)[1:-1, None, None, None]
    faded: np.ndarray = np.rint(before + weight * (after.astype(np.float32) - before)).astype(np.uint8)
    return faded
