"""Which of MediaPipe's 478 points make up the eyes and the lips. Left and right are the person's."""

from typing import NamedTuple


class Eye(NamedTuple):
    """One eye."""

    contour: tuple[int, ...]
    corners: tuple[int, int]
    lids: tuple[tuple[int, int], ...]  # upper over lower, without the corners
    iris: tuple[int, ...]  # centre first
    blink: int  # among the blendshapes


RIGHT_EYE = Eye(
    contour=(33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    corners=(33, 133),
    lids=((159, 145), (158, 153), (160, 144), (161, 163), (157, 154), (246, 7), (173, 155)),
    iris=(468, 469, 470, 471, 472),
    blink=10,
)
LEFT_EYE = Eye(
    contour=(362, 382, 381, 380, 374, 373, 390, 249, 263, 466, 388, 387, 386, 385, 384, 398),
    corners=(362, 263),
    lids=((386, 374), (385, 380), (387, 373), (388, 390), (384, 381), (466, 249), (398, 382)),
    iris=(473, 474, 475, 476, 477),
    blink=9,
)
EYES = (RIGHT_EYE, LEFT_EYE)

MOUTH_CORNERS = (61, 291)
# From the outer edge to the inner: a column of the upper lip over the one of the lower lip that it meets.
LIPS = (
    ((0, 11, 12, 13), (17, 16, 15, 14)),
    ((37, 72, 38, 82), (84, 85, 86, 87)),
    ((39, 73, 41, 81), (181, 180, 179, 178)),
    ((40, 74, 42, 80), (91, 90, 89, 88)),
    ((185, 184, 183, 191), (146, 77, 96, 95)),
    ((267, 302, 268, 312), (314, 315, 316, 317)),
    ((269, 303, 271, 311), (405, 404, 403, 402)),
    ((270, 304, 272, 310), (321, 320, 319, 318)),
    ((409, 408, 407, 415), (375, 307, 325, 324)),
)
