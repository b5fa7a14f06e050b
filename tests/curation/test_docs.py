"""The documents repeat names that live in code; these tests hold them to it."""

import re
from pathlib import Path

import pytest

from curation.adapters.table import DATASETS
from curation.rules import RULES
from landmarks.drawing import STYLES

_CURATION = Path(__file__).parents[2] / "docs" / "curation.md"
_LANDMARKS = _CURATION.with_name("landmarks.md")
_DATASETS = _CURATION.with_name("datasets.md")


@pytest.mark.skipif(not _CURATION.exists(), reason="docs are part of the checkout only")
def test_the_table_of_rules_names_every_rule_in_order_with_its_stage():
    documented = re.findall(
        r"^\| `(\w+)` \| (probe|census|track|window) \|", _CURATION.read_text("utf-8"), re.MULTILINE
    )
    assert documented == [(rule.name, rule.stage) for rule in RULES]


@pytest.mark.skipif(not _LANDMARKS.exists(), reason="docs are part of the checkout only")
def test_the_table_of_styles_names_every_style():
    styles = _LANDMARKS.read_text("utf-8").partition("## Styles")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)`", styles, re.MULTILINE) == list(STYLES)


@pytest.mark.skipif(not _DATASETS.exists(), reason="docs are part of the checkout only")
def test_the_table_of_datasets_has_the_licence_and_the_origin_of_each():
    listed = _DATASETS.read_text("utf-8").partition("## What is listed")[2]
    documented = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|$", listed, re.MULTILINE)
    assert documented == [(dataset.name, dataset.licence, dataset.origin) for dataset in DATASETS]
