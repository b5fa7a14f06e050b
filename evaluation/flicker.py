"""Temporal flicker: what changes on a face from one frame to the next and is no motion.

The warping error of Lai et al., *Learning Blind Video Temporal Consistency* (ECCV 2018): a frame is compared with the next
one brought back along the optical flow, where the flow is no occlusion by the test of Ruder et al., *Artistic Style Transfer
for Videos* (2016). Ours takes absolute differences of luma in place of squared ones, so that its unit is a level of 255, and
looks at the face alone, at one size. The flow is DIS (Kroeger et al., 2016), which needs no weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from numpy.typing import NDArray

from evaluation.footage import Footage, Frame
from evaluation.track import FaceTrack
from landmarks.landmarker import Box

_SIDE_PX = 256
_MARGIN = 1.2
_LEAST_SEEN = 0.1


def flicker(footage: Footage, track: FaceTrack) -> NDArray[np.float64]:
    """Between each frame and the next, in levels of 255, ``[T-1]``; NaN where one of them has no face in ``track``."""
    found = track.found
    values = np.full(max(0, len(footage) - 1), np.nan)
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    before: Frame | None = None
    with _one_thread():
        for number, frame in enumerate(footage):
            if before is not None and found[number - 1] and found[number]:
                window = _about(track.box(number - 1), track.box(number))
                values[number - 1] = _warping_error(_cut(before, window), _cut(frame, window), flow)
            before = frame
    return values


@contextmanager
def _one_thread() -> Iterator[None]:
    """At this size, more threads wait for each other longer than they compute, above all on a machine that has other work."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _about(a: Box, b: Box) -> Box:
    return Box(min(a.x0, b.x0), min(a.y0, b.y0), max(a.x1, b.x1), max(a.y1, b.y1))


def _cut(frame: Frame, face: Box) -> NDArray[np.uint8]:
    height, width = frame.shape[:2]
    x, y, w, h = face.square(_MARGIN, width, height)
    luma = cv2.cvtColor(frame[y : y + h, x : x + w], cv2.COLOR_RGB2GRAY)
    method = cv2.INTER_AREA if max(w, h) > _SIDE_PX else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(luma, (_SIDE_PX, _SIDE_PX), interpolation=method), np.uint8)


def _warping_error(now: NDArray[np.uint8], then: NDArray[np.uint8], flow: cv2.DISOpticalFlow) -> float:
    there, back = flow.calc(now, then, None), flow.calc(then, now, None)
    y, x = np.mgrid[:_SIDE_PX, :_SIDE_PX].astype(np.float32)
    to_x, to_y = x + there[..., 0], y + there[..., 1]
    returned = cv2.remap(back, to_x, to_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    missed = ((there + returned) ** 2).sum(axis=2)
    seen = missed <= 0.01 * ((there**2).sum(axis=2) + (returned**2).sum(axis=2)) + 0.5
    seen &= (to_x >= 0) & (to_x <= _SIDE_PX - 1) & (to_y >= 0) & (to_y <= _SIDE_PX - 1)
    if seen.mean() < _LEAST_SEEN:
        return float("nan")
    warped = cv2.remap(then.astype(np.float32), to_x, to_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return float(np.abs(now - warped)[seen].mean())
