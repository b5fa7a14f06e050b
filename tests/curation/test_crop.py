import cv2
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from curation.crop import (
    CropConfig,
    CropWindow,
    choose_window,
    choose_window_without,
    outside_share,
    render_window,
)
from landmarks.landmarker import Box
from landmarks.record import to_crop
from shards.schema import HEIGHT, WIDTH

MODES = ("wide", "portrait", "mix")


def head_union(boxes: np.ndarray) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of the heads of ``boxes[T, 4]``: each box grown by a quarter of its width at the sides,
    0.45 of its height at the top and 0.2 at the bottom; 2 % of the frames may stick out on every side."""
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    return (
        float(np.quantile(boxes[:, 0] - w / 4, 0.02)),
        float(np.quantile(boxes[:, 1] - 0.45 * h, 0.02)),
        float(np.quantile(boxes[:, 2] + w / 4, 0.98)),
        float(np.quantile(boxes[:, 3] + h / 5, 0.98)),
    )


def still(x: float, y: float, size: float, frames: int = 49) -> np.ndarray:
    return np.tile([x - 0.4 * size, y - 0.5 * size, x + 0.4 * size, y + 0.5 * size], (frames, 1))


@st.composite
def scenes(draw: st.DrawFn) -> tuple[np.ndarray, int, int]:
    """Boxes of one moving face in a source of any size; the face may be large and may leave the frame a little."""
    width, height = draw(st.integers(120, 4000)), draw(st.integers(120, 2400))
    size = draw(st.floats(0.05, 0.9)) * height
    centre = np.array([draw(st.floats(0.05, 0.95)) * width, draw(st.floats(0.05, 0.95)) * height])
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    travel = draw(st.floats(0, 0.2)) * size
    path = centre + rng.uniform(-travel, travel, (49, 2))
    sizes = size * rng.uniform(0.95, 1.05, (49, 1))
    return np.hstack([path - sizes * [0.4, 0.5], path + sizes * [0.4, 0.5]]), width, height


@given(scene=scenes(), mode=st.sampled_from(MODES), clip_id=st.text("0123456789abcdef", min_size=16, max_size=16))
def test_a_window_is_3_to_2_and_lies_in_the_frame_unless_it_has_bars(
    scene: tuple[np.ndarray, int, int], mode: str, clip_id: str
) -> None:
    boxes, width, height = scene
    face = float(np.median(boxes[:, 3] - boxes[:, 1]))
    window = choose_window(boxes, face, (0, 0, width, height), clip_id, CropConfig(mode=mode))
    assert window.w * HEIGHT == window.h * WIDTH
    assert window.mode in ("wide", "portrait")
    assert window.y >= 0
    assert window.y + window.h <= height
    if window.w <= width:
        assert window.x >= 0
        assert window.x + window.w <= width
        assert window.pad_share == 0
    else:  # all columns of the source are shown, between bars
        assert window.x <= 0
        assert window.x + window.w >= width
        assert window.pad_share == pytest.approx(1 - width / window.w)


@given(scene=scenes(), mode=st.sampled_from(MODES), clip_id=st.text("0123456789abcdef", min_size=16, max_size=16))
def test_a_window_holds_the_head_of_every_frame_where_it_fits(
    scene: tuple[np.ndarray, int, int], mode: str, clip_id: str
) -> None:
    boxes, width, height = scene
    face = float(np.median(boxes[:, 3] - boxes[:, 1]))
    left, top, right, bottom = head_union(boxes)
    least = max(1.05 * (bottom - top), 1.05 * (right - left) / 1.5, face / 0.65)
    assume(least <= min(height, width / 1.5) - 4)  # windows are multiples of 4 px high
    window = choose_window(boxes, face, (0, 0, width, height), clip_id, CropConfig(mode=mode))
    assert window.h >= least
    slack = 1  # whole px
    assert window.x <= max(0, left) + slack
    assert window.x + window.w >= min(width, right) - slack
    assert window.y <= max(0, top) + slack
    assert window.y + window.h >= min(height, bottom) - slack


@given(scene=scenes(), clip_id=st.text("0123456789abcdef", min_size=16, max_size=16))
def test_no_mode_asks_for_more_enlargement_than_is_allowed_where_the_source_has_the_lines(
    scene: tuple[np.ndarray, int, int], clip_id: str
) -> None:
    boxes, width, height = scene
    assume(min(height, width / 1.5) >= 364)
    for mode in MODES:
        for limit in (4 / 3, 1.33, 1.32):
            config = CropConfig(mode=mode, max_upscale=limit)
            window = choose_window(boxes, float(boxes[0, 3] - boxes[0, 1]), (0, 0, width, height), clip_id, config)
            assert window.upscale <= limit


def test_360_lines_are_enough_by_default() -> None:
    window = choose_window(still(320, 150, 100), 100, (0, 0, 640, 360), "0", CropConfig(mode="wide"))
    assert (window.w, window.h) == (540, 360)
    assert window.upscale <= CropConfig().max_upscale


def test_wide_is_the_largest_window_and_follows_the_face_sideways() -> None:
    config = CropConfig(mode="wide")
    assert choose_window(still(960, 500, 300), 300, (0, 0, 1920, 1080), "0", config) == CropWindow(
        150, 0, 1620, 1080, "wide", (0, 1920)
    )
    assert choose_window(still(400, 500, 300), 300, (0, 0, 1920, 1080), "0", config).x == 0
    assert choose_window(still(1700, 500, 300), 300, (0, 0, 1920, 1080), "0", config).x == 300
    tall = choose_window(still(540, 900, 200), 200, (0, 0, 1080, 1920), "0", config)
    assert (tall.x, tall.w, tall.h) == (0, 1080, 720)
    assert tall.y == pytest.approx(900 - 0.42 * 720, abs=1)


@given(clip=st.integers(0, 10**6), size=st.floats(150, 250))
def test_portrait_lets_the_face_fill_the_share_it_draws(clip: int, size: float) -> None:
    window = choose_window(still(960, 540, size), size, (0, 0, 1920, 1080), str(clip), CropConfig(mode="portrait"))
    low, high = 0.25, 0.55
    tightest = max(1.05 * 1.65 * size, size / 0.65, 360)
    assert size / window.h <= high + 1e-9
    assert size / window.h >= low - 0.01 or window.h >= tightest
    centre = (540 - window.y) / window.h
    assert 0.3 < centre < 0.62  # near 0.42 unless the head's top or chin would be cut


def test_portrait_shares_are_spread_over_their_range() -> None:
    config = CropConfig(mode="portrait")
    shares = [160 / choose_window(still(960, 540, 160), 160, (0, 0, 1920, 1080), str(i), config).h for i in range(400)]
    assert np.quantile(shares, [0.05, 0.5, 0.95]) == pytest.approx([0.265, 0.4, 0.444], abs=0.02)  # 360 lines cap it


def test_mix_takes_either_mode_by_clip_and_always_the_same() -> None:
    config = CropConfig()
    modes = [choose_window(still(960, 540, 200), 200, (0, 0, 1920, 1080), str(i), config).mode for i in range(400)]
    again = [choose_window(still(960, 540, 200), 200, (0, 0, 1920, 1080), str(i), config).mode for i in range(400)]
    assert modes == again
    assert 0.42 < np.mean([mode == "wide" for mode in modes]) < 0.58


@pytest.mark.parametrize("mode", MODES)
def test_a_close_up_in_a_tall_source_gets_no_more_bars_than_its_head_needs(mode: str) -> None:
    size = 480
    for clip in range(20):
        window = choose_window(still(540, 900, size), size, (0, 0, 1080, 1920), str(clip), CropConfig(mode=mode))
        assert window.h == pytest.approx(1.05 * 1.65 * size, abs=4)
        assert window.x == pytest.approx((1080 - window.w) / 2, abs=1)
        assert 0 < window.pad_share < 0.5


def test_one_wild_frame_does_not_move_the_window() -> None:
    boxes = still(960, 540, 200, frames=200)
    calm = choose_window(boxes, 200, (0, 0, 1920, 1080), "7", CropConfig(mode="portrait"))
    boxes[100] += 700
    assert choose_window(boxes, 200, (0, 0, 1920, 1080), "7", CropConfig(mode="portrait")) == calm


# Faces that no crop may show.


@given(scene=scenes(), mode=st.sampled_from(MODES), clip=st.integers(0, 99), x=st.floats(0, 1), y=st.floats(0, 1))
def test_a_face_to_avoid_is_outside_or_the_window_is_what_it_would_have_been(
    scene: tuple[np.ndarray, int, int], mode: str, clip: int, x: float, y: float
) -> None:
    boxes, width, height = scene
    face = float(boxes[0, 3] - boxes[0, 1])
    config = CropConfig(mode=mode)
    other = Box(x * width, y * height, x * width + 0.1 * height, y * height + 0.12 * height)
    args = (boxes, face, (0, 0, width, height))
    window = choose_window_without(*args, [other], str(clip), config)
    plain = choose_window(*args, str(clip), config)
    assert choose_window_without(*args, [], str(clip), config) == plain
    if plain.part_inside(other) == 0:
        assert window == plain
    elif window != plain:
        assert window.part_inside(other) == 0
        assert window.upscale <= config.max_upscale
        assert window.pad_share <= config.max_pad_share
        for box in boxes:
            assert window.part_inside(Box(*box)) >= plain.part_inside(Box(*box)) - 0.25


@pytest.mark.parametrize("x", [80, 1500])
def test_a_picture_beside_a_person_with_room_is_left_out(x: int) -> None:
    boxes = still(900, 500, 250)
    other = Box(x, 300, x + 120, 450)
    for clip in range(10):
        window = choose_window_without(boxes, 250, (0, 0, 1920, 1080), [other], str(clip), CropConfig())
        assert window.part_inside(other) == 0
        assert window.part_inside(Box(*boxes[0])) == 1
        assert window.pad_share == 0


def test_a_picture_that_cannot_be_left_out_stays_in_the_window() -> None:
    boxes = still(960, 500, 600)
    other = Box(1220, 400, 1300, 500)
    window = choose_window_without(boxes, 600, (0, 0, 1920, 1080), [other], "0", CropConfig(max_pad_share=0.2))
    assert window.part_inside(other) == 1


# Landmarks are carried through the crop by arithmetic: they must land where the pixels land.


@settings(deadline=None, max_examples=60)
@given(
    scene=scenes(),
    mode=st.sampled_from([*MODES, "release"]),
    clip=st.integers(0, 99),
    spot=st.tuples(st.floats(0.1, 0.9), st.floats(0.1, 0.9)),
)
def test_a_mark_lands_where_the_landmarks_say(
    scene: tuple[np.ndarray, int, int], mode: str, clip: int, spot: tuple[float, float]
) -> None:
    boxes, width, height = scene
    assume(width * height < 2_000_000)
    window = choose_window(
        boxes, float(boxes[0, 3] - boxes[0, 1]), (0, 0, width, height), str(clip), CropConfig(mode=mode)
    )
    # A blurred dot around a place inside the window, as wide as a few px of the output.
    low, high = max(0, window.x), min(width, window.x + window.w)
    x, y = low + spot[0] * (high - low), window.y + spot[1] * window.h
    sigma = max(3.0, 3 / window.upscale)
    columns, rows = np.arange(width) + 0.5, np.arange(height) + 0.5
    dot = np.exp(-((columns - x) ** 2) / (2 * sigma**2))[None] * np.exp(-((rows - y) ** 2) / (2 * sigma**2))[:, None]
    frame = np.repeat((255 * dot).astype(np.uint8)[..., None], 3, axis=2)
    assume(min(x - low, high - x, y - window.y, window.y + window.h - y) > 3 * sigma)

    shown = render_window(frame, window)[..., 0].astype(np.float64)
    shown[shown < 40] = 0
    centre = [
        (shown.sum(0) * (np.arange(WIDTH) + 0.5)).sum() / shown.sum(),
        (shown.sum(1) * (np.arange(HEIGHT) + 0.5)).sum() / shown.sum(),
    ]
    point = np.array([[x / width, y / height, 0]])
    expected = to_crop(point, (width, height), (window.x, window.y, window.w, window.h), (WIDTH, HEIGHT))[0]
    np.testing.assert_allclose(centre, expected, atol=0.5)


@given(scene=scenes(), mode=st.sampled_from([*MODES, "release"]), clip=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_columns_called_valid_show_the_source_and_the_others_are_bars(
    scene: tuple[np.ndarray, int, int], mode: str, clip: int
) -> None:
    boxes, width, height = scene
    assume(width * height < 2_000_000)
    window = choose_window(
        boxes, float(boxes[0, 3] - boxes[0, 1]), (0, 0, width, height), str(clip), CropConfig(mode=mode)
    )
    shown = render_window(np.full((height, width, 3), 200, np.uint8), window)
    assert shown.shape == (HEIGHT, WIDTH, 3)
    x0, x1 = window.valid_x0x1
    # Interpolation lets bar and picture bleed into each other over two source px.
    bleed = int(np.ceil(2 * max(1, WIDTH / window.w)))
    inner = slice(x0 + (bleed if x0 else 0), x1 - (bleed if x1 < WIDTH else 0))
    np.testing.assert_array_equal(shown[:, inner], 200)
    np.testing.assert_array_equal(shown[:, : max(0, x0 - bleed)], 0)
    np.testing.assert_array_equal(shown[:, x1 + bleed :], 0)
    if window.pad_share == 0:
        assert (x0, x1) == (0, WIDTH)
    else:
        assert (x1 - x0) / WIDTH == pytest.approx(1 - window.pad_share, abs=2 / WIDTH)


@settings(deadline=None, max_examples=60)
@given(
    scene=scenes(),
    mode=st.sampled_from([*MODES, "release"]),
    margins=st.tuples(*[st.integers(0, 300)] * 4),
    clip=st.integers(0, 99),
)
def test_nothing_outside_the_content_is_ever_shown_and_a_source_with_bars_is_cropped_as_if_it_had_none(
    scene: tuple[np.ndarray, int, int], mode: str, margins: tuple[int, int, int, int], clip: int
) -> None:
    boxes, width, height = scene
    assume(width * height < 2_000_000)
    left, top, right, bottom = margins
    face = float(boxes[0, 3] - boxes[0, 1])
    bare = choose_window(boxes, face, (0, 0, width, height), str(clip), CropConfig(mode=mode))
    barred = choose_window(
        np.add(boxes, [left, top, left, top]), face, (left, top, width, height), str(clip), CropConfig(mode=mode)
    )
    assert (barred.w, barred.h, barred.upscale, barred.pad_share) == (bare.w, bare.h, bare.upscale, bare.pad_share)
    rng = np.random.default_rng(clip)
    picture = rng.integers(0, 200, (height, width, 3), np.uint8)
    frame = np.full((top + height + bottom, left + width + right, 3), 255, np.uint8)
    frame[top : top + height, left : left + width] = picture
    np.testing.assert_array_equal(render_window(frame, barred), render_window(picture, bare))


def test_the_part_of_a_box_inside_a_window_is_measured_on_what_is_shown() -> None:
    window = CropWindow(-30, 10, 180, 120, "wide", (0, 120))
    assert window.part_inside(Box(10, 20, 60, 70)) == 1
    assert window.part_inside(Box(-20, 20, 20, 60)) == pytest.approx(0.5)
    assert window.part_inside(Box(110, 20, 150, 60)) == pytest.approx(0.25)  # shown up to column 120
    assert window.part_inside(Box(10, 120, 20, 140)) == pytest.approx(0.5)
    assert window.part_inside(Box(121, 20, 150, 60)) == 0


@given(st.integers(1, 4000).map(lambda n: 6 * n))
def test_without_bars_every_column_is_valid(width: int) -> None:
    assert CropWindow(3, 0, width, width * 2 // 3, "wide", (0, width + 9)).valid_x0x1 == (0, WIDTH)


def test_a_window_of_the_output_size_is_the_source_untouched() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (600, 900, 3), np.uint8)
    shown = render_window(frame, CropWindow(70, 60, WIDTH, HEIGHT, "wide", (0, 900)))
    np.testing.assert_array_equal(shown, frame[60 : 60 + HEIGHT, 70 : 70 + WIDTH])


# The published rule.


def published(image: np.ndarray, height: int = 480, width: int = 720) -> np.ndarray:
    """``crop_and_resize`` of the SkyReels-A1 inference script, restated literally."""
    h, w = image.shape[:2]
    if h / w < height / width:
        new_width = int(h / height * width)
        left = (w - new_width) // 2
        image = image[:, left : left + new_width]
    else:
        pad = int((1.5 * h - w) / 2)
        image = cv2.copyMakeBorder(image, 0, 0, pad, pad, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    return np.array(Image.fromarray(image).resize((width, height)))


@settings(deadline=None, max_examples=40)
@given(width=st.integers(2, 700), height=st.integers(2, 500))
@example(512, 512)
@example(1080, 1920)
@example(1920, 1080)
@example(720, 480)
@example(721, 480)
@example(719, 480)
@example(640, 360)
@example(176, 144)
def test_release_mode_is_the_published_rule_to_the_pixel(width: int, height: int) -> None:
    frame = np.random.default_rng(width * 10_000 + height).integers(0, 256, (height, width, 3), np.uint8)
    window = choose_window(still(width / 2, height / 2, 10), 10, (0, 0, width, height), "0", CropConfig(mode="release"))
    assert window.mode == "release"
    np.testing.assert_array_equal(render_window(frame, window), published(frame))


# How much of the face lies outside.


def test_outside_share_counts_frames_whose_face_leaves_by_more_than_15_percent() -> None:
    boxes = np.array(
        [
            [100, 100, 200, 200],  # inside
            [-14, 100, 86, 200],  # 14 % out
            [-16, 100, 84, 200],  # 16 % out
            [580, 420, 680, 520],  # a corner is left
            [700, 100, 800, 200],  # gone
        ],
        float,
    )
    assert outside_share(boxes, (0, 0, 640, 480)) == pytest.approx(3 / 5)


@given(scene=scenes())
def test_outside_share_agrees_with_counting_points(scene: tuple[np.ndarray, int, int]) -> None:
    boxes, width, height = scene
    steps = (np.arange(60) + 0.5) / 60
    inside = np.array(
        [
            (np.abs((x0 + steps * (x1 - x0)) / width - 0.5) <= 0.5).mean()
            * (np.abs((y0 + steps * (y1 - y0)) / height - 0.5) <= 0.5).mean()
            for x0, y0, x1, y1 in boxes
        ]
    )
    clear = np.abs(inside - 0.85) > 0.04  # the grid cannot tell closer calls
    assume(clear.all())
    assert outside_share(boxes, (0, 0, width, height)) == pytest.approx((inside < 0.85).mean())


@pytest.mark.parametrize("bad", [{"max_upscale": 0}, {"portrait_min_share": 0}, {"portrait_max_share": 1.5}])
def test_limits_that_make_no_sense_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        CropConfig.model_validate(bad)
