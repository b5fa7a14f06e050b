"""The results of the demo's last act on a terminal."""

from rich.table import Table

from animation.demo import FACE_SHARE, MAKERS, METRICS, Results, mean
from evaluation.metrics import METRICS as DESCRIBED

_NAMES = {"animated": "animated", "still": "first frame, still", "noise": "first frame, noisy"}
_COLUMNS = {
    "truth_mae": "mean error",
    "truth_lip_gap_correlation": "lip gap, correlation",
    "truth_expression": "expression",
    "truth_pose_deg": "head",
}


def results_table(results: Results) -> Table:
    """The means over all clips; a dash where a clip has no value."""
    table = Table(title=f"{len(results)} held-out clips, made from their first frame, against the true ones")
    table.add_column("")
    for metric in METRICS:
        table.add_column(f"{_COLUMNS[metric]}, {DESCRIBED[metric].unit}", justify="right")
    table.add_column("face found, share", justify="right")
    for maker in MAKERS:
        values = (mean(results, maker, metric) for metric in (*METRICS, FACE_SHARE))
        table.add_row(_NAMES[maker], *("-" if value is None else f"{value:.3g}" for value in values))
    return table
