"""The page in a real browser: panels that play in step, and curves whose cursors follow."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from evaluation import page as page_module
from evaluation.config import EvaluateConfig
from evaluation.measure import Measure, absent
from evaluation.metrics import METRICS
from evaluation.output import summary
from evaluation.page import write_page
from evaluation.pairs import Pair
from evaluation.run import Evaluation
from evaluation.video import VideoReport
from tests.browser import Visit
from tests.videos import numbered, write

FRAMES, FPS = 12, 10
NAME = "same <b>&"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three videos, of which one failed and one has no expression; their panels are drawn in this process."""
    video = write(tmp_path / "v.mp4", [numbered(i, 96, 128) for i in range(FRAMES)], rate=FPS)
    cv2.imwrite(str(tmp_path / "p.png"), numbered(0, 96, 128))
    pairs = tuple(Pair(name, video, tmp_path / "p.png", video, None) for name in (NAME, "broken", "faceless"))
    lips = np.linspace(0.5, 1.5, FRAMES)
    curves = {"expression": np.full(FRAMES, 0.01), "lip_gap_cm": lips, "driver_lip_gap_cm": lips}
    reports = (
        VideoReport(NAME, "", {"expression": Measure(0.01, FRAMES, FRAMES, 0)}, curves, FPS, FRAMES),
        VideoReport("broken", "it is cut <i>short</i>"),
        VideoReport("faceless", "", {"expression": absent("no face", FRAMES)}, {}, FPS, FRAMES),
    )

    def here(work: Any, items: Sequence[Any], *_: object) -> Iterator[Any]:
        return (work(item) for item in items)

    monkeypatch.setattr(page_module, "apart", here)
    evaluation = Evaluation((METRICS["expression"],), pairs, reports, {})
    config = EvaluateConfig()
    write_page(evaluation, summary(evaluation, config), config, tmp_path / "evaluation.html")
    return tmp_path / "evaluation.html"


def test_the_page_plays_panels_in_step_with_its_curves(page: Path, visit: Visit):
    visit.open(page)
    shown = visit.page
    assert "it is cut <i>short</i>" in shown.locator(".failures").inner_text()
    assert shown.locator("main b").count() == shown.locator("main i").count() == 0
    # What nothing is known of is worse than all that is measured.
    assert shown.locator(".picks button").all_inner_texts() == ["faceless", NAME]
    shown.locator(".picks button").last.click()
    visit.wait_for("document.querySelector('video').readyState >= 2")
    assert shown.locator(".names span").all_inner_texts() == ["reference", "driver", "result"]
    assert shown.evaluate("document.querySelector('video').videoWidth") == 3 * 320
    # A click into a curve goes to a frame: the video, all cursors, and the values beside them.
    chart = shown.locator(".chart svg").last
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    shown.mouse.click(box["x"] + 0.999 * box["width"], box["y"] + 40)
    visit.wait_for("!document.querySelector('video').seeking && document.querySelector('video').currentTime > 1.1")
    assert shown.locator(".frame").inner_text().startswith("frame 11 ")
    cursors = shown.locator(".cursor").evaluate_all("lines => lines.map(line => line.getAttribute('x1'))")
    assert cursors == ["1000.0"] * 2
    assert shown.locator(".key output").all_inner_texts() == ["0.01", "1.5", "1.5"]
    # While it plays, the cursors follow.
    shown.get_by_role("slider", name="Frame").fill("0")
    shown.get_by_role("button", name="Play").click()
    visit.wait_for("Number(document.querySelector('.cursor').getAttribute('x1')) > 200")
