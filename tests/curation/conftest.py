"""Real footage and the real detector, for the tests that need a face; skipped where the models were not fetched.

And a made-up dataset with the command in process, for those that ask a ledger.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from curation.faces import CensusConfig, FaceFinder
from tests import fetched


@pytest.fixture(scope="session")
def finder(task_file: Path) -> Iterator[FaceFinder]:
    finder = FaceFinder(task_file, CensusConfig())
    yield finder
    finder.close()


@pytest.fixture(scope="session")
def street() -> np.ndarray:
    """``[250, 272, 640, 3]`` RGB at 25 fps: traffic. A cut at frame 30 shows a man whose face turns to us around frame 36."""
    return fetched.frames("demo/bikes.mp4")


Place = Callable[[np.ndarray, float, float, float], None]


@pytest.fixture(scope="session")
def place(man: np.ndarray, finder: FaceFinder) -> Place:
    """``place(frame, x, y, height)`` puts the man's head into ``frame``, its face ``height`` px from forehead to chin."""
    (face,) = finder.census(man[0])
    points = face.points[:, :2] * [176, 144]
    own_height = float(np.linalg.norm(points[10] - points[152]))
    x0, y0 = np.maximum(0, np.subtract(points.min(0), [24, 34])).astype(int)
    x1, y1 = np.add(points.max(0), [24, 22]).astype(int)
    head = man[0][y0:y1, x0:x1]

    def paste(frame: np.ndarray, x: float, y: float, height: float) -> None:
        scale = height / own_height
        method = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
        part = cv2.resize(head, None, fx=scale, fy=scale, interpolation=method)
        top, left = round(y - part.shape[0] / 2), round(x - part.shape[1] / 2)
        frame[top : top + part.shape[0], left : left + part.shape[1]] = part

    return paste


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Five clips in two blocks, verified: 0 to 3 are kept with a yaw of 10, 20, 30 and 44 degrees, 4 is rejected for 60."""
    # Imported late: most tests of this folder need none of it.
    from tests.curation.ledgers import decided, write_whole_dataset

    rows = [decided(0, yaw_p95_deg=10), decided(1, yaw_p95_deg=20), decided(2, yaw_p95_deg=30)]
    rows += [decided(3, yaw_p95_deg=44), decided(4, until="window", yaw_p95_deg=60)]
    write_whole_dataset(tmp_path / "dataset", [rows[:3], rows[3:]])
    return tmp_path / "dataset"
