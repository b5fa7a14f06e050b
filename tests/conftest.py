"""What all tests have in common."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from playwright.sync_api import Browser

from tests import fetched
from tests.browser import Visit, chromium, visiting
from tests.s3 import Endpoint, s3_endpoint

# How long an example takes depends on what else the machine does, be it only the other process of ``make test``.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One for all tests of a process: Playwright's synchronous interface cannot be entered a second time."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    with visiting(browser) as visit:
        yield visit


@pytest.fixture(scope="session")
def _endpoint() -> Iterator[Endpoint]:
    with s3_endpoint() as endpoint:
        yield endpoint


@pytest.fixture
def s3(_endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    """An S3 endpoint with an empty bucket, which this process and its children use."""
    for name, value in _endpoint.environment.items():
        monkeypatch.setenv(name, value)
    _endpoint.empty()
    return _endpoint


@pytest.fixture(scope="session")
def task_file() -> Path:
    """MediaPipe's FaceLandmarker."""
    return fetched.model("face_landmarker")


@pytest.fixture(scope="session")
def man() -> np.ndarray:
    """``[120, 144, 176, 3]`` RGB at 29.97 fps: one man, talking in a car; the face is 56 px high."""
    return fetched.frames("demo/carphone_pristine.mp4")


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """``run(*arguments)`` is the command ``faceloom``: exit code, standard output, standard error."""
    from faceloom import cli

    monkeypatch.setenv("COLUMNS", "160")

    def command(*arguments: object) -> tuple[int, str, str]:
        code = 0
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        return (code, *capsys.readouterr())

    return command
