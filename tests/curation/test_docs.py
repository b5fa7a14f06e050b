"""The documents repeat names that live in code; these tests hold them to it."""

import re
from pathlib import Path

import pytest

from curation.rules import RULES

_CURATION = Path(__file__).parents[2] / "docs" / "curation.md"


@pytest.mark.skipif(not _CURATION.exists(), reason="docs are part of the checkout only")
def test_the_table_of_rules_names_every_rule_in_order_with_its_stage():
    documented = re.findall(
        r"^\| `(\w+)` \| (probe|census|track|window) \|", _CURATION.read_text("utf-8"), re.MULTILINE
    )
    assert documented == [(rule.name, rule.stage) for rule in RULES]
