"""What the end of a run says of the items that failed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_LISTED = 20


def failure_lines(failed: Sequence[Mapping[str, Any]], name: str) -> Iterator[str]:
    """A line for each of the first twenty ``failed``: rows with ``stage``, ``error``, ``message`` and their name in ``name``.

    Then one that counts the others.
    """
    for row in failed[:_LISTED]:
        yield f"failed in {row['stage']}: {row[name]}: {row['error']}: {row['message']}"
    if len(failed) > _LISTED:
        yield f"and {len(failed) - _LISTED} more"
