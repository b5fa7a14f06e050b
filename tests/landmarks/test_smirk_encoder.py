from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from faceloom.errors import UserError
from landmarks.record import LandmarkRecord
from landmarks.smirk_backend import load_smirk, smirk_fingerprint
from landmarks.smirk_crop import SIDE, cut, face_crop
from landmarks.smirk_encoder import SmirkEncoder
from landmarks.smirk_motion import CAMERA, EXPRESSION, EYELIDS, JAW, POSE
from tests.landmarks import flame_files
from tests.landmarks.flame_files import PARTS, backbone

WIDTH, HEIGHT = 320, 240


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return flame_files.encoder_weights()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, weights) -> Path:
    path = tmp_path_factory.mktemp("smirk") / "SMIRK_em1.pt"
    torch.save(weights, path)
    return path


@pytest.fixture(scope="module")
def encoder(checkpoint: Path) -> SmirkEncoder:
    return SmirkEncoder(checkpoint)


def clip(frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise and a face that wanders through it, at times beyond its border."""
    rng = np.random.default_rng(4)
    face = rng.uniform(-0.15, 0.15, (478, 3))
    centres = rng.uniform(0.1, 0.9, (frames, 1, 3))
    return rng.integers(0, 256, (frames, HEIGHT, WIDTH, 3), dtype=np.uint8), (centres + face).astype(np.float32)


def every(frames: int) -> np.ndarray:
    return np.ones(frames, dtype=bool)


def composed_by_hand(weights: dict[str, torch.Tensor], picture: np.ndarray) -> dict[str, np.ndarray]:
    """The release's forward pass for one crop ``[224, 224, 3]``."""
    out = {}
    for part, (name, _, head, _) in PARTS.items():
        prefix = f"smirk_encoder.{part}."
        network = backbone(name)
        network.load_state_dict(
            {k.removeprefix(f"{prefix}encoder."): v for k, v in weights.items() if k.startswith(f"{prefix}encoder.")}
        )
        with torch.no_grad():
            features = network(torch.tensor(picture[None]).permute(0, 3, 1, 2).float() / 255)[-1]
            pooled = torch.nn.functional.adaptive_avg_pool2d(features, 1).flatten(1)
            out[part] = (pooled @ weights[f"{prefix}{head}.0.weight"].T + weights[f"{prefix}{head}.0.bias"])[0].numpy()
    return out


def test_parameters_equal_a_forward_pass_composed_by_hand(encoder: SmirkEncoder, weights):
    frames, points = clip(9)  # more than one batch
    motion = encoder.encode(frames, points, every(9))
    for frame in (0, 4, 8):
        crop = face_crop(points[frame, :, :2] * [WIDTH, HEIGHT])
        expected = composed_by_hand(weights, cut(frames[frame], crop))
        row, face = motion.parameters[frame], expected["expression_encoder"]
        np.testing.assert_allclose(row[POSE], expected["pose_encoder"][:3], atol=1e-3)
        np.testing.assert_allclose(row[CAMERA], expected["pose_encoder"][3:], atol=1e-3)
        np.testing.assert_allclose(row[EXPRESSION], face[:50], atol=1e-3)
        np.testing.assert_allclose(row[EYELIDS], np.clip(face[50:52], 0, 1), atol=1e-3)
        np.testing.assert_allclose(row[JAW], [max(face[52], 0), *np.clip(face[53:], -0.2, 0.2)], atol=1e-3)
        np.testing.assert_allclose(motion.crop[frame], crop, rtol=1e-6)


def with_heads(weights: dict[str, torch.Tensor], path: Path, bias: float) -> SmirkEncoder:
    """Heads that answer ``bias`` whatever they see."""
    flat = {
        key: torch.full_like(value, bias if key.endswith("bias") else 0) if "_layers.0." in key else value
        for key, value in weights.items()
    }
    torch.save(flat, path)
    return SmirkEncoder(path)


def test_eyelids_and_jaw_stay_within_what_a_face_can_do(tmp_path, weights):
    frames, points = clip(1)
    for bias, eyelid, opening, sideways in [(5.0, 1, 5, 0.2), (-5.0, 0, 0, -0.2)]:
        row = with_heads(weights, tmp_path / "flat.pt", bias).encode(frames, points, every(1)).parameters[0]
        np.testing.assert_allclose(row[EYELIDS], [eyelid] * 2)
        np.testing.assert_allclose(row[JAW], [opening, sideways, sideways])
        np.testing.assert_allclose(row[:56], bias)  # nothing else is bounded


def test_the_shape_is_the_median_of_the_frames_that_have_a_face(encoder: SmirkEncoder, weights):
    frames, points = clip(4)
    found = np.array([True, False, True, True])
    shapes = []
    for frame in np.flatnonzero(found):
        crop = face_crop(points[frame, :, :2] * [WIDTH, HEIGHT])
        shapes.append(composed_by_hand(weights, cut(frames[frame], crop))["shape_encoder"])
    motion = encoder.encode(frames, points, found)
    np.testing.assert_allclose(motion.shape, np.median(shapes, axis=0), atol=1e-3)


def test_frames_without_a_face_are_interpolated_and_held_at_the_ends(encoder: SmirkEncoder):
    frames, points = clip(6)
    found = np.array([False, True, False, False, True, False])
    points[~found] = np.nan
    motion = encoder.encode(frames, points, found)
    for values in (motion.parameters, motion.crop):
        np.testing.assert_array_equal(values[0], values[1])
        np.testing.assert_array_equal(values[5], values[4])
        np.testing.assert_allclose(values[2], (2 * values[1] + values[4]) / 3, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(values[3], (values[1] + 2 * values[4]) / 3, rtol=1e-4, atol=1e-5)


def test_frames_may_come_one_at_a_time_and_the_answer_is_the_same_each_time(encoder: SmirkEncoder):
    frames, points = clip(3)
    first = encoder.encode(frames, points, every(3))
    again = encoder.encode(iter(frames), points[..., :2], every(3))
    np.testing.assert_array_equal(again.parameters, first.parameters)
    np.testing.assert_array_equal(again.shape, first.shape)


def test_a_clip_without_a_face_is_refused(encoder: SmirkEncoder):
    frames, points = clip(2)
    with pytest.raises(ValueError, match="no frame has a face"):
        encoder.encode(frames, points, np.zeros(2, dtype=bool))


def test_fewer_frames_than_landmarks_are_refused(encoder: SmirkEncoder):
    frames, points = clip(3)
    with pytest.raises(ValueError, match="longer"):
        encoder.encode(frames[:2], points, every(3))


SPOILT = {
    "a layer is missing": lambda weights: weights.pop("smirk_encoder.shape_encoder.shape_layers.0.bias"),
    "a layer too many": lambda weights: weights.update({"smirk_encoder.pose_encoder.extra.weight": torch.zeros(1)}),
    "another size": lambda weights: weights.update(
        {"smirk_encoder.expression_encoder.expression_layers.0.bias": torch.zeros(50)}
    ),
    "no encoder": lambda weights: [weights.pop(key) for key in list(weights) if key.startswith("smirk_encoder.")],
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(tmp_path, weights, spoil):
    stored = dict(weights)
    spoil(stored)
    torch.save(stored, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other\.pt does not hold SMIRK's encoder"):
        SmirkEncoder(tmp_path / "other.pt")


class Anything:
    pass


@pytest.mark.parametrize("content", [b"no zip", [1, 2], Anything()], ids=["bytes", "list", "object"])
def test_what_is_no_checkpoint_of_plain_tensors_is_refused_by_name(tmp_path, content):
    if isinstance(content, bytes):
        (tmp_path / "other.pt").write_bytes(content)
    else:
        torch.save(content, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other\.pt is no readable checkpoint"):
        SmirkEncoder(tmp_path / "other.pt")


def test_the_crop_is_a_square_of_whole_px_around_the_landmarks():
    points = np.array([[100, 50], [163.7, 90], [120, 181.2]])
    low, high = points.min(axis=0), points.max(axis=0)
    size = int(1.4 * ((high[0] - low[0]) + (high[1] - low[1])) / 2)
    x, y = (low + high) / 2 - size / 2
    crop = face_crop(points)
    corners = np.array([[0, 0, 1], [0, SIDE - 1, 1], [SIDE - 1, 0, 1]]) @ crop.T
    np.testing.assert_allclose(corners, [[x, y], [x, y + size], [x + size, y]], atol=1e-9)


@pytest.mark.parametrize("size", [60, 223, 500])
def test_the_crop_is_sampled_as_scipy_samples_it_and_black_outside(size):
    frame = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    crop = np.array([[size / 223, 0, 211.3], [0, size / 223, -20.7]])
    rows, columns = np.mgrid[:SIDE, :SIDE]
    x, y = crop @ [columns.ravel(), rows.ravel(), np.ones(SIDE**2)]
    expected = np.stack(
        [map_coordinates(frame[..., c].astype(float), [y, x], order=1, mode="grid-constant") for c in range(3)], axis=1
    ).reshape(SIDE, SIDE, 3)
    sampled = cut(frame, crop)
    assert sampled.dtype == np.uint8
    assert np.abs(sampled - np.floor(expected)).max() <= 1
    assert np.mean(sampled != np.floor(expected)) < 1e-2  # rounding would change half of them
    assert not sampled[:2].any()


def test_loading_gives_encoder_backend_and_the_fingerprint_of_their_files(tmp_path, monkeypatch, weights):
    monkeypatch.setenv("FACELOOM_MODELS", str(tmp_path))
    eyelid = flame_files.write_all(tmp_path, np.random.default_rng(0))[3]
    torch.save(weights, tmp_path / "smirk" / "SMIRK_em1.pt")
    smirk = load_smirk("landmarks.backend")
    assert smirk_fingerprint("landmarks.backend") == smirk.fingerprint

    frames, points = clip(2)
    record = LandmarkRecord(
        points=points,
        blendshapes=np.zeros((2, 52), dtype=np.float32),
        pose=np.zeros((2, 4, 4), dtype=np.float32),
        found=every(2),
        width=WIDTH,
        height=HEIGHT,
        smirk=smirk.encoder.encode(frames, points, every(2)),
    )
    assert np.isfinite(smirk.backend.own(record)[:, flame_files.NUMBERS]).all()

    np.save(eyelid, np.zeros((5023, 3)))
    assert smirk_fingerprint("landmarks.backend") != smirk.fingerprint


def test_without_any_file_one_error_lists_all_five(tmp_path, monkeypatch):
    monkeypatch.setenv("FACELOOM_MODELS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"landmarks\.backend asks for files") as caught:
        load_smirk("landmarks.backend")
    assert str(caught.value).count(f"put at   {tmp_path}") == 5
