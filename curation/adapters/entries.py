"""What an adapter says of a dataset: one entry for everything it meets, so that nothing is passed over in silence."""

from dataclasses import dataclass

from curation.sources import Clip


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A video, or a row of an annotation, that becomes no clip.

    ``name`` is a file's path relative to the root, or ``file:line`` and what the row is about. ``reason`` is one of the few
    that an adapter has, since they are counted by it.
    """

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """Files that are neither videos by their names nor annotations: ``suffix`` in lower case, "" for none."""

    suffix: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to know about a listing as a whole, with what to do about it."""

    text: str


Entry = Clip | LeftOut | Ignored | Notice
