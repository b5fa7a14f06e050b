import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.character import (
    Census,
    CharacterConfig,
    clear_frames,
    contested,
    face_height_px,
    runs_of,
    stretches,
    take_census,
    tolerated,
)
from landmarks.landmarker import Box, Face

CONFIG = CharacterConfig()
FRAME_AREA = 1920 * 1080


def face(x: float, y: float = 500, size: float = 200, score: float = 1.0) -> Face:
    box = Box(x - size / 2, y - size / 2, x + size / 2, y + size / 2)
    return Face(np.zeros((478, 3), np.float32), np.zeros(52, np.float32), box, score)


def census_of(*looks: list[Face]) -> Census:
    return take_census(np.arange(len(looks)) / 2, looks)


# Who is the main character.


def test_the_largest_face_over_the_whole_clip_is_the_main_one() -> None:
    near, far = face(500, size=300), face(1400, size=120)
    census = census_of(*[[far, near]] * 6)
    assert all(main is near for main in census.main)
    assert all(others == [far] for others in census.others)


def test_a_large_face_for_one_look_does_not_replace_a_smaller_one_that_stays() -> None:
    stays, passes = face(500, size=200), face(1400, size=300)
    census = census_of([stays], [stays], [stays, passes], [stays], [stays])
    assert all(main is stays for main in census.main)
    assert census.others[2] == [passes]


def test_a_face_that_moves_half_its_size_between_looks_is_followed() -> None:
    path = [face(400 + 90 * i) for i in range(8)]
    other = [face(1700, size=100) for _ in path]
    census = census_of(*[[b, a] for a, b in zip(path, other, strict=True)])
    assert all(main is step for main, step in zip(census.main, path, strict=True))


def test_two_faces_that_pass_each_other_stay_two() -> None:
    right = [face(300 + 60 * i, y=450, size=240) for i in range(12)]
    left = [face(1000 - 60 * i, y=700, size=150) for i in range(12)]
    census = census_of(*[[b, a] for a, b in zip(right, left, strict=True)])
    assert all(main is step for main, step in zip(census.main, right, strict=True))


def test_one_missed_look_does_not_end_a_track() -> None:
    small, large = face(500, size=200), face(1400, size=210)
    census = census_of([small], [small], [], [small], [small, large], [small])
    assert [main is small for main in census.main] == [True, True, False, True, True, True]


def test_the_parts_of_a_track_around_a_missed_look_weigh_together() -> None:
    main, rival = face(500, size=200), face(1400, size=150)  # 4 looks of one outweigh 6 of the other; 2 do not
    census = census_of([main, rival], [main, rival], [rival], [rival], [main, rival], [main, rival])
    assert census.main[2:4] == [rival] * 2  # two missed looks end a track
    census = census_of([main, rival], [main, rival], [rival], [main, rival], [main, rival])
    assert [found is main for found in census.main] == [True, True, False, True, True]


def test_a_character_who_leaves_and_returns_stays_the_main_one() -> None:
    before, after, other = face(400), face(1500, size=220), face(900, size=80)
    census = census_of([before, other], [before, other], [other], [other], [other], [other], [after], [after])
    assert census.main[:2] == [before] * 2
    assert census.main[6:] == [after] * 2


def test_nobody_is_nobody() -> None:
    census = census_of([], [], [])
    assert census.main == [None] * 3
    assert census.expected(0.5) is None
    assert not contested(census, FRAME_AREA, CONFIG).any()


@given(st.lists(st.lists(st.tuples(st.integers(0, 1900), st.integers(20, 400)), max_size=4), min_size=1, max_size=12))
def test_every_face_is_the_main_one_or_one_of_the_others(looks: list[list[tuple[int, int]]]) -> None:
    faces = [[face(x, size=size) for x, size in look] for look in looks]
    census = census_of(*faces)
    for present, main, others in zip(faces, census.main, census.others, strict=True):
        assert sorted(map(id, present)) == sorted(map(id, others + ([main] if main is not None else [])))


def test_between_looks_the_face_is_expected_on_the_way() -> None:
    census = census_of([face(400, size=200)], [], [face(600, size=240)])
    middle = census.expected(0.5)
    assert middle is not None
    assert middle.centre == pytest.approx((500, 500))
    assert middle.height == pytest.approx(220)
    for time_s, x in ((-1.0, 400), (0.0, 400), (1.0, 600), (9.0, 600), (0.25, 450)):
        box = census.expected(time_s)
        assert box is not None
        assert box.centre[0] == pytest.approx(x)


# Who else counts.


@pytest.mark.parametrize(
    ("size", "counts"),
    [
        (np.sqrt(0.151) * 200, True),  # of the main face's area
        (np.sqrt(0.149) * 200, False),
        (20, False),
    ],
)
def test_a_second_face_counts_from_15_percent_of_the_main_face(size: float, counts: bool) -> None:
    census = census_of([face(500, size=200), face(1500, size=size)])
    assert contested(census, FRAME_AREA, CONFIG).tolist() == [counts]


@pytest.mark.parametrize(("share", "counts"), [(0.0051, True), (0.0049, False)])
def test_a_second_face_counts_from_half_a_percent_of_the_frame(share: float, counts: bool) -> None:
    census = census_of([face(500, size=900), face(1700, size=np.sqrt(share * FRAME_AREA))])
    assert contested(census, FRAME_AREA, CONFIG).tolist() == [counts]


def test_two_equals_contest_every_look() -> None:
    assert contested(census_of(*[[face(500), face(1400)]] * 5), FRAME_AREA, CONFIG).all()


@pytest.mark.parametrize(
    ("looks", "contest", "passes"),
    [
        (8, [], True),
        (40, [20, 21], True),  # 5 %, two in a row
        (40, [20, 30, 35], False),  # 7.5 %
        (100, [20, 21, 22], False),  # three in a row
        (20, [10], True),
        (19, [10], False),
        (4, [0, 1, 2, 3], False),
    ],
)
def test_a_passer_by_is_tolerated(looks: int, contest: list[int], passes: bool) -> None:
    flags = np.zeros(looks, bool)
    flags[contest] = True
    assert tolerated(flags, CONFIG) is passes


@given(contest=st.lists(st.booleans(), min_size=1, max_size=12), step=st.integers(1, 9))
def test_a_frame_is_clear_when_the_two_looks_on_either_side_of_it_are(contest: list[bool], step: int) -> None:
    times = 5.5 + np.arange(len(contest) * step) / 12  # a look every `step` frames
    looks = times[::step]
    census = Census(looks, [None] * len(looks), [[] for _ in looks])
    clear = clear_frames(times, census, np.array(contest))
    for i in range(len(times)):
        before, after = i // step, min(-(-i // step), len(contest) - 1)
        assert clear[i] == (not any(contest[max(0, before - 1) : after + 2]))


# Runs and stretches.


def slow_stretches(found: list[bool], starts: list[bool], max_gap: int) -> list[tuple[int, int]]:
    """Frame by frame, as one would tell it."""
    result: list[list[int]] = []
    last = None
    fresh = True
    for i, (seen, start) in enumerate(zip(found, starts, strict=True)):
        fresh = fresh or (start and i > 0)
        if not seen:
            continue
        if fresh or last is None or i - last - 1 > max_gap:
            result.append([i, i + 1])
        else:
            result[-1][1] = i + 1
        last, fresh = i, False
    return [(a, b) for a, b in result]


FLAGS = st.lists(st.tuples(st.booleans(), st.integers(0, 9).map(lambda n: n == 0)), max_size=80)


@given(flags=FLAGS, max_gap=st.integers(0, 5))
def test_stretches_agree_with_the_slow_way(flags: list[tuple[bool, bool]], max_gap: int) -> None:
    found, starts = [f for f, _ in flags], [s for _, s in flags]
    result = stretches(np.array(found, bool), np.array(starts, bool), max_gap)
    assert result == slow_stretches(found, starts, max_gap)


@given(flags=FLAGS, max_gap=st.integers(0, 5))
def test_no_stretch_crosses_a_start_and_every_found_frame_is_in_one(
    flags: list[tuple[bool, bool]], max_gap: int
) -> None:
    found, starts = np.array([f for f, _ in flags], bool), np.array([s for _, s in flags], bool)
    covered = np.zeros(len(found), int)
    for start, stop in stretches(found, starts, max_gap):
        assert not starts[start + 1 : stop].any()
        assert found[start]
        assert found[stop - 1]
        covered[start:stop] += 1
    assert covered.max(initial=0) <= 1
    assert (covered[found] == 1).all()


@given(st.lists(st.booleans(), max_size=60))
def test_runs_are_maximal_and_complete(flags: list[bool]) -> None:
    runs = runs_of(np.array(flags, bool))
    assert [i for a, b in runs for i in range(a, b)] == [i for i, flag in enumerate(flags) if flag]
    assert all(b < c for (_, b), (c, _) in itertools.pairwise(runs))


def test_face_height_is_measured_in_pixels_along_the_face() -> None:
    points = np.zeros((2, 478, 3), np.float32)
    points[0, 10], points[0, 152] = (0.5, 0.2, 0), (0.5, 0.6, 0.3)
    points[1, 10], points[1, 152] = (0.1, 0.1, 0), (0.4, 0.5, 0)  # 300 px across, 200 px down
    np.testing.assert_allclose(face_height_px(points, 1000, 500), [200, np.hypot(300, 200)], rtol=1e-5)
