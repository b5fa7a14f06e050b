"""RAVDESS: what was said, how and by whom is in the name of every file.

Format: https://zenodo.org/records/1188976, "File naming convention". Modality 01 is audio and video, 02 the same take
without its sound, 03 sound alone.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from pathlib import Path, PurePosixPath

from curation.adapters.entries import Entry, LeftOut, Notice
from curation.adapters.table import RAVDESS
from curation.adapters.tree import read_tree
from curation.sources import Clip, label_text

_NAME = re.compile(r"(0[1-3])-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(0[1-9]|1\d|2[0-4])\.mp4", re.ASCII)
_CHANNELS = {"01": "speech", "02": "song"}
_EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgust",
    "08": "surprised",
}
_SUNG = frozenset({"01", "02", "03", "04", "05", "06"})
_INTENSITIES = {"01": "normal", "02": "strong"}
_STATEMENTS = {"01": "kids", "02": "dogs"}


def entries(root: Path) -> Iterator[Entry]:
    """One clip a take: the files of modality 01, keyed by their names.

    Raises :class:`UserError` when ``root`` is no folder.
    """
    tree = read_tree(root)
    yield from tree.passed_over
    takes = {PurePosixPath(key).name for key in tree.videos}
    listed: set[str] = set()
    by_actor: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for key in tree.videos:
        name = PurePosixPath(key).name
        match = _NAME.fullmatch(name)
        reason = _objection(key, match, takes, listed)
        if match is None or reason:
            yield LeftOut(key, reason)
            continue
        listed.add(name)
        _, channel, emotion, intensity, statement, repetition, actor = match.groups()
        by_actor[channel, actor].add(name)
        yield Clip(
            RAVDESS.name,
            name.removesuffix(".mp4"),
            str(tree.path(key)),
            person_id=f"Actor_{actor}",
            licence=RAVDESS.licence,
            single_shot=True,
            labels=label_text(
                channel=_CHANNELS[channel],
                emotion=_EMOTIONS[emotion],
                intensity=_INTENSITIES[intensity],
                statement=_STATEMENTS[statement],
                repetition=int(repetition),
            ),
        )
    for (channel, actor), found in sorted(by_actor.items()):
        missing = sorted(_all_takes(channel, actor) - found)
        if missing:
            named = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
            yield Notice(f"Actor_{actor}, {_CHANNELS[channel]}: {len(missing)} takes are not on disk: {named}")


def _objection(key: str, match: "re.Match[str] | None", takes: set[str], listed: set[str]) -> str:
    """Why the video ``key`` is left out; empty if it is not."""
    if match is None:
        return "its name is not MM-VV-EE-II-SS-RR-AA.mp4 with numbers that RAVDESS has"
    name = match.group()
    modality, channel, emotion, intensity, *_, actor = match.groups()
    if (channel == "02" and emotion not in _SUNG) or (emotion == "01" and intensity == "02"):
        return "RAVDESS has no such take (no strong neutral; no sung disgust or surprise): the file is misnamed"
    folder = next((part for part in reversed(PurePosixPath(key).parts[:-1]) if part.startswith("Actor_")), None)
    if folder not in (None, f"Actor_{actor}"):
        return "its name says another actor than its folder"
    if modality == "02":
        if f"01{name[2:]}" in takes:
            return "the take without its sound; the file with it is on disk too"
        return "the take without its sound, and the file with it is not on disk; unpack the archive again"
    if modality == "03":
        return "sound only"
    return "another file has the same name" if name in listed else ""


def _all_takes(channel: str, actor: str) -> set[str]:
    emotions = _EMOTIONS if channel == "01" else sorted(_SUNG)
    return {
        f"01-{channel}-{emotion}-{intensity}-{statement}-{repetition}-{actor}.mp4"
        for emotion, intensity, statement, repetition in product(emotions, _INTENSITIES, _STATEMENTS, ("01", "02"))
        if not (emotion == "01" and intensity == "02")
    }
