"""Whether the filters tell single-character footage from what is not: composites with a known fault, and copies without one.

    python -m bench.filters [--videos DIR] [--only WORD] [--json FILE] [--robustness]

The people are those of the videos in DIR, each of whom must be alone in them, and the demo's talking man. Every composite
(``bench/filter_cases.py``) says what must become of it; what did is told by case and by rule, and every miss by name.

With ``--robustness``, the videos are re-encoded, scaled, mirrored and shaken instead, and verdicts and statistics compared.

Exits 1 when a composite with a second character above tolerance is kept, or a clean clip is dropped. ``bench/README.md``
says what the tables mean. What was decided is remembered in ``--cache`` for as long as neither code nor footage changes.
"""

import argparse
import json
import os
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.filter_cases import composites
from bench.filter_labels import Finding, Label, Result, judge
from bench.filter_runs import Footage, look_at_composites, look_at_videos, people_of
from bench.robustness import compare_variants
from curation.adapters.folder import entries
from curation.config import CurationConfig
from curation.demo import DEMO, demo_clips
from curation.expressions import evaluate
from curation.rules import RULES
from curation.sources import Clip
from faceloom import config
from faceloom.errors import UserError
from faceloom.models import model_path

console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)


@dataclass(frozen=True)
class Judged:
    """A clip, what was asked for, what became of it, and whether that is right."""

    name: str
    case: str
    label: Label
    result: Result
    finding: Finding
    why: str


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, metavar="DIR", help="folder of videos, each of one person alone")
    parser.add_argument("--only", default="", metavar="WORD", help="composites with WORD in their name, case or rules")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every verdict and statistic there too")
    parser.add_argument("--robustness", action="store_true", help="compare copies of the videos instead")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="(default: %(default)s)")
    cache = Path(tempfile.gettempdir()) / "faceloom-filters"
    parser.add_argument("--cache", type=Path, default=cache, metavar="DIR", help="(default: %(default)s)")
    args = parser.parse_args()
    os.environ |= {"GLOG_minloglevel": "2", "TF_CPP_MIN_LOG_LEVEL": "2"}
    try:
        model_path("face_landmarker", "census")  # a pool whose processes cannot start waits for ever
        videos = list_videos(args.videos)
        if args.robustness:
            passed, copies = compare_variants(videos, args.cache, args.processes, console)
            tree: object = {n: {v: r.as_json() for v, r in results.items()} for n, results in copies.items()}
        else:
            judged = look(videos, args.cache, args.processes, args.only)
            passed = report(judged)
            tree = [as_json(each) for each in judged]
        if args.json:
            args.json.write_text(json.dumps(tree, indent=1))
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    sys.exit(0 if passed else 1)


def list_videos(root: Path | None) -> list[Footage]:
    """The videos below ``root``, to be curated with the default configuration."""
    if root is None:
        return []
    clips = [entry for entry in entries(root) if isinstance(entry, Clip)]
    return [Footage(Path(clip.path).stem, clip.path, CurationConfig()) for clip in clips]


def look(videos: Sequence[Footage], cache: Path, processes: int, only: str) -> list[Judged]:
    """Everything that has ``only`` in its name, its case or its rules, judged."""
    demo = config.load(CurationConfig, "demo")
    shown = [
        (Footage(Path(clip.path).stem, clip.path, demo), planned)
        for clip, planned in zip(demo_clips(cache / "demo"), DEMO, strict=True)
        if planned.role == "outcome" and planned.outcome != "failed"
    ]
    footage = [*videos, *(each for each, _ in shown)]
    results, keys = look_at_videos(footage, cache, processes)
    judged = [_judged(each.name, "footage", Label("kept"), results[each.name]) for each in videos]
    for each, planned in shown:
        label = Label("kept" if planned.outcome == "kept" else "rejected", (planned.because,))
        judged.append(_judged(each.name, "demo", label, results[each.name]))
    # Of the demo's clips that are kept all show one man.
    cast = {name: key for name, key in keys.items() if name in {v.name for v in videos} or name == shown[0][0].name}
    people = people_of(cache, cast)
    if not people:
        raise UserError("nobody to make composites of: no video was kept; name another folder with --videos")
    chosen = [
        c
        for c in composites(people, CurationConfig().character)
        if not only or any(only in word for word in (c.name, c.case, *c.label.rules))
    ]
    console.print(f"{len(people)} people, {len(chosen)} composites")
    settings = {each.name: each.settings for each in footage}
    found = dict(look_at_composites(chosen, settings, cast, cache, processes))
    return judged + [_judged(c.name, c.case, c.label, found[c.name]) for c in chosen]


def _judged(name: str, case: str, label: Label, result: Result) -> Judged:
    return Judged(name, case, label, result, *judge(label, result))


# --- the report ------------------------------------------------------------------------------------------------------


def report(judged: Sequence[Judged]) -> bool:
    """Print what was found; False when what must never happen has happened."""
    console.print(cases_table(judged))
    console.print(rules_table(judged))
    unknown = {rule for each in judged for rule in each.label.rules} - {rule.name for rule in RULES} - {""}
    if unknown:
        console.print(f"no such rule: {', '.join(sorted(unknown))}")
    misses = [each for each in judged if each.finding in {"leak", "lost"}]
    console.print(f"{len(misses)} misses of {len(judged)}")
    for each in misses:
        console.print(f"  {each.finding:<5} {each.name}: {each.why}{_measured(each)}")
    for each in judged:
        if each.finding == "another rule":
            console.print(f"  by {each.result.because}, not {'/'.join(each.label.rules)}: {each.name}{_measured(each)}")
    crowd = [each for each in misses if each.finding == "leak" and each.label.second]
    dropped = [each for each in misses if each.finding == "lost" and each.case in {"footage", "clean"}]
    console.print(f"{len(crowd)} second characters kept, {len(dropped)} clean clips dropped")
    return not crowd and not dropped


def cases_table(judged: Sequence[Judged]) -> Table:
    """By case: how many were to be kept and how many were, how many not and how many were not."""
    table = Table("case", "clips", "right", "leak", "lost", "other rule", "precision", "recall", box=None)
    by_case: dict[str, list[Judged]] = defaultdict(list)
    for each in judged:
        by_case[each.case].append(each)
    for case, members in by_case.items():
        counts = Counter(each.finding for each in members)
        table.add_row(
            case, str(len(members)), *(str(counts[f]) for f in ("right", "leak", "lost", "another rule")),
            *_precision_recall(members),
        )  # fmt: skip
    table.add_section()
    table.add_row("all", str(len(judged)), "", "", "", "", *_precision_recall(judged))
    return table


def _precision_recall(judged: Sequence[Judged]) -> tuple[str, str]:
    """Of what was rejected, the share that may be; of what must leave no sample or not this one, the share that did not."""
    rejected = [each for each in judged if each.result.outcome != "kept"]
    faulty = [each for each in judged if each.label.expected != "kept"]
    return (
        _share(len([each for each in rejected if each.finding != "lost"]), len(rejected)),
        _share(len([each for each in faulty if each.finding != "leak"]), len(faulty)),
    )


def rules_table(judged: Sequence[Judged]) -> Table:
    """By rule: of what it rejected, the share that it is for; of what it is the first to be for, the share rejected."""
    table = Table("rule", "rejected", "precision", "meant for", "recall", box=None)
    for rule in RULES:
        fired = [each for each in judged if each.result.because == rule.name]
        meant = [e for e in judged if e.label.expected == "rejected" and e.label.rules[:1] == (rule.name,)]
        if fired or meant:
            right = [each for each in fired if each.finding == "right"]
            caught = [each for each in meant if each.finding == "right"]
            table.add_row(
                rule.name, str(len(fired)), _share(len(right), len(fired)), str(len(meant)), _share(len(caught), len(meant))
            )  # fmt: skip
    return table


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2f}" if whole else ""


def _measured(each: Judged) -> str:
    """What the rules that should have spoken measured."""
    values = []
    for rule in RULES:
        if rule.name in each.label.rules:
            value = float(evaluate(rule.value, each.result.statistics, CurationConfig()))
            threshold = float(evaluate(rule.threshold, each.result.statistics, CurationConfig()))
            if not isnan(value):
                values.append(f"{rule.name} {value:.3g} {'≤' if rule.at_most else '≥'} {threshold:.3g}")
    return f" ({', '.join(values)})" if values else ""


def as_json(each: Judged) -> Mapping[str, object]:
    """For a file."""
    return {
        "name": each.name, "case": each.case, "expected": each.label.expected, "rules": each.label.rules,
        "finding": each.finding, "why": each.why, **each.result.as_json(),
    }  # fmt: skip


if __name__ == "__main__":
    main()
