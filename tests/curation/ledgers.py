"""Ledgers of made-up clips, decided as a worker decides: for tests of what is asked of a ledger afterwards."""

from collections.abc import Sequence

import pyarrow as pa
from hypothesis import strategies as st

from curation import ledger
from curation.config import CurationConfig
from curation.ledger import Decision
from curation.outcome import Failed, Kept, Outcome
from curation.rules import first_failure
from curation.sources import Clip
from curation.statistics import STATISTICS
from tests.curation.test_rules import GOOD, TABLE

CONFIG = CurationConfig()
_STAGES = ["probe", "census", "track", "window", "flow"]
# What a statistic may be: as in a good clip, or at or beyond the threshold of some rule.
_VALUES = {
    name: st.sampled_from(
        sorted({GOOD[name], *(changed[name] for row in TABLE for changed in row[1:3] if name in changed)})
    )
    for name in GOOD
}


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    """A clip that is measured stage by stage until it breaks a rule, or fails, or is kept."""
    number = draw(st.integers(0, 2**40))
    wanted = draw(st.fixed_dictionaries(_VALUES))
    fails_in = draw(st.sampled_from([*_STAGES, None, None, None]))
    all_statistics = draw(st.booleans())
    known: dict[str, float] = {}
    rejected = None
    for stage in _STAGES:
        if stage == fails_in or (rejected and (stage == "flow" or not all_statistics)):
            break
        known |= {name: value for name, value in wanted.items() if STATISTICS[name].stage == stage}
        rejected = first_failure(known, CONFIG)
    outcome: Outcome = rejected or (Kept() if fails_in is None else Failed(fails_in, "Broken", "it broke"))
    return Decision(Clip("set", f"{number}.mp4", f"/{number}.mp4"), outcome, known)


ledgers = st.lists(decisions(), min_size=1, max_size=6)


def table_of(rows: Sequence[Decision]) -> pa.Table:
    """The decisions as the ledger holds them."""
    return pa.Table.from_pylist([ledger.row(d, 0 if d.outcome == Kept() else None) for d in rows], ledger.SCHEMA)
