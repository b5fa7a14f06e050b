"""How much the person of a result looks like the one of the reference, by recognition networks that the user supplies."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evaluation.footage import Frame
from evaluation.measure import Measure


class Embedder(Protocol):
    """ArcFace (:class:`curation.recognition.Recogniser`) or :class:`evaluation.curricular.CurricularFace`."""

    def embed_aligned(self, aligned: Frame) -> NDArray[np.float32]:
        """The embedding ``[D]``, of length 1, of a face uint8 RGB ``[112, 112, 3]`` in its place."""
        ...


def face_similarity(network: Embedder, reference: Frame | None, faces: Sequence[Frame], looked_at: int) -> Measure:
    """The mean cosine between the embedding of ``reference`` and those of ``faces``, -1 to 1, of ``looked_at`` frames.

    Unlike the release's (:func:`evaluation.legacy.similarity`) it is not cut off at 0.
    """
    if reference is None:
        return Measure(None, 0, looked_at, reason="the reference shows no face")
    if not faces:
        return Measure(None, 0, looked_at, reason="no frame of the result shows a face")
    person = network.embed_aligned(reference)
    cosines = [float(person @ network.embed_aligned(face)) for face in faces]
    return Measure(float(np.mean(cosines)), len(faces), looked_at)
