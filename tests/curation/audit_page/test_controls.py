import pytest

from curation.audit_page.controls import control, settings_read
from curation.config import CurationConfig
from curation.expressions import settings_in
from curation.rules import RULES

CONFIG = CurationConfig()


def test_there_is_a_control_for_every_setting_that_a_rule_reads():
    read = {path for rule in RULES for path in settings_in(rule.value) | settings_in(rule.threshold)}
    assert sorted(settings_read(RULES)) == sorted(read)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("window.min_frames", {"kind": "whole", "least": 2, "most": 49, "value": 33}),
        ("motion.min_head_range_deg", {"kind": "number", "above": 0, "value": 8.0}),
        ("motion.mode", {"kind": "word", "words": ["any", "all"], "value": "any"}),
        ("motion.max_yaw_deg", {"kind": "number", "value": 45.0}),
    ],
)
def test_a_control_knows_what_the_configuration_takes(path: str, expected: dict[str, object]):
    assert control(path, CONFIG) == {"path": path, "optional": False, **expected}
