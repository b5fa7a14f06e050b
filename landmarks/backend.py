"""What a landmark backend can do: put a record's landmarks into a frame, as its own face or as another's."""

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from faceloom.config import Section
from faceloom.models import model_path, sha256_of
from landmarks.geometry import read_geometry
from landmarks.mediapipe_backend import MediaPipeBackend
from landmarks.record import LandmarkRecord

BackendName = Literal["mediapipe", "smirk"]


class LandmarksConfig(Section):
    """How the motion of a face is recorded and drawn (SkyReels-A1 §3.2)."""

    backend: BackendName = "mediapipe"
    """``smirk`` adds SMIRK's FLAME parameters to the record; its files are the user's own, see `faceloom models list`."""


class Backend(Protocol):
    """MediaPipe's metric mesh or SMIRK's FLAME head; both number their points like MediaPipe.

    Both methods return float32 ``[T, 478, 2]``, normalised to a frame (x by its width, y by its height). A point that the
    backend does not know, and every point of a frame without a face, is NaN.
    """

    name: str

    def own(self, record: LandmarkRecord) -> NDArray[np.float32]:
        """Mode ``self``: the face where it is in its source frame. What training clips are driven by."""
        ...

    def onto(self, driving: LandmarkRecord, reference: LandmarkRecord) -> NDArray[np.float32]:
        """Modes ``relative`` and ``cross``: the motion of ``driving`` on the face of ``reference``, in its frame.

        ``reference`` has one frame: of the same clip (``relative``) or of another face (``cross``). Its shape, camera and
        translation stay; expression is the driver's; the head turns from the reference's rotation on as the driver's does
        from its first frame's, R = R_ref · R_0⁻¹ · R_i. Source: SkyReels-A1's inference, which drops the driver's
        translation and size.
        """
        ...


def load_backend(name: BackendName, wanted_by: str) -> Backend:
    """The backend ``name`` with its models; ``wanted_by`` says in errors who asked.

    Raises :class:`faceloom.errors.UserError` if a model is missing or unusable.
    """
    if name == "mediapipe":
        return MediaPipeBackend(read_geometry(model_path("face_landmarker", wanted_by)))
    from landmarks.smirk_backend import load_smirk_backend

    return load_smirk_backend(wanted_by)


def backend_fingerprint(name: BackendName, wanted_by: str) -> str:
    """One hash over the files that decide what the backend ``name`` draws; raises as :func:`load_backend` does."""
    if name == "mediapipe":
        return sha256_of("face_landmarker")
    from landmarks.smirk_backend import head_fingerprint

    return head_fingerprint(wanted_by)
