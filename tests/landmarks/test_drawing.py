import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mediapipe.tasks.python.components.containers.landmark import NormalizedLandmark
from mediapipe.tasks.python.vision import FaceLandmarksConnections, drawing_utils

from landmarks.drawing import STYLES, draw, draw_clip, draw_on

GRID = np.stack(np.meshgrid(np.arange(24), np.arange(20)), axis=-1).reshape(-1, 2)[:478]
SPREAD = GRID * [29.0, 23.0] + 12.5  # px of a 480×720 picture; no two landmarks nearer than 23 px

# What the released code asks MediaPipe to draw, written down a second time: edges to colour, in the order of drawing.
# Where it gives an edge a second colour, the edge keeps its place, as a dictionary's key does.
Edges = dict[tuple[int, int], tuple[int, int, int]]
BLACK = (0, 0, 0)
LIP_COLOURS = {
    "outer bottom": [(10, 180, 20), (20, 10, 180)],
    "inner bottom": [(100, 100, 30), (100, 150, 50)],
    "outer top": [(20, 80, 100), (80, 100, 20)],
    "inner top": [(120, 100, 200), (150, 120, 100)],
}


def stock(part: str) -> list[tuple[int, int]]:
    return [(edge.start, edge.end) for edge in getattr(FaceLandmarksConnections, f"FACE_LANDMARKS_{part}")]


def lips(*parts: str) -> Edges:
    quarters = np.array(stock("LIPS")).reshape(4, 2, 5, 2)  # outer bottom and top, inner bottom and top; halves; edges
    where = dict(zip(["outer bottom", "outer top", "inner bottom", "inner top"], quarters, strict=True))
    return {
        (int(a), int(b)): colour
        for part in parts
        for half, colour in zip(where[part], LIP_COLOURS[part], strict=True)
        for a, b in half
    }


def a1_3d() -> Edges:
    right_eye = [144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246, 33, 7, 163, 144]
    called_oval = [144, 145, 153, 154, 155, 157, 158, 159, 160, 161, 33, 7, 163, 144]
    left_eye = [362, 382, 381, 380, 374, 373, 390, 249, 263, 466, 388, 387, 386, 385, 384, 398, 362]
    edges: Edges = dict.fromkeys(itertools.pairwise(called_oval), BLACK)
    edges |= dict.fromkeys(itertools.pairwise(left_eye), (180, 200, 10))
    edges |= dict.fromkeys([(b, a) for a, b in stock("LEFT_EYEBROW")], (180, 220, 10))
    edges |= dict.fromkeys(itertools.pairwise(right_eye), (10, 200, 180))
    edges |= dict.fromkeys(stock("RIGHT_EYEBROW"), (10, 220, 180))
    return edges | lips("outer bottom", "inner bottom", "outer top", "inner top")


def a1_2d() -> Edges:
    edges: Edges = dict.fromkeys(stock("LEFT_EYE"), (180, 200, 10))
    edges |= dict.fromkeys(stock("RIGHT_EYE"), (10, 200, 180))
    edges |= dict.fromkeys(stock("LEFT_EYEBROW"), (180, 220, 10))
    edges |= dict.fromkeys(stock("RIGHT_EYEBROW"), (10, 220, 180))
    return edges | lips("outer bottom", "inner bottom", "outer top", "inner top")


def fye() -> Edges:
    forehead = {10, 338, 297, 332, 284, 54, 103, 67, 109}
    edges: Edges = dict.fromkeys([edge for edge in stock("FACE_OVAL") if not forehead & set(edge)], BLACK)
    edges |= dict.fromkeys(stock("LEFT_EYE"), (180, 200, 10))
    edges |= dict.fromkeys(stock("LEFT_EYEBROW"), (180, 220, 10))
    edges |= dict.fromkeys(stock("RIGHT_EYE"), (10, 200, 180))
    edges |= dict.fromkeys(stock("RIGHT_EYEBROW"), (10, 220, 180))
    return edges | lips("inner bottom", "inner top")


RELEASED = {"a1_3d": a1_3d(), "a1_2d": a1_2d(), "fye": fye()}
# Landmark, colour, and the pixels before and after its own that the square takes in either direction.
RELEASED_DOTS = {
    "a1_3d": [(468, (10, 200, 250), 1, 1), (473, (250, 200, 10), 1, 1), (4, (255, 255, 255), 2, 2)],
    "a1_2d": [(468, (10, 200, 250), 1, 0), (473, (250, 200, 10), 1, 0), (4, (200, 200, 200), 2, 1)],
    "fye": [(473, (255, 0, 0), 3, 2), (468, (255, 0, 0), 3, 2)],
}
# sha256 of SPREAD drawn at 480×720. Its lines cross, so that their order shows.
GOLDEN = {
    "a1_3d": "838b93acca4f49505d1c3a794cd586547ffcac5721da3b334e10fcd643b1744e",
    "a1_2d": "7b1dca69cecf238cdd84466d495298fa623b17d5fa7cdbca0ac1fff33f9f55c1",
    "fye": "dbabe3a1ab17f131f05e1f22296da4b0bba388090b35d94b17128baccb0c8ee2",
}


def draw_as_released(canvas: np.ndarray, normalised: np.ndarray, style: str, times: int) -> None:
    """Draw one frame edge by edge with MediaPipe's routine, ``times`` the released size."""
    height, width = canvas.shape[:2]
    drawing_utils.draw_landmarks(
        canvas,
        [NormalizedLandmark(x, y) for x, y in normalised.tolist()],
        [FaceLandmarksConnections.Connection(*edge) for edge in RELEASED[style]],
        None,
        {edge: drawing_utils.DrawingSpec(colour, times) for edge, colour in RELEASED[style].items()},
    )
    for landmark, colour, before, after in RELEASED_DOTS[style]:
        x, y = normalised[landmark]
        if 0 <= x <= 1 and 0 <= y <= 1:
            column, row = min(int(x * width), width - 1), min(int(y * height), height - 1)
            side = (before + 1 + after) * times
            top, left = row - side // 2, column - side // 2
            canvas[max(top, 0) : top + side, max(left, 0) : left + side] = colour


def only(landmarks: tuple[int, ...], at: list[tuple[float, float]]) -> np.ndarray:
    points = np.full((478, 2), np.nan)
    points[list(landmarks)] = at
    return points


@given(
    style=st.sampled_from(sorted(STYLES)),
    times=st.sampled_from([1, 2]),
    reach=st.sampled_from([0.0, 0.02, 0.5]),
    unknown=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    spread=st.sampled_from([0.1, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_every_pixel_is_that_of_the_released_drawing(style, times, reach, unknown, spread, seed):
    """Faces small and large, some of their landmarks outside the picture by up to ``reach`` of it, some unknown."""
    height, width = 480 * times, 720 * times
    rng = np.random.default_rng(seed)
    normalised = 0.5 + spread * rng.uniform(-0.5 - reach, 0.5 + reach, (2, 478, 2))
    normalised[rng.random((2, 478)) < unknown] = np.nan
    frames = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)

    points_px = normalised * [width, height]
    on_black = np.zeros_like(frames)
    on_frames = frames.copy()
    for t in range(2):
        draw_as_released(on_black[t], normalised[t], style, times)
        draw_as_released(on_frames[t], normalised[t], style, times)
        np.testing.assert_array_equal(draw_on(frames[t], points_px[t], style), on_frames[t])
    np.testing.assert_array_equal(draw_clip(points_px, height, width, style), on_black)


@pytest.mark.parametrize("style", STYLES)
def test_the_picture_of_a_style_stays_what_it_was(style):
    assert hashlib.sha256(draw(SPREAD, 480, 720, style).tobytes()).hexdigest() == GOLDEN[style]


@pytest.mark.parametrize(("style", "edges"), [("a1_3d", 90), ("a1_2d", 88), ("fye", 94)])
def test_a_style_has_the_edges_of_its_release(style, edges):
    assert sum(len(line) - 1 for _, line in STYLES[style].lines) == edges


@pytest.mark.parametrize("style", STYLES)
def test_a_picture_uses_the_colours_of_its_style_and_no_other(style):
    picture = draw(SPREAD, 480, 720, style)
    assert picture.shape == (480, 720, 3)
    assert picture.dtype == np.uint8
    colours = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
    assert colours == {BLACK, *RELEASED[style].values(), *(dot[1] for dot in RELEASED_DOTS[style])}


def test_an_edge_is_one_pixel_wide_and_starts_in_the_pixel_that_holds_its_landmark():
    picture = draw(only((46, 53), [(10.9, 20.2), (30.0, 20.99)]), 480, 720)
    rows, columns = picture.any(axis=2).nonzero()
    assert set(rows) == {20}
    assert (columns.min(), columns.max()) == (10, 30)
    assert picture[20, 10].tolist() == [10, 220, 180]


def test_the_black_edges_of_the_right_eye_erase_the_eyes_edges_before_them():
    eye = [(40.5, 50.5), (60.5, 50.5)]
    for black, before, after in [((155, 157), (144, 145), (158, 159)), ((161, 33), (159, 160), (7, 163))]:
        crossing = [(50.5, 40.5), (50.5, 60.5)]
        assert not draw(only(black, crossing), 480, 720).any()
        columns = draw(only((*black, *before), crossing + eye), 480, 720).any(axis=2)[50].nonzero()[0]
        assert columns.tolist() == [*range(40, 50), *range(51, 61)]
        columns = draw(only((*black, *after), crossing + eye), 480, 720).any(axis=2)[50].nonzero()[0]
        assert columns.tolist() == [*range(40, 61)]


@pytest.mark.parametrize(("style", "shown"), [("a1_3d", False), ("a1_2d", False), ("fye", True)])
def test_only_fye_shows_an_oval_and_only_over_a_frame(style, shown):
    oval = sorted({landmark for edge in stock("FACE_OVAL") for landmark in edge})
    points = only(tuple(oval), SPREAD[oval].tolist())
    assert not draw(points, 480, 720, style).any()
    white = np.full((480, 720, 3), 255, dtype=np.uint8)
    changed = (draw_on(white, points, style) != 255).any()
    assert changed == shown


@pytest.mark.parametrize(
    ("style", "landmark", "pixels"),
    [
        ("a1_3d", 468, (49, 52)),
        ("a1_3d", 473, (49, 52)),
        ("a1_3d", 4, (48, 53)),
        ("a1_2d", 468, (49, 51)),
        ("a1_2d", 473, (49, 51)),
        ("a1_2d", 4, (48, 52)),
        ("fye", 468, (47, 53)),
        ("fye", 473, (47, 53)),
    ],
)
def test_a_dot_is_a_square_about_its_landmark(style, landmark, pixels):
    rows, columns = draw(only((landmark,), [(150.5, 50.5)]), 480, 720, style).any(axis=2).nonzero()
    assert sorted(set(rows)) == list(range(*pixels))
    assert sorted(set(columns - 100)) == list(range(*pixels))


def test_dots_lie_over_lines():
    picture = draw(only((46, 53, 4), [(10.5, 20.5), (30.5, 20.5), (20.5, 20.5)]), 480, 720)
    assert (picture[18:23, 18:23] == 255).all()


@pytest.mark.parametrize("outside", [(-0.1, 20), (720.1, 20), (30, -0.1), (30, 480.1), (np.nan, np.nan), (np.inf, 20)])
def test_an_edge_with_an_end_outside_is_left_out(outside):
    assert not draw(only((46, 53), [(10, 20), outside]), 480, 720).any()


def test_the_rest_of_a_line_is_drawn_without_the_landmark_that_is_unknown():
    at = [(10.5, 20.5), (30.5, 20.5), (np.nan, np.nan), (70.5, 20.5), (90.5, 20.5)]
    columns = draw(only((46, 53, 52, 65, 55), at), 480, 720).any(axis=2)[20].nonzero()[0]
    assert columns.tolist() == [*range(10, 31), *range(70, 91)]


def test_the_far_border_belongs_to_the_last_pixel():
    picture = draw(only((46, 53), [(720, 480), (700, 480)]), 480, 720)
    assert picture[479, 719].any()


def test_dots_at_the_border_are_cut():
    picture = draw(only((4,), [(0.0, 480.0)]), 480, 720)
    assert picture.any(axis=2).sum() == 9
    assert picture[477:, :3].all()


@pytest.mark.parametrize(("height", "times"), [(100, 1), (719, 1), (721, 2), (960, 2), (1201, 3)])
def test_lines_and_dots_grow_by_whole_factors(height, times):
    picture = draw(only((4, 46, 53), [(60.5, 60.5), (10.5, 20.5), (30.5, 20.5)]), height, 100).any(axis=2)
    assert picture[:, 60].sum() == 5 * times
    assert picture[:, 20].sum() == 2 * times - 1


def test_a_clip_is_its_frames_and_a_missing_face_is_black():
    missing = np.full((478, 2), np.nan)
    clip = draw_clip(np.stack([SPREAD, missing, SPREAD[::-1]]), 480, 720, "a1_2d")
    assert clip.shape == (3, 480, 720, 3)
    np.testing.assert_array_equal(clip[0], draw(SPREAD, 480, 720, "a1_2d"))
    assert not clip[1].any()
    np.testing.assert_array_equal(clip[2], draw(SPREAD[::-1], 480, 720, "a1_2d"))


@pytest.mark.parametrize("flipped", [False, True])
def test_drawing_on_a_frame_leaves_the_frame_alone(flipped):
    frame = np.full((480, 720, 3), 90, dtype=np.uint8)
    drawn = draw_on(frame[:, ::-1] if flipped else frame, SPREAD)
    assert (frame == 90).all()
    assert (drawn != 90).any()


def test_an_unknown_style_is_refused_by_name():
    with pytest.raises(ValueError, match=r"a1_4d.*a1_3d, a1_2d, fye"):
        draw(SPREAD, 480, 720, style="a1_4d")


def test_points_with_a_depth_are_refused():
    with pytest.raises(ValueError, match=r"\[1, 478, 2\], not \[1, 478, 3\]"):
        draw(np.zeros((478, 3)), 480, 720)
