"""NeRSemble v2: 16 cameras see the same performance; the most frontal ones are listed.

Layout and names: ``nersemble_data/constants.py`` of https://github.com/tobias-kirschstein/nersemble-data. Sequences have
names such as ``EXP-3-cheeks+nose``: they are taken from the path as they are.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from curation.adapters.annotations import csv_rows
from curation.adapters.entries import Entry, Ignored, LeftOut, Notice
from curation.adapters.table import NERSEMBLE
from curation.adapters.tree import Tree, read_tree
from curation.sources import Clip, label_text

_CALIBRATION = "camera_params.json"
_SEQUENCES = "metadata_sequences.csv"
_FRONTAL_SERIAL = "222200037"
"""The camera before the face, by the README's example."""
_MOST_CAMERAS = 2
_MOST_OFF_AXIS_DEG = 30.0
"""A face seen from farther round has too much of it hidden; it is also the limit for reference frames (``identity``)."""

_NOT_CHOSEN = f"other cameras of the sequence see the face more from the front ({_MOST_CAMERAS} are listed)"
_OFF_AXIS = f"its camera stands more than {_MOST_OFF_AXIS_DEG:g}° off the front"
_MISPLACED = "does not lie at PPP/sequences/SEQUENCE/images/cam_SERIAL.mp4; give --root the folder of the participants"


def camera_angles(world_to_camera: Mapping[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Yaw and pitch of each camera about the face, in degrees, by serial.

    ``world_to_camera`` holds 4×4 matrices, OpenCV's convention (x right, y down, z forward). Yaw > 0: the camera stands to
    the right in the picture of the frontal camera; pitch > 0: above it. The frontal camera is the one before the face, or the
    mean of all where it is missing, for the rig is built about the face. The world's axes do not matter. Raises
    ``ValueError`` if a matrix is no rigid motion, or if the cameras have no front.
    """
    axes = {}
    for serial, matrix in world_to_camera.items():
        pose = np.asarray(matrix, np.float64)
        rotation = pose[:3, :3] if pose.shape == (4, 4) else np.zeros((3, 3))
        if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) or np.linalg.det(rotation) < 0:
            raise ValueError(f"camera {serial}: no rigid motion")
        axes[serial] = rotation
    if not axes:
        raise ValueError("no cameras")
    front = axes[_FRONTAL_SERIAL] if _FRONTAL_SERIAL in axes else _mean_axes(np.stack(list(axes.values())))
    angles = {}
    for serial, rows in axes.items():
        x, y, z = front @ -rows[2]  # from the face to the camera
        angles[serial] = float(np.degrees(np.arctan2(x, -z))), float(np.degrees(np.arcsin(np.clip(-y, -1, 1))))
    return angles


def _mean_axes(axes: np.ndarray) -> np.ndarray:
    """The camera in the middle of ``axes[N, 3, 3]``, whose rows are x, y and z of each in the world."""
    z = axes[:, 2].mean(0)
    y = axes[:, 1].mean(0)
    if np.linalg.norm(z) < 0.1:
        raise ValueError("the cameras stand all round: no side of them is the front")
    z /= np.linalg.norm(z)
    y -= y @ z * z
    y /= np.linalg.norm(y)
    return np.stack([np.cross(y, z), y, z])


def off_axis_deg(yaw_deg: float, pitch_deg: float) -> float:
    """The angle between the front and a direction that is ``yaw_deg`` round and ``pitch_deg`` up from it."""
    return float(np.degrees(np.arccos(np.cos(np.radians(yaw_deg)) * np.cos(np.radians(pitch_deg)))))


def entries(root: Path) -> Iterator[Entry]:
    """The most frontal cameras of each sequence, two at most. Raises :class:`UserError` when ``root`` is no folder."""
    tree = read_tree(root, lambda name: name in (_CALIBRATION, _SEQUENCES))
    yield from tree.passed_over
    sequences: defaultdict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for key in tree.videos:
        place = _place(key)
        if place is None:
            yield LeftOut(key, _MISPLACED)
        else:
            participant, sequence, serial = place
            sequences[participant, sequence][serial] = key
    available: dict[tuple[str, str], str] | None = None
    if _SEQUENCES in tree.annotations:
        available = {}
        for row in _available(tree.path(_SEQUENCES)):
            if isinstance(row, LeftOut):
                yield row
            else:
                available[row[0]] = row[1]
        for wanted, name in available.items():
            if wanted not in sequences:
                yield LeftOut(name, "a sequence that is available, without a video on disk")
    else:
        yield Notice(f"{_SEQUENCES} is not in {tree.root}: what is not on disk cannot be named")
    for key in tree.annotations:
        if key != _SEQUENCES and not re.fullmatch(rf"\d{{3}}/calibration/{_CALIBRATION}", key, re.ASCII):
            yield Ignored(PurePosixPath(key).suffix)
    angles: dict[str, dict[str, tuple[float, float]] | str] = {}
    for (participant, sequence), keys in sorted(sequences.items()):
        if participant not in angles:
            angles[participant] = _calibration(tree, participant)
        of_cameras = angles[participant]
        if available is not None and (participant, sequence) not in available:
            yield from (LeftOut(key, f"{_SEQUENCES} does not have its sequence") for key in keys.values())
        elif isinstance(of_cameras, str):
            yield from (LeftOut(key, of_cameras) for key in keys.values())
        else:
            yield from _chosen(tree, participant, sequence, keys, of_cameras)


def _place(key: str) -> tuple[str, str, str] | None:
    """Participant, sequence and serial of a video."""
    match PurePosixPath(key).parts:
        case (participant, "sequences", sequence, "images", name):
            serial = re.fullmatch(r"cam_(\d+)\.mp4", name, re.ASCII)
            if serial and re.fullmatch(r"\d{3}", participant, re.ASCII):
                return participant, sequence, serial.group(1)
    return None


def _chosen(
    tree: Tree, participant: str, sequence: str, keys: Mapping[str, str], angles: Mapping[str, tuple[float, float]]
) -> Iterator[Entry]:
    known = {serial: off_axis_deg(*angles[serial]) for serial in keys if serial in angles}
    ranked = sorted(known, key=lambda serial: (round(known[serial], 6), serial))
    for rank, serial in enumerate(ranked):
        key = keys[serial]
        if known[serial] > _MOST_OFF_AXIS_DEG:
            yield LeftOut(key, _OFF_AXIS)
        elif rank >= _MOST_CAMERAS:
            yield LeftOut(key, _NOT_CHOSEN)
        else:
            yaw, pitch = angles[serial]
            yield Clip(
                NERSEMBLE.name,
                f"{participant}/{sequence}/cam_{serial}",
                str(tree.path(key)),
                person_id=participant,
                licence=NERSEMBLE.licence,
                single_shot=True,
                labels=label_text(
                    sequence=sequence,
                    camera=serial,
                    camera_yaw_deg=round(yaw, 1) + 0.0,
                    camera_pitch_deg=round(pitch, 1) + 0.0,
                ),
            )
    for serial in sorted(set(keys) - set(known)):
        yield LeftOut(keys[serial], f"its camera is not in {_CALIBRATION}")


def _calibration(tree: Tree, participant: str) -> dict[str, tuple[float, float]] | str:
    """The angles of a participant's cameras, or why there are none."""
    key = f"{participant}/calibration/{_CALIBRATION}"
    if key not in tree.annotations:
        return f"its participant has no calibration/{_CALIBRATION}, which tells the frontal cameras; download it"
    try:
        matrices = json.loads(tree.path(key).read_text("utf-8-sig"))["world_2_cam"]
        return camera_angles({str(serial): np.asarray(matrix, np.float64) for serial, matrix in matrices.items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"its participant's calibration/{_CALIBRATION} cannot be used; download it again"


def _available(path: Path) -> Iterator[tuple[tuple[str, str], str] | LeftOut]:
    """Each participant and sequence that can be downloaded, with the name of its cell."""
    seen: set[str] = set()
    for row in csv_rows(path, _SEQUENCES, ["ID"]):
        if isinstance(row, LeftOut):
            yield row
            continue
        line, cells = row
        number = cells.pop("ID")
        participant = number.zfill(3)
        if not re.fullmatch(r"\d{3}", participant, re.ASCII) or participant in seen:
            reason = "a participant that is listed twice" if participant in seen else "a row whose ID is no participant"
            yield LeftOut(f"{_SEQUENCES}:{line} {number[:80]}", reason)
            continue
        seen.add(participant)
        for sequence, mark in cells.items():
            if mark in ("x", "m") and sequence not in ("BACKGROUND", "wears_glasses"):
                yield (participant, sequence), f"{_SEQUENCES}:{line} {participant} {sequence}"
