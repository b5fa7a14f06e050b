"""Footage, and the one undisturbed run that others are compared with."""

from pathlib import Path

import numpy as np
import pytest

from curation.demo import demo_clips
from curation.sample_video import SampleVideoConfig, encode_sample
from curation.sources import Clip, write_manifest
from curation.video import FrameReader, probe
from faceloom import models
from faceloom.models import model_path
from tests.e2e.command import curate, faceloom, short_demo
from training.demo import unexpected as unlearned


@pytest.fixture(scope="session", autouse=True)
def _models_are_here() -> None:
    missing = [name for name in models.files() if models.locate(name).path is None]
    if missing:
        pytest.fail(f"the end-to-end tests need model files; get them with: faceloom models fetch {' '.join(missing)}")


@pytest.fixture(scope="session")
def footage(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Clip]:
    """The demo's videos by name."""
    return {clip.source_key: clip for clip in demo_clips(tmp_path_factory.mktemp("footage"))}


def long_man(folder: Path, times: int) -> Path:
    """A video of the talking man, four seconds forwards and backwards in turn, without a cut."""
    probed = probe(str(model_path("demo/carphone_pristine.mp4", "tests/e2e")))
    man = np.stack(list(FrameReader(probed).frames(range(len(probed.pts_s)))))[:, :, :-1]
    path = folder / f"{times}_times.mp4"
    frames = np.concatenate([man if i % 2 == 0 else man[::-1] for i in range(times)])
    path.write_bytes(encode_sample(frames, probed.fps, None, SampleVideoConfig()))
    return path


@pytest.fixture(scope="session")
def manifest(footage: dict[str, Clip], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven clips, in blocks of two: two are kept, others rejected or failed, the last block keeps none."""
    man = footage["talking_man.mp4"]
    clips = [
        Clip("test", "whole", man.path, licence=man.licence),
        footage["too_short.mp4"],
        footage["cut_short.mp4"],
        Clip("test", "span", man.path, t0_s=0.4, t1_s=3.9, licence=man.licence),
        footage["frozen.mp4"],
        Clip("test", "absent", man.path + ".absent"),
        Clip("test", "same again", man.path, duplicate_of="whole"),
    ]
    path = tmp_path_factory.mktemp("manifest") / "manifest.parquet"
    write_manifest(clips, path)
    return path


@pytest.fixture(scope="session")
def undisturbed(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of ``manifest`` as a run that nothing happened to writes it."""
    out = tmp_path_factory.mktemp("undisturbed") / "dataset"
    curate(manifest, out)
    return out


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``faceloom demo`` leaves behind, with less training than it has by itself."""
    out = tmp_path_factory.mktemp("demo") / "demo"
    done = faceloom(*short_demo(out), exit_code=None)
    missed = unlearned(out / "run")
    assert done.returncode == (1 if missed else 0), done.stdout + done.stderr
    assert all(line in done.stderr for line in missed)
    return out
