"""The results of the demo's last act on a terminal."""

from rich.table import Table

from animation.demo import MAKERS, METRICS, Results, mean
from evaluation.metrics import METRICS as DESCRIBED

_NAMES = {
    "animated": "animated by the model",
    "still": "the first frame, standing still",
    "noise": "the first frame with noise on it",
}


def results_table(results: Results) -> Table:
    """The means over all clips; a dash where a clip has no value."""
    table = Table(title=f"{len(results)} held-out clips, animated from their first frame, against the true ones")
    table.add_column("")
    for metric in METRICS:
        table.add_column(f"{DESCRIBED[metric].name.removeprefix('truth_')} ({DESCRIBED[metric].unit})", justify="right")
    for maker in MAKERS:
        values = (mean(results, maker, metric) for metric in METRICS)
        table.add_row(_NAMES[maker], *("-" if value is None else f"{value:.3g}" for value in values))
    return table
