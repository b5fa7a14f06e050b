"""The CPU stage: from a manifest row to a verdict, and for a clip that passes, sample videos and landmarks.

Cheap before dear: container tables, then a sparse census, then landmarks, then the crop. The first rule that fails ends the
clip's cost, unless all statistics are asked for.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curation.candidates import Candidate, best_windows, candidates
from curation.census import census_statistics, clear_of_others, look, look_times
from curation.config import CurationConfig
from curation.drafts import Draft, draft_of, shown_frames
from curation.faces import FaceFinder
from curation.outcome import Rejected
from curation.recognition import MODEL_KEY, NETWORKS, Recogniser
from curation.rules import first_failure
from curation.sampling import Sampling, probe_statistics, sample
from curation.sources import Clip
from curation.stages import StageClock
from curation.track import follow
from curation.video import FrameReader, Probe, probe
from curation.window import pad_to_window
from faceloom.models import user_path
from landmarks.geometry import CanonicalFace, read_geometry

if TYPE_CHECKING:
    from landmarks.smirk_encoder import SmirkEncoder


@dataclass(frozen=True)
class FaceTools:
    """What the stage keeps loaded between clips."""

    finder: FaceFinder
    canonical: CanonicalFace
    smirk: "SmirkEncoder | None"
    recogniser: Recogniser | None = None

    @classmethod
    def load(cls, task_file: Path, config: CurationConfig) -> "FaceTools":
        """Open the FaceLandmarker bundle and, where the config names it, SMIRK."""
        smirk = None
        if config.landmarks.backend == "smirk":
            from landmarks.smirk_encoder import SmirkEncoder

            smirk = SmirkEncoder(user_path("smirk-encoder", "landmarks.backend"))
        model = config.identity_check.model
        recogniser = None if model == "none" else Recogniser(model, user_path(NETWORKS[model].file, MODEL_KEY))
        return cls(FaceFinder(task_file, config.census), read_geometry(task_file), smirk, recogniser)


@dataclass
class Findings:
    """What is known of a clip; filled stage by stage, so that a failure leaves what was measured before it."""

    statistics: dict[str, float]
    decoder: str | None = None
    rejected: Rejected | None = None
    passed: "Passed | None" = None


@dataclass(frozen=True)
class Passed:
    """A clip that broke no rule, opened for reading, and the windows of it that become samples, the best first."""

    reader: FrameReader
    probed: Probe
    sampling: Sampling
    windows: list[Candidate]

    def clip_of(self, clip: Clip, number: int) -> Clip:
        """The clip that a window is: the manifest's own for the first, and for the others their span of its source."""
        if number == 0:
            return clip
        window = self.windows[number]
        times_s = self.sampling.times_s - self.probed.pts_s[0]
        t0_s, last_s = round(float(times_s[window.start]), 6), float(times_s[window.stop - 1])
        return replace(clip, t0_s=t0_s, t1_s=round(last_s + 1 / self.sampling.fps, 6))


def examine(
    clip: Clip,
    tools: FaceTools,
    config: CurationConfig,
    findings: Findings,
    clock: StageClock,
    all_statistics: bool = False,
    probed: Probe | None = None,
    path: str | None = None,
) -> None:
    """Decide ``clip``: sets ``findings.rejected`` to the first rule it breaks, else ``findings.passed``.

    ``probed`` is what :func:`curation.video.probe` says of its file, if that was asked already, and ``path`` where a copy of
    the file lies, if it is not the clip's own that is read.
    Raises :class:`curation.video.VideoError` and whatever a decoder or model raises; ``clock.current`` names the stage.
    """
    statistics = findings.statistics

    def ends_here() -> bool:
        findings.rejected = first_failure(statistics, config)
        return findings.rejected is not None and not all_statistics

    with clock.stage("probe"):
        probed = probed or probe(path or clip.path)
        sampling = sample(probed, clip, config.video)
        statistics |= probe_statistics(probed, clip, sampling)
    if ends_here():
        return

    with clock.stage("census"):
        reader = FrameReader(probed)
        times_s = look_times(sampling.times_s, sampling.fps, config)
        seen = reader.frames(np.searchsorted(probed.pts_s, times_s))
        looks = look(seen, times_s, tools.finder, tools.canonical, config)
        findings.decoder = reader.decoder
        clear = clear_of_others(looks, sampling.times_s, config)
        statistics |= census_statistics(looks, clear, sampling.fps, config)
    if ends_here() or statistics["face_run_s"] == 0:
        return

    with clock.stage("landmarks"):
        track = follow(
            reader.frames(sampling.indices),
            sampling.times_s,
            sampling.fps,
            looks.census,
            tools.finder,
            tools.canonical,
            (probed.width, probed.height),
            config,
            one_shot=clip.single_shot is True,
            recogniser=tools.recogniser,
        )
        findings.decoder = reader.decoder
    with clock.stage("motion"):
        found = candidates(track, clear, looks, sampling, clip, tools.canonical, config, statistics)
        windows = best_windows(found, statistics, config)
        if windows:
            statistics |= windows[0].statistics
    if not ends_here() and findings.rejected is None:
        findings.passed = Passed(reader, probed, sampling, windows)


def make_draft(
    clip: Clip, window: Candidate, passed: Passed, tools: FaceTools, config: CurationConfig, clock: StageClock
) -> Draft:
    """The draft of one of the windows that ``passed``; ``clip`` is the clip that it is.

    Raises whatever a decoder or model raises; ``clock.current`` names the stage.
    """
    sampling = passed.sampling
    with clock.stage("crop"):
        shown = pad_to_window(np.arange(window.start, window.stop))
        source = passed.reader.frames(sampling.indices[shown])
        frames, record = shown_frames(source, window.record, shown - window.start, window.crop, tools.smirk)
    with clock.stage("encode"):
        return draft_of(clip, passed.probed, sampling, window, shown, frames, record, config)
