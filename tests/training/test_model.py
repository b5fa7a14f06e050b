import copy

import numpy as np
import pytest
import torch
from diffusers import CogVideoXImageToVideoPipeline
from pydantic import ValidationError
from torch import nn

from faceloom.errors import UserError
from tests.training.tiny import GRID, into_hub_cache, save_base
from training import cogvideox_5b
from training.codec import CodecConfig
from training.face_projector import FaceProjector
from training.model import PortraitModel, build_model, load_schedule_config
from training.model_config import ModelConfig, ScratchConfig

SCRATCH = ModelConfig(init="scratch", scratch=ScratchConfig(num_layers=2, num_attention_heads=2, attention_head_dim=16))
VAE = CodecConfig(codec="vae")
PIXELS = CodecConfig(codec="pixels")


def inputs(batch: int = 2, grid: tuple[int, int] = GRID) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    noisy, reference, landmarks = torch.randn(3, batch, 13, 16, *grid, generator=generator).unbind()
    return {
        "noisy": noisy,
        "timestep": torch.arange(batch) * 400 + 100,
        "reference": reference,
        "face_tokens": torch.randn(batch, 729, 1152, generator=generator),
        "landmarks": landmarks,
    }


@pytest.fixture(scope="module")
def model() -> PortraitModel:
    return build_model(SCRATCH, PIXELS, GRID, guider=True)


@pytest.fixture(scope="module")
def full_size() -> PortraitModel:
    return build_model(ModelConfig(), VAE, (60, 90), guider=True, device="meta")


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_real_model_has_the_parameters_of_the_release(full_size):
    assert count(full_size.transformer) + count(full_size.face) == 5_588_820_928
    assert len(full_size.transformer.state_dict()) + len(full_size.face.state_dict()) == 1028 + 1  # the positions


def test_the_stages_train_what_the_paper_says(full_size):
    named = dict(full_size.named_parameters())
    assert sum(p.numel() for name, p in named.items() if name.startswith("transformer.patch_embed.proj.")) == 592_896
    assert sum(p.numel() for name, p in named.items() if name.startswith("face.")) == 18_144_640
    assert 92.2e6 < count(full_size.guider) < 92.3e6


def test_the_real_models_structure_needs_no_checkpoint_and_no_memory(full_size):
    assert {tensor.device.type for tensor in full_size.state_dict().values()} == {"meta"}
    assert full_size.latent_shape == (13, 16, 60, 90)
    assert full_size.transformer.patch_embed.pos_embedding.shape == (1, 729 + 17_550, 3072)


def test_the_order_of_channels_is_noise_landmarks_reference(model):
    given = inputs()
    seen = []
    hook = model.transformer.register_forward_pre_hook(lambda _module, arguments: seen.append(arguments[0]))
    model(**given)
    hook.remove()
    assert torch.equal(seen[0], torch.cat([given["noisy"], given["landmarks"], given["reference"]], dim=2))


def test_the_rotary_embedding_is_that_of_the_stock_pipeline(model):
    vae = type(
        "Vae", (), {"config": type("Config", (), {"block_out_channels": (1,) * 4, "temporal_compression_ratio": 4})}
    )
    pipeline = CogVideoXImageToVideoPipeline.__new__(CogVideoXImageToVideoPipeline)
    pipeline.__dict__.update(transformer=model.transformer, vae=vae, vae_scale_factor_spatial=8)
    expected = pipeline._prepare_rotary_positional_embeddings(8 * GRID[0], 8 * GRID[1], 13, torch.device("cpu"))
    seen = {}
    hook = model.transformer.register_forward_pre_hook(
        lambda _module, _arguments, named: seen.update(named), with_kwargs=True
    )
    model(**inputs())
    hook.remove()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(seen["image_rotary_emb"], expected, strict=True))


def test_every_parameter_gets_a_gradient_from_drawings_after_one_step(model):
    model = build_model(SCRATCH, PIXELS, GRID, guider=True)
    given = inputs()
    del given["landmarks"]
    renders = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (2, 49, 32, 48, 3), np.uint8))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        model(**given, renders=renders).square().mean().backward()
        optimizer.step()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    ("double_zero", "learning"), [(False, {"0.weight", "0.bias", "2.weight", "2.bias"}), (True, {"2.bias"})]
)
def test_both_layers_of_the_face_projector_learn_and_with_both_at_zero_neither_would(double_zero, learning):
    torch.manual_seed(0)
    projector = FaceProjector(8)
    if double_zero:
        for parameter in projector.parameters():
            nn.init.zeros_(parameter)
    tokens, target = torch.randn(2, 729, 1152), torch.randn(2, 729, 8)
    assert not projector(tokens).any()
    optimizer = torch.optim.SGD(projector.parameters(), lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        (projector(tokens) - target).square().mean().backward()
        optimizer.step()
    assert {name for name, p in projector.named_parameters() if p.grad.any()} == learning


@pytest.mark.parametrize("side", [3, 9, 27])
def test_fewer_face_tokens_are_those_of_squares_of_patches(side):
    torch.manual_seed(0)
    whole, fewer = FaceProjector(8), FaceProjector(8, (27 // side) ** 2)
    nn.init.normal_(whole[2].weight)
    fewer.load_state_dict(whole.state_dict(), strict=True)
    tokens = torch.randn(2, 729, 1152)
    patches = tokens.view(2, 27, 27, 1152)
    squares = [
        patches[:, y : y + side, x : x + side].mean(dim=(1, 2)) for y in range(0, 27, side) for x in range(0, 27, side)
    ]
    torch.testing.assert_close(fewer(tokens), whole(torch.stack(squares, 1)))


def test_at_first_every_face_gives_the_same_output(model):
    given = inputs()
    assert torch.equal(model(**given), model(**given | {"face_tokens": torch.zeros(2, 729, 1152)}))


def test_dropped_landmarks_are_zero_wherever_they_came_from(model):
    given = inputs()
    dropped = model(**given, drop_landmarks=torch.tensor([True, False]))
    landmarks = given["landmarks"].clone()
    landmarks[0] = 0
    assert torch.equal(dropped, model(**given | {"landmarks": landmarks}))


def test_a_model_in_bfloat16_keeps_exact_rotations():
    model = build_model(SCRATCH, PIXELS, GRID, guider=False).to(torch.bfloat16)
    given = {name: value.bfloat16() if value.is_floating_point() else value for name, value in inputs().items()}
    assert model(**given).dtype == torch.bfloat16
    assert {part.dtype for rotary in model._rotary.values() for part in rotary} == {torch.float32}


def test_a_copied_model_is_the_same_model(model):
    given = inputs()
    assert torch.equal(copy.deepcopy(model)(**given), model(**given))


@pytest.mark.parametrize("shape", [(2, 12, 16, *GRID), (2, 13, 16, 8, 8), (2, 13, 15, *GRID)])
def test_latents_of_another_size_are_refused(model, shape):
    with pytest.raises(ValueError, match="the model is for latents"):
        model(**inputs() | {"noisy": torch.zeros(shape)})


def test_exactly_one_kind_of_landmarks(model):
    given = inputs()
    renders = torch.zeros(2, 49, 32, 48, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match="either landmarks or renders"):
        model(**given, renders=renders)
    del given["landmarks"]
    with pytest.raises(ValueError, match="either landmarks or renders"):
        model(**given)
    without = build_model(SCRATCH, PIXELS, GRID, guider=False)
    with pytest.raises(ValueError, match="without its landmark guider"):
        without(**given, renders=renders)


def test_equal_seeds_give_equal_weights_and_leave_the_global_generator_alone(model):
    state = torch.get_rng_state()
    again = build_model(SCRATCH, PIXELS, GRID, guider=True)
    assert torch.equal(state, torch.get_rng_state())
    other = build_model(SCRATCH.model_copy(update={"seed": 1}), PIXELS, GRID, guider=True)
    ours, same, different = (m.state_dict() for m in (model, again, other))
    assert all(torch.equal(ours[name], same[name]) for name in ours)
    assert {tensor.dtype for tensor in ours.values()} == {torch.float32}
    assert not torch.equal(ours["face.0.weight"], different["face.0.weight"])
    assert not torch.equal(ours["transformer.proj_out.weight"], different["transformer.proj_out.weight"])


def test_without_a_checkpoint_the_error_names_key_and_remedy(tmp_path):
    with pytest.raises(UserError) as raised:
        build_model(ModelConfig(init=str(tmp_path)), VAE, (60, 90), guider=False)
    assert "model.init:" in str(raised.value)
    assert "hf download THUDM/CogVideoX-5b-I2V" in str(raised.value)
    assert "--set model.init=scratch" in str(raised.value)


def test_a_checkpoint_in_the_hub_cache_is_found_by_its_id(tmp_path, monkeypatch):
    folder = save_base(tmp_path / "base")
    into_hub_cache(folder, tmp_path / "cache", "somebody/i2v")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    cached, direct = (
        build_model(ModelConfig(init=init), PIXELS, GRID, guider=False).state_dict()
        for init in ("somebody/i2v", str(folder))
    )
    assert all(torch.equal(cached[name], direct[name]) for name in direct)


def test_another_grid_than_the_checkpoints_is_refused(tmp_path):
    folder = save_base(tmp_path / "base")
    with pytest.raises(UserError, match=r"latents of 4×6 cells, and these have 60×90; set data.shrink"):
        build_model(ModelConfig(init=str(folder)), PIXELS, (60, 90), guider=False)


def test_the_noise_schedule_is_the_checkpoints_own(tmp_path):
    folder = save_base(tmp_path / "base")
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(path.read_text().replace('"snr_shift_scale": 1.0', '"snr_shift_scale": 2.5'))
    assert load_schedule_config(ModelConfig(init=str(folder)))["snr_shift_scale"] == 2.5
    path.unlink()
    with pytest.raises(UserError, match=r"cannot read .*scheduler_config.json"):
        load_schedule_config(ModelConfig(init=str(folder)))


def test_from_scratch_the_schedule_is_that_of_cogvideox_5b():
    assert load_schedule_config(SCRATCH) == dict(cogvideox_5b.SCHEDULER)
    assert cogvideox_5b.SCHEDULER["snr_shift_scale"] == 1.0
    assert cogvideox_5b.SCHEDULER["rescale_betas_zero_snr"]


def test_a_model_from_scratch_may_see_fewer_face_tokens():
    sizes = SCRATCH.scratch.model_copy(update={"face_tokens": 9})
    model = build_model(SCRATCH.model_copy(update={"scratch": sizes}), PIXELS, GRID, guider=False)
    assert model.transformer.config.max_text_seq_length == 9
    given = inputs()
    assert model(**given).shape == given["noisy"].shape


def test_a_head_that_cannot_be_rotated_is_refused():
    with pytest.raises(ValidationError, match="attention_head_dim"):
        ScratchConfig(attention_head_dim=24)
