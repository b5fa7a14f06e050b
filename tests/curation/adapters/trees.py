"""Folders as datasets lay them out, made of empty files, and what an adapter says of them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from curation.adapters.entries import Entry, Ignored, LeftOut, Notice
from curation.sources import Clip


@dataclass
class Listed:
    """The entries of an adapter, sorted by their kinds."""

    clips: list[Clip] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """By name; no adapter may name one thing twice."""
    ignored: Counter[str] = field(default_factory=Counter)
    notices: list[str] = field(default_factory=list)

    @property
    def keys(self) -> list[str]:
        return [clip.source_key for clip in self.clips]


def listed(entries: Iterable[Entry]) -> Listed:
    found = Listed()
    for entry in entries:
        match entry:
            case Clip():
                found.clips.append(entry)
            case LeftOut():
                assert entry.name not in found.left_out, f"{entry.name} is left out twice"
                found.left_out[entry.name] = entry.reason
            case Ignored():
                found.ignored[entry.suffix] += entry.count
            case Notice():
                found.notices.append(entry.text)
    assert len({clip.clip_id for clip in found.clips}) == len(found.clips)
    return found


def make(root: Path, files: Mapping[str, str | bytes] | Iterable[str]) -> Path:
    """Write files below ``root``; without contents they are empty."""
    contents = files if isinstance(files, Mapping) else dict.fromkeys(files, "")
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root
