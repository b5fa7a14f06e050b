"""The release's measures of one video: its networks on its choice of frames, then :mod:`evaluation.legacy`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from curation.video import FrameReader, probe
from evaluation import legacy
from evaluation.footage import Footage, Frame, every_frame
from evaluation.legacy_faces import LegacyFace, legacy_face
from evaluation.measure import Measure, absent
from evaluation.networks import Networks
from evaluation.scrfd import Scrfd

if TYPE_CHECKING:
    from evaluation.openpose import OpenPose


def legacy_measures(
    result: Path, reference: Frame | None, driving: Path | None, networks: Networks
) -> dict[str, Measure]:
    """Of the metrics of mode ``legacy`` those that ``networks`` suffice for.

    Raises :class:`curation.video.VideoError` for a video that cannot be read.
    """
    measures: dict[str, Measure] = {}
    if networks.scrfd is not None:
        measures |= _similarities(result, reference, networks.scrfd, networks)
        measures["legacy_expression"] = (
            absent("there is no driving video") if driving is None else _expression(result, driving, networks.scrfd)
        )
    if networks.openpose is not None:
        measures["legacy_pose"] = (
            absent("there is no driving video") if driving is None else _pose(result, driving, networks.openpose)
        )
    return measures


def _similarities(result: Path, reference: Frame | None, detector: Scrfd, networks: Networks) -> dict[str, Measure]:
    looks: dict[str, Callable[[LegacyFace], NDArray[np.float32]]] = {}
    if (arcface := networks.arcface) is not None:
        looks["legacy_facesim_arc"] = lambda face: arcface.embed_aligned(face.for_arcface)
    if (curricularface := networks.curricularface) is not None:
        looks["legacy_facesim_cur"] = lambda face: curricularface.embed_aligned(
            np.asarray(cv2.resize(face.aligned, (112, 112)), np.uint8)
        )
    if (inception := networks.inception) is not None:
        looks["legacy_fid"] = lambda face: inception.features([face.aligned], normalised=False)[0]
    if not looks:
        return {}
    if reference is None:
        return dict.fromkeys(looks, absent("there is no reference image"))
    person = legacy_face(reference, detector)
    if person is None:
        return dict.fromkeys(looks, absent("the detector finds no face in the reference, and the script then ends"))
    probed = probe(str(result))
    chosen = legacy.frames_of_similarity(len(probed.pts_s))
    found = [legacy_face(frame, detector) for frame in FrameReader(probed).frames(chosen)]
    seen = [face for face in found if face is not None]
    note = "" if seen else "no frame shows a face, which the script takes for this value"
    scores = {"legacy_fid": legacy.inception_distance}
    return {
        name: Measure(
            scores.get(name, legacy.similarity)(look(person), [look(face) for face in seen]),
            len(seen),
            len(chosen),
            reason=note,
        )
        for name, look in looks.items()
    }


def _expression(result: Path, driving: Path, detector: Scrfd) -> Measure:
    total = len(every_frame(result))
    points = []
    for path, what in ((result, "result"), (driving, "driver")):
        found: list[NDArray[np.float32]] = []
        for number, frame in enumerate(_resized(every_frame(path))):
            face = legacy_face(frame, detector)
            if face is None:
                reason = f"frame {number} of the {what} shows no face, and the script then leaves the video out"
                return Measure(None, 0, total, reason=reason)
            found.append(face.points)
        points.append(np.stack(found))
    return Measure(legacy.expression(*points), total, total)


def _pose(result: Path, driving: Path, network: "OpenPose") -> Measure:
    made, other = ([network.candidates(frame) for frame in _resized(every_frame(path))] for path in (result, driving))
    return Measure(legacy.pose(made, other), sum(bool(len(peaks)) for peaks in made), len(made))


def _resized(footage: Footage) -> list[Frame]:
    return [np.asarray(cv2.resize(frame, legacy.FRAME_WH), np.uint8) for frame in footage]
