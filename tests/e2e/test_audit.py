"""A dataset of a true run, asked what other thresholds would have kept, and made into what they keep."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.command import faceloom

pytestmark = pytest.mark.e2e


def asked(*arguments: str | Path) -> Any:
    return json.loads(faceloom(*arguments, "--json").stdout)


def test_under_its_own_settings_a_run_is_what_it_was(undisturbed: Path) -> None:
    found = asked("what-if", undisturbed)
    assert found["moves"] == found["changes"] == []
    assert found["before"] == found["now"]
    assert found["now"]["kept"] == 2


def test_a_threshold_between_two_clips_keeps_one_of_them(undisturbed: Path, tmp_path: Path) -> None:
    query = "SELECT source_key, yaw_p95_deg FROM ledger WHERE outcome = 'kept' ORDER BY yaw_p95_deg"
    calm, turning = asked("audit", "sql", undisturbed, query)
    limit = (calm["yaw_p95_deg"] + turning["yaw_p95_deg"]) / 2
    new = tmp_path / "new"
    faceloom("audit", "apply", undisturbed, "--set", f"motion.max_yaw_deg={limit}", "--out", new)
    assert "as it was written" in faceloom("verify", new).stdout
    assert [row["source_key"] for row in asked("audit", "sql", new, query)] == [calm["source_key"]]
    story = asked("explain", new, turning["source_key"])
    assert (story["outcome"]["rule"], story["outcome"]["threshold"]) == ("yaw", limit)
    assert story["made_by"]["redecided_from"]
