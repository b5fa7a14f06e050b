import pytest

from curation.audit_page.limits import describe, limits
from curation.config import CurationConfig
from curation.expressions import (
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
from curation.rules import RULES, Rule

YAW, PITCH = statistic("yaw_p95_deg"), statistic("pitch_p95_deg")
MOST_YAW, MOST_PITCH = setting("motion.max_yaw_deg"), setting("motion.max_pitch_deg")


def texts(rule: Rule) -> list[str]:
    return [
        f"{describe(one.value)} {'<=' if one.at_most else '>='} {describe(one.threshold)}" for one in limits([rule])
    ]


def rule(value, threshold, at_most=True) -> Rule:  # type: ignore[no-untyped-def]
    return Rule("rule", "window", value, threshold, at_most)


@pytest.mark.parametrize(
    ("of", "found"),
    [
        (rule(YAW, MOST_YAW), ["yaw_p95_deg <= motion.max_yaw_deg"]),
        (rule(abs(YAW), MOST_YAW), ["|yaw_p95_deg| <= motion.max_yaw_deg"]),
        (rule(YAW / MOST_YAW, constant(1)), ["yaw_p95_deg <= motion.max_yaw_deg"]),
        (rule(YAW / MOST_YAW, constant(2)), ["yaw_p95_deg <= 2 * motion.max_yaw_deg"]),
        (
            rule(maximum(YAW / MOST_YAW, PITCH / MOST_PITCH), constant(1), at_most=False),
            ["yaw_p95_deg >= motion.max_yaw_deg", "pitch_p95_deg >= motion.max_pitch_deg"],
        ),
        (
            rule(
                choice("motion.mode", any=YAW / MOST_YAW, all=minimum(PITCH / MOST_PITCH, YAW / MOST_YAW)), constant(1)
            ),
            ["yaw_p95_deg <= motion.max_yaw_deg", "pitch_p95_deg <= motion.max_pitch_deg"],
        ),
        (
            rule(where(YAW < MOST_YAW, PITCH, 0), MOST_PITCH),
            ["yaw_p95_deg >= motion.max_yaw_deg", "pitch_p95_deg <= motion.max_pitch_deg"],
        ),
        (rule(YAW - MOST_YAW, constant(0)), []),
    ],
    ids=lambda value: describe(value.value) if isinstance(value, Rule) else "",
)
def test_a_rule_is_taken_apart_into_statistics_and_their_thresholds(of: Rule, found: list[str]):
    assert texts(of) == found


def test_every_limit_has_statistics_on_one_side_and_settings_on_the_other():
    found = limits(RULES)
    assert len(found) == len(set(found)) >= len(RULES)
    for limit in found:
        assert statistics_in(limit.value)
        assert not settings_in(limit.value)
        assert not statistics_in(limit.threshold)


def test_a_clip_that_keeps_every_limit_of_a_rule_passes_it():
    config = CurationConfig()
    for one in RULES:
        of_rule = [limit for limit in limits([one]) if len(statistics_in(limit.value)) == 1]
        at = {
            name: float(evaluate(limit.threshold, {}, config))
            for limit in of_rule
            for name in statistics_in(limit.value)
        }
        if statistics_in(one.value) <= at.keys():
            value, threshold = (float(evaluate(side, at, config)) for side in (one.value, one.threshold))
            assert value <= threshold + 1e-9 if one.at_most else value >= threshold - 1e-9
