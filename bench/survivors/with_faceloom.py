"""The product: its runner on a Ray of its own, with a limit on time and memory that fits the clips."""

from pathlib import Path

import pyarrow.parquet as pq
import ray

import curation.run
from bench.survivors.work import WORKERS, load_job, poisonable
from curation.preflight import pool_sizes, prepare
from curation.run import Runner
from faceloom.cluster import connect


def main() -> None:
    """Curate, then read the outcomes from the ledger."""
    job = load_job()
    settings = job.settings
    curation.run.FaceWorker = ray.remote(poisonable(job.notes))
    sizes = pool_sizes(settings.run, connect("local"))
    assert sizes.face == WORKERS
    out = Path(job.results).with_suffix(".dataset")
    try:
        Runner(prepare(settings, job.manifest, out), sizes, lambda _progress: None).run()
    finally:
        for fragment in sorted(out.glob("ledger/part-*.parquet")):
            columns = ["source_key", "outcome", "rule", "stage", "error", "message"]
            for decided in pq.read_table(fragment, columns=columns).to_pylist():
                job.report(decided)


if __name__ == "__main__":
    main()
