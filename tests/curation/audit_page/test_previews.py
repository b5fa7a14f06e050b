import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser

from curation.audit_page.page import write_page
from curation.audit_page.previews import Preview, kept_preview, source_previews
from curation.ledger import Decision
from curation.outcome import Kept, Rejected
from curation.sources import Clip
from landmarks.record import quantise
from shards.schema import FRAMES, HEIGHT, WIDTH
from shards.video import encode_video
from tests.browser import visiting
from tests.curation.datasets import blank_sample, write_dataset
from tests.videos import numbered, write

JPEG = b"\xff\xd8\xff"
GREY = 90
VIDEOS = "[...document.querySelectorAll('video')]"


def frames_of(preview: Preview) -> np.ndarray:
    assert preview.video is not None, preview.note
    with av.open(io.BytesIO(preview.video)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("previews")


@pytest.fixture(scope="module")
def talk(folder: Path) -> Path:
    """30 s at 25 fps; each frame tells its second in the grey of a corner."""
    return write(folder / "talk.mp4", [numbered(i // 25, 96, 128) for i in range(750)])


def clip(path: Path, t0_s: float = 0.0, t1_s: float | None = None) -> Clip:
    return Clip("set", path.name, str(path), t0_s, t1_s)


@contextmanager
def without_models(folder: Path) -> Iterator[None]:
    """As on a machine to which no model was fetched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACELOOM_MODELS", str(folder / "none"))
        patch.setenv("XDG_CACHE_HOME", str(folder / "none"))
        yield


@pytest.fixture(scope="module")
def dataset(folder: Path, talk: Path) -> Path:
    """A kept clip, grey with the nose tip in its middle, and two rejected ones, of which one lost its source."""
    kept, long, gone = Clip("set", "kept.mp4", "/kept.mp4"), clip(talk), Clip("set", "gone.mp4", "/nowhere/gone.mp4")
    points = np.full((FRAMES, 478, 3), -0.4, np.float32)
    points[:, 4, :2] = 0.5
    sample = blank_sample(kept) | {
        "video.mp4": encode_video([np.full((HEIGHT, WIDTH, 3), GREY, np.uint8)] * FRAMES, 12),
        "landmarks.u16.npy": quantise(points),
        "face.jpg": JPEG,
        "reference.jpg": JPEG,
    }
    sample["meta.json"] |= {"source_wh": [WIDTH, HEIGHT], "crop_xywh": [0.0, 0.0, float(WIDTH), float(HEIGHT)]}
    decisions = [
        Decision(kept, Kept()),
        Decision(long, Rejected("motion", 0.5, 1.0)),
        Decision(gone, Rejected("yaw", 50, 45)),
    ]
    write_dataset(folder / "set", [decisions], {kept: sample})
    return folder / "set"


def test_a_kept_clip_is_shown_from_its_sample_with_its_landmarks(dataset: Path):
    frames = frames_of(kept_preview(dataset, 0, Clip("set", "kept.mp4", "/kept.mp4").clip_id))
    assert frames.shape[1:] == (160, 240, 3)
    assert 24 <= len(frames) <= 36
    assert frames[:, 80, 120].min() > GREY + 40  # the white dot of the nose
    assert np.abs(frames[:, 20, 20].astype(int) - GREY).max() < 12


def test_a_damaged_shard_gives_the_reason_in_place_of_the_picture(dataset: Path, tmp_path: Path):
    dataset = Path(shutil.copytree(dataset, tmp_path / "set"))
    tar = dataset / "shards" / "part-00000.base.tar"
    tar.write_bytes(tar.read_bytes()[:2000])
    preview = kept_preview(dataset, 0, Clip("set", "kept.mp4", "/kept.mp4").clip_id)
    assert preview.video is None
    assert "cut short" in preview.note
    assert "does not list" in kept_preview(dataset, 0, "0" * 16).note


@pytest.fixture(scope="module")
def of_sources(talk: Path, folder: Path) -> dict[str, Preview]:
    """What becomes of sources good and bad, made in one go."""
    (folder / "text.mp4").write_text("no video at all")
    (folder / "empty.mp4").touch()
    clips = {name: clip(folder / f"{name}.mp4") for name in ("text", "empty", "absent")}
    clips |= {"outside": clip(talk, 99.0), "whole": clip(talk), "its end": clip(talk, 20.0)}
    with without_models(folder):
        return dict(zip(clips, source_previews(list(clips.values())), strict=True))


@pytest.mark.parametrize(("name", "middle_s"), [("whole", 15), ("its end", 25)])
def test_a_source_is_shown_from_the_middle_of_its_span(of_sources: dict[str, Preview], name: str, middle_s: int):
    frames = frames_of(of_sources[name])
    assert frames.shape == (30, 160, 214, 3)
    shown = [(np.median(frame[100:150, 130:200]) - 8) / 6 for frame in frames]
    assert middle_s - 2.5 < min(shown) <= max(shown) < middle_s + 2.5


def test_without_the_landmarker_a_preview_says_how_to_get_it(of_sources: dict[str, Preview]):
    assert "faceloom models fetch face_landmarker" in of_sources["whole"].note


@pytest.mark.parametrize(
    ("name", "says"),
    [("text", "movie table"), ("empty", "zero bytes"), ("absent", "not there"), ("outside", "outside the video")],
)
def test_a_bad_source_leaves_its_reason_in_place_of_the_picture(of_sources: dict[str, Preview], name: str, says: str):
    assert of_sources[name].video is None
    assert says in of_sources[name].note


def test_every_face_of_a_source_has_its_landmarks(man: np.ndarray, task_file: Path, tmp_path: Path):
    two = np.concatenate([man[:12], man[:12, :, ::-1]], axis=2)
    write(tmp_path / "two.mp4", list(two))
    (drawn,) = (frames_of(preview) for preview in source_previews([clip(tmp_path / "two.mp4")]))
    height, width = drawn.shape[1:3]
    bare = np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in two])
    changed = np.abs(drawn[:4].astype(int) - bare[:4]).max(axis=-1) > 60
    assert changed[..., : width // 2].sum() > 100
    assert changed[..., width // 2 :].sum() > 100


@pytest.fixture(scope="module")
def page(dataset: Path, folder: Path) -> Path:
    file = folder / "audit.html"
    with without_models(folder):
        written = write_page(dataset, file)
    assert written.previews == 2
    return file


def test_previews_play_until_they_are_paused(browser: Browser, page: Path):
    with visiting(browser) as visit:
        visit.open(page)
        visit.page.locator(".examples").scroll_into_view_if_needed()
        visit.wait_for(f"{VIDEOS}.length === 2 && {VIDEOS}.every(video => video.currentTime > 0.2)")
        first = visit.page.locator(".preview").first
        assert first.get_attribute("aria-label") == "Pause the preview of kept.mp4"
        first.click()
        assert visit.page.evaluate(f"{VIDEOS}.map(video => video.paused)") == [True, False]
        visit.page.get_by_role("button", name="Pause previews").click()
        assert visit.page.evaluate(f"{VIDEOS}.map(video => video.paused)") == [True, True]
        assert "/nowhere/gone.mp4 is not there any more" in visit.page.locator(".gone").inner_text()


def test_previews_start_paused_for_who_wants_less_motion(browser: Browser, page: Path):
    with visiting(browser, reduced_motion="reduce") as visit:
        visit.open(page)
        visit.page.locator(".examples").scroll_into_view_if_needed()
        visit.wait_for("document.querySelector('video').readyState >= 2")
        assert visit.page.evaluate(f"{VIDEOS}.map(video => video.paused)") == [True, True]
        visit.page.locator(".preview").first.press("Enter")
        visit.wait_for("document.querySelector('video').currentTime > 0.2")
