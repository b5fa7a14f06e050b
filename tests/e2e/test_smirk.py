"""The backend whose files a user supplies, here with made-up ones: curated, stored, drawn."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from curation.samples import kept_sample
from curation.sources import Clip, write_manifest
from faceloom import models
from landmarks.smirk_backend import load_smirk_backend
from landmarks.smirk_motion import PARAMETERS, SHAPE
from landmarks.stored import record_of
from shards.video import decode_video
from tests.e2e.command import curate_arguments, faceloom
from tests.landmarks.flame_files import write_user_files

SMIRK = ("--set", "landmarks.backend=smirk")

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def user_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("models")
    write_user_files(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACELOOM_MODELS", str(folder))
        yield folder


@pytest.fixture(scope="module")
def one_clip(footage: dict[str, Clip], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("manifest") / "manifest.parquet"
    write_manifest([footage["talking_man.mp4"]], path)
    return path


@pytest.fixture(scope="module")
def dataset(one_clip: Path, user_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("smirk") / "dataset"
    faceloom(*curate_arguments(one_clip, out), *SMIRK, environment={"FACELOOM_MODELS": str(user_files)})
    return out


@pytest.mark.slow
def test_a_sample_holds_smirks_parameters_and_verifies(dataset: Path, user_files: Path) -> None:
    faceloom("verify", dataset)
    sample = kept_sample(dataset, "talking_man.mp4")
    assert sample["smirk.npy"].shape == (49, PARAMETERS)
    assert sample["smirk_shape.npy"].shape == (SHAPE,)
    assert sample["meta.json"]["landmark_backend"] == "smirk"
    record = record_of(sample)
    points = load_smirk_backend("test").own(record)
    assert np.isfinite(points[:, [33, 263, 61, 291, 468, 473]]).all()


@pytest.mark.slow
def test_the_crop_follows_the_face(dataset: Path) -> None:
    record = record_of(kept_sample(dataset, "talking_man.mp4"))
    assert record.smirk is not None
    centre = record.smirk.crop @ np.array([111.5, 111.5, 1])
    face_px = record.points[..., :2] * [record.width, record.height]
    np.testing.assert_allclose(centre, (face_px.min(axis=1) + face_px.max(axis=1)) / 2, atol=1.0)


@pytest.mark.slow
def test_the_dataset_is_drawn_and_a_portrait_driven_with_it(
    dataset: Path, user_files: Path, footage: dict[str, Clip], tmp_path: Path
) -> None:
    environment = {"FACELOOM_MODELS": str(user_files)}
    rendered, driven = tmp_path / "man.mp4", tmp_path / "astronaut.mp4"
    faceloom("landmarks", "render", dataset, "talking_man.mp4", "--out", rendered, environment=environment)
    faceloom(
        *("landmarks", "retarget", "--backend", "smirk", "--portrait", models.model_path("demo/astronaut.png", "test")),
        *("--driving", footage["talking_man.mp4"].path, "--out", driven),
        environment=environment,
    )
    for video in (rendered, driven):
        lines = decode_video(video.read_bytes())[:, :, -480:]
        assert (lines.max(axis=(1, 2, 3)) > 100).all()  # something is drawn in every frame
        assert len({frame.tobytes() for frame in lines}) > 20  # and moves


def test_without_the_files_the_run_is_refused_and_says_which_and_from_where(one_clip: Path, tmp_path: Path) -> None:
    empty = {"FACELOOM_MODELS": str(tmp_path / "none")}
    done = faceloom(*curate_arguments(one_clip, tmp_path / "out"), *SMIRK, environment=empty, exit_code=2)
    for told in ("SMIRK_em1.pt", "generic_model.pkl", "flame.is.tue.mpg.de", "research only", "landmarks.backend"):
        assert told in done.stderr
