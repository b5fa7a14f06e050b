"""Cuts and dissolves between shots, found on the frames that are analysed anyway."""

from collections import deque

import numpy as np
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

from curation.quality import thumbnail
from faceloom.config import Section


class ShotConfig(Section):
    """When neighbouring analysed frames belong to two shots: a change that is large, and large against its neighbours."""

    min_content: float = 10.0
    """Mean change of hue, saturation and luma, 0 to 255. PySceneDetect's own default, 15, misses a cut between two people
    before one backdrop (14.3), and a jump cut of one speaker (14.7); without a cut nothing above 6.9 also stands out."""
    min_ratio: float = 3.0
    """Against the mean change of the two frames before and the two after; PySceneDetect's default."""
    max_blend_residual: float = 0.45
    """A picture belongs to a dissolve when it is the mean of two around it but for this share of half their difference.
    Talking heads stay above 0.73, slow pans and zooms mostly above 0.45; 94 to 100 % of dissolves between talking heads of
    4 to 24 frames are below. Between shots full of motion dissolves are not found."""
    min_blend_change: float = 8.0
    """Least difference of those two, 0 to 255."""


_EDGE = 2  # the detector's window: it needs this many frames on either side of a cut


class CutFinder:
    """PySceneDetect's AdaptiveDetector, fed frame by frame at the analysis rate.

    Its minimum shot length is off: a short shot must split a clip too. The first and last frames are fed repeatedly, since
    otherwise a cut within two frames of either end would go unseen.
    """

    def __init__(self, fps: float, config: ShotConfig) -> None:
        self._detector = AdaptiveDetector(
            adaptive_threshold=config.min_ratio,
            min_scene_len=0,
            window_width=_EDGE,
            min_content_val=config.min_content,
        )
        self._fps = fps
        self._fed = 0
        self._last: np.ndarray | None = None
        self._cuts: list[int] = []

    def add(self, frame: np.ndarray) -> None:
        """The next frame, uint8 RGB ``[H, W, 3]``."""
        bgr = np.ascontiguousarray(thumbnail(frame)[..., ::-1])
        if self._last is None:
            for _ in range(_EDGE):
                self._feed(bgr)
        self._feed(bgr)
        self._last = bgr

    def cuts(self) -> list[int]:
        """Positions of the frames that begin a new shot, counted from the first frame added; ends the search."""
        if self._last is not None:
            for _ in range(_EDGE):
                self._feed(self._last)
        return [cut - _EDGE for cut in self._cuts]

    def _feed(self, bgr: np.ndarray) -> None:
        found = self._detector.process_frame(FrameTimecode(self._fed, self._fps), bgr)
        self._cuts.extend(cut.frame_num for cut in found)
        self._fed += 1


_SPANS = (3, 4, 6)  # frames from a picture to either of the two it is compared with
_MARGIN = 2  # the first and last pictures of a dissolve are too near to pure ones to tell


class DissolveFinder:
    """Pictures that are mixtures of the ones before and after: where one shot fades into another, or into black.

    In a dissolve f(t) = (1 - a)·A + a·B, so a picture is the mean of two that lie around it; of what moves, it is not. The
    twin comparison of Zhang, Kankanhalli and Smoliar (1993) asks for less, and takes pans for dissolves.
    """

    def __init__(self, config: ShotConfig) -> None:
        self._config = config
        self._recent: deque[np.ndarray] = deque(maxlen=2 * max(_SPANS) + 1)
        self._count = 0
        self._mixed: set[int] = set()

    def add(self, grey: np.ndarray) -> None:
        """The next frame as a grey thumbnail, float32 ``[h, w]``."""
        # A camera that adapts its exposure brightens a picture as evenly as a dissolve mixes two.
        self._recent.append(grey - grey.mean())
        self._count += 1
        for span in _SPANS:
            if len(self._recent) > 2 * span and self._is_mixture(span):
                self._mixed.add(self._count - 1 - span)

    def frames(self) -> np.ndarray:
        """Which of the frames added so far belong to a dissolve; bool ``[T]``."""
        result = np.zeros(self._count, bool)
        for at in self._mixed:
            result[max(0, at - _MARGIN) : at + _MARGIN + 1] = True
        return result

    def _is_mixture(self, span: int) -> bool:
        before, middle, after = self._recent[-1 - 2 * span], self._recent[-1 - span], self._recent[-1]
        change = float(np.abs(after - before).mean())
        if change < self._config.min_blend_change:
            return False
        residual = float(np.abs(middle - (before + after) / 2).mean())
        return residual < self._config.max_blend_residual * change / 2
