import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from curation.audit_page.histograms import histogram, round_step

numbers = st.floats(-1e6, 1e6, allow_nan=False)


@given(arrays(np.float64, st.integers(1, 300), elements=numbers | st.just(np.nan)), st.data())
def test_every_measured_row_is_in_one_bin_on_its_side(values: np.ndarray, data: st.DataObject):
    kept = data.draw(arrays(np.bool_, len(values)))
    made = histogram(values, kept)
    measured = np.isfinite(values)
    if not measured.any():
        assert made is None
        return
    assert made is not None
    assert sum(made.kept) == np.sum(measured & kept)
    assert sum(made.others) == np.sum(measured & ~kept)
    assert len(made.kept) == len(made.others) <= 60


def test_bins_hold_what_lies_between_their_edges():
    values = np.random.default_rng(0).normal(20, 5, 5000)
    made = histogram(values, np.ones(5000, bool))
    assert made is not None
    edges = made.low + made.step * np.arange(len(made.kept) + 1)
    expected = np.histogram(values, [-np.inf, *edges[1:-1], np.inf])[0]
    assert made.kept == expected.tolist()
    assert made.below == np.sum(values < edges[0])
    assert made.above == np.sum(values >= edges[-1])


@pytest.mark.parametrize("values", [[5e-324], [0.0, 5e-324], [2e-308, 4e-308]])
def test_numbers_next_to_zero_have_bins(values: list[float]):
    made = histogram(np.array(values), np.ones(len(values), bool))
    assert made is not None
    assert sum(made.kept) == len(values)


def test_a_threshold_is_always_in_the_picture():
    made = histogram(np.linspace(1, 2, 50), np.ones(50, bool), [9.0])
    assert made is not None
    assert made.low <= 1
    assert made.low + made.step * len(made.kept) > 9


def test_counts_have_a_bin_for_each_number():
    values = np.array([0.0, 1, 1, 2, 5])
    made = histogram(values, np.ones(5, bool), countable=True)
    assert made is not None
    assert (made.low, made.step, made.kept, made.whole) == (0.0, 1.0, [1, 2, 1, 0, 0, 1], True)
    shares = histogram(np.array([0.0, 1, 1]), np.ones(3, bool))
    assert shares is not None
    assert not shares.whole


@pytest.mark.parametrize(("at_least", "step"), [(0.03, 0.05), (1, 1), (1.01, 2), (5.5, 10), (0.1, 0.1), (1e-7, 1e-7)])
def test_steps_are_round(at_least: float, step: float):
    assert round_step(at_least) == step
