import numpy as np
import pytest
import torch
from safetensors.torch import load

from landmarks import record
from shards.schema import BASE_LAYER, BLENDSHAPES, FIELDS, LANDMARKS, decode_field, encode_field, layer_fields
from tests.shards.conftest import clip_key, sample_values

VALUES = sample_values(clip_key(0))
ARRAYS = [field for field in layer_fields(BASE_LAYER, FIELDS) if field.dtype is not None]


def test_the_schema_holds_what_the_landmark_record_holds() -> None:
    assert (LANDMARKS, BLENDSHAPES) == (record.POINTS, record.BLENDSHAPES)


@pytest.mark.parametrize("name", VALUES)
def test_a_field_survives_the_round_trip(name: str) -> None:
    decoded = decode_field(name, encode_field(name, VALUES[name]))
    np.testing.assert_equal(decoded, VALUES[name])


@pytest.mark.parametrize("field", ARRAYS, ids=lambda field: field.name)
def test_the_bytes_are_those_of_numpy_save(field, tmp_path) -> None:
    np.save(tmp_path / "reference.npy", VALUES[field.name])
    assert encode_field(field.name, VALUES[field.name]) == (tmp_path / "reference.npy").read_bytes()


@pytest.mark.parametrize("field", ARRAYS, ids=lambda field: field.name)
def test_a_wrong_type_or_shape_is_refused_by_name(field) -> None:
    array = VALUES[field.name]
    for wrong in (array.astype("float64"), array[:-1], array.tolist()):
        with pytest.raises(ValueError, match=field.name):
            encode_field(field.name, wrong)


def test_memory_order_does_not_change_the_bytes() -> None:
    pose = VALUES["pose.npy"]
    assert encode_field("pose.npy", np.asfortranarray(pose)) == encode_field("pose.npy", pose)


def test_a_number_that_is_not_finite_is_refused() -> None:
    pose = VALUES["pose.npy"].copy()
    pose[3, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"pose\.npy.*finite"):
        encode_field("pose.npy", pose)


def test_json_does_not_depend_on_key_order() -> None:
    meta = VALUES["meta.json"]
    assert encode_field("meta.json", dict(reversed(meta.items()))) == encode_field("meta.json", meta)


@pytest.mark.parametrize("bad", [float("nan"), np.float32(1), {1, 2}])
def test_json_takes_only_what_json_can_say(bad) -> None:
    with pytest.raises(ValueError, match=r"meta\.json"):
        encode_field("meta.json", VALUES["meta.json"] | {"statistics": bad})


def test_meta_names_its_missing_keys() -> None:
    meta = {key: value for key, value in VALUES["meta.json"].items() if key not in ("licence", "pts_s")}
    with pytest.raises(ValueError, match="licence, pts_s"):
        encode_field("meta.json", meta)


@pytest.mark.parametrize("name", ["video.mp4", "face.jpg", "reference.jpg"])
def test_a_file_of_another_kind_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        encode_field(name, b"GIF89a, or nothing like it")


def test_pickled_objects_are_never_loaded() -> None:
    import io

    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"pose\.npy"):
        decode_field("pose.npy", stream.getvalue())


@pytest.mark.parametrize("name", VALUES)
def test_bytes_that_are_cut_short_or_too_long_are_refused(name: str) -> None:
    data = encode_field(name, VALUES[name])
    with pytest.raises(ValueError, match=name):
        decode_field(name, data[:2])
    if FIELDS[name].dtype is not None:
        for wrong in (data[:-1], data + b"\0\0\0\0"):
            with pytest.raises(ValueError, match=name):
                decode_field(name, wrong)


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"audio\.wav.*video\.mp4"):
        encode_field("audio.wav", b"")
    with pytest.raises(ValueError, match=r"'latent'.*base"):
        layer_fields("latent", ())


MOMENTS = np.random.default_rng(5).integers(0, 0x7F00, (32, 13, 60, 90)).astype(np.uint16)


def test_bfloat16_is_a_safetensors_file_whose_last_bytes_are_the_numbers() -> None:
    data = encode_field("video_moments.safetensors", MOMENTS)
    assert data.endswith(MOMENTS.tobytes())
    (tensor,) = load(data).values()
    assert str(tensor.dtype) == "torch.bfloat16"
    np.testing.assert_array_equal(tensor.view(torch.uint16).numpy(), MOMENTS)
    np.testing.assert_array_equal(decode_field("video_moments.safetensors", data), MOMENTS)


@pytest.mark.parametrize("bits", [0x7F80, 0xFF80, 0x7FC0])
def test_bfloat16_that_is_not_finite_is_refused(bits: int) -> None:
    moments = MOMENTS.copy()
    moments[3, 2, 1, 0] = bits
    with pytest.raises(ValueError, match="finite"):
        encode_field("video_moments.safetensors", moments)


def test_the_number_of_channels_is_free_and_the_rest_is_not() -> None:
    encode_field("video_moments.safetensors", MOMENTS[:16])
    for wrong in (MOMENTS[:, :12], MOMENTS[0], MOMENTS.astype(np.float32)):
        with pytest.raises(ValueError, match=r"video_moments\.safetensors: expected uint16 \[any, 13, 60, 90\]"):
            encode_field("video_moments.safetensors", wrong)


def test_bfloat16_bytes_of_another_kind_are_refused() -> None:
    data = encode_field("video_moments.safetensors", MOMENTS)
    for wrong in (data[:-1], data + b"x", b"", data.replace(b"BF16", b"F16 ", 1)):
        with pytest.raises(ValueError, match=r"video_moments\.safetensors"):
            decode_field("video_moments.safetensors", wrong)


@pytest.mark.parametrize("name", ["latents", "latents-fp32", "latents-a_b-1"])
def test_a_layer_of_a_kind_has_its_fields_under_any_name(name: str) -> None:
    assert layer_fields(name, ()) == layer_fields("latents", ())


@pytest.mark.parametrize("name", ["latent", "latents-", "latents.x", "Latents", "-latents"])
def test_a_layer_of_no_known_kind_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="unknown layer"):
        layer_fields(name, ())
