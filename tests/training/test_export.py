import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXTransformer3DModel, DiffusionPipeline
from safetensors.torch import load_file

from faceloom.errors import CheckFailed, UserError
from tests.training.tiny import GRID, WEIGHTS, edit_config, edit_weights, save_base, save_release
from training import export as exporting
from training.checkpoint import Checkpoints, read_checkpoint
from training.checkpoint_config import CheckpointConfig
from training.convert import to_release
from training.export import export, trained_weights
from training.model import PortraitModel, build_model
from training.model_config import ModelConfig
from training.run_folder import claim
from training.train_config import TrainConfig

TRAINED = ("transformer.patch_embed.proj.weight", "face.2.weight", "guider.encoder.conv_in.conv.weight")
DRAWINGS = {"backend": "mediapipe", "mode": "relative", "style": "fye"}
STAND_IN = ("transformer.patch_embed.proj.weight", "face.2.weight", "guider.conv.weight")


@pytest.fixture(scope="module", autouse=True)
def one_process():
    """Runs save together, even one rank alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def config_of(model: dict, codec: dict) -> TrainConfig:
    stages = [{"name": "motion", "steps": 1, "lr": 1e-5, "trainable": [".*"]}]
    # Cells averaged by 15 leave the 4×6 of the tiny checkpoints.
    return TrainConfig.model_validate({"model": model, "codec": codec, "data": {"shrink": 15}, "stages": stages})


def trained_model(config: TrainConfig, names: tuple[str, ...], addend: float) -> PortraitModel:
    """The initial model with ``addend`` added to the parameters ``names``."""
    model = build_model(config.model, config.codec, GRID, guider=True)
    with torch.no_grad():
        for name in names:
            model.get_parameter(name).add_(addend)
    return model


def save_run(folder: Path, config: TrainConfig, names: tuple[str, ...], ema: bool = True) -> Path:
    """A run that saved after 7 steps: what it trained is its first weights + 1, the average of it + 0.5."""
    record = {"config": config.model_dump(mode="json"), "deciding": config.deciding, "drawings": DRAWINGS}
    claim(folder, record, resume=False)
    checkpoints = Checkpoints(folder / "checkpoints", CheckpointConfig(asynchronous=False))
    state = {
        part: {name: trained_model(config, names, addend).get_parameter(name).detach() for name in names}
        for part, addend in (("model", 1.0), ("ema", 0.5))
        if part == "model" or ema
    }
    checkpoints.save(7, state | {"optimizer": {"step": torch.ones(())}}, {"stage": 0})
    checkpoints.close()
    return folder / "checkpoints" / "step-00000007"


@pytest.fixture(scope="module")
def from_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a run that began with CogVideoX."""
    folder = tmp_path_factory.mktemp("from_base")
    base = save_base(folder / "base")
    codec = {"codec": "vae", "vae_model": str(base), "dtype": "fp32"}
    return save_run(folder / "run", config_of({"init": str(base)}, codec), TRAINED)


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a run from scratch on the codec pixels."""
    scratch = {"num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 16, "face_tokens": 81}
    config = config_of({"init": "scratch", "scratch": scratch}, {"codec": "pixels"})
    return save_run(tmp_path_factory.mktemp("stand_in") / "run", config, STAND_IN)


def config_read(checkpoint: Path) -> TrainConfig:
    return TrainConfig.model_validate(json.loads((checkpoint.parent.parent / "run.json").read_bytes())["config"])


def built(folder: Path, config: TrainConfig) -> dict[str, torch.Tensor]:
    return build_model(ModelConfig(init=str(folder)), config.codec, GRID, guider=True).state_dict()


def assert_equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


@pytest.mark.parametrize("layout", ["release", "diffusers"])
def test_an_export_as_init_is_the_trained_model_again(from_base, layout, tmp_path):
    made = export(from_base, layout, tmp_path / "out", verify=True)
    expected = trained_model(config_read(from_base), TRAINED, 1.0)
    assert_equal(built(tmp_path / "out", config_read(from_base)), dict(expected.state_dict()))
    assert "tensors are bit for bit those in memory" in made.verified
    assert "max|Δ| = 0" in made.verified
    assert made.trained == sum(expected.get_parameter(name).numel() for name in TRAINED)


@pytest.mark.parametrize("layout", ["release", "diffusers"])
def test_the_average_is_exported_on_request(from_base, layout, tmp_path):
    export(from_base, layout, tmp_path / "out", ema=True)
    expected = trained_model(config_read(from_base), TRAINED, 0.5)
    assert_equal(built(tmp_path / "out", config_read(from_base)), dict(expected.state_dict()))


def test_the_releases_transformer_loads_in_stock_diffusers_but_for_the_projector(from_base, tmp_path):
    export(from_base, "release", tmp_path / "out")
    stock, report = CogVideoXTransformer3DModel.from_pretrained(
        tmp_path / "out" / "transformer", low_cpu_mem_usage=False, output_loading_info=True
    )
    assert stock.config.in_channels == 48
    assert not report["missing_keys"]
    assert set(report["unexpected_keys"]) == {
        f"patch_embed.pose_proj.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")
    }
    expected = trained_model(config_read(from_base), TRAINED, 1.0).transformer.state_dict()
    assert_equal(dict(stock.state_dict()), dict(expected))


def test_the_diffusers_layout_loads_in_stock_diffusers_whole(from_base, tmp_path):
    export(from_base, "diffusers", tmp_path / "out")
    for kind, part in ((CogVideoXTransformer3DModel, "transformer"), (AutoencoderKLCogVideoX, "guider")):
        _, report = kind.from_pretrained(tmp_path / "out" / part, low_cpu_mem_usage=False, output_loading_info=True)
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]


def test_the_releases_config_has_no_key_that_its_class_does_not_take(from_base, tmp_path):
    export(from_base, "release", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "transformer" / "config.json").read_text())
    # The arguments of SkyReels-A1's CogVideoXTransformer3DModel (skyreels_a1/models/transformer3d.py).
    arguments = (
        "num_attention_heads attention_head_dim in_channels out_channels flip_sin_to_cos freq_shift time_embed_dim "
        "text_embed_dim num_layers dropout attention_bias sample_width sample_height sample_frames patch_size "
        "temporal_compression_ratio max_text_seq_length activation_fn timestep_activation_fn norm_elementwise_affine "
        "norm_eps spatial_interpolation_scale temporal_interpolation_scale use_rotary_positional_embeddings "
        "use_learned_positional_embeddings"
    )
    assert set(config) == {"_class_name", "_diffusers_version", *arguments.split()}
    assert (config["in_channels"], config["max_text_seq_length"]) == (48, 729)


class SkyReelsA1ImagePoseToVideoPipeline(DiffusionPipeline):
    """The components of the release's pipeline, which its code gives as arguments except for the scheduler and the text's."""

    def __init__(
        self, tokenizer, text_encoder, vae, lmk_encoder, transformer, scheduler, image_encoder, feature_extractor
    ):
        super().__init__()
        self.register_modules(vae=vae, lmk_encoder=lmk_encoder, transformer=transformer, scheduler=scheduler)


def test_a_pipeline_with_the_releases_components_loads_it_without_text(from_base, tmp_path):
    out = tmp_path / "out"
    made = export(from_base, "release", out)
    given = {
        "transformer": CogVideoXTransformer3DModel.from_pretrained(
            out, subfolder="transformer", low_cpu_mem_usage=False
        ),
        "vae": AutoencoderKLCogVideoX.from_pretrained(out, subfolder="vae", low_cpu_mem_usage=False),
        "lmk_encoder": AutoencoderKLCogVideoX.from_pretrained(out, subfolder="pose_guider", low_cpu_mem_usage=False),
    }
    absent = dict.fromkeys(("tokenizer", "text_encoder", "image_encoder", "feature_extractor"))
    pipeline = SkyReelsA1ImagePoseToVideoPipeline.from_pretrained(out, **given, **absent, low_cpu_mem_usage=False)
    assert isinstance(pipeline.scheduler, CogVideoXDDIMScheduler)
    assert pipeline.scheduler.config.snr_shift_scale == 1.0
    assert pipeline.scheduler.config.rescale_betas_zero_snr
    assert "text_encoder=None" in made.notes[0]


def test_the_schedule_is_the_checkpoints_own_for_the_sampler_of_the_paper(from_base, tmp_path):
    run = shutil.copytree(from_base.parent.parent, tmp_path / "run")
    base = shutil.copytree(config_read(from_base).model.init, tmp_path / "base")
    schedule = base / "scheduler" / "scheduler_config.json"
    settings = json.loads(schedule.read_text()) | {"_class_name": "CogVideoXDPMScheduler", "snr_shift_scale": 2.5}
    schedule.write_text(json.dumps(settings))
    record = (run / "run.json").read_text().replace(str(config_read(from_base).model.init), str(base))
    (run / "run.json").write_text(record)
    export(run / "checkpoints" / from_base.name, "release", tmp_path / "out")
    written = json.loads((tmp_path / "out" / "scheduler" / "scheduler_config.json").read_text())
    assert written == settings | {"_class_name": "CogVideoXDDIMScheduler"}


def test_the_guider_is_a_whole_autoencoder_around_the_trained_encoder(from_base, tmp_path):
    export(from_base, "release", tmp_path / "out")
    guider = load_file(tmp_path / "out" / "pose_guider" / WEIGHTS)
    vae = load_file(tmp_path / "out" / "vae" / WEIGHTS)
    name = TRAINED[2].removeprefix("guider.")
    assert torch.equal(guider.pop(name), vae.pop(name) + 1)
    assert_equal(guider, vae)
    assert any(name.startswith("decoder.") for name in guider)


def test_the_vae_is_copied_byte_by_byte(from_base, tmp_path):
    export(from_base, "release", tmp_path / "out")
    source = Path(config_read(from_base).codec.vae_model) / "vae"
    for name in (WEIGHTS, "config.json"):
        assert (tmp_path / "out" / "vae" / name).read_bytes() == (source / name).read_bytes()


def test_a_run_from_the_release_keeps_what_it_did_not_train(tmp_path):
    release = save_release(tmp_path / "release")
    codec = {"codec": "vae", "vae_model": str(release)}
    checkpoint = save_run(tmp_path / "run", config_of({"init": str(release)}, codec), TRAINED[:1])
    export(checkpoint, "release", tmp_path / "out")
    theirs = load_file(release / "transformer" / WEIGHTS)
    theirs[to_release(TRAINED[0])] += 1
    assert_equal(load_file(tmp_path / "out" / "transformer" / WEIGHTS), theirs)
    assert_equal(load_file(tmp_path / "out" / "pose_guider" / WEIGHTS), load_file(release / "pose_guider" / WEIGHTS))


def test_large_models_are_written_in_several_files(from_base, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_FILE_SIZE", "1MB")
    made = export(from_base, "release", tmp_path / "out", verify=True)
    assert len(list((tmp_path / "out" / "transformer").glob("diffusion_pytorch_model-*-of-*.safetensors"))) > 1
    assert "max|Δ| = 0" in made.verified
    CogVideoXTransformer3DModel.from_pretrained(tmp_path / "out" / "transformer", low_cpu_mem_usage=False)


def test_a_model_too_large_to_run_is_compared_tensor_by_tensor(from_base, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_SMALL", 1)
    assert "too large to be run here" in export(from_base, "release", tmp_path / "out", verify=True).verified


def test_a_stand_in_has_no_place_in_the_release_and_one_in_diffusers(stand_in, tmp_path):
    with pytest.raises(UserError, match=r"codec pixels, whose guider stands in .*--layout diffusers"):
        export(stand_in, "release", tmp_path / "release")
    made = export(stand_in, "diffusers", tmp_path / "out", verify=True)
    assert "max|Δ| = 0" in made.verified
    config = config_read(stand_in)
    assert_equal(built(tmp_path / "out", config), dict(trained_model(config, STAND_IN, 1.0).state_dict()))


def test_an_export_says_what_it_is_of(stand_in, tmp_path):
    export(stand_in, "diffusers", tmp_path / "out", ema=True)
    record = json.loads((tmp_path / "out" / "faceloom.json").read_text())
    assert (record["step"], record["ema"], record["layout"]) == (7, True, "diffusers")
    assert (record["drawings"], record["fps"]) == (DRAWINGS, 12)
    assert TrainConfig.model_validate(record["config"]) == config_read(stand_in)


def test_trained_weights_are_the_checkpoints(stand_in):
    weights = trained_weights(read_checkpoint(stand_in), ema=False)
    expected = trained_model(config_read(stand_in), STAND_IN, 1.0)
    assert_equal(weights, {name: expected.get_parameter(name).detach() for name in STAND_IN})


@pytest.mark.parametrize("part", ["transformer", "face_projector", "guider"])
def test_verifying_finds_one_wrong_number_and_leaves_nothing(stand_in, tmp_path, monkeypatch, part):
    write = exporting._write

    def write_wrongly(folder: Path, *arguments: object) -> None:
        write(folder, *arguments)
        edit_weights(folder / part, lambda weights: next(iter(weights.values())).view(-1)[-1:].add_(1e-3))

    monkeypatch.setattr(exporting, "_write", write_wrongly)
    with pytest.raises(CheckFailed, match="was read back otherwise than it was written"):
        export(stand_in, "diffusers", tmp_path / "out", verify=True)
    assert list(tmp_path.iterdir()) == []


def test_verifying_finds_a_tensor_that_was_not_written(stand_in, tmp_path, monkeypatch):
    write = exporting._write

    def write_less(folder: Path, *arguments: object) -> None:
        write(folder, *arguments)
        edit_weights(folder / "transformer", lambda weights: weights.pop("proj_out.bias"))

    monkeypatch.setattr(exporting, "_write", write_less)
    with pytest.raises(CheckFailed, match=r"transformer.proj_out.bias was not written"):
        export(stand_in, "diffusers", tmp_path / "out", verify=True)


def test_verifying_runs_what_it_loads(stand_in, tmp_path, monkeypatch):
    write = exporting._write

    def write_another_function(folder: Path, *arguments: object) -> None:
        write(folder, *arguments)
        edit_config(folder / "transformer", flip_sin_to_cos=False)

    monkeypatch.setattr(exporting, "_write", write_another_function)
    with pytest.raises(CheckFailed, match="loaded again, the model gives other velocities"):
        export(stand_in, "diffusers", tmp_path / "out", verify=True)


def test_every_file_is_on_the_disk_before_the_folder_has_its_name(stand_in, tmp_path, monkeypatch):
    flushed, fsync = set(), os.fsync

    def remember(descriptor: int) -> None:
        flushed.add(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(exporting.os, "fsync", remember)
    monkeypatch.setattr(
        exporting, "move_folder", lambda unfinished, _out: shutil.copytree(unfinished, tmp_path / "seen")
    )
    export(stand_in, "diffusers", tmp_path / "out")
    written = {path.relative_to(tmp_path / "seen") for path in (tmp_path / "seen").rglob("*")}
    assert len(written) > 8
    assert written <= {Path(*path.relative_to(tmp_path).parts[1:]) for path in flushed if path.is_relative_to(tmp_path)}


def test_a_disk_that_fills_up_leaves_nothing(stand_in, tmp_path, monkeypatch):
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "_write_guider", full)
    with pytest.raises(UserError, match=r"cannot write .*out: No space left on device; choose another --out"):
        export(stand_in, "diffusers", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_left_alone(stand_in, tmp_path):
    (tmp_path / "note").write_text("mine")
    with pytest.raises(UserError, match="is there already; name another --out"):
        export(stand_in, "diffusers", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


def test_a_run_without_an_average_has_none_to_export(tmp_path):
    config = config_of({"init": "scratch", "scratch": {"num_layers": 1}}, {"codec": "pixels"})
    checkpoint = save_run(tmp_path / "run", config, STAND_IN, ema=False)
    with pytest.raises(UserError, match=r"no moving average: .*export without --ema"):
        export(checkpoint, "diffusers", tmp_path / "out", ema=True)


def test_a_damaged_checkpoint_is_refused(stand_in, tmp_path):
    run = shutil.copytree(stand_in.parent.parent, tmp_path / "run")
    file = next((run / "checkpoints" / stand_in.name).glob("*.distcp"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"distcp is damaged: its bytes are not those"):
        export(file.parent, "diffusers", tmp_path / "out")


def test_the_folder_of_a_run_is_answered_with_its_newest_checkpoint(stand_in, tmp_path):
    with pytest.raises(UserError, match=r"is a run; name one of its checkpoints, such as .*step-00000007"):
        export(stand_in.parent.parent, "diffusers", tmp_path / "out")
    with pytest.raises(UserError, match=r"absent is no folder; name a checkpoint of a run"):
        export(tmp_path / "absent", "diffusers", tmp_path / "out")


def test_weights_that_the_configured_model_does_not_have_are_refused(stand_in, tmp_path):
    run = shutil.copytree(stand_in.parent.parent, tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    record["config"]["model"]["scratch"]["text_embed_dim"] = 64
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"has no face.2.weight of shape \[128, 3456\]; model.init must be"):
        export(run / "checkpoints" / stand_in.name, "diffusers", tmp_path / "out")


def test_a_record_that_this_version_cannot_read_is_refused(stand_in, tmp_path):
    run = shutil.copytree(stand_in.parent.parent, tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    record["config"]["model"]["flavour"] = "vanilla"
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"run.json is of another version of faceloom: model.flavour"):
        export(run / "checkpoints" / stand_in.name, "diffusers", tmp_path / "out")


def test_a_run_that_does_not_say_how_its_landmarks_were_drawn_is_refused(stand_in, tmp_path):
    run = shutil.copytree(stand_in.parent.parent, tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    del record["drawings"]
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"does not say how the landmarks were drawn.*begun again with --resume"):
        export(run / "checkpoints" / stand_in.name, "diffusers", tmp_path / "out")


def test_the_command_says_what_it_wrote(stand_in, tmp_path, run):
    out = tmp_path / "out"
    code, printed, _ = run("export", stand_in, "--layout", "diffusers", "--out", out, "--verify")
    assert not code
    assert f"{out}: step 7" in printed
    assert "verified: " in printed
