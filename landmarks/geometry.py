"""Metric face geometry: from MediaPipe's screen landmarks to centimetres and a head pose.

A vectorised port of the published algorithm of MediaPipe's face-geometry module (``geometry_pipeline.cc``,
``procrustes_solver.cc``, Apache-2.0). Having it here makes pose a function of the stored landmarks and the frame size
alone: landmarks found on a region of the frame get the pose of the whole frame, whatever camera the landmarker assumed.

The camera sits at the origin and looks along -z, with a vertical field of view of 63° and the near plane at 1. Real
cameras differ, so distances are nominal; angles and canonical-aligned shapes are what to use.
"""

import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from landmarks.angles import Floats, nearest_rotation

MESH_POINTS = 468  # the face mesh; points 468..477 are the irises, which the canonical face does not have
_HALF_HEIGHT = np.tan(np.radians(63 / 2))  # of the near plane, at distance 1
_PIECE = 1024
_METADATA = "geometry_pipeline_metadata_landmarks.binarypb"


@dataclass(frozen=True, eq=False)
class CanonicalFace:
    """The average face that poses are measured against, in cm (x to the image's right, y up, z towards the camera)."""

    vertices: NDArray[np.float64]  # [468, 3]
    basis: NDArray[np.int64]  # [B] vertices that take part in the Procrustes fit
    weights: NDArray[np.float64]  # [B] their weights


class MetricFace(NamedTuple):
    """What :func:`metric_landmarks` returns."""

    pose: NDArray[np.float32]  # [T, 4, 4] rigid, canonical head space (cm) to camera space (cm)
    points: NDArray[np.float32]  # [T, 478, 3] cm, in canonical head space: rotation, position and size taken out


def metric_landmarks(points: Floats, width: int, height: int, canonical: CanonicalFace) -> MetricFace:
    """Pose and canonical-aligned metric points of each frame.

    ``points[T, 478, 3]`` are MediaPipe landmarks normalised to a frame of ``width`` × ``height`` px (x and z by the
    width, y by the height; y down, z away from the camera). A frame with a NaN is NaN in the result. The irises are
    carried along with the mesh; their depth is MediaPipe's guess.
    """
    pose = np.full((len(points), 4, 4), np.nan, dtype=np.float32)
    metric = np.full(points.shape, np.nan, dtype=np.float32)
    # In pieces: the fit works in float64 and needs many times the memory of its result.
    for piece in pieces(len(points)):
        found = np.isfinite(points[piece]).all(axis=(1, 2))
        if found.any():
            pose[piece][found], metric[piece][found] = _fitted(points[piece][found], width, height, canonical)
    return MetricFace(pose, metric)


def pieces(frames: int) -> Iterator[slice]:
    """A clip of so many frames a piece at a time, for maths whose intermediate results are large."""
    for begin in range(0, frames, _PIECE):
        yield slice(begin, begin + _PIECE)


def _fitted(
    points: NDArray[np.floating], width: int, height: int, canonical: CanonicalFace
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Poses ``[T, 4, 4]`` and metric points ``[T, 478, 3]`` of frames that all have a face."""
    screen = _on_near_plane(points.astype(np.float64), width, height)
    # Unprojecting needs the face's size: a first guess comes from the points as they lie on the screen. What it is off
    # by is a factor on the whole unprojected cloud, so dividing that out is exact and needs no third fit.
    guess, _, _ = _fit(canonical, screen * [1, 1, -1])
    cloud = _unproject(screen, guess)
    scale, R, t = _fit(canonical, cloud)
    cloud, t = cloud / scale[:, None, None], t / scale[:, None]

    pose = np.tile(np.eye(4), (len(points), 1, 1))
    pose[:, :3, :3] = R
    pose[:, :3, 3] = t
    return pose, (cloud - t[:, None]) @ R


def reproject(metric: Floats, pose: Floats, width: int, height: int) -> NDArray[np.float32]:
    """Project canonical-space points ``metric[T, N, 3]`` (cm) under ``pose[T, 4, 4]`` to the frame: ``[T, N, 2]`` px.

    The inverse of :func:`metric_landmarks`: with its own results it gives back x·width, y·height.
    """
    metric, pose = np.asarray(metric, dtype=np.float64), np.asarray(pose, dtype=np.float64)
    cloud = metric @ pose[:, :3, :3].transpose(0, 2, 1) + pose[:, None, :3, 3]
    half = np.array([_HALF_HEIGHT * width / height, _HALF_HEIGHT])
    ndc = cloud[..., :2] / -cloud[..., 2:] / half
    px = (ndc * [1, -1] + 1) / 2 * [width, height]
    return np.asarray(px, dtype=np.float32)


def read_geometry(task_file: Path) -> CanonicalFace:
    """Read the canonical face inside MediaPipe's ``face_landmarker.task``.

    Raises ``ValueError`` naming the file if it is not such a bundle.
    """
    try:
        with zipfile.ZipFile(task_file) as bundle:
            metadata = bundle.read(_METADATA)
        return _parse_metadata(metadata)
    except (zipfile.BadZipFile, LookupError, ValueError, TypeError, struct.error) as error:
        raise ValueError(f"{task_file} holds no readable face geometry ({error})") from error


def _on_near_plane(points: NDArray[np.float64], width: int, height: int) -> NDArray[np.float64]:
    """Normalised points to the near plane: origin in its centre, y up, z in its unit but still away from the camera."""
    h = 2 * _HALF_HEIGHT
    w = h * width / height
    x, y, z = np.moveaxis(points, -1, 0)
    return np.stack([(x - 0.5) * w, (0.5 - y) * h, z * w], axis=-1)


def _unproject(screen: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Near-plane points ``[T, N, 3]`` to camera space (cm), where ``scale[T]`` near-plane units make a cm."""
    centre = screen[:, :MESH_POINTS, 2].mean(axis=1)
    depth = (screen[..., 2] - centre[:, None] + 1) / scale[:, None]
    return np.stack([screen[..., 0] * depth, screen[..., 1] * depth, -depth], axis=-1)


def _fit(
    canonical: CanonicalFace, cloud: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Weighted Procrustes: s ``[T]``, R ``[T, 3, 3]``, t ``[T, 3]`` with s·R·canonical + t nearest to the cloud."""
    weights = canonical.weights / canonical.weights.sum()
    source = canonical.vertices[canonical.basis]
    target = cloud[:, canonical.basis]
    source_centre = weights @ source
    target_centre = np.einsum("n,tni->ti", weights, target)
    source = source - source_centre
    covariance = np.einsum("n,tni,nj->tij", weights, target - target_centre[:, None], source)
    rotation = nearest_rotation(covariance)
    scale = np.einsum("tij,tij->t", rotation, covariance) / (weights @ (source**2).sum(axis=1))
    return scale, rotation, target_centre - scale[:, None] * (rotation @ source_centre)


def _parse_metadata(metadata: bytes) -> CanonicalFace:
    """``GeometryPipelineMetadata``: canonical_mesh = 1, procrustes_landmark_basis = 2 {landmark_id = 1, weight = 2}.

    The mesh's field 3 is its vertex buffer, five floats a vertex: x, y, z and two texture coordinates.
    """
    mesh = b""
    basis: list[int] = []
    weights: list[float] = []
    for number, value in _fields(metadata):
        if number == 1:
            mesh = value
        elif number == 2:
            reference = dict(_fields(value))
            basis.append(reference.get(1, 0))
            weights.append(_floats(reference[2])[0])
    buffer = [x for number, value in _fields(mesh) if number == 3 for x in _floats(value)]
    if len(buffer) != 5 * MESH_POINTS or not basis:
        raise ValueError(f"{len(buffer)} vertex values and {len(basis)} basis points")
    vertices = np.array(buffer, dtype=np.float64).reshape(MESH_POINTS, 5)[:, :3]
    return CanonicalFace(vertices, np.array(basis, dtype=np.int64), np.array(weights, dtype=np.float64))


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Iterate over a protobuf message: (field number, value), an int for a varint and bytes for everything else.

    Written out in place of generated code, which would tie the project to the protobuf version of MediaPipe's wheel.
    Source: protobuf's encoding specification.
    """
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        match tag & 7:
            case 0:
                value, at = _varint(message, at)
                yield tag >> 3, value
                continue
            case 1:
                size = 8
            case 2:
                size, at = _varint(message, at)
            case 5:
                size = 4
            case wire_type:
                raise ValueError(f"protobuf wire type {wire_type}")
        if at + size > len(message):
            raise ValueError("truncated protobuf message")
        yield tag >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _floats(data: bytes) -> tuple[float, ...]:
    """Little-endian floats: one of a plain repeated field, or all of a packed one."""
    return struct.unpack(f"<{len(data) // 4}f", data)
