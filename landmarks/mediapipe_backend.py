"""The default backend: MediaPipe's 478 points, retargeted as a metric mesh under a perspective camera."""

import numpy as np
from numpy.typing import NDArray

from landmarks.geometry import CanonicalFace, metric_landmarks, pieces, reproject
from landmarks.record import POINTS, LandmarkRecord
from landmarks.retarget import matching_face, transfer_rotation, worn


class MediaPipeBackend:
    """Implements :class:`landmarks.backend.Backend`; all 478 points are known."""

    name = "mediapipe"

    def __init__(self, canonical: CanonicalFace) -> None:
        self._canonical = canonical

    def own(self, record: LandmarkRecord) -> NDArray[np.float32]:
        """The detected landmarks themselves."""
        return record.points[..., :2].copy()

    def onto(self, driving: LandmarkRecord, reference: LandmarkRecord) -> NDArray[np.float32]:
        """The motion of ``driving`` on the face of ``reference``, see :meth:`landmarks.backend.Backend.onto`.

        Raises ``ValueError`` if ``reference`` is not one frame with a face, or if ``driving`` has no frame with one.
        """
        if len(reference) != 1 or not np.isfinite(reference.points).all():
            raise ValueError(f"the reference must be one frame with a face; it has {len(reference)} frames")
        face = metric_landmarks(reference.points, reference.width, reference.height, self._canonical)
        motion = metric_landmarks(driving.points, driving.width, driving.height, self._canonical)
        matched = matching_face(motion.points, driving.blendshapes, reference.blendshapes[0])
        pose = transfer_rotation(motion.pose, face.pose[0])
        size = reference.width, reference.height
        onto = np.empty((len(driving), POINTS, 2), np.float32)
        for piece in pieces(len(driving)):
            points = worn(motion.points[piece], matched, face.points[0], reference.blendshapes[0])
            onto[piece] = reproject(points, pose[piece], *size) / size
        return onto
