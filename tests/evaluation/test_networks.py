"""What is done before and after the networks that users supply, and the names that their checkpoints have; no true weights.

Sources: insightface's ``model_zoo/scrfd.py`` and ``utils/face_align.py``; TFace's IR-101; pytorch-openpose.
"""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from evaluation import networks, scrfd
from evaluation.checkpoints import load_into
from evaluation.curricular import CurricularFace, Ir101
from evaluation.inception import Inception
from evaluation.legacy_faces import legacy_face, norm_crop
from evaluation.metrics import METRICS
from evaluation.openpose import OpenPose, OpenPoseBody, peaks
from evaluation.similarity import face_similarity
from faceloom.errors import UserError

SIDE = 320


def released_detect(outputs: dict[int, tuple[np.ndarray, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """``SCRFD.forward`` and what ``detect`` does with it, anchor by anchor."""
    found = []
    for stride, (scores, boxes, points) in outputs.items():
        row = 0
        for y in range(SIDE // stride):
            for x in range(SIDE // stride):
                for _ in range(2):
                    if scores[row, 0] >= 0.5:
                        cx, cy = x * stride, y * stride
                        left, top, right, bottom = boxes[row] * stride
                        box = (cx - left, cy - top, cx + right, cy + bottom)
                        at = [(cx + dx, cy + dy) for dx, dy in (points[row] * stride).reshape(5, 2)]
                        found.append((scores[row, 0], box, at))
                    row += 1
    found.sort(key=lambda each: -each[0])
    kept: list[tuple] = []
    for face in found:
        x0, y0, x1, y1 = face[1]
        for _, (a0, b0, a1, b1), _ in kept:
            w, h = min(x1, a1) - max(x0, a0) + 1, min(y1, b1) - max(y0, b0) + 1
            shared = max(0, w) * max(0, h)
            if shared / ((x1 - x0 + 1) * (y1 - y0 + 1) + (a1 - a0 + 1) * (b1 - b0 + 1) - shared) > 0.4:
                break
        else:
            kept.append(face)
    return np.array([box for _, box, _ in kept]), np.array([at for *_, at in kept])


def scrfd_outputs(rng: np.random.Generator, likely: float) -> dict[int, tuple[np.ndarray, ...]]:
    made = {}
    for stride in (8, 16, 32):
        anchors = 2 * (SIDE // stride) ** 2
        scores = (rng.random((anchors, 1)) * (rng.random((anchors, 1)) < likely)).astype(np.float32)
        boxes, points = (rng.uniform(low, 4, (anchors, n)).astype(np.float32) for low, n in ((0.5, 4), (-3, 10)))
        made[stride] = (scores, boxes, points)
    return made


def test_the_detectors_answers_are_read_as_insightface_reads_them():
    made = scrfd_outputs(np.random.default_rng(0), likely=0.05)
    flat = [each for outputs in made.values() for each in outputs]
    boxes, points = scrfd.decode(flat[::-1], SIDE)
    expected_boxes, expected_points = released_detect(made)
    assert 20 < len(boxes) < 200
    assert boxes == pytest.approx(expected_boxes, abs=1e-3)
    assert points == pytest.approx(expected_points, abs=1e-3)


class WhiteSquares:
    """In the place of the network: takes squares of pure white for faces, and their corners and middle for points."""

    def setInput(self, blob: np.ndarray) -> None:  # noqa: N802
        assert blob.shape == (1, 3, SIDE, SIDE)
        self.white = ((blob[0] * 128 + 127.5) > 254.5).all(axis=0).astype(np.uint8)

    def getUnconnectedOutLayersNames(self) -> list[str]:  # noqa: N802
        return []

    def forward(self, _names: list[str]) -> list[np.ndarray]:
        outputs = scrfd_outputs(np.random.default_rng(0), likely=0)
        _, _, found, _ = cv2.connectedComponentsWithStats(self.white)
        for x, y, w, h, _ in found[1:].astype(float):
            column, line = int(x // 8), int(y // 8)
            row, at = 2 * (line * SIDE // 8 + column), np.array([8 * column, 8 * line])
            scores, boxes, points = outputs[8]
            scores[row] = 1
            boxes[row] = np.concatenate([at - (x, y), (x + w, y + h) - at]) / 8
            corners = np.array([(x, y), (x + w, y), (x + w / 2, y + h / 2), (x, y + h), (x + w, y + h)])
            points[row] = ((corners - at) / 8).ravel()
        return [each for of_stride in outputs.values() for each in of_stride]


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> scrfd.Scrfd:
    monkeypatch.setattr(cv2.dnn, "readNetFromONNX", lambda _file: WhiteSquares())
    return scrfd.Scrfd(Path("det_10g.onnx"))


def picture(*squares: tuple[int, int, int], shape: tuple[int, int] = (480, 720)) -> np.ndarray:
    made = np.full((*shape, 3), 60, np.uint8)
    for x, y, side in squares:
        made[y : y + side, x : x + side] = 255
    return made


@pytest.mark.parametrize("shape", [(480, 720), (720, 480), (300, 300)])
def test_the_largest_face_is_taken_in_px_of_the_picture_whatever_its_shape(
    detector: scrfd.Scrfd, shape: tuple[int, int]
):
    points = detector.largest(picture((30, 40, 60), (150, 120, 120), shape=shape))
    assert points[0] == pytest.approx((150, 120), abs=4)
    assert points[4] == pytest.approx((270, 240), abs=4)


def test_what_is_found_only_in_a_grey_border_keeps_its_place_in_the_picture(detector: scrfd.Scrfd):
    frame = picture((200, 160, 120))
    seen = legacy_face(frame, detector)

    class OnlyBordered(scrfd.Scrfd):
        def __init__(self) -> None:
            pass

        def largest(self, given: np.ndarray) -> np.ndarray | None:
            return detector.largest(given) if given.shape == (720, 1080, 3) else None

    bordered = legacy_face(frame, OnlyBordered())
    assert bordered.points == pytest.approx(seen.points, abs=5)
    assert cv2.absdiff(bordered.aligned, seen.aligned).mean() < 8
    assert legacy_face(picture(), detector) is None


def umeyama(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The similarity of ``skimage.transform.SimilarityTransform.estimate``, by the singular values of the covariance."""
    a, b = source - source.mean(0), target - target.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a / len(a))
    turn = u @ vt
    scale = s.sum() / a.var(axis=0).sum()
    return np.column_stack([scale * turn, target.mean(0) - scale * turn @ source.mean(0)])


@pytest.mark.parametrize("side", [112, 224])
def test_faces_are_aligned_as_insightface_aligns_them(man: np.ndarray, side: int):
    template = np.array(
        [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
    )
    points = np.array([[70, 60], [98, 55], [86, 76], [76, 92], [99, 88]], np.float32)
    matrix = umeyama(points.astype(float), template * side / 112)
    expected = cv2.warpAffine(man[0], matrix, (side, side), borderValue=0)
    assert np.array_equal(norm_crop(man[0], points, side), expected)


def test_the_layers_of_curricularface_are_named_as_in_its_checkpoint():
    with torch.device("meta"):
        made = Ir101().state_dict()
    assert len([name for name in made if name.startswith("body.") and name.endswith("res_layer.1.weight")]) == 49
    assert made["body.3.shortcut_layer.0.weight"].shape == (128, 64, 1, 1)
    assert made["output_layer.3.weight"].shape == (512, 25088)
    assert {"input_layer.2.weight", "body.48.res_layer.5.running_var", "output_layer.4.running_mean"} <= made.keys()
    assert "output_layer.4.weight" not in made
    assert sum(
        value.numel() for name, value in made.items() if "num_batches" not in name and "running" not in name
    ) == (65_150_912)


def test_the_layers_of_openpose_are_named_as_in_its_checkpoint():
    with torch.device("meta"):
        made = OpenPoseBody()
    names = made.state_dict()
    assert names["conv1_1.weight"].shape == (64, 3, 3, 3)
    assert names["conv4_4_CPM.bias"].shape == (128,)
    assert names["conv5_5_CPM_L1.weight"].shape == (38, 512, 1, 1)
    assert names["Mconv1_stage2_L2.weight"].shape == (128, 185, 7, 7)
    assert names["Mconv7_stage6_L2.weight"].shape == (19, 128, 1, 1)
    assert len(names) == 2 * (12 + 2 * 5 + 5 * 2 * 7)
    assert made(torch.empty(1, 3, 48, 64, device="meta")).shape == (1, 19, 6, 8)


def released_peaks(maps: np.ndarray) -> list[tuple[int, int]]:
    found = []
    for part in range(18):
        smooth = gaussian_filter(maps[:, :, part], sigma=3)
        for y in range(smooth.shape[0]):
            for x in range(smooth.shape[1]):
                around = [
                    smooth[y - 1, x] if y else 0,
                    smooth[y + 1, x] if y + 1 < smooth.shape[0] else 0,
                    smooth[y, x - 1] if x else 0,
                    smooth[y, x + 1] if x + 1 < smooth.shape[1] else 0,
                ]
                if smooth[y, x] > 0.1 and all(smooth[y, x] >= each for each in around):
                    found.append((x, y))
    return found


def test_peaks_are_those_of_the_release_part_after_part(rng_maps: np.ndarray):
    assert peaks(rng_maps).tolist() == [list(map(float, each)) for each in released_peaks(rng_maps)]
    assert len(peaks(rng_maps)) > 18


@pytest.fixture
def rng_maps() -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=(40, 50, 19))
    return (gaussian_filter(noise, (2, 2, 0)) * 4).astype(np.float64)


class _BrightSpots(nn.Module):
    """In the place of OpenPose: the blue of the picture is the heat of part 0."""

    def forward(self, x: Tensor) -> Tensor:
        heat = nn.functional.avg_pool2d(2 * x[:, :1].clamp(min=0), 8)  # the grey of the border is 0
        return torch.cat([heat, heat.new_zeros(1, 18, *heat.shape[2:])], 1)


def without_weights(kind: type, model: Callable[[Tensor], Tensor]) -> object:
    made = kind.__new__(kind)
    made._device, made._model = torch.device("cpu"), model
    return made


def test_joints_are_given_in_px_of_the_picture_and_the_network_sees_blue_first():
    frame = np.zeros((480, 720, 3), np.uint8)
    cv2.circle(frame, (500, 300), 40, (0, 0, 255), -1)
    cv2.circle(frame, (100, 100), 40, (255, 0, 0), -1)
    found = without_weights(OpenPose, _BrightSpots()).candidates(frame)
    assert len(found)
    assert found == pytest.approx(np.broadcast_to([500, 300], found.shape), abs=20)


def test_inception_gets_imagenets_normalisation_in_v2_and_none_in_legacy():
    given: list[Tensor] = []

    def model(pixels: Tensor) -> Tensor:
        given.append(pixels)
        return torch.zeros(len(pixels), 2048)

    inception = without_weights(Inception, model)
    face = np.full((64, 64, 3), 255, np.uint8)
    for normalised in (True, False):
        assert inception.features([face, face], normalised).shape == (2, 2048)
    assert given[0].shape == (2, 3, 299, 299)
    assert given[0][0, :, 0, 0].numpy() == pytest.approx((1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225])
    assert given[1][0, :, 0, 0].numpy() == pytest.approx([1, 1, 1])


def test_similarity_is_not_cut_off_and_counts_the_frames_without_a_face():
    def model(pixels: Tensor) -> Tensor:
        return pixels.mean(dim=(2, 3)) @ torch.eye(3, 8)

    network = without_weights(CurricularFace, model)
    light, dark = np.full((112, 112, 3), 250, np.uint8), np.full((112, 112, 3), 5, np.uint8)
    assert face_similarity(network, light, [light, light], 4).value == pytest.approx(1)
    assert face_similarity(network, light, [light, light], 4).coverage == 0.5
    assert face_similarity(network, light, [dark], 4).value == pytest.approx(-1)
    assert face_similarity(network, light, [light, dark], 4).value == pytest.approx(0, abs=1e-6)
    assert face_similarity(network, None, [light], 4).value is None
    assert face_similarity(network, light, [], 4).value is None


def test_a_file_of_other_weights_is_refused_by_name(tmp_path: Path):
    torch.save({"weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    (tmp_path / "noise.pth").write_bytes(b"no checkpoint")
    for name in ("other.pth", "noise.pth", "absent.pth"):
        with pytest.raises(UserError, match=f"{name} does not hold the weights of Linear"):
            load_into(nn.Linear(3, 3), tmp_path / name)
    with pytest.raises(UserError, match="ONNX"):
        scrfd.Scrfd(tmp_path / "noise.pth")


def test_what_is_missing_is_named_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FACELOOM_MODELS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    metric = METRICS["legacy_facesim_arc"]
    assert networks.present([metric]) == set()
    (tmp_path / "identity").mkdir()
    (tmp_path / "identity" / "det_10g.onnx").touch()
    assert networks.present([metric]) == {"scrfd"}
    reason = networks.why_absent(metric, {"scrfd"})
    assert str(tmp_path / "identity" / "arcface.onnx") in reason
    assert "det_10g" not in reason
    assert networks.why_absent(metric, {"scrfd", "arcface"}) == ""
