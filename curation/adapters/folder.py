"""Any folder of videos: one clip a file, whatever its state.

Nothing that calls itself a video is left out here. What turns out to be a directory, empty or broken fails later under
its own name, in the ledger, where it can be counted.
"""

from collections.abc import Iterator
from pathlib import Path

from curation.adapters.entries import Entry, Notice
from curation.adapters.table import FOLDER
from curation.adapters.tree import read_tree
from curation.sources import Clip
from faceloom.location import is_remote


def entries(root: Path) -> Iterator[Entry]:
    """Every video below ``root``, one clip each, of a dataset that is called as the folder is; its key is its source key.

    Raises :class:`UserError` when ``root`` is no folder.
    """
    tree = read_tree(root)
    name = tree.root.name or str(tree.root).rstrip("/").rpartition("/")[2]  # a bucket is called by no name of its own
    yield from tree.passed_over
    if is_remote(tree.root):
        yield Notice(
            f"files below {tree.root} were not compared: copies of one video are listed as videos of their own"
        )
    for key in tree.videos:
        yield Clip(name, key, str(tree.path(key)), licence=FOLDER.licence)
