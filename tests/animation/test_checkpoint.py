import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from animation.checkpoint import RELEASE, SIGLIP, find_checkpoint, load_image_encoder, load_model, load_picture_vae
from faceloom.errors import UserError
from tests.animation.exports import save_export, save_release_again
from tests.training.tiny import edit_weights, into_hub_cache, save_base
from training.run_folder import RECORD


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_export(tmp_path_factory.mktemp("export") / "model")


def edit_json(path: Path, change: Callable[[dict], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_a_folder_without_a_record_is_the_release(release):
    found = find_checkpoint(release)
    assert found.trained_on == RELEASE
    assert (found.guider.name, found.vae) == ("pose_guider", release / "vae")
    assert found.siglip == str(release / "siglip-so400m-patch14-384")


def test_an_export_says_what_it_was_trained_on(export):
    found = find_checkpoint(export)
    made = found.trained_on
    assert (made.layout, made.backend, made.render.mode, made.render.style) == (
        "contiguous49",
        "mediapipe",
        "relative",
        "a1_3d",
    )
    assert (made.codec, made.face_tokens, made.shrink, made.fps) == ("pixels", "patches", 15, 12)
    assert (found.guider.name, found.vae, found.siglip) == ("guider", None, None)


def test_a_siglip_that_is_named_is_taken_before_the_one_beside(release, tmp_path):
    assert find_checkpoint(release, "/mine").siglip == "/mine"
    bare = shutil.copytree(release, tmp_path / "bare", ignore=shutil.ignore_patterns("siglip*"))
    assert find_checkpoint(bare).siglip == SIGLIP


@pytest.mark.parametrize("named", ["CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"])
def test_the_index_names_the_scheduler_as_it_does_for_diffusers(release, tmp_path, named):
    copy = shutil.copytree(release, tmp_path / "copy")
    (copy / "model_index.json").write_text(json.dumps({"scheduler": ["diffusers", named]}))
    assert find_checkpoint(copy).scheduler["_class_name"] == named


def test_a_pipeline_in_the_hubs_cache_is_found_by_its_name(release, tmp_path, monkeypatch):
    into_hub_cache(release, tmp_path, "Skywork/SkyReels-A1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert find_checkpoint("Skywork/SkyReels-A1").trained_on == RELEASE


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ("pose_guider", r"lacks the landmark guider, pose_guider/ or guider/; export it again with `faceloom export`"),
        ("vae", r"lacks vae/, which turns latents into frames"),
        ("scheduler", r"lacks scheduler/scheduler_config.json, the noise schedule"),
        (
            "transformer",
            r"holds no model to animate with: it lacks transformer/config.json; name what `faceloom export`",
        ),
    ],
)
def test_a_part_that_is_missing_is_named(release, tmp_path, part, reason):
    copy = shutil.copytree(release, tmp_path / "copy", ignore=shutil.ignore_patterns(part))
    with pytest.raises(UserError, match=reason):
        find_checkpoint(copy)


def test_an_export_without_its_projector_is_refused(export, tmp_path):
    copy = shutil.copytree(export, tmp_path / "copy", ignore=shutil.ignore_patterns("face_projector"))
    with pytest.raises(UserError, match=r"lacks face_projector/config.json, the projector of face tokens"):
        find_checkpoint(copy)


def test_a_run_and_its_checkpoints_are_answered_with_the_command_that_exports_them(tmp_path):
    checkpoint = tmp_path / "run" / "checkpoints" / "step-00000200"
    checkpoint.mkdir(parents=True)
    (tmp_path / "run" / RECORD).write_text("{}")
    (checkpoint / "checkpoint.json").write_text("{}")
    with pytest.raises(UserError, match=r"run is a run; .*faceloom export .*checkpoints/step-… --layout diffusers"):
        find_checkpoint(tmp_path / "run")
    with pytest.raises(UserError, match=rf"is a checkpoint of a run; export it: faceloom export {checkpoint} "):
        find_checkpoint(checkpoint)


def test_cogvideox_is_told_from_the_release(tmp_path):
    base = save_base(tmp_path / "base")
    with pytest.raises(UserError, match="is a CogVideoX, which knows neither landmarks nor faces; train it"):
        find_checkpoint(base)


def test_nothing_is_downloaded(tmp_path):
    with pytest.raises(UserError, match=r"neither a folder nor a model in the local .*hf download Skywork/SkyReels-A1"):
        find_checkpoint("nobody/no-model")


def test_a_record_of_another_version_is_refused(export, tmp_path):
    copy = shutil.copytree(export, tmp_path / "copy")
    edit_json(copy / "faceloom.json", lambda record: record["config"].update(flavour="vanilla"))
    with pytest.raises(UserError, match=r"faceloom.json is of another version of faceloom: .*; export with this one"):
        find_checkpoint(copy)
    edit_json(copy / "faceloom.json", lambda record: record.pop("drawings"))
    with pytest.raises(UserError, match=r"does not say how the landmarks were drawn.*export again"):
        find_checkpoint(copy)


def test_weights_that_do_not_fit_name_the_folder_and_the_tensor(release, tmp_path):
    import torch

    copy = shutil.copytree(release, tmp_path / "copy")
    edit_weights(copy / "transformer", lambda weights: weights.pop("patch_embed.pose_proj.2.bias"))
    with pytest.raises(UserError, match=r"copy cannot be loaded: .*lacks face.2.bias.*; export it again"):
        load_model(find_checkpoint(copy), torch.float32)
    edit_weights(copy / "vae", lambda weights: weights.pop("decoder.conv_in.conv.bias"))
    with pytest.raises(
        UserError, match=r"vae cannot be loaded: .*decoder.conv_in.conv.bias.*; export it again"
    ) as told:
        load_picture_vae(find_checkpoint(copy), torch.float32)
    assert "--set" not in str(told.value)


def test_an_absent_siglip_is_told_with_where_to_put_it(release, tmp_path):
    bare = shutil.copytree(release, tmp_path / "bare", ignore=shutil.ignore_patterns("siglip*"))
    with pytest.raises(UserError, match=r"face encoder cannot be loaded: .*siglip-so400m-patch14-384") as told:
        load_image_encoder(find_checkpoint(bare, "/nowhere"))
    assert "--set" not in str(told.value)


@pytest.mark.parametrize("layout", ["release", "diffusers"])
def test_both_layouts_of_an_export_are_found_whole(release, tmp_path, layout):
    found = find_checkpoint(save_release_again(tmp_path / "again", release, layout))
    assert found.trained_on.layout == "ref1+48"
    assert found.guider.name == ("pose_guider" if layout == "release" else "guider")
