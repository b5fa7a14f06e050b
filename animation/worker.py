"""A process that animates pairs: it loads the model once, and makes an outcome of whatever happens to a pair."""

import time
import traceback
from pathlib import Path
from typing import Any

import cv2
import ray

from animation.animate import Animator, animate, prepare
from animation.animate_config import AnimateConfig
from animation.pairs import Row
from animation.results import Failure, Outcome
from faceloom.engine import machine_is_at_fault
from faceloom.errors import UserError
from landmarks.face_reader import FaceReader


class PairAnimator:
    """Animates pairs with the model of ``checkpoint`` and writes their videos to ``folder``.

    Raises :class:`UserError` if a model is missing.
    """

    def __init__(self, checkpoint: str, config: AnimateConfig, folder: str) -> None:
        import torch

        from animation.loading import load_pipeline

        # Workers are parallel already; threads of their own would only get in each other's way.
        cv2.setNumThreads(1)
        torch.set_num_threads(config.batch.threads)
        self._config = config
        self._folder = Path(folder)
        pipeline = load_pipeline(checkpoint, config.load)
        self._model: Animator = pipeline
        self._reader = FaceReader(config.landmarks or pipeline.trained_on.backend, "faceloom animate")

    def animate(self, row: Row) -> tuple[Outcome, None]:
        """The outcome of ``row``; there is no payload, since the video is written here."""
        began = time.monotonic()
        config = self._config.model_copy(update={"seed": row.seed})
        stage = "prepare"
        try:
            prepared = prepare(row.pair(self._folder), self._model, self._reader, config)
            stage = "animate"
            made = animate(prepared, self._model, config)
            return Outcome(row, made, None, time.monotonic() - began), None
        except Exception as error:
            if machine_is_at_fault(error):
                raise  # the engine tries the pair in another worker
            of_pair = isinstance(error, UserError)
            # The class of what a UserError tells in words: TruncatedVideoError says more.
            cause = error.__context__ if of_pair and error.__context__ is not None else error
            failure = Failure(stage, type(cause).__name__, str(error).strip() or repr(error))
            return Outcome(
                row,
                None,
                failure,
                time.monotonic() - began,
                suspicious=not of_pair,
                traceback=None if of_pair else traceback.format_exc(),
            ), None


AnimateWorker: Any = ray.remote(PairAnimator)
"""As an actor; ``animate`` is called with ``num_returns=2``, as the engine wants it."""
