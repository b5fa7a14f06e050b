"""The page, in a browser, from an upload to a video that plays; and what it keeps from strangers."""

import asyncio
import json
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from animation.animate_config import AnimateConfig
from animation.app import Studio, serving
from animation.app_gate import Gate, names_address
from animation.app_work import PreviewAsk, Previewer, check_limits
from faceloom.errors import UserError
from tests import videos
from tests.animation.conftest import write_image
from tests.animation.exports import save_export

CONFIG = AnimateConfig.model_validate(
    {"steps": 5, "video": {"preset": "ultrafast"}, "load": {"device": "cpu"}, "app": {"max_mb": 1}}
)
_PATIENCE_S = 240.0


@pytest.fixture(scope="module")
def files(man, reader, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uploads")
    write_image(folder / "man.png", man[0])
    write_image(folder / "wall.png", np.full((200, 300, 3), 128, np.uint8))
    videos.write(folder / "talk.mp4", list(man[:25:5]), rate=12, sound=videos.clicks(0.4, [0.2]))
    return folder


def test_a_taken_port_is_told_in_a_sentence(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        told = f"^cannot serve at 127.0.0.1:{port}: the port is taken; choose another --host or --port$"
        with pytest.raises(UserError, match=told), serving(str(tmp_path), CONFIG, "127.0.0.1", port):
            pass


def wait_for(page: Page, script: str) -> None:
    """Until ``script`` gives true; the page's policy forbids Playwright to wait there itself."""
    end = time.monotonic() + _PATIENCE_S
    while not page.evaluate(script):
        assert time.monotonic() < end, f"never came true: {script}"
        page.wait_for_timeout(50)


def says(page: Page, element: str, text: str) -> None:
    wait_for(page, f"document.querySelector('#{element}')?.innerText.includes({json.dumps(text)})")


def upload(page: Page, element: str, path: Path) -> None:
    page.set_input_files(f"#{element} input[type=file]", str(path))


def cut_in_half(page: Page) -> None:
    """Trim the driving video to its first half, as a person would."""
    page.click("#driving button[aria-label='Trim video to selection']")
    wait_for(page, "document.querySelectorAll('#timeline img').length === 10")
    end = page.locator("[aria-label='end drag handle for trimming video']").bounding_box()
    line = page.locator("#timeline").bounding_box()
    assert end is not None
    assert line is not None
    page.mouse.move(end["x"] + end["width"] / 2, end["y"] + end["height"] / 2)
    page.mouse.down()
    page.mouse.move(line["x"] + line["width"] / 2, end["y"] + end["height"] / 2)
    page.mouse.up()
    page.click("#driving .edit-buttons button >> nth=0")


def test_from_an_upload_by_a_preview_to_a_video_that_plays(
    browser: Browser, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[object] = []
    for module in (av, Image):
        monkeypatch.setattr(module, "open", lambda *given, **_: decoded.append(given) or pytest.fail("decoded here"))
    checkpoint = save_export(tmp_path / "model")
    with serving(str(checkpoint), CONFIG, "127.0.0.1", _free_port()) as address:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.set_default_timeout(1000 * _PATIENCE_S)  # ms
        page = context.new_page()
        asked, errors = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        page.goto(address)
        page.wait_for_selector("#animate")
        assert page.is_disabled("#animate")

        upload(page, "portrait", files / "wall.png")
        says(page, "portrait-told", "wall.png: no face is found")
        upload(page, "driving", files / "talk.mp4")
        says(page, "driving-told", "Face found in the first frame; 0.4 s, 176×144 px, with sound.")
        assert page.is_disabled("#animate")

        page.click("#portrait button[aria-label='Remove Image']")
        page.wait_for_selector("#portrait input[type=file]", state="attached")
        upload(page, "portrait", files / "man.png")
        says(page, "portrait-told", "Face found, 56 px high in 176×144 px.")
        wait_for(page, "document.querySelector('#portrait-seen img')?.naturalWidth === 640")
        wait_for(page, "!document.querySelector('#animate').disabled")

        page.click("#animate")
        wait_for(page, "document.querySelector('#result video')?.readyState >= 2")
        duration, width = page.evaluate("(v => [v.duration, v.videoWidth])(document.querySelector('#result video'))")
        assert duration == pytest.approx(5 / 12, abs=0.05)
        assert width == 720 + 586 + 720
        page.evaluate("document.querySelector('#result video').play()")
        wait_for(page, "document.querySelector('#result video').currentTime > 0.1")
        says(page, "made", "5 frames, 0.4 s at 12 a second, 720×480 px, with sound")
        wait_for(page, "!document.querySelector('#download').disabled")

        # By now the page has loaded the FFmpeg that the browser cuts videos with.
        cut_in_half(page)
        says(page, "driving-told", "Face found in the first frame; 0.2 s, 176×144 px")
        assert errors == []
        assert [url for url in asked if not url.startswith((address, "blob:", "data:"))] == []
        assert decoded == []
        assert _status(f"{address}gradio_api/file=/etc/passwd") == 403
        assert _status(f"{address}gradio_api/process_recording", b"") == 404
        context.close()
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _status(url: str, body: bytes | None = None) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=30) as answer:  # noqa: S310 - our own
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


# What is found in uploads, and what is not accepted.


@pytest.fixture(scope="module")
def previewer(reader, tmp_path_factory) -> Iterator[Previewer]:
    previewer = Previewer(tmp_path_factory.mktemp("previews"))
    yield previewer
    previewer._reader.close()


def test_a_preview_marks_face_and_window_in_a_picture_of_some_size(previewer, man, tmp_path):
    wall = np.full((432, 300, 3), (70, 110, 90), np.uint8)
    wall[30:174, 90:266] = man[0]
    found = previewer(PreviewAsk("portrait", write_image(tmp_path / "body.png", wall), CONFIG), lambda *_: None)
    picture = np.asarray(Image.open(found.picture)).astype(int)
    assert picture.shape == (640, 444, 3)
    assert "The part in the yellow frame is animated" in found.told
    green = (np.abs(picture - (60, 220, 110)).max(axis=-1) < 50).sum()
    yellow = (np.abs(picture - (255, 200, 40)).max(axis=-1) < 50).sum()
    assert green > 300
    assert yellow > 500


def test_a_driver_may_begin_before_his_face_is_seen(previewer, man, tmp_path):
    shots = [np.full_like(man[0], 0)] * 12 + list(man[:12])
    path = videos.write(tmp_path / "fade.mp4", shots, rate=12)
    assert "Face found from 1.0 s on; 2.0 s" in previewer(PreviewAsk("driving", path, CONFIG), lambda *_: None).told
    faceless = videos.write(tmp_path / "faceless.mp4", shots[:12], rate=12)
    with pytest.raises(UserError, match=r"faceless.mp4: no face is found in the first 1 s"):
        previewer(PreviewAsk("driving", faceless, CONFIG), lambda *_: None)


def test_uploads_beyond_the_limits_are_refused_before_they_are_decoded(man, tmp_path):
    tight = AnimateConfig.model_validate({"app": {"max_seconds": 1, "max_megapixels": 0.02, "max_mb": 1}})
    long = videos.write(tmp_path / "long.mp4", [man[0, :48, :64]] * 30, rate=12)
    large = videos.write(tmp_path / "large.mp4", [man[0]] * 3, rate=12)
    picture = write_image(tmp_path / "large.png", man[0])
    heavy = tmp_path / "heavy.png"
    heavy.write_bytes(bytes(2_000_000))
    for kind, path, message in [
        ("driving", long, r"long.mp4 lasts 2 s, up to 1 are accepted"),
        ("driving", large, r"large.mp4 has 176x144 px, up to 0.02 million"),
        ("portrait", picture, r"large.png has 176x144 px, up to 0.02 million"),
        ("portrait", heavy, r"heavy.png has 2 MB, up to 1 are accepted"),
    ]:
        with pytest.raises(UserError, match=message):
            check_limits(kind, path, tight)


def test_errors_on_the_page_name_uploads_as_they_were_called_and_no_options_of_the_command(tmp_path):
    studio = Studio("model", CONFIG, tmp_path)
    told = f"{tmp_path / 'x1'} does not exist; give another file with --driving"
    studio._previewer = SimpleNamespace(ask=_raising(UserError(told)))
    shown, text, fine = studio.preview("driving", {"path": str(tmp_path / "x1"), "orig_name": "talk.mp4"}, "auto")
    assert (shown, text, fine) == (None, "talk.mp4 does not exist", False)


def test_settings_that_the_page_does_not_offer_are_refused(tmp_path):
    studio = Studio("model", CONFIG, tmp_path)
    _, text, fine = studio.preview("portrait", {"path": "/x"}, "sometimes")
    assert (text, fine) == ("these settings are none that the page offers", False)
    upload_ = {"path": "/x", "orig_name": "x"}
    with pytest.raises(UserError, match="none that the page offers"):
        studio.animate(upload_, upload_, 10, 3.0, -1, "auto", lambda *_, **__: None)


def _raising(error):
    def ask(*_):
        raise error

    return ask


# The gate.


def _through(path: str, body: bytes = b"") -> tuple[int, list[bytes]]:
    """The status that the gate gives a request, and the bodies that came through it."""
    seen: list[bytes] = []
    sent: list[dict] = []

    async def inner(_scope, receive, send):
        seen.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    # In a thread: Playwright has a loop of its own in this one.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, Gate(inner)({"type": "http", "path": path}, receive, send)).result()
    return sent[0]["status"], seen


def test_only_what_the_page_uses_is_served():
    assert _through("/")[0] == 200
    assert _through("/gradio_api/upload", b"x") == (200, [b"x"])
    for path in ("/gradio_api/process_recording", "/gradio_api/run/predict", "/gradio_api/proxy=http://x", "/docs"):
        assert _through(path) == (404, [])


def test_a_job_that_names_a_file_by_an_address_is_refused():
    job = {"data": [{"path": "/uploads/x.png", "meta": {"_type": "gradio.FileData"}}], "fn_index": 1}
    body = json.dumps(job).encode()
    assert _through("/gradio_api/queue/join", body) == (200, [body])
    job["data"][0]["path"] = "http://169.254.169.254/latest"
    assert _through("/gradio_api/queue/join", json.dumps(job).encode()) == (400, [])
    assert _through("/gradio_api/queue/join", b"{" * 70_000) == (400, [])
    assert names_address(b"no json")
