import shutil
from pathlib import Path

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from safetensors.torch import load_file
from torch import nn

from faceloom.errors import UserError
from tests.training.test_model import inputs
from tests.training.tiny import (
    GRID,
    TRANSFORMER,
    WEIGHTS,
    edit_config,
    edit_weights,
    into_shards,
    save_base,
    save_release,
)
from training.codec import CodecConfig
from training.convert import from_base, from_release, to_release
from training.model import PortraitModel, build_model
from training.model_config import ModelConfig

PATCHES = "patch_embed.proj.weight"
POSITIONS = "patch_embed.pos_embedding"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_release(tmp_path_factory.mktemp("release"))


def built(folder: Path) -> PortraitModel:
    return build_model(ModelConfig(init=str(folder)), CodecConfig(codec="pixels"), GRID, guider=False)


def rotary(model: PortraitModel) -> tuple[torch.Tensor, torch.Tensor]:
    return model._rotary_embedding(torch.device("cpu"))


def test_from_base_the_output_is_the_base_models_whatever_the_landmarks(tmp_path):
    # As many text tokens as there are face tokens, and text positions of zero, as sincos positions have them.
    folder = save_base(tmp_path / "base", max_text_seq_length=729)
    edit_weights(folder / "transformer", lambda weights: weights[POSITIONS][:, :729].zero_())
    stock = CogVideoXTransformer3DModel.from_pretrained(folder / "transformer", low_cpu_mem_usage=False)
    model = built(folder)
    model.face = nn.Identity()
    given = inputs()
    text = torch.randn(2, 729, TRANSFORMER["text_embed_dim"], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = stock(
            torch.cat([given["noisy"], given["reference"]], dim=2),
            text,
            given["timestep"],
            image_rotary_emb=rotary(model),
        ).sample
        for landmarks in (torch.zeros_like(given["landmarks"]), given["landmarks"]):
            ours = model(**given | {"face_tokens": text, "landmarks": landmarks})
            assert (ours - expected).abs().max() == 0
    assert expected.std() > 0.1


def test_from_base_only_the_patches_and_the_positions_change(base):
    theirs = load_file(base / "transformer" / WEIGHTS)
    ours = {name.removeprefix("transformer."): value for name, value in built(base).state_dict().items()}
    assert theirs.keys() == {name for name in ours if not name.startswith("face.")}
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs if name not in (PATCHES, POSITIONS))

    noise, landmarks, reference = ours[PATCHES].split(16, dim=1)
    assert torch.equal(torch.cat([noise, reference], dim=1), theirs[PATCHES])
    assert not landmarks.any()

    assert ours[POSITIONS].shape[1] == 729 + 13 * 2 * 3
    assert torch.equal(ours[POSITIONS][:, 729:], theirs[POSITIONS][:, 226:])
    assert not ours[POSITIONS][:, :729].any()


def test_the_release_is_loaded_as_its_own_code_reads_it(release):
    weights = load_file(release / "transformer" / WEIGHTS)
    projector = {
        name: weights.pop(f"patch_embed.pose_proj.{name}") for name in ("0.weight", "0.bias", "2.weight", "2.bias")
    }
    stock = CogVideoXTransformer3DModel(**TRANSFORMER | {"in_channels": 48, "max_text_seq_length": 729})
    stock.load_state_dict(weights)
    model, given = built(release), inputs()
    with torch.no_grad():
        hidden = nn.functional.silu(given["face_tokens"] @ projector["0.weight"].T + projector["0.bias"])
        expected = stock(
            torch.cat([given["noisy"], given["landmarks"], given["reference"]], dim=2),
            hidden @ projector["2.weight"].T + projector["2.bias"],
            given["timestep"],
            image_rotary_emb=rotary(model),
        ).sample
        torch.testing.assert_close(model(**given), expected, rtol=1e-4, atol=1e-5)
    assert model.transformer.config.max_text_seq_length == 729


def test_release_to_ours_to_release_is_bit_equal(release):
    theirs = load_file(release / "transformer" / WEIGHTS)
    back = {to_release(name): tensor for name, tensor in built(release).state_dict().items()}
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], theirs[name]) for name in theirs)


def test_names_map_one_to_one_at_full_size():
    model = build_model(ModelConfig(), CodecConfig(codec="vae"), (60, 90), guider=False, device="meta")
    ours = list(model.state_dict())
    theirs = [to_release(name) for name in ours]
    assert len(set(theirs)) == len(ours)
    assert [from_release(name) for name in theirs] == ours
    stock = set(model.transformer.state_dict())
    assert set(theirs) - stock == {f"patch_embed.pose_proj.{n}.{kind}" for n in (0, 2) for kind in ("weight", "bias")}


@pytest.mark.parametrize(
    "name", ["guider.encoder.conv_in.conv.weight", "transformer.patch_embed.pose_proj.0.bias", "stray"]
)
def test_a_tensor_without_a_place_in_the_release_is_refused(name):
    with pytest.raises(ValueError, match=f"has no place for {name}"):
        to_release(name)


def test_tensors_in_several_files_are_the_same_model(release, tmp_path):
    folder = shutil.copytree(release, tmp_path / "sharded")
    one = built(folder).state_dict()
    into_shards(folder / "transformer")
    several = built(folder).state_dict()
    assert all(torch.equal(one[name], several[name]) for name in one)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_weights_are_float32_in_memory_of_their_own(release, tmp_path, dtype):
    folder = shutil.copytree(release, tmp_path / "copy")
    edit_weights(folder / "transformer", lambda weights: weights.update({n: w.to(dtype) for n, w in weights.items()}))
    model = built(folder)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
    before = model.state_dict()["transformer.proj_out.weight"].clone()
    file = folder / "transformer" / WEIGHTS
    with file.open("r+b") as stream:
        stream.write(bytes(file.stat().st_size))
    assert torch.equal(model.state_dict()["transformer.proj_out.weight"], before)


def remove(name: str):
    return lambda weights: weights.pop(name)


def add(name: str):
    return lambda weights: weights.update({name: torch.zeros(1)})


def reshape(name: str):
    return lambda weights: weights.update({name: torch.zeros(3)})


@pytest.mark.parametrize("kind", ["base", "release"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("proj_out.bias"), r"lacks transformer.proj_out.bias"),
        (add("lora.weight"), r"has no place in the model for transformer.lora.weight"),
        (reshape("proj_out.bias"), r"another shape of transformer.proj_out.bias: \(3,\), not \(64,\)"),
    ],
)
def test_anything_left_over_or_missing_is_refused_by_name(kind, change, message, request, tmp_path):
    folder = shutil.copytree(request.getfixturevalue(kind), tmp_path / "edited")
    edit_weights(folder / "transformer", change)
    with pytest.raises(UserError, match=message):
        built(folder)


def test_a_release_without_part_of_its_projector_is_refused(release, tmp_path):
    folder = shutil.copytree(release, tmp_path / "edited")
    edit_weights(folder / "transformer", remove("patch_embed.pose_proj.2.bias"))
    with pytest.raises(UserError, match=r"lacks face.2.bias; get it again"):
        built(folder)


@pytest.mark.parametrize(("key", "value"), [("patch_size_t", 2), ("ofs_embed_dim", 512)])
def test_cogvideox_1_5_is_refused_with_the_reason(base, tmp_path, key, value):
    folder = shutil.copytree(base, tmp_path / "newer")
    edit_config(folder / "transformer", **{key: value})
    with pytest.raises(UserError, match=rf"is a CogVideoX 1.5 \({key} {value}: .*take THUDM/CogVideoX-5b-I2V"):
        built(folder)


def test_a_config_of_another_architecture_is_refused(base, tmp_path):
    folder = shutil.copytree(base, tmp_path / "other")
    edit_config(folder / "transformer", window_size=3)
    with pytest.raises(UserError, match=r"no CogVideoX: its config.json has window_size"):
        built(folder)


@pytest.mark.parametrize(
    ("channels", "reason"), [(16, "text-to-video model"), (33, "takes 33 channels"), (48, "has no face projector")]
)
def test_a_transformer_with_other_inputs_is_refused(tmp_path, channels, reason):
    with pytest.raises(UserError, match=reason):
        built(save_base(tmp_path / "other", in_channels=channels))


def test_damaged_and_missing_files_are_refused_by_name(base, tmp_path):
    folder = shutil.copytree(base, tmp_path / "damaged")
    weights = folder / "transformer" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=rf"cannot read .*{WEIGHTS}: .*; get the checkpoint again"):
        built(folder)
    weights.unlink()
    with pytest.raises(UserError, match=rf"transformer lacks {WEIGHTS}"):
        built(folder)


def test_an_index_that_lists_another_tensor_is_refused(base, tmp_path):
    folder = shutil.copytree(base, tmp_path / "sharded")
    into_shards(folder / "transformer")
    index = folder / "transformer" / f"{WEIGHTS}.index.json"
    index.write_text(index.read_text().replace('"proj_out.bias"', '"proj_out.bais"'))
    with pytest.raises(UserError, match=r"index.json and the files it lists disagree about proj_out.bais"):
        built(folder)


def test_positions_shift_by_the_base_models_own_number_of_tokens():
    positions = torch.arange(1.0, 11).reshape(1, 10, 1)
    ours = from_base(POSITIONS, positions, {"max_text_seq_length": 4})
    assert ours[0, 729:, 0].tolist() == [5, 6, 7, 8, 9, 10]
    assert ours.shape == (1, 729 + 6, 1)
