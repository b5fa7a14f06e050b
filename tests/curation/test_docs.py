"""The documents repeat names that live in code; these tests hold them to it."""

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from curation.adapters.table import DATASETS
from curation.audit_sql import ask
from curation.config import CurationConfig
from curation.effects import effect_of, leaves
from curation.motion import MotionConfig
from curation.rules import RULES
from curation.statistics import STATISTICS
from landmarks.drawing import STYLES

_CURATION = Path(__file__).parents[2] / "docs" / "curation.md"
_LANDMARKS = _CURATION.with_name("landmarks.md")
_AUDIT = _CURATION.with_name("audit.md")
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


@pytest.mark.skipif(not _AUDIT.exists(), reason="docs are part of the checkout only")
def test_the_table_of_settings_tells_what_re_deciding_does_with_each():
    table = _AUDIT.read_text("utf-8").partition("| settings |")[2].partition("\n\n")[0]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| `")]
    said = {"threshold": "thresholds", "measurement": "the s", "nothing": "nothing", "sample": "decide no clip"}
    for setting in leaves(CurationConfig().model_dump(mode="json")):
        told = next((row[1] for row in rows if any(fnmatch(setting, n) for n in re.findall("`([^`]+)`", row[0]))), "")
        assert told.startswith(said[effect_of(setting).kind]), f"docs/audit.md misplaces {setting}"


@pytest.mark.skipif(not _AUDIT.exists(), reason="docs are part of the checkout only")
def test_the_queries_of_the_audit_can_be_asked(dataset: Path):
    (block,) = re.findall("```sql\n(.*?)```", _AUDIT.read_text("utf-8"), re.DOTALL)
    queries = re.findall("^SELECT.*$", block, re.MULTILINE)
    assert len(queries) == block.count("--")
    for query in queries:
        ask(dataset, query)


@pytest.mark.skipif(not _CURATION.exists(), reason="docs are part of the checkout only")
def test_the_table_of_noise_gives_the_noise_and_the_default_of_every_lower_limit_on_motion():
    rows = re.findall(
        r"^\| `(\w+)` \| ([\d.]+)\D*\| [^|]+ \| ([\d.]+)\D*\|$", _CURATION.read_text("utf-8"), re.MULTILINE
    )
    limits = {name[4:]: value for name, value in MotionConfig().model_dump().items() if name.startswith("min_")}
    assert {name: float(limit) for name, _, limit in rows} == limits
    assert {name: float(noise) for name, noise, _ in rows} == {name: STATISTICS[name].noise for name in limits}
