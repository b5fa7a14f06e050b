"""What ``faceloom encode`` shows: its plan, and what became of the samples."""

from collections.abc import Iterator, Mapping

import pyarrow as pa
from rich.table import Table
from rich.text import Text

from faceloom.failures import failure_lines
from shards.layers import layer_ledger_path
from training.encode_plan import EncodePlan


def plan_table(plan: EncodePlan, resources: Mapping[str, float], workers: int) -> Table:
    """The plan, as ``--plan`` prints it: ``resources`` are the cluster's, ``workers`` the encoders it gives."""
    table = Table(title="plan", show_header=False, title_justify="left")
    config = plan.config
    left = plan.samples - plan.samples_done
    codec = config.codec.codec
    for name, value in {
        "dataset": f"{plan.dataset} ({plan.samples} samples in {len(plan.parts)} parts)",
        "layer": plan.record.layer,
        "done": f"{len(plan.done)} parts, {plan.samples_done} samples",
        "to do": f"{len(plan.parts) - len(plan.done)} parts, {left} samples, {left * plan.sample_nbytes / 1e9:.3g} GB",
        "codec": f"{config.codec.vae_model}, {config.codec.dtype}" if codec == "vae" else codec,
        "layout": config.layout,
        "landmarks": f"{plan.backend}, {config.landmarks.mode}, {config.landmarks.style}",
        "cluster": f"{resources.get('CPU', 0):g} CPU, {resources.get('GPU', 0):g} GPU",
        "workers": str(workers),
        "fingerprint": plan.record.fingerprint,
    }.items():
        table.add_row(name, Text(value))
    return table


def outcome_lines(plan: EncodePlan, outcomes: pa.Table) -> Iterator[str]:
    """How many samples were encoded, and the first of those that failed."""
    failed = [row for row in outcomes.to_pylist() if row["outcome"] == "failed"]
    yield f"layer {plan.record.layer} of {plan.dataset}: {len(outcomes) - len(failed)} encoded, {len(failed)} failed"
    yield from failure_lines(failed, "clip_id")
    if failed:
        ledger = layer_ledger_path(plan.dataset, plan.record.layer, 0).parent
        yield f"to try them again, delete the fragments of {ledger} that hold them and run the same command again"
