"""What a run does about damaged samples: name them, count them, and stop when they are too many."""

import logging
import math
from collections.abc import Iterable

from shards.index import DamageError

logger = logging.getLogger(__name__)

FEW_SERVED = 10_000
"""A share is not judged on fewer samples than these."""

_NAMED = 5


class DamageLimit:
    """Keeps the share of samples that are replaced because they are damaged at or below ``max_share``.

    ``max_share * max(served, FEW_SERVED)`` replaced samples are allowed, rounded up: by default, 0.001, up to ten
    early in a run and a thousandth in the long run; with 0 none. What is wrong with a file or member is logged once.
    """

    def __init__(self, max_share: float) -> None:
        self.max_share = max_share
        self.served = 0
        self.replaced = 0
        self._messages: dict[str, None] = {}  # in the order of their first appearance

    def count(self, served: int, damages: Iterable[list[str]]) -> None:
        """Count a batch: its samples, and for each that was replaced the messages about it and its damaged replacements.

        Raises :class:`DamageError` that names the first damaged members when too many samples have been replaced.
        """
        self.served += served
        for messages in damages:
            self.replaced += 1
            for message in messages:
                if message not in self._messages:
                    self._messages[message] = None
                    logger.warning("damaged, and replaced by another sample: %s", message)
        if self.replaced > math.ceil(self.max_share * max(self.served, FEW_SERVED)):
            raise DamageError(
                f"{self.replaced} of {self.served} samples were damaged, more than the share of {self.max_share:g} that is "
                f"allowed; `faceloom verify` lists all damage of a dataset. The first:\n"
                + "\n".join(f"  {message}" for message in list(self._messages)[:_NAMED])
            )
