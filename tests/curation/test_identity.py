from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from curation import identity
from curation.identity import FaceConfig, PatchTokens, SiglipTokens
from faceloom.errors import UserError
from landmarks import topology

TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 84}
TINY_TOKENS = (36, 16)


def landmarks(five: np.ndarray) -> np.ndarray:
    """478 points whose eyes, nose and mouth lie at ``five`` [5, 2]; the eyes are circles around their centres."""
    points = np.full((478, 2), -1000.0)
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    circle = 10 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points[list(topology.RIGHT_EYE.contour)] = five[0] + circle  # the person's right is the image's left
    points[list(topology.LEFT_EYE.contour)] = five[1] + circle
    points[[identity.NOSE, *topology.MOUTH_CORNERS]] = five[2:]
    return points


def picture(height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


@pytest.fixture
def face() -> np.ndarray:
    return picture(512, 512)


@pytest.fixture(scope="module")
def tiny_siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("siglip")
    torch.manual_seed(0)
    SiglipVisionModel(SiglipVisionConfig(patch_size=14, **TINY)).save_pretrained(folder)
    return folder


def test_a_face_in_template_position_is_left_as_it_is(face):
    aligned = identity.align_face(face, landmarks(identity.TEMPLATE))
    assert aligned.dtype == np.uint8
    assert np.abs(aligned.astype(int) - face).max() <= 1


@pytest.mark.parametrize(("angle_deg", "scale"), [(0, 0.5), (25, 0.6), (-40, 1.3)])
def test_a_turned_and_scaled_face_comes_back_upright(face, angle_deg, scale):
    a, b = scale * np.cos(np.radians(angle_deg)), scale * np.sin(np.radians(angle_deg))
    moved = np.array([[a, -b, 500.0], [b, a, 400.0]])
    frame = cv2.warpAffine(face, moved, (1400, 1300), flags=cv2.INTER_CUBIC)
    points = landmarks(identity.TEMPLATE @ moved[:, :2].T + moved[:, 2])
    aligned = identity.align_face(frame, points)
    inner = np.s_[100:-100, 100:-100]
    assert np.abs(aligned[inner].astype(int) - face[inner]).mean() < 4
    assert np.corrcoef(aligned[inner].ravel(), face[inner].ravel())[0, 1] > 0.99


def test_what_lies_outside_the_frame_has_the_colour_of_the_release(face):
    shifted = landmarks(identity.TEMPLATE - [200, 0])
    aligned = identity.align_face(face, shifted)
    assert aligned[256, 50].tolist() == [132, 133, 135]


def test_alignment_repeats_bit_for_bit(face):
    points = landmarks(identity.TEMPLATE) + np.random.default_rng(1).normal(0, 6, (478, 2))
    assert np.array_equal(identity.align_face(face, points), identity.align_face(face, points))


def test_points_that_coincide_are_refused(face):
    with pytest.raises(ValueError, match="no similarity"):
        identity.align_face(face, np.full((478, 2), np.nan))


def test_the_frame_depends_on_clip_and_purpose_alone():
    found, yaw = np.ones(49, bool), np.zeros(49)
    assert identity.choose_frame("c1", "face", found, yaw) == identity.choose_frame("c1", "face", found, yaw)
    draws = {identity.choose_frame(f"c{i}", "face", found, yaw) for i in range(400)}
    assert draws == set(range(49))
    same = sum(
        identity.choose_frame(f"c{i}", "face", found, yaw) == identity.choose_frame(f"c{i}", "reference", found, yaw)
        for i in range(400)
    )
    assert same < 30


def test_only_found_and_frontal_frames_are_drawn():
    found = np.array([True, False, True, True, True])
    yaw = np.array([31.0, np.nan, -30.0, 5.0, -80.0])
    assert {identity.choose_frame(f"c{i}", "face", found, yaw) for i in range(50)} == {2, 3}


def test_without_a_suitable_frame_the_most_frontal_found_one_is_taken():
    found = np.array([True, False, True])
    assert identity.choose_frame("c", "face", found, np.array([-70.0, 0.0, 45.0])) == 2


def test_a_clip_without_a_face_is_refused_by_name():
    with pytest.raises(ValueError, match="clip 3f2a"):
        identity.choose_frame("3f2a", "face", np.zeros(49, bool), np.zeros(49))


def test_patch_tokens_are_what_siglips_first_layer_sees(face):
    tokens = PatchTokens()(face)
    assert (tokens.shape, tokens.dtype) == (PatchTokens.shape, np.float16) == ((729, 1152), np.float16)
    assert not tokens[:, 588:].any()
    convolution = torch.nn.Conv2d(3, 8, kernel_size=14, stride=14, bias=False)
    small = cv2.resize(face, (378, 378), interpolation=cv2.INTER_AREA)
    with torch.no_grad():
        expected = convolution(torch.from_numpy(small).permute(2, 0, 1)[None].float() / 127.5 - 1)[0].flatten(1).T
        weights = convolution.weight.flatten(1).numpy()
    np.testing.assert_allclose(tokens[:, :588].astype(np.float32) @ weights.T, expected.numpy(), atol=5e-3)


def test_siglip_states_its_own_token_shape_and_keeps_to_it(tiny_siglip, face):
    encoder = SiglipTokens(str(tiny_siglip), "cpu")
    tokens = encoder(face)
    assert encoder.shape == TINY_TOKENS
    assert (tokens.shape, tokens.dtype) == (TINY_TOKENS, np.float16)


def test_siglip_tokens_equal_the_models_own_on_its_own_preprocessing(tiny_siglip, face):
    processor = SiglipImageProcessorPil(size={"height": 84, "width": 84}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    pixels = torch.as_tensor(np.asarray(processor(face)["pixel_values"]))
    with torch.inference_mode():
        expected = SiglipVisionModel.from_pretrained(tiny_siglip).eval()(pixels).last_hidden_state[0]
    encoder = SiglipTokens(str(tiny_siglip), "cpu")
    np.testing.assert_allclose(encoder.pixels(face), pixels[0].numpy(), atol=1e-6)
    np.testing.assert_allclose(encoder(face), expected.numpy(), atol=2e-3)


def test_the_vision_tower_is_taken_out_of_a_full_siglip(tmp_path, face):
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {"patch_size": 14, **TINY}
    model = SiglipModel(SiglipConfig(text_config={"vocab_size": 50, **text}, vision_config=vision)).eval()
    model.save_pretrained(tmp_path)
    encoder = SiglipTokens(str(tmp_path), "cpu")
    with torch.inference_mode():
        expected = model.vision_model(torch.from_numpy(encoder.pixels(face))[None]).last_hidden_state[0]
    np.testing.assert_allclose(encoder(face), expected.numpy(), atol=2e-3)


def test_the_fingerprint_follows_the_weights_and_not_their_place(tiny_siglip, tmp_path):
    tower = SiglipVisionModel.from_pretrained(tiny_siglip)
    tower.save_pretrained(tmp_path / "copy")
    with torch.no_grad():
        tower.embeddings.patch_embedding.bias[0] += 1e-3
    tower.save_pretrained(tmp_path / "changed")
    original, copy, changed = (
        SiglipTokens(str(folder), "cpu").fingerprint
        for folder in (tiny_siglip, tmp_path / "copy", tmp_path / "changed")
    )
    assert original == copy != changed


@pytest.mark.parametrize(
    ("model", "download"),
    [("nobody/no-siglip", "nobody/no-siglip"), ("/nowhere/siglip", "google/siglip-so400m-patch14-384")],
)
def test_an_absent_siglip_is_an_error_with_the_key_and_the_remedy(model, download):
    with pytest.raises(UserError) as raised:
        SiglipTokens(model, "cpu")
    assert f"face.siglip_model: '{model}' is neither" in str(raised.value)
    assert f"hf download {download}" in str(raised.value)


def test_another_kind_of_model_is_refused_instead_of_filled_with_random_weights(tmp_path):
    CLIPVisionModel(CLIPVisionConfig(patch_size=14, **TINY)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"face\.siglip_model"):
        SiglipTokens(str(tmp_path), "cpu")


def test_a_checkpoint_that_lacks_a_weight_is_refused_by_its_name(tmp_path):
    tower = SiglipVisionModel(SiglipVisionConfig(patch_size=14, **TINY))
    weights = {name: value for name, value in tower.state_dict().items() if "patch_embedding.bias" not in name}
    tower.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(UserError, match=r"lacks .*patch_embedding\.bias"):
        SiglipTokens(str(tmp_path), "cpu")


def test_the_config_names_the_encoder(tiny_siglip):
    assert identity.face_encoder(FaceConfig(encoder="none")) is None
    assert identity.face_encoder(FaceConfig(encoder="patches")).name == "patches"
    siglip = identity.face_encoder(FaceConfig(encoder="siglip", siglip_model=str(tiny_siglip), device="cpu"))
    assert siglip.name == "siglip"
