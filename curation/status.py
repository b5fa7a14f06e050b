"""Where the run of a dataset is, read from its files: from any terminal, while a driver is at work on it and afterwards."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.display import outcome_counts
from curation.ledger import committed, manifest_rows, read_ledger
from faceloom.lease_file import Sighting, lease_path, sighting
from faceloom.progress import describe, duration, read_state
from shards.dataset import DatasetRecord
from shards.layers import layer_names


@dataclass(frozen=True)
class Status:
    """What is committed, and the drivers that hold a lease on the dataset or on one of its layers."""

    dataset: Path
    record: DatasetRecord
    ledger: pa.Table
    """The columns that outcomes are counted by, of every row."""
    blocks: int
    """Committed ones."""
    drivers: tuple[Sighting, ...]

    @property
    def clips_decided(self) -> int:
        """Clips of the manifest in committed blocks."""
        return len(self._of_manifest)

    @property
    def samples(self) -> int:
        """Rows that are kept."""
        return sum(count for outcome, _, count in outcome_counts(self.ledger) if outcome == "kept")

    @property
    def _of_manifest(self) -> pa.Table:
        # A repacked dataset has no manifest, but counts its samples as one.
        return self.ledger if self.record.repacked else manifest_rows(self.ledger)

    def as_json(self) -> dict[str, Any]:
        """What ``--json`` prints; of what a driver is at, see :meth:`faceloom.progress.Progress.state`."""
        counts = outcome_counts(self._of_manifest)
        return {
            "complete": self.record.complete,
            "clips": self.record.manifest.clips,
            "decided": self.clips_decided,
            "outcomes": [{"outcome": o, "because": b, "clips": n} for o, b, n in counts],
            "samples": self.samples,
            "blocks": {"all": self.record.manifest.blocks, "committed": self.blocks},
            "drivers": [
                {"at_work": driver.at_work, "seen_s": round(driver.seen_s, 1), **asdict(driver.holder)}
                for driver in self.drivers
            ],
        }

    def lines(self) -> list[str]:
        """The same for a person, without the table of outcomes."""
        manifest = self.record.manifest
        of_base = [driver for driver in self.drivers if driver.holder.doing == "curate"]
        state = "complete" if self.record.complete else "unfinished; the same `faceloom curate` command goes on with it"
        if any(driver.at_work for driver in of_base):
            state = "a driver is at work on it"
        lines = [
            f"{self.dataset}: {self.clips_decided} of {manifest.clips} clips decided, {self.samples} samples; {state}"
        ]
        if not self.record.complete:
            lines.append(f"blocks: {self.blocks} of {manifest.blocks} committed")
        for driver in self.drivers:
            lines += _driver(driver)
        return lines


def status_of(dataset: Path) -> Status:
    """Read it. Raises :class:`UserError` if ``dataset`` is none, or if a file of its ledger cannot be read."""
    record = DatasetRecord.load(dataset)
    leases = [lease_path(dataset), *(lease_path(dataset, layer) for layer in layer_names(dataset))]
    drivers = tuple(found for path in leases if (found := sighting(path)) is not None)
    ledger = read_ledger(dataset, ["of_clip", "outcome", "rule", "error"])
    return Status(dataset, record, ledger, len(committed(dataset, record.manifest.blocks)), drivers)


def _driver(driver: Sighting) -> list[str]:
    holder = driver.holder
    seen = f"last seen {duration(driver.seen_s)} ago"
    if driver.at_work:
        first = f"at work: {holder} ({duration(time.time() - holder.taken_at)}), {seen}"
    else:
        first = f"its driver is gone: {holder}, {seen}; the same command goes on"
    state = read_state(holder.state)
    if state is None:  # it has only just begun, or is of another version
        return [first]
    if not driver.at_work:
        state["clips_per_s"] = None
    decided = f"{state['decided']} of {state['clips']} clips, with those of open blocks"
    blocks = f"{state['blocks_committed']} blocks committed by this run, {state['blocks_open']} open"
    return [first, *(f"  {line}" for line in [decided, *describe(state), blocks])]
