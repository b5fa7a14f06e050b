import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.config import CurationConfig
from curation.ledger import Decision
from curation.outcome import Failed, Kept
from curation.redecide import FAILED, KEPT, NO_RULE, REJECTED, UNKNOWN, recorded, redecide, statistic_columns
from curation.rules import RULES, first_failure
from curation.sources import Clip
from curation.statistics import STATISTICS
from tests.curation.ledgers import CONFIG, ledgers, table_of
from tests.curation.test_rules import GOOD


def strict(**motion: Any) -> CurationConfig:
    return CurationConfig.model_validate({"motion": motion})


@settings(max_examples=50)
@given(ledgers)
def test_under_its_own_configuration_a_ledger_is_what_it_was(rows: list[Decision]) -> None:
    table = table_of(rows)
    before = recorded(table)
    now = redecide(statistic_columns(table), before.outcome, CONFIG)
    for name in ("outcome", "rule", "value", "threshold"):
        np.testing.assert_array_equal(getattr(now, name), getattr(before, name))


@settings(max_examples=50)
@given(ledgers, st.floats(5, 90), st.sampled_from(["any", "all"]))
def test_every_row_is_decided_as_a_worker_would_from_its_statistics(
    rows: list[Decision], max_yaw_deg: float, mode: str
) -> None:
    config = strict(max_yaw_deg=max_yaw_deg, mode=mode)
    table = table_of(rows)
    now = redecide(statistic_columns(table), recorded(table).outcome, config)
    for i, row in enumerate(rows):
        failure = first_failure(row.statistics, config)
        if isinstance(row.outcome, Failed):
            assert (now.outcome[i], now.rule[i]) == (FAILED, NO_RULE)
        elif failure is not None:
            assert (now.outcome[i], RULES[now.rule[i]].name) == (REJECTED, failure.rule)
            assert (now.value[i], now.threshold[i]) == (failure.value, failure.threshold)
        else:
            assert now.outcome[i] == (KEPT if row.outcome == Kept() else UNKNOWN)
            assert math.isnan(now.value[i])


def test_a_clip_that_was_never_measured_to_its_end_is_unknown_and_not_kept() -> None:
    clip = Clip("set", "a.mp4", "/a.mp4")
    known = {name: value for name, value in GOOD.items() if STATISTICS[name].stage in ("probe", "census")}
    known["face_height_px"] = 60.0
    rejected = first_failure(known, CONFIG)
    assert rejected is not None
    table = table_of([Decision(clip, rejected, known)])
    relaxed = CurationConfig.model_validate({"character": {"min_face_px": 50}})
    now = redecide(statistic_columns(table), recorded(table).outcome, relaxed)
    assert now.outcome.tolist() == [UNKNOWN]


def test_a_ledger_from_before_a_statistic_was_known_passes_its_rules_over() -> None:
    table = table_of([Decision(Clip("set", "a.mp4", "/a.mp4"), Kept(), dict(GOOD))]).drop_columns(["yaw_p95_deg"])
    now = redecide(statistic_columns(table), recorded(table).outcome, strict(max_yaw_deg=1))
    assert now.outcome.tolist() == [KEPT]


@pytest.mark.parametrize("rows", [0, 3])
def test_a_ledger_of_any_length_is_decided(rows: int) -> None:
    table = table_of([Decision(Clip("set", f"{i}", "/a.mp4"), Kept(), dict(GOOD)) for i in range(rows)])
    now = redecide(statistic_columns(table), recorded(table).outcome, CONFIG)
    assert now.outcome.tolist() == [KEPT] * rows
