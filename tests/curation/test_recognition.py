"""A network made by hand tells faces by the means of their patches; the true ones are for users to supply."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from curation.config import CurationConfig
from curation.face_stage import FaceTools
from curation.faces import FaceFinder
from curation.recognition import NETWORKS, Recogniser, least_similarity
from faceloom.errors import UserError
from landmarks.landmarker import Face
from tests.onnx_file import write_patch_means


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_patch_means(tmp_path_factory.mktemp("network") / "patches.onnx")


def only_face(frame: np.ndarray, finder: FaceFinder) -> Face:
    (face,) = finder.census(frame)
    return face


@pytest.mark.parametrize("name", list(NETWORKS))
def test_a_face_is_itself_wherever_it_is_in_the_picture_and_however_large(
    name: str, network: Path, man: np.ndarray, finder: FaceFinder
) -> None:
    recogniser = Recogniser(name, network)
    here = recogniser.embed(man[0], only_face(man[0], finder))
    assert here.shape == (48,)
    assert np.linalg.norm(here) == pytest.approx(1)
    moved = cv2.warpAffine(man[0], np.array([[2.0, 0, 90], [0, 2.0, 40]]), (520, 400), flags=cv2.INTER_CUBIC)
    there = recogniser.embed(moved, only_face(moved, finder))
    assert here @ there > 0.98


def test_pixels_reach_a_network_in_the_range_it_was_trained_with(
    network: Path, finder: FaceFinder, man: np.ndarray
) -> None:
    face = only_face(man[0], finder)
    grey = np.full_like(man[0], 200)
    assert (Recogniser("sface", network).embed(grey, face) > 0).all()
    dark = np.full_like(man[0], 50)
    assert (Recogniser("arcface", network).embed(dark, face) < 0).all()


def test_where_no_alignment_exists_nobody_is_known(network: Path, man: np.ndarray, finder: FaceFinder) -> None:
    face = only_face(man[0], finder)
    nowhere = Face(np.full_like(face.points, 0.5), face.blendshapes, face.box, 1.0)
    assert np.isnan(Recogniser("arcface", network).embed(man[0], nowhere)).all()


def at_angles(degrees: list[float]) -> dict[int, np.ndarray]:
    """An embedding every sixth frame, at these angles in a plane."""
    return {6 * i: np.array([np.cos(a), np.sin(a)]) for i, a in enumerate(np.radians(degrees))}


def test_the_most_unlike_look_decides() -> None:
    one_person = at_angles([0, 5, -5, 3, 0, -3, 4, -4])
    assert least_similarity(one_person, (0, 48), (0, 48)) > 0.99
    one_stranger = at_angles([0, 5, -5, 3, 80, -3, 4, -4])
    assert least_similarity(one_stranger, (0, 48), (0, 48)) == pytest.approx(np.cos(np.radians(80)), abs=0.1)


def test_a_window_is_compared_with_its_shot_and_with_nothing_else() -> None:
    looks = at_angles([0] * 8 + [90] * 4 + [0] * 8)  # frames 48 to 71 show someone else
    assert least_similarity(looks, (0, 48), (0, 120)) > 0.99
    assert least_similarity(looks, (42, 80), (0, 120)) < 0.1
    assert least_similarity(looks, (48, 72), (48, 72)) > 0.99  # a shot of their own


def test_what_was_not_seen_is_not_compared() -> None:
    looks = at_angles([0, 0, 0, 0]) | {24: np.array([np.nan, np.nan])}
    assert least_similarity(looks, (0, 30), (0, 30)) > 0.99
    assert np.isnan(least_similarity(looks, (24, 30), (0, 30)))
    assert np.isnan(least_similarity({}, (0, 49), (0, 49)))


def test_a_file_that_is_no_network_is_refused_by_name(tmp_path: Path) -> None:
    bad = tmp_path / "arcface.onnx"
    bad.write_bytes(b"not a network")
    with pytest.raises(UserError, match=r"identity_check\.model: .*arcface\.onnx is no ONNX network"):
        Recogniser("arcface", bad)


def test_a_network_that_is_not_there_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task_file: Path
) -> None:
    monkeypatch.setenv("FACELOOM_MODELS", str(tmp_path))
    config = CurationConfig.model_validate({"identity_check": {"model": "sface"}})
    with pytest.raises(UserError, match=r"identity_check\.model asks for files.*\n.*sface"):
        FaceTools.load(task_file, config)
    (tmp_path / "identity").mkdir()
    write_patch_means(tmp_path / "identity" / "face_recognition_sface_2021dec.onnx")
    assert FaceTools.load(task_file, config).recogniser is not None
