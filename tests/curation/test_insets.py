import cv2
import numpy as np
import pytest

from curation.insets import InsetConfig, InsetFinder
from landmarks.landmarker import Box

LIMIT = InsetConfig().max_support
WHOLE = (0, 0, 640, 360)
FACE = Box(270, 110, 350, 210)
WINDOW = (150, 50, 470, 310)  # x0, y0, x1, y1


def looks(count: int = 8) -> list[np.ndarray]:
    """Soft shapes that move, so that no edge stands still."""
    rng = np.random.default_rng(2)
    noise = cv2.GaussianBlur(rng.normal(0, 1, (360, 640 + 40 * count, 3)), (0, 0), 12)
    noise = (128 + 100 * noise / np.abs(noise).max()).astype(np.uint8)
    return [noise[:, 40 * i : 40 * i + 640].copy() for i in range(count)]


def support(frames: list[np.ndarray], face: Box = FACE, content: tuple[int, int, int, int] = WHOLE) -> float:
    finder = InsetFinder()
    for frame in frames:
        finder.add(frame)
    return finder.support(face, content)


def in_a_window(frames: list[np.ndarray], border: int, colour: int) -> list[np.ndarray]:
    x0, y0, x1, y1 = WINDOW
    behind = np.random.default_rng(3).integers(0, 50, (360, 640, 3), np.uint8)
    result = []
    for frame in frames:
        shown = behind.copy()
        shown[y0 - border : y1 + border, x0 - border : x1 + border] = colour
        shown[y0:y1, x0:x1] = frame[y0:y1, x0:x1]
        result.append(shown)
    return result


@pytest.mark.parametrize(("border", "colour"), [(2, 0), (4, 255), (6, 128)])
def test_a_face_in_a_window_with_a_border_is_in_an_inset(border: int, colour: int) -> None:
    assert support(in_a_window(looks(), border, colour)) > LIMIT


def test_the_picture_itself_is_no_inset() -> None:
    assert support(looks()) == 0
    framed = [
        cv2.copyMakeBorder(f[4:-4, 4:-4], 4, 4, 4, 4, cv2.BORDER_CONSTANT, value=(255, 255, 255)) for f in looks()
    ]
    assert support(framed) == 0


def test_the_edge_of_the_content_is_no_window_within_it() -> None:
    x0, y0, x1, y1 = WINDOW
    framed = in_a_window(looks(), 2, 0)
    assert support(framed, content=(x0, y0, x1 - x0, y1 - y0)) < LIMIT


def test_a_door_or_a_board_behind_a_person_is_no_window() -> None:
    """Its lower side is hidden by the person's body."""
    frames = looks()
    for i, frame in enumerate(in_a_window(frames, 3, 255)):
        frame[210:, 230:390] = frames[i][210:, 230:390]
        frames[i] = frame
    assert support(frames) < LIMIT


def test_a_backdrop_full_of_edges_that_stand_still_is_no_window() -> None:
    wall = np.random.default_rng(4).integers(0, 256, (360, 640, 3), np.uint8)
    frames = [wall.copy() for _ in range(8)]
    for frame, moving in zip(frames, looks(), strict=True):
        frame[90:, 230:390] = moving[90:, 230:390]
    assert support(frames) < LIMIT


def test_a_window_elsewhere_is_not_around_the_face() -> None:
    assert support(in_a_window(looks(), 3, 255), face=Box(500, 110, 580, 210)) < LIMIT


def test_edges_that_come_and_go_are_no_frame() -> None:
    moving = looks()
    mixed = in_a_window(moving[:3], 3, 255) + moving[3:]
    assert support(mixed) < LIMIT


def test_the_size_of_the_source_does_not_matter() -> None:
    large = [cv2.resize(f, (1920, 1080), interpolation=cv2.INTER_NEAREST) for f in in_a_window(looks(4), 2, 255)]
    face = Box(*(3 * np.array([FACE.x0, FACE.y0, FACE.x1, FACE.y1])))
    assert support(large, face, (0, 0, 1920, 1080)) > LIMIT


def test_without_looks_and_at_the_edge_of_the_picture_there_is_nothing() -> None:
    assert InsetFinder().support(FACE, WHOLE) == 0
    assert support(looks(2), Box(-40, -20, 60, 80)) == 0
    assert support(looks(2), Box(0, 0, 640, 360)) == 0
