"""What the face stage hands on of a clip that is shorter than a sample, and of one that is longer."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from curation.config import CurationConfig
from curation.crop import CropConfig, choose_window
from curation.drafts import shown_frames
from curation.face_stage import FaceTools, Findings, examine
from curation.sample_video import SampleVideoConfig, encode_sample
from curation.sources import Clip
from curation.stages import StageClock
from curation.window import pad_to_window
from faceloom import config
from landmarks.record import LandmarkRecord
from landmarks.smirk_motion import SmirkMotion

VALID, WIDTH, HEIGHT = 33, 720, 480


class CountingEncoder:
    """Says of each frame how bright it is, in place of SMIRK's parameters."""

    def encode(self, frames: Iterable[np.ndarray], points: np.ndarray, found: np.ndarray) -> SmirkMotion:
        brightness = np.array([frame.mean() for frame in frames], np.float32)
        assert len(brightness) == len(points) == len(found)
        parameters = np.repeat(brightness[:, None], 61, axis=1)
        return SmirkMotion(
            parameters,
            np.full(300, np.median(brightness), np.float32),
            np.zeros((len(brightness), 2, 3), np.float32),
        )


def test_the_frames_that_pad_a_sample_play_no_part_in_what_smirk_makes_of_it() -> None:
    source = [np.full((HEIGHT, WIDTH, 3), i, np.uint8) for i in range(VALID)]
    record = LandmarkRecord(
        np.full((VALID, 478, 3), 0.5, np.float32),
        np.zeros((VALID, 52), np.float32),
        np.tile(np.eye(4, dtype=np.float32), (VALID, 1, 1)),
        np.ones(VALID, bool),
        WIDTH,
        HEIGHT,
    )
    box = np.array([[300.0, 150.0, 420.0, 300.0]])
    crop = choose_window(box, 150.0, (0, 0, WIDTH, HEIGHT), "clip", CropConfig())
    at = pad_to_window(np.arange(VALID))
    encoder: Any = CountingEncoder()
    frames, shown = shown_frames((source[i] for i in at), record, at, crop, encoder)
    assert len(frames) == len(shown) == len(at) == 49
    assert shown.smirk is not None
    assert shown.smirk.shape[0] == 16  # of 0..32, not of 0..32 and sixteen times 32
    np.testing.assert_array_equal(shown.smirk.parameters[:, 0], at)


def test_a_long_clip_has_the_same_windows_whether_all_is_measured_or_not(
    man: np.ndarray, task_file: Path, tmp_path: Path
) -> None:
    """He is shown forwards and backwards, without a cut, for 8 s."""
    path = tmp_path / "man.mp4"
    path.write_bytes(encode_sample(np.concatenate([man, man[::-1]]), 29.97, None, SampleVideoConfig()))
    settings = config.load(CurationConfig, "demo", ["window.most=3", "crop.max_upscale=5"])
    tools = FaceTools.load(task_file, settings)
    found = []
    for all_statistics in (False, True):
        findings = Findings({})
        examine(Clip("set", "man", str(path)), tools, settings, findings, StageClock(), all_statistics)
        assert findings.passed is not None
        found.append([(window.start, window.stop, window.statistics) for window in findings.passed.windows])
    assert found[0] == found[1]
    starts = sorted(start for start, *_ in found[0])
    assert len(starts) >= 2
    assert all(b - a >= 25 for a, b in itertools.pairwise(starts))
    tools.finder.close()
