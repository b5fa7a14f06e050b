import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.config import CurationConfig
from curation.expressions import (
    Expression,
    as_json,
    choice,
    constant,
    evaluate,
    maximum,
    minimum,
    setting,
    settings_in,
    statistic,
    statistics_in,
    where,
)
from tests.curation.expression_json import from_json

CONFIG = CurationConfig()
YAW, ROLL, HEIGHT = statistic("yaw_p95_deg"), statistic("roll_p95_deg"), statistic("face_height_px")
NAMES = ("yaw_p95_deg", "roll_p95_deg", "face_height_px")

numbers = st.floats(-1e6, 1e6, allow_subnormal=False)
measured = st.one_of(numbers, st.just(math.nan))
leaves = st.one_of(
    numbers.map(constant),
    st.sampled_from([YAW, ROLL, HEIGHT, setting("motion.max_yaw_deg"), setting("crop.max_upscale")]),
)


def larger(parts: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    pairs = st.tuples(parts, parts)
    return st.one_of(
        pairs.map(lambda p: p[0] + p[1]),
        pairs.map(lambda p: p[0] - p[1]),
        pairs.map(lambda p: p[0] * p[1]),
        pairs.map(lambda p: minimum(*p)),
        pairs.map(lambda p: maximum(*p)),
        pairs.map(lambda p: choice("motion.mode", any=p[0], all=p[1])),
        # By 2: the sign of a zero, which min and max need not agree about, would show in a quotient.
        parts.map(lambda p: p / 2),
        parts.map(abs),
        st.tuples(parts, parts, parts, parts).map(lambda p: where(p[0] < p[1], p[2], p[3])),
    )


expressions = st.recursive(leaves, larger, max_leaves=8)


def test_operators_mean_what_they_say() -> None:
    statistics = {"yaw_p95_deg": 6.0, "roll_p95_deg": -4.0}
    table = {
        YAW + ROLL: 2,
        1 + YAW: 7,
        YAW + 1: 7,
        YAW - ROLL: 10,
        1 - YAW: -5,
        YAW * ROLL: -24,
        2 * YAW: 12,
        YAW / ROLL: -1.5,
        3 / YAW: 0.5,
        abs(ROLL): 4,
        minimum(YAW, ROLL, 0): -4,
        maximum(0, ROLL, YAW): 6,
        where(ROLL < YAW, 1, 2): 1,
        where(ROLL > YAW, 1, 2): 2,
        where(YAW < YAW, 1, 2): 2,
        YAW - setting("motion.max_yaw_deg"): -39,
        choice("motion.mode", any=YAW, all=ROLL): 6,
    }
    assert {expression: evaluate(expression, statistics, CONFIG) for expression in table} == table


@given(expressions, st.lists(st.tuples(measured, measured, measured), min_size=1, max_size=5))
def test_columns_and_json_give_the_bits_of_each_single_clip(
    expression: Expression, rows: list[tuple[float, float, float]]
) -> None:
    clips = [dict(zip(NAMES, row, strict=True)) for row in rows]
    columns = {name: np.array([clip[name] for clip in clips]) for name in NAMES}
    single = [float(evaluate(expression, clip, CONFIG)) for clip in clips]
    np.testing.assert_array_equal(np.broadcast_to(evaluate(expression, columns, CONFIG), len(rows)), single)
    form, settings = json.loads(json.dumps(as_json(expression))), json.loads(CONFIG.model_dump_json())
    np.testing.assert_array_equal([from_json(form, clip, settings) for clip in clips], single)


@pytest.mark.parametrize(
    "expression",
    [
        YAW + ROLL,
        minimum(YAW, ROLL),
        maximum(ROLL, YAW),
        where(YAW < ROLL, 1, 2),
        where(ROLL < YAW, 1, 2),
        where(ROLL < 100, YAW, 1),
    ],
)
@pytest.mark.parametrize("missing", [{}, {"yaw_p95_deg": math.nan}])
def test_what_is_made_of_something_not_measured_is_not_measured(
    expression: Expression, missing: dict[str, float]
) -> None:
    assert math.isnan(float(evaluate(expression, {"roll_p95_deg": 1.0, **missing}, CONFIG)))


def test_the_branch_not_taken_need_not_be_measured() -> None:
    assert evaluate(where(ROLL < 100, ROLL, YAW), {"roll_p95_deg": 1.0}, CONFIG) == 1


@pytest.mark.filterwarnings("error")
def test_a_division_by_zero_is_what_the_standard_says() -> None:
    assert evaluate(YAW / ROLL, {"yaw_p95_deg": 1.0, "roll_p95_deg": 0.0}, CONFIG) == math.inf
    assert math.isnan(float(evaluate(YAW / ROLL, {"yaw_p95_deg": 0.0, "roll_p95_deg": 0.0}, CONFIG)))


def test_an_unknown_statistic_is_refused_where_it_is_written() -> None:
    with pytest.raises(KeyError, match="yaw_deg"):
        statistic("yaw_deg")


@pytest.mark.parametrize("use", [lambda: bool(YAW < 3), lambda: 1 < YAW < 3])
def test_a_comparison_outside_where_is_refused(use: Any) -> None:
    with pytest.raises(TypeError, match="where"):
        use()


def test_what_an_expression_reads_is_known() -> None:
    expression = where(setting("motion.max_yaw_deg") > YAW, choice("motion.mode", any=ROLL, all=1), abs(-1 * HEIGHT))
    assert statistics_in(expression) == set(NAMES)
    assert settings_in(expression) == {"motion.max_yaw_deg", "motion.mode"}
