"""How the audit's findings are shown: as tables for a person, and as JSON for a program."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from curation.explain import Story, span
from curation.statistics import STATISTICS
from curation.what_if import Label, WhatIf

_MOST_MOVES = 12


def what_if_as_json(result: WhatIf) -> dict[str, Any]:
    """The whole result, in clips of the manifest."""
    return {
        "clips": result.count(result.clip),
        "changes": [
            {
                "setting": each.change.setting,
                "before": each.change.before,
                "now": each.change.now,
                "does": each.change.effect.kind,
                "why": each.change.effect.why,
                "clips_to_measure_anew": result.count(each.rows),
            }
            for each in result.affected
        ],
        "before": _nested(result.funnel(result.before)),
        "now": _nested(result.funnel(result.now)),
        "moves": [
            {"from": _nested_label(was), "to": _nested_label(now), "clips": clips}
            for (was, now), clips in result.moves().items()
        ],
        "unknown": {
            "would_be_kept": result.count(result.would_be_kept),
            "not_measured": result.count(result.not_measured),
        },
        "rejected_but_another_window_may_pass": result.count(result.other_window),
        "to_recompute": result.count(result.recompute),
    }


def what_if_tables(result: WhatIf) -> Iterator[RenderableType]:
    """The changes, the funnel then and now side by side, who moves where, and what the ledger cannot know."""
    changed = Table(title="changes", title_justify="left")
    for column in ("setting", "then", "now", "what it does"):
        changed.add_column(column, overflow="fold")
    for each in result.affected:
        change = each.change
        notes = [change.effect.why]
        if change.effect.kind == "measurement":
            notes.append(f"{result.count(each.rows)} clips have to be measured anew, as far as they get there")
        changed.add_row(change.setting, _plain(change.before), _plain(change.now), "; ".join(notes))
    if result.affected:
        yield changed

    then, now = result.funnel(result.before), result.funnel(result.now)
    funnel = Table(title="clips", title_justify="left")
    for column in ("outcome", "rule"):
        funnel.add_column(column)
    for column in ("then", "now", "change"):
        funnel.add_column(column, justify="right")
    for label in [*then, *(label for label in now if label not in then)]:
        before, after = then.get(label, 0), now.get(label, 0)
        if before or after:
            funnel.add_row(*label, str(before), str(after), f"{after - before:+d}" if before != after else "")
    yield funnel

    moves = result.moves()
    if moves:
        moved = Table(title="moves", title_justify="left")
        for column in ("was", "would be"):
            moved.add_column(column)
        moved.add_column("clips", justify="right")
        for (was, would_be), clips in list(moves.items())[:_MOST_MOVES]:
            moved.add_row(_words(was), _words(would_be), str(clips))
        if len(moves) > _MOST_MOVES:
            moved.add_row(
                f"{len(moves) - _MOST_MOVES} smaller groups", "", str(sum(list(moves.values())[_MOST_MOVES:]))
            )
        yield moved
    yield from map(Text, _what_is_not_known(result))


def story_as_json(story: Story) -> dict[str, Any]:
    """The story as it is."""
    return asdict(story)


def story_tables(story: Story) -> Iterator[RenderableType]:
    """What the clip is, what every rule asked of it, what was measured, and what it cost."""
    yield _pairs("clip", _headlines(story))
    rules = Table(title="rules", title_justify="left")
    for column in ("rule", "stage", "verdict"):
        rules.add_column(column)
    for column in ("value", "asks for", "margin"):
        rules.add_column(column, justify="right")
    for asked in story.rules:
        style = "bold" if asked.rule == story.outcome["rule"] else None
        sign = "≤" if asked.at_most else "≥"
        numbers = (_plain(asked.value), f"{sign} {_plain(asked.threshold)}", _plain(asked.margin))
        rules.add_row(asked.rule, asked.stage, asked.verdict, *numbers, style=style)
    yield rules
    if story.statistics:
        measured = Table(title="measured", title_justify="left")
        measured.add_column("statistic")
        measured.add_column("value", justify="right")
        measured.add_column("unit")
        measured.add_column("meaning", overflow="fold")
        for name, value in story.statistics.items():
            statistic = STATISTICS[name]
            measured.add_row(name, _plain(value), statistic.unit, statistic.meaning)
        yield measured
    if story.wall_s:
        cost = {stage: f"{wall:.3f} s, {story.cpu_s[stage]:.3f} s of CPU" for stage, wall in story.wall_s.items()}
        yield _pairs("cost", cost)


def _headlines(story: Story) -> Iterator[tuple[str, str]]:
    clip, outcome = story.clip, story.outcome
    yield "clip", clip["clip_id"]
    yield "source", f"{clip['source_key']} of {clip['dataset']}"
    yield "file", clip["path"]
    yield "span", span(clip)
    for name in ("person_id", "licence", "duplicate_of", "single_shot", "labels", "of_clip", "window"):
        if clip[name] is not None:
            yield name, str(clip[name])
    words = {
        "rejected": f": {outcome['rule']}, {_plain(outcome['value'])} against {_plain(outcome['threshold'])}",
        "failed": f" in {outcome['stage']}: {outcome['error']}: {outcome['message']}",
        "unknown": ": breaks no rule under these settings, and was never made a sample",
    }
    yield "outcome", outcome["outcome"] + words.get(outcome["outcome"], "")
    for lies in story.sample:
        yield lies.layer, f"{lies.file}, sample {lies.position}: {lies.nbytes} bytes from {lies.offset}"
    for window in story.windows:
        ends = "the end" if window["t1_s"] is None else f"{window['t1_s']:g} s"
        text = (
            f"{window['clip_id']}, {window['t0_s']:g} s to {ends}: {_words((window['outcome'], window['rule'] or ''))}"
        )
        yield f"window {window['window']}", text
    if story.decoder:
        yield "decoder", story.decoder
    yield "configuration", story.made_by["config"]
    for name, digest in story.made_by["fields"].items():
        yield f"{name} made by", digest
    yield "manifest", story.made_by["manifest"]
    for name in ("repacked_from", "redecided_from"):
        if name in story.made_by:
            yield name, str(story.made_by[name]["base"])


def _pairs(title: str, rows: Iterator[tuple[str, str]] | Mapping[str, str]) -> Table:
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in rows.items() if isinstance(rows, Mapping) else rows:
        table.add_row(name, Text(value))
    return table


def _what_is_not_known(result: WhatIf) -> Iterator[str]:
    kept, unmeasured = result.count(result.would_be_kept), result.count(result.not_measured)
    if kept:
        yield f"unknown: {kept} clips pass every rule and would be kept; they have no sample yet"
    if unmeasured:
        yield f"unknown: {unmeasured} clips break no rule so far, but were not measured to the end"
    others = result.count(result.other_window)
    if others:
        yield f"of {others} rejected clips another window may pass, of which the ledger holds nothing"


def _nested(funnel: dict[Label, int]) -> dict[str, Any]:
    nested: dict[str, Any] = {"kept": 0, "rejected": {}, "failed": 0, "unknown": 0}
    for (outcome, rule), clips in funnel.items():
        if outcome == "rejected":
            nested["rejected"][rule] = clips
        else:
            nested[outcome] = clips
    return nested


def _nested_label(label: Label) -> dict[str, str | None]:
    outcome, rule = label
    return {"outcome": outcome, "rule": rule or None}


def _words(label: Label) -> str:
    outcome, rule = label
    return f"{outcome}: {rule}" if rule else outcome


def _plain(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
