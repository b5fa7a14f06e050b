import numpy as np
import pyarrow.compute as pc

from curation.audit_page.strata import stratify
from curation.redecide import FAILED, NO_RULE, OUTCOMES, recorded
from tests.curation.large_ledgers import made_up_ledger

TABLE = made_up_ledger(4000)
DECISIONS = recorded(TABLE)
DATASET = np.asarray(pc.index_in(TABLE["dataset"], pc.unique(TABLE["dataset"])))
FURTHER = np.arange(4000) % 10 == 0


def test_every_row_is_in_one_stratum_of_rows_that_met_the_same():
    strata = stratify(DATASET, DECISIONS, FURTHER)
    assert sum(stratum.size for stratum in strata) == 4000
    rows = np.concatenate([stratum.rows for stratum in strata])
    assert sorted(rows) == np.flatnonzero(DECISIONS.outcome != FAILED).tolist()
    for stratum in strata:
        assert set(DATASET[stratum.rows]) <= {stratum.dataset}
        assert set(DECISIONS.rule[stratum.rows]) <= {stratum.rule}
        assert {OUTCOMES[o] for o in DECISIONS.outcome[stratum.rows]} <= {stratum.outcome}
        assert set(FURTHER[stratum.rows]) <= {stratum.further}


def test_a_sample_is_about_as_large_as_asked_and_takes_rare_outcomes_whole():
    strata = stratify(DATASET, DECISIONS, FURTHER, most_rows=800)
    assert 600 < sum(len(stratum.rows) for stratum in strata) < 1600
    for stratum in strata:
        assert len(set(stratum.rows)) == len(stratum.rows) <= stratum.size
        if stratum.size <= 800 // len(strata) and stratum.outcome != "failed":
            assert len(stratum.rows) == stratum.size
    largest = max(strata, key=lambda stratum: stratum.size)
    assert (largest.outcome, largest.rule) == ("kept", NO_RULE)
    assert len(largest.rows) < largest.size


def test_the_sample_is_the_same_every_time():
    once, again = (stratify(DATASET, DECISIONS, FURTHER, most_rows=800) for _ in range(2))
    assert all(np.array_equal(a.rows, b.rows) for a, b in zip(once, again, strict=True))
