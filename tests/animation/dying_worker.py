"""A worker of a batch that is killed in the middle of a video; a module of its own, since Ray's processes import it."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from animation.animate_config import AnimateConfig
from animation.worker import PairAnimator
from landmarks.face_reader import FaceReader

DIES, DIES_ONCE = 1, 2
"""Seeds of pairs over which the worker dies."""


class _Dying:
    """In place of the model: grey frames, and as the seed says the death of the process after the third."""

    style, fps = "a1_3d", 12

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(
        self, _canvas: Any, _face: Any, drawings: Any, *_: Any, seed: int, **_settings: Any
    ) -> Iterator[np.ndarray]:
        for number in range(len(drawings)):
            if number == 3 and self._to_die(seed):
                os.kill(os.getpid(), signal.SIGKILL)
            yield np.full((480, 720, 3), 128, np.uint8)

    def _to_die(self, seed: int) -> bool:
        """Notes each pair that it comes to, by its seed, in ``folder``."""
        with (self._folder / "came_to").open("a+") as notes:
            notes.seek(0)
            before = notes.read().split()
            notes.write(f"{seed} ")
        return seed == DIES or (seed == DIES_ONCE and str(seed) not in before)


class DyingAnimator(PairAnimator):
    """The worker but for its model, which takes long to load."""

    def __init__(self, _checkpoint: str, config: AnimateConfig, folder: str) -> None:
        self._config, self._folder = config, Path(folder)
        self._model, self._reader = _Dying(self._folder.parent), FaceReader("mediapipe", "tests/animation")
