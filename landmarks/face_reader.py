"""Faces of pictures and videos as records that a backend can move, with whatever models that takes."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from faceloom.models import model_path
from landmarks.backend import Backend, BackendName
from landmarks.extract import extract
from landmarks.geometry import read_geometry
from landmarks.landmarker import Landmarker
from landmarks.mediapipe_backend import MediaPipeBackend
from landmarks.record import LandmarkRecord, interpolate_missing


class FaceReader:
    """The models of a process that reads faces; :meth:`close` it, or use it with ``with``.

    ``wanted_by`` is the command that errors name. Raises :class:`faceloom.errors.UserError` if a model is missing.
    """

    def __init__(self, backend: BackendName, wanted_by: str) -> None:
        task_file = model_path("face_landmarker", wanted_by)
        self._canonical = read_geometry(task_file)
        self._encoder = None
        self.backend: Backend = MediaPipeBackend(self._canonical)
        if backend == "smirk":
            from landmarks.smirk_backend import load_smirk

            smirk = load_smirk(f"{wanted_by} with SMIRK's landmarks")
            self.backend, self._encoder = smirk.backend, smirk.encoder
        self.landmarker = Landmarker(task_file)

    def still(self, picture: NDArray[np.uint8]) -> LandmarkRecord:
        """The largest face of ``picture`` uint8 ``[H, W, 3]``, a record of one frame.

        Raises :class:`faceloom.errors.UserError`, which names no file, if there is none.
        """
        record = extract([picture], self.landmarker, self._canonical)
        if self._encoder is not None:
            record = replace(record, smirk=self._encoder.encode([picture], record.points, record.found))
        return record

    def moving(self, frames: Callable[[], Iterable[NDArray[np.uint8]]]) -> LandmarkRecord:
        """The face of a video; see :func:`landmarks.extract.extract` for which. Gaps of up to three frames are filled.

        ``frames()`` gives all frames from the first on, uint8 ``[H, W, 3]``; SMIRK sees them a second time, so that none
        has to be kept. Longer gaps are NaN.
        """
        record = interpolate_missing(extract(frames(), self.landmarker, self._canonical))
        if self._encoder is not None:
            record = replace(record, smirk=self._encoder.encode(frames(), record.points, record.found))
        return record

    def close(self) -> None:
        """Free the landmarker."""
        self.landmarker.close()

    def __enter__(self) -> "FaceReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
