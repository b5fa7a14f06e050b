"""Cuts between shots, found on the frames that are analysed anyway."""

import cv2
import numpy as np
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

from faceloom.config import Section


class ShotConfig(Section):
    """When neighbouring analysed frames belong to two shots: a change that is large, and large against its neighbours."""

    min_content: float = 10.0
    """Mean change of hue, saturation and luma, 0 to 255. PySceneDetect's own default, 15, misses a cut between two people
    before one backdrop (14.3), and a jump cut of one speaker (14.7); without a cut nothing above 6.9 also stands out."""
    min_ratio: float = 3.0
    """Against the mean change of the two frames before and the two after; PySceneDetect's default."""


_WIDTH = 256  # PySceneDetect's own working width
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
        height, width = frame.shape[:2]
        scale = min(1.0, _WIDTH / width)
        small = cv2.resize(
            frame, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA
        )
        bgr = np.ascontiguousarray(small[..., ::-1])
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
