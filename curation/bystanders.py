"""Second faces that are no second character: pictures on a wall or a screen, and the main character's own mirror image.

They are not counted against the clip, but no crop may show them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from curation.character import Census
from faceloom.config import Section
from landmarks.geometry import MESH_POINTS, CanonicalFace
from landmarks.landmarker import Box, Face

Kind = Literal["poster", "mirror"]


class BystanderConfig(Section):
    """When a second face is taken for a picture or a mirror image; both are judged over all looks at it."""

    min_looks: int = Field(6, ge=2)
    """3 s at two looks a second. A shorter appearance is a person's."""
    max_still_move: float = 0.003
    """A picture's centre deviates by less than this share of the frame's width ..."""
    max_still_activity: float = 0.03
    """... and its expression by less than this, mean over the blendshapes. Noise and compression give a still face up to
    0.021; the calmest 3 s of eight talking heads that also keep so still have 0.041."""
    max_mirror_residual: float = Field(0.015, gt=0)
    """A mirror image is the main face, flipped, at every look: mean distance of the landmarks after the best similarity
    transform, in face widths; 0.006 of a face 56 px high. Of one person at two times it is 0.02 and more, between two people
    0.026 and more, at the median 0.04 ..."""
    max_moving_residual: float = Field(0.05, gt=0)
    """... so that this much is taken only of a face that also moves as a mirror image does ..."""
    min_mirror_correlation: float = Field(0.9, ge=0, le=1)
    """... correlation of the two in y, and of the one with the other's opposite in x."""


@dataclass(frozen=True)
class Bystander:
    """A picture or mirror image, and its face at the looks that show it (positions in the census)."""

    kind: Kind
    faces: Mapping[int, Face]

    def boxes(self, times_s: np.ndarray, start_s: float, stop_s: float) -> list[Box]:
        """Its face's boxes at the looks (at ``times_s[N]``) between two times, and at the nearest on either side of them."""
        looks = np.array(sorted(self.faces))
        first = max(0, int(np.searchsorted(times_s[looks], start_s, side="right")) - 1)
        last = int(np.searchsorted(times_s[looks], stop_s, side="left"))
        return [self.faces[int(look)].box for look in looks[first : last + 1]]


def bystanders(
    census: Census, size: tuple[int, int], canonical: CanonicalFace, config: BystanderConfig
) -> list[Bystander]:
    """The pictures and mirror images of the census of a video of ``size`` (width, height) px."""
    found: list[Bystander] = []
    for track in census.tracks:
        if len(track) < config.min_looks:
            continue
        if _is_still(list(track.values()), size, config):
            found.append(Bystander("poster", track))
        elif _is_mirror(census, track, size, canonical, config):
            found.append(Bystander("mirror", track))
    return found


def without(census: Census, aside: Sequence[Bystander]) -> Census:
    """The census as if nobody had seen those ``aside``."""
    ignored = {id(face) for bystander in aside for face in bystander.faces.values()}
    others = [[face for face in present if id(face) not in ignored] for present in census.others]
    tracks = [track for track in census.tracks if not any(id(face) in ignored for face in track.values())]
    return Census(census.times_s, census.main, others, tracks)


def flipped_residual(main: np.ndarray, other: np.ndarray, mirrored: np.ndarray) -> float:
    """How far ``other`` is from the mirror image of ``main``: both ``[468, 2]`` px, in widths of the main face.

    ``mirrored[468]`` is the point on the other side of the face of each, see :func:`opposite_points`.
    """
    a = main - main.mean(axis=0)
    b = (other * [-1, 1])[mirrored]
    b = b - b.mean(axis=0)
    u, scales, vt = np.linalg.svd(b.T @ a)
    sign = np.array([1.0, np.sign(np.linalg.det(u @ vt))])
    fitted = (scales * sign).sum() / (b**2).sum() * b @ (u * sign) @ vt
    return float(np.linalg.norm(a - fitted, axis=1).mean() / np.ptp(a[:, 0]))


def opposite_points(canonical: CanonicalFace) -> np.ndarray:
    """For each of the 468 points of the mesh the one on the other side of the face."""
    flipped = canonical.vertices * [-1, 1, 1]
    return np.asarray(np.linalg.norm(flipped[:, None] - canonical.vertices[None], axis=2).argmin(axis=1))


def _is_still(faces: list[Face], size: tuple[int, int], config: BystanderConfig) -> bool:
    centres = np.array([face.box.centre for face in faces]) / size[0]
    expressions = np.stack([face.blendshapes[1:] for face in faces])
    still = centres.std(axis=0).max() < config.max_still_move
    return bool(still and expressions.std(axis=0).mean() < config.max_still_activity)


def _is_mirror(
    census: Census,
    track: Mapping[int, Face],
    size: tuple[int, int],
    canonical: CanonicalFace,
    config: BystanderConfig,
) -> bool:
    pairs = [(main, face) for look, face in track.items() if (main := census.main[look]) is not None]
    if len(pairs) < config.min_looks:
        return False
    mirrored = opposite_points(canonical)
    meshes = ([face.points[:MESH_POINTS, :2] * size for face in pair] for pair in pairs)
    residual = float(np.median([flipped_residual(main, other, mirrored) for main, other in meshes]))
    if residual < config.max_mirror_residual:
        return True
    x, y = np.array([[face.box.centre for face in pair] for pair in pairs]).transpose(2, 1, 0)
    # Of two that hardly move, the correlation is one of noise.
    if residual >= config.max_moving_residual or x.std(axis=1).min() <= config.max_still_move * size[0]:
        return False
    alike = min(-float(np.corrcoef(x)[0, 1]), float(np.corrcoef(y)[0, 1]) if y.std(axis=1).min() > 0 else 0.0)
    return alike > config.min_mirror_correlation
