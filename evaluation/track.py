"""What MediaPipe sees of the one face of a video, frame by frame."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.footage import Footage
from faceloom.errors import UserError
from landmarks.extract import extract
from landmarks.geometry import metric_landmarks, read_geometry
from landmarks.landmarker import Box, Landmarker, landmark_box
from landmarks.mouth import lip_gap_cm
from landmarks.record import BLENDSHAPES, POINTS


@dataclass(frozen=True, eq=False)
class FaceTrack:
    """One face over T frames; a frame without it is NaN throughout."""

    points_px: NDArray[np.float32]  # [T, 478, 2]
    blendshapes: NDArray[np.float32]  # [T, 51], 0..1, MediaPipe's without `_neutral`
    pose: NDArray[np.float32]  # [T, 4, 4], as in landmarks.angles
    lip_gap_cm: NDArray[np.float64]  # [T]

    def __len__(self) -> int:
        return len(self.pose)

    @property
    def found(self) -> NDArray[np.bool_]:
        """Where there is a face, ``[T]``."""
        return np.asarray(np.isfinite(self.lip_gap_cm))

    def box(self, frame: int) -> Box:
        """The face's bounding box in px."""
        return landmark_box(self.points_px[frame], 1, 1)

    def read(self, offset: int, frames: int) -> "FaceTrack":
        """``frames`` frames from ``offset`` on, which may lie before the first; NaN where there are none."""
        index = np.arange(offset, offset + frames)
        inside = (index >= 0) & (index < len(self))

        def taken(values: NDArray[Any]) -> NDArray[Any]:
            out = np.full((frames, *values.shape[1:]), np.nan, values.dtype)
            out[inside] = values[index[inside]]
            return out

        return FaceTrack(taken(self.points_px), taken(self.blendshapes), taken(self.pose), taken(self.lip_gap_cm))


class FaceTracker:
    """MediaPipe's landmarker for one process, from its bundle ``face_landmarker``; use it with ``with``."""

    def __init__(self, task_file: Path) -> None:
        self._landmarker = Landmarker(task_file)
        self._canonical = read_geometry(task_file)

    def track(self, footage: Footage) -> FaceTrack:
        """The largest face of the first frame that shows one, followed through all of them; nothing is filled in."""
        try:
            record = extract(footage, self._landmarker, self._canonical)
        except UserError:  # no face in any frame
            return _nobody(len(footage))
        metric = metric_landmarks(record.points, record.width, record.height, self._canonical).points
        return FaceTrack(
            record.points[..., :2] * np.array([record.width, record.height], np.float32),
            record.blendshapes[:, 1:],
            record.pose,
            lip_gap_cm(metric),
        )

    def close(self) -> None:
        """Free the landmarker."""
        self._landmarker.close()

    def __enter__(self) -> "FaceTracker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _nobody(frames: int) -> FaceTrack:
    return FaceTrack(
        np.full((frames, POINTS, 2), np.nan, np.float32),
        np.full((frames, BLENDSHAPES - 1), np.nan, np.float32),
        np.full((frames, 4, 4), np.nan, np.float32),
        np.full(frames, np.nan),
    )
