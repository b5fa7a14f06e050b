"""Ledgers of made-up clips, decided as a worker decides: for tests of what is asked of a ledger afterwards."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from hypothesis import strategies as st

from curation import ledger
from curation.config import CurationConfig
from curation.ledger import Decision, write_fragment, write_telemetry
from curation.outcome import Failed, Kept, Outcome
from curation.rules import first_failure
from curation.sources import Clip, write_manifest
from curation.statistics import STATISTICS
from shards.dataset import DatasetRecord, ManifestSummary, ledger_path
from shards.schema import encode_field
from shards.storage import make_folder
from shards.writer import write_layer
from tests.curation.datasets import blank_sample
from tests.curation.test_rules import GOOD, TABLE

CONFIG = CurationConfig()
_STAGES = ["probe", "census", "track", "window", "flow"]
# What may be otherwise than in a good clip: a statistic at or beyond the threshold of some rule.
_CHANGES = sorted({change for row in TABLE for changed in row[1:3] for change in changed.items()})


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    """A clip that is measured stage by stage until it breaks a rule, or fails, or is kept."""
    number = draw(st.integers(0, 2**40))
    wanted = GOOD | dict(draw(st.lists(st.sampled_from(_CHANGES), max_size=4)))
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


ledgers = st.lists(decisions(), min_size=1, max_size=4)


def table_of(rows: Sequence[Decision]) -> pa.Table:
    """The decisions as the ledger holds them."""
    return pa.Table.from_pylist([ledger.row(d, 0 if d.outcome == Kept() else None) for d in rows], ledger.SCHEMA)


def decided(number: int = 0, until: str = "flow", **changed: float) -> Decision:
    """Clip ``number`` of the set: a good one but for what is ``changed``, measured to the stage ``until``."""
    measured = _STAGES[: _STAGES.index(until) + 1]
    statistics = {name: value for name, value in {**GOOD, **changed}.items() if STATISTICS[name].stage in measured}
    clip = Clip("set", f"{number}.mp4", f"/{number}.mp4")
    return Decision(clip, first_failure(statistics, CONFIG) or Kept(), statistics)


_JPEG = b"\xff\xd8\xff"
_FILES = {"video.mp4": b"\0\0\0\x18ftyp", "face.jpg": _JPEG, "reference.jpg": _JPEG}


def write_whole_dataset(root: Path, blocks: Sequence[Sequence[Decision]]) -> DatasetRecord:
    """A finished dataset that verifies; its manifest is ``root`` with the suffix ``.parquet``."""
    for folder in ("shards", "ledger", "telemetry"):
        make_folder(root / folder)
    rows = [decision for block in blocks for decision in block]
    write_manifest([decision.clip for decision in rows], root.with_suffix(".parquet"))
    shards = []
    for part, block in enumerate(blocks):
        kept = [decision.clip for decision in block if decision.outcome == Kept()]
        samples = ((clip.clip_id, blank_sample(clip) | _FILES) for clip in kept)
        encoded = [(key, {name: encode_field(name, value) for name, value in s.items()}) for key, s in samples]
        shards.append(write_layer(root, part, "base", encoded))
        write_telemetry(root, part, block)
        write_fragment(root, part, block, "the-run")
    fragments = [ledger_path(root, part).read_bytes() for part in range(len(blocks))]
    config = CONFIG.model_dump(mode="json")
    config["run"] = {"block_clips": len(blocks[0]), "all_statistics": False}
    record = DatasetRecord(
        complete=True,
        config=config,
        config_fingerprint="the-run",
        fingerprints={"video": "the-video"},
        licences=("unknown",),
        manifest=ManifestSummary(
            sha256=hashlib.sha256(root.with_suffix(".parquet").read_bytes()).hexdigest(),
            clips=len(rows),
            blocks=len(blocks),
            block_clips=len(blocks[0]),
        ),
        shards=tuple(shards),
        ledger=tuple(hashlib.sha256(fragment).hexdigest() for fragment in fragments),
    )
    record.save(root)
    return record
