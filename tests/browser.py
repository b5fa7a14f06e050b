"""A real browser without a window, for tests of what it shows: Chromium as the distribution packages it."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

_FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
READY = "html[data-ready]"
_PATIENCE_S = 180.0


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser; a test that needs it fails with the command that installs it."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.fail("this test needs Chromium; on Debian: sudo apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=_FLAGS)
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page that was opened from disk, and what went wrong or out while it was."""

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, file: Path, fragment: str = "") -> None:
        """Load ``file`` from disk and wait until it shows something."""
        self.page.goto("about:blank")  # else another fragment of the same file is no load
        self.page.goto(f"{file.absolute().as_uri()}{fragment and f'#{fragment}'}")
        self.page.wait_for_selector(READY)

    def wait_for(self, script: str) -> None:
        """Until ``script`` gives true; the page's own policy forbids to let it wait there."""
        end = time.monotonic() + _PATIENCE_S
        while not self.page.evaluate(script):
            assert time.monotonic() < end, f"never came true: {script}"
            self.page.wait_for_timeout(50)


@contextmanager
def visiting(browser: Browser, **options: Any) -> Iterator[Visit]:
    """A fresh profile; at the end, nothing may have been complained of, and nothing asked of a network."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    context.set_default_timeout(1000 * _PATIENCE_S)  # ms; a busy machine needs more than Playwright's 30 s
    visit = Visit(context.new_page())
    visit.page.on("pageerror", lambda error: visit.errors.append(str(error)))
    visit.page.on("console", lambda message: visit.errors.append(message.text) if message.type == "error" else None)
    visit.page.on("request", lambda request: visit.requests.append(request.url))
    try:
        yield visit
        assert visit.errors == []
        assert [url for url in visit.requests if not url.startswith(("file:", "data:", "about:"))] == []
    finally:
        context.close()
