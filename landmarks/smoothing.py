"""Jitter taken out of a record without delaying it: the release's running mean lags behind the face, this does not."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.signal import savgol_filter

from landmarks.angles import nearest_rotation
from landmarks.record import LandmarkRecord
from landmarks.smirk_motion import SmirkMotion

_WINDOW = 5  # frames; at 12 fps a blink of two keeps four fifths of its depth, of one a half
_DEGREE = 2


def smooth(record: LandmarkRecord) -> LandmarkRecord:
    """The record with each coordinate filtered over time by parabolas through five frames (Savitzky-Golay 1964).

    Symmetric, so nothing is shifted in time. Runs of frames between gaps are filtered each for itself; a run of fewer than
    five frames stays as it is.
    """
    points, blendshapes, pose = record.points.copy(), record.blendshapes.copy(), record.pose.copy()
    smirk = record.smirk
    parameters, crop = (None, None) if smirk is None else (smirk.parameters.copy(), smirk.crop.copy())
    for run in _runs(np.asarray(np.isfinite(record.points).all(axis=(1, 2)))):
        for values in (points, blendshapes, pose, parameters, crop):
            if values is not None:
                values[run] = savgol_filter(values[run].astype(np.float64), _WINDOW, _DEGREE, axis=0)
        pose[run, :3, :3] = nearest_rotation(pose[run, :3, :3])
    if smirk is not None and parameters is not None and crop is not None:
        smirk = SmirkMotion(parameters, smirk.shape, crop)
    return replace(record, points=points, blendshapes=blendshapes, pose=pose, smirk=smirk)


def _runs(present: NDArray[np.bool_]) -> list[slice]:
    """The stretches of True that are long enough to filter."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], present, [False]]).astype(np.int8)))
    return [slice(a, b) for a, b in edges.reshape(-1, 2).tolist() if b - a >= _WINDOW]
