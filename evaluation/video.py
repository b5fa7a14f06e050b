"""Everything that is measured of one result, in a process that may die of its files."""

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from curation.identity import align_face
from curation.recognition import align
from curation.video import VideoError
from evaluation.compare import Curves, against_driver, against_truth, steadiness
from evaluation.config import EvaluateConfig
from evaluation.footage import Footage, Frame, of_file, of_frames, reference_image
from evaluation.legacy_video import legacy_measures
from evaluation.measure import Measure, absent
from evaluation.metrics import Mode
from evaluation.networks import Networks, load_networks
from evaluation.pairs import Pair
from evaluation.similarity import face_similarity
from evaluation.track import FaceTrack, FaceTracker
from faceloom.errors import UserError

_BATCH = 16


@dataclass(frozen=True, eq=False)
class VideoReport:
    """What came of one result; with a ``failure`` there is nothing else.

    ``curves`` have one value for each of the result's ``frames``, ``fps`` a second. ``made`` and ``real`` are Inception's
    features of the faces of the result, and of the truth or else the driver: ``[N, 2048]``.
    """

    name: str
    failure: str = ""
    measures: dict[str, Measure] = field(default_factory=dict)
    curves: Curves = field(default_factory=dict)
    fps: float = 0.0
    frames: int = 0
    made: NDArray[np.float32] | None = None
    real: NDArray[np.float32] | None = None


class Measurer:
    """What one process needs to measure one video after the other."""

    def __init__(self, faces: FaceTracker, networks: Networks, modes: Collection[Mode], config: EvaluateConfig) -> None:
        self._faces = faces
        self._networks = networks
        self._modes = modes
        self._config = config

    def measure(self, pair: Pair) -> VideoReport:
        """Every metric of the modes that there are files for.

        Raises :class:`VideoError` or :class:`UserError` for a file that cannot be read.
        """
        reference = None if pair.reference is None else reference_image(pair.reference)
        result = of_file(pair.result)
        measures: dict[str, Measure] = {}
        curves: Curves = {}
        made = real = None
        if "legacy" in self._modes:
            measures |= legacy_measures(pair.result, reference, pair.driving, self._networks)
        if "v2" in self._modes or pair.truth is not None:
            face = self._faces.track(result)
            driver = truth = None
            if "v2" in self._modes:
                measures |= self._similarities(result, face, reference)
            if "v2" in self._modes and pair.driving is not None:
                driver = of_file(pair.driving, result.fps, len(result) + self._config.max_offset)
                driving = self._faces.track(driver)
                for compared in (
                    against_driver(face, driving, self._config.max_offset),
                    steadiness(result, face, driver, driving),
                ):
                    measures |= compared.measures
                    curves |= compared.curves
                real = self._features(driver, driving)
            if pair.truth is not None:
                truth = of_file(pair.truth, result.fps, len(result))
                true = self._faces.track(truth)
                compared = against_truth(result, face, truth, true)
                measures |= compared.measures
                curves |= compared.curves
                real = self._features(truth, true)
            made = self._features(result, face)
        return VideoReport(pair.name, "", measures, curves, result.fps, len(result), made, real)

    def _similarities(self, result: Footage, face: FaceTrack, reference: Frame | None) -> dict[str, Measure]:
        networks = {"facesim_arc": self._networks.arcface, "facesim_cur": self._networks.curricularface}
        there = {name: network for name, network in networks.items() if network is not None}
        if not there:
            return {}
        if reference is None:
            return dict.fromkeys(there, absent("there is no reference image"))
        looked_at = np.unique(np.linspace(0, len(result) - 1, self._config.similarity_frames, dtype=np.int64))
        person = self._faces.track(of_frames(reference[None], 1))
        (own,) = [align(reference, person.points_px[0]) if person.found[0] else None]
        aligned = [align(frame, face.points_px[i]) for i, frame in _at(result, looked_at) if face.found[i]]
        seen = [each for each in aligned if each is not None]
        return {name: face_similarity(network, own, seen, len(looked_at)) for name, network in there.items()}

    def _features(self, footage: Footage, face: FaceTrack) -> NDArray[np.float32] | None:
        network = self._networks.inception
        if network is None or "v2" not in self._modes:
            return None
        batch: list[Frame] = []
        features = [network.features([], normalised=True)]
        for number, frame in enumerate(footage):
            if number < len(face) and face.found[number]:
                batch.append(align_face(frame, face.points_px[number]))
            if len(batch) == _BATCH:
                features.append(network.features(batch, normalised=True))
                batch = []
        features.append(network.features(batch, normalised=True))
        return np.concatenate(features)


def _at(footage: Footage, numbers: NDArray[np.int64]) -> Iterator[tuple[int, Frame]]:
    wanted = set(numbers.tolist())
    return ((number, frame) for number, frame in enumerate(footage) if number in wanted)


_measurer: Measurer | None = None


def start(task_file: Path, available: Collection[str], modes: Collection[Mode], config: EvaluateConfig) -> None:
    """Make this process one that measures videos."""
    global _measurer  # there is nowhere else for a process to keep what it needs for every video
    # MediaPipe and FFmpeg write to the process's own stderr, in the middle of the progress display.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    cv2.setNumThreads(1)
    _measurer = Measurer(FaceTracker(task_file), load_networks(available, config.device), modes, config)


def measure(pair: Pair) -> VideoReport:
    """The report on one result; of a bad file, its failure. Needs :func:`start`."""
    assert _measurer is not None
    try:
        return _measurer.measure(pair)
    except (VideoError, UserError) as error:
        return VideoReport(pair.name, str(error))
    except Exception as error:  # whatever else a decoder or a model raises: the other videos go on
        return VideoReport(pair.name, f"{type(error).__name__}: {error}")
