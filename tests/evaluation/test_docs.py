"""The documentation names every metric, every network and the modes that there are."""

import re
from pathlib import Path

import pytest

from evaluation.metrics import METRICS

_DOCS = Path(__file__).parents[2] / "docs" / "evaluation.md"

pytestmark = pytest.mark.skipif(not _DOCS.exists(), reason="docs are part of the checkout only")


def test_every_metric_is_explained_and_none_that_there_is_not():
    cells = re.findall(r"^\| (`[^|]+`) \|", _DOCS.read_text("utf-8"), re.MULTILINE)
    named = {name for cell in cells for name in re.findall("`([^`]+)`", cell)}
    turns = {"relative_yaw_deg", "relative_pitch_deg", "relative_roll_deg", "relative_pose_deg"}
    assert "relative_…_deg" in named
    assert METRICS.keys() - turns <= named


def test_every_network_is_listed_with_what_it_is_for():
    listed = _DOCS.read_text("utf-8").partition("## Networks that you supply")[2].partition("\n## ")[0]
    for metric in METRICS.values():
        for network in metric.needs:
            assert f"| `{network}` |" in listed
            row = next(line for line in listed.splitlines() if line.startswith(f"| `{network}` |"))
            assert metric.name in row or "all of `legacy`" in row, metric.name
