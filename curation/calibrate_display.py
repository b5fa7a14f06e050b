"""How a calibration is shown: a table and a configuration file as text, or all of it as JSON."""

from collections.abc import Iterator
from typing import Any

from curation.calibrate import PERCENTILES, Calibrated, Calibration, Limit
from curation.expressions import read_setting


def calibration_lines(calibration: Calibration) -> Iterator[str]:
    """The table, what to know about it, and the proposed cuts as a file that ``faceloom curate --config`` takes."""
    heads = "".join(f"{f'p{p}':>9}" for p in PERCENTILES)
    yield f"{'statistic':<26}{'unit':<9}{'clips':>8}{heads}{'noise':>9}  limit now, and the share that passes"
    for row in calibration.statistics:
        yield _row(row)
    yield ""
    yield f"over {calibration.clips} decided clips of the manifest, each by the window that was judged"
    for note in calibration.notes:
        yield f"note: {note}"
    yield ""
    if not calibration.cuts:
        yield "no cuts to propose: none of these statistics has a limit of its own that differs between clips"
        return
    yield "# Proposed cuts; behind each, the setting now, and the share of the clips that it alone lets pass."
    fragment = calibration.fragment()["curate"]
    yield "curate:"
    for section, cuts in fragment.items():
        yield f"  {section}:"
        for name, value in cuts.items():
            path = f"{section}.{name}"
            now = read_setting(calibration.config, path)
            limits = [
                (limit, row.statistic.name, share)
                for row in calibration.statistics
                for limit, share, _ in row.limits
                if limit.setting == path
            ]
            passing = ", ".join(f"{share:.0%} pass by {statistic}" for _, statistic, share in limits)
            looser = "looser than" if (value > now) is limits[0][0].at_most else "now"
            yield f"    {f'{name}: {value:g}':<34} # {looser} {now:.4g}: {passing}"


def calibration_json(calibration: Calibration) -> dict[str, Any]:
    """All of it; ``config`` is the fragment."""
    return {
        "clips": calibration.clips,
        "statistics": [
            {
                "statistic": row.statistic.name,
                "unit": row.statistic.unit,
                "clips": row.clips,
                "percentiles": {f"p{p}": value for p, value in row.percentiles.items()},
                "noise": row.statistic.noise,
                "limits": [
                    {
                        "setting": limit.setting,
                        "threshold": limit.threshold,
                        "at_most": limit.at_most,
                        "absolute": limit.absolute,
                        "pass_share": share,
                        "proposed": cut,
                    }
                    for limit, share, cut in row.limits
                ],
            }
            for row in calibration.statistics
        ],
        "notes": list(calibration.notes),
        "config": calibration.fragment(),
    }


def _row(row: Calibrated) -> str:
    statistic = row.statistic
    figures = (
        "".join(f"{row.percentiles[p]:>9.4g}" for p in PERCENTILES) if row.clips else f"{'':>{9 * len(PERCENTILES)}}"
    )
    noise = "" if statistic.noise is None else f"{statistic.noise:.3g}"
    limits = ", ".join(f"{_sign(limit)} {limit.threshold:.4g}: {share:.1%}" for limit, share, _ in row.limits)
    return f"{statistic.name:<26}{statistic.unit:<9}{row.clips:>8}{figures}{noise:>9}  {limits}".rstrip()


def _sign(limit: Limit) -> str:
    sign = "≤" if limit.at_most else "≥"
    return f"|x| {sign}" if limit.absolute else sign
