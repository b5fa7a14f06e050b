"""Kept clips read back from the shards: by clip id or source key, with the reason where there is no sample."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from faceloom.errors import UserError
from shards.dataset import LEDGER_FOLDER, DatasetRecord, index_path, tar_path
from shards.index import DamageError, read_field, read_index
from shards.schema import CLIP_ID, decode_field
from shards.storage import parquet_sources

_LEDGER_COLUMNS = ["clip_id", "source_key", "outcome", "rule", "value", "threshold", "stage", "error", "message"]


def kept_samples(dataset: Path, clip: str | None) -> Iterator[dict[str, Any]]:
    """The decoded fields of the kept clips that ``clip`` names, or of all; at least one, or :class:`UserError`."""
    try:
        for part, clip_id in _kept(dataset, clip):
            tar, index = tar_path(dataset, part), read_index(index_path(dataset, part))
            entries = [entry for entry in index.entries if entry.key == clip_id]
            sample = {entry.field: decode_field(entry.field, read_field(tar, entry)) for entry in entries}
            # Files are named for the id: it must be one, and the sample's own.
            if not CLIP_ID.fullmatch(clip_id) or sample.get("meta.json", {}).get("clip_id") != clip_id:
                raise DamageError(f"{tar}: what the ledger calls clip {clip_id!a} is no sample of that id")
            yield sample
    except (DamageError, ValueError) as error:
        raise UserError(f"{error}; see what else is damaged with: faceloom verify {dataset}") from None


def kept_sample(dataset: Path, clip: str) -> dict[str, Any]:
    """The one kept clip that ``clip`` names. Raises :class:`UserError` if there is none, or more than one."""
    sample, *others = kept_samples(dataset, clip)
    if others:
        ids = ", ".join(each["meta.json"]["clip_id"] for each in [sample, *others])
        raise UserError(f"{clip} is the source of several kept clips of {dataset}; give one by its id: {ids}")
    return sample


def _kept(dataset: Path, clip: str | None) -> Iterator[tuple[int, str]]:
    """Part and id of the clips asked for, from the ledger, which also knows why a clip has no sample."""
    DatasetRecord.load(dataset)
    named = None if clip is None else (pc.field("clip_id") == clip) | (pc.field("source_key") == clip)
    refused: list[str] = []
    kept = 0
    for fragment, source in parquet_sources(sorted((dataset / LEDGER_FOLDER).glob("part-*.parquet"))):
        for row in pq.read_table(source, columns=_LEDGER_COLUMNS, filters=named).to_pylist():
            if row["outcome"] == "kept":
                kept += 1
                yield int(fragment.stem.removeprefix("part-")), row["clip_id"]
            elif clip is not None:
                refused.append(_why_not(row))
    if refused and not kept:
        raise UserError(
            f"{clip} has no sample in {dataset}: {refused[0]}; see which clips have: faceloom status {dataset} --clips"
        )
    if not kept:
        raise UserError(
            f"{dataset} holds no {'kept clip yet' if clip is None else f'clip {clip}, by id or source key'}"
        )


def _why_not(row: Mapping[str, Any]) -> str:
    if row["outcome"] == "rejected":
        return f"it was rejected by rule {row['rule']} ({row['value']:.4g}, threshold {row['threshold']:.4g})"
    if row["outcome"] == "unknown":
        return "the settings applied to the ledger break no rule of it, but it was never made a sample: curate it again"
    return f"it failed in stage {row['stage']} ({row['error']}: {row['message']})"
