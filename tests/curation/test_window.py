import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from curation.character import CharacterConfig, stretches
from curation.window import WindowConfig, candidate_windows, pad_to_window, top_windows

WINDOW, CHARACTER = WindowConfig(stride=24), CharacterConfig()
ALL = np.ones(400, bool)


def test_windows_of_49_begin_every_24_frames_and_one_ends_with_the_stretch() -> None:
    assert candidate_windows((10, 130), ALL, WINDOW, CHARACTER) == [(10, 59), (34, 83), (58, 107), (81, 130)]


def test_a_stretch_of_one_window_has_one() -> None:
    assert candidate_windows((5, 54), ALL, WINDOW, CHARACTER) == [(5, 54)]


@pytest.mark.parametrize(("frames", "windows"), [(32, []), (33, [(7, 40)]), (48, [(7, 55)])])
def test_a_shorter_stretch_is_one_short_window_down_to_33_frames(frames: int, windows: list[tuple[int, int]]) -> None:
    assert candidate_windows((7, 7 + frames), ALL, WINDOW, CHARACTER) == windows


def test_a_window_needs_the_face_in_95_percent_of_its_frames() -> None:
    found = ALL.copy()
    found[[20, 30]] = False  # 47 of 49
    assert candidate_windows((0, 49), found, WINDOW, CHARACTER) == [(0, 49)]
    found[40] = False  # 46 of 49
    assert candidate_windows((0, 49), found, WINDOW, CHARACTER) == []


def test_a_window_needs_the_face_in_its_first_and_last_frame() -> None:
    found = ALL.copy()
    found[24] = False
    assert (24, 73) not in candidate_windows((0, 100), found, WINDOW, CHARACTER)
    assert (0, 49) in candidate_windows((0, 100), found, WINDOW, CHARACTER)
    found = ALL.copy()
    found[48] = False
    assert (0, 49) not in candidate_windows((0, 100), found, WINDOW, CHARACTER)
    assert (24, 73) in candidate_windows((0, 100), found, WINDOW, CHARACTER)


@given(
    flags=st.lists(st.tuples(st.integers(0, 19).map(bool), st.integers(0, 59).map(lambda n: n == 0)), max_size=300),
    stride=st.integers(1, 60),
    min_frames=st.integers(2, 49),
)
def test_windows_never_cross_a_start_and_always_show_the_face(
    flags: list[tuple[bool, bool]], stride: int, min_frames: int
) -> None:
    found, starts = np.array([f for f, _ in flags], bool), np.array([s for _, s in flags], bool)
    config = WindowConfig(stride=stride, min_frames=min_frames)
    for low, high in stretches(found, starts, CHARACTER.max_gap):
        windows = candidate_windows((low, high), found, config, CHARACTER)
        assert windows == sorted(set(windows))
        for start, stop in windows:
            assert low <= start < stop <= high
            assert min_frames <= stop - start <= 49
            assert stop - start == 49 or (start, stop) == (low, high)
            assert not starts[start + 1 : stop].any()
            assert found[start]
            assert found[stop - 1]
            assert found[start:stop].sum() >= 0.95 * (stop - start)
            gap = CHARACTER.max_gap + 1
            assert all(found[i : i + gap].any() for i in range(start, stop - gap + 1))


def test_the_default_stride_lets_neighbours_share_less_than_half_of_their_frames() -> None:
    windows = candidate_windows((0, 200), ALL, WindowConfig(), CHARACTER)
    assert windows[:2] == [(0, 49), (25, 74)]
    assert top_windows(windows, [1.0] * len(windows), 100) == list(range(len(windows) - 1)), (
        "the last one ends the stretch"
    )


def test_windows_are_taken_by_their_scores_up_to_the_most() -> None:
    windows = [(0, 49), (49, 98), (98, 147), (200, 240)]
    assert top_windows(windows, [1.0, 3.0, 2.0, 2.5], 3) == [1, 3, 2]


def test_of_equal_windows_the_earlier_is_taken() -> None:
    assert top_windows([(0, 49), (60, 109), (120, 169)], [1.0, 2.0, 2.0], 2) == [1, 2]


@pytest.mark.parametrize(("start", "taken"), [(24, [0]), (25, [0, 1])])
def test_a_window_that_shares_more_than_half_with_a_better_one_is_passed_over(start: int, taken: list[int]) -> None:
    assert top_windows([(0, 49), (start, start + 49)], [2.0, 1.0], 2) == taken  # 25 or 24 of 49


@given(
    spans=st.lists(st.tuples(st.integers(0, 300), st.integers(33, 49), st.floats(0, 3)), max_size=25),
    most=st.integers(1, 6),
)
def test_no_better_window_is_left_out_without_a_reason(spans: list[tuple[int, int, float]], most: int) -> None:
    windows, scores = [(start, start + length) for start, length, _ in spans], [score for *_, score in spans]
    taken = top_windows(windows, scores, most)

    def shared(a: int, b: int) -> float:
        return len({*range(*windows[a])} & {*range(*windows[b])}) / 49

    assert [scores[i] for i in taken] == sorted((scores[i] for i in taken), reverse=True)
    assert len(taken) <= most
    assert all(shared(a, b) <= 0.5 for a in taken for b in taken if a != b)
    for other in set(range(len(windows))) - set(taken):
        better = [i for i in taken if scores[i] >= scores[other]]
        assert len(better) == most or any(shared(i, other) > 0.5 for i in better)


@given(st.integers(1, 49))
def test_padding_repeats_the_last_frame_to_49(count: int) -> None:
    padded = pad_to_window(np.arange(100, 100 + count))
    assert padded.tolist() == [min(100 + i, 99 + count) for i in range(49)]


@pytest.mark.parametrize("bad", [{"most": 0}, {"stride": 0}, {"min_frames": 1}, {"min_frames": 50}])
def test_settings_that_make_no_window_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        WindowConfig.model_validate(bad)
