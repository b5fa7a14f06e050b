"""A folder with a model that animates, SkyReels-A1's release or an export of ours: its parts, what they learned from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError

from curation.identity import FaceConfig, load_siglip
from faceloom.errors import UserError
from landmarks.backend import BackendName
from shards.schema import FACE_DIM, FACE_TOKENS, FPS
from training.checkpoint import RECORD as CHECKPOINT_RECORD
from training.codec import CodecConfig
from training.encode_config import Layout, RenderConfig
from training.export import RECORD
from training.latents import CHANNELS
from training.model import PortraitModel, build_model
from training.model_config import ModelConfig
from training.pretrained import CONFIG, Weights, find_part, read_json
from training.run_folder import CHECKPOINTS
from training.run_folder import RECORD as RUN_RECORD
from training.train_config import TrainConfig
from training.vae import load_vae

PIPELINE = "SkyReelsA1ImagePoseToVideoPipeline"
"""What ``model_index.json`` of the release and of an export in its layout names as the class that it is for."""

SIGLIP = str(FaceConfig.model_fields["siglip_model"].default)


@dataclass(frozen=True)
class TrainedOn:
    """What a checkpoint knows: input of another kind makes it draw something else than it was asked for."""

    layout: Layout
    backend: BackendName
    """Of the landmarks."""
    render: RenderConfig
    """How they were drawn."""
    codec: Literal["pixels", "vae"]
    face_tokens: Literal["siglip", "patches"]
    shrink: int
    """How many of the codec's cells, along each side, a cell of the model's latents is the mean of."""
    fps: int
    """Frames a second."""

    @property
    def style(self) -> str:
        """What the driver's landmarks are to be drawn in (:mod:`landmarks.drawing`)."""
        return self.render.style


RELEASE = TrainedOn(
    layout="ref1+48",
    backend="smirk",
    render=RenderConfig(mode="relative", style="a1_3d"),
    codec="vae",
    face_tokens="siglip",
    shrink=1,
    fps=FPS,
)
"""The weights that were published. How they were trained is not known: this is what their inference code feeds them with."""


@dataclass(frozen=True)
class Found:
    """A checkpoint whose parts are all there."""

    folder: Path
    trained_on: TrainedOn
    guider: Path
    vae: Path | None
    siglip: str | None
    """A folder beside the others, or what was named in its place; ``None`` where face tokens are no network's."""
    scheduler: dict[str, Any]
    """``scheduler_config.json``, with the class that ``model_index.json`` names, if it names one."""


def find_checkpoint(checkpoint: str | Path, siglip_model: str | None = None) -> Found:
    """The parts of ``checkpoint``, a folder or the id of a pipeline in the local Hugging Face cache.

    ``siglip_model`` takes the place of a folder ``siglip*`` beside the other parts. Raises :class:`UserError` that says what
    is missing, or what the folder is instead, and what to do.
    """
    folder = _folder(checkpoint)
    record = folder / RECORD
    trained_on = _read_record(record) if record.is_file() else RELEASE
    _check_transformer(folder, export=record.is_file())
    guider = next((folder / name for name in ("pose_guider", "guider") if (folder / name / CONFIG).is_file()), None)
    if guider is None:
        raise UserError(f"{folder} lacks the landmark guider, pose_guider/ or guider/; {_AGAIN}")
    vae = folder / "vae" if trained_on.codec == "vae" else None
    if vae is not None and not (vae / CONFIG).is_file():
        raise UserError(f"{folder} lacks vae/, which turns latents into frames; {_AGAIN}")
    scheduler = read_json(_present(folder, "scheduler/scheduler_config.json", "the noise schedule"))
    index = folder / "model_index.json"
    if index.is_file():
        named = read_json(index).get("scheduler")
        if isinstance(named, list) and len(named) == 2:
            scheduler["_class_name"] = named[1]
    siglip = None
    if trained_on.face_tokens == "siglip":
        beside = sorted(path.parent for path in folder.glob(f"siglip*/{CONFIG}"))
        siglip = siglip_model or (str(beside[0]) if beside else SIGLIP)
    return Found(folder, trained_on, guider, vae, siglip, scheduler)


def check_steps(steps: int, schedule: Mapping[str, Any]) -> None:
    """Raise :class:`UserError` unless ``steps`` divide the length of ``schedule``, a ``scheduler_config.json``."""
    length = int(schedule.get("num_train_timesteps", 1000))
    if steps < 1 or length % steps:
        raise UserError(f"steps must divide {length}, {steps} does not; take 10, 20 or 50")


def load_model(found: Found, dtype: torch.dtype) -> PortraitModel:
    """Transformer, face projector and guider in evaluation mode. Raises :class:`UserError` if they do not fit together."""
    config = read_json(found.folder / "transformer" / CONFIG)
    grid = (config.get("sample_height", 60), config.get("sample_width", 90))
    init = ModelConfig(init=str(found.folder), guider=str(found.guider))
    try:
        model = build_model(
            init, CodecConfig(codec=found.trained_on.codec, vae_model=str(found.folder)), grid, guider=True
        )
    except UserError as error:
        raise UserError(f"{found.folder} cannot be loaded: {_reason(error)}; {_AGAIN}") from None
    return model.to(dtype).eval().requires_grad_(False)


def load_picture_vae(found: Found, dtype: torch.dtype) -> Any:
    """The ``AutoencoderKLCogVideoX`` in evaluation mode; ``None`` where the codec needs none. Raises :class:`UserError`."""
    if found.vae is None:
        return None
    try:
        vae = load_vae(str(found.vae), "bf16" if dtype is torch.bfloat16 else "fp32")
    except UserError as error:
        raise UserError(f"{found.vae} cannot be loaded: {_reason(error)}; {_AGAIN}") from None
    # Casting what needs none makes diffusers warn of it.
    return (vae if vae.dtype is dtype else vae.to(dtype)).requires_grad_(False)


def load_image_encoder(found: Found) -> Any:
    """SigLIP's vision tower in float32, as in curation; ``None`` where tokens are no network's. Raises :class:`UserError`."""
    if found.siglip is None:
        return None
    try:
        tower = load_siglip(found.siglip)
    except UserError as error:
        raise UserError(
            f"the face encoder cannot be loaded: {_reason(error)}; get it with: hf download {SIGLIP} --local-dir "
            f"{found.folder / SIGLIP.rpartition('/')[2]}\nor name its folder (siglip_model)"
        ) from None
    shape = ((tower.config.image_size // tower.config.patch_size) ** 2, tower.config.hidden_size)
    if shape != (FACE_TOKENS, FACE_DIM):
        raise UserError(
            f"{found.siglip} makes {shape[0]} face tokens of {shape[1]} values, the model reads {FACE_TOKENS} of {FACE_DIM}; "
            f"take {SIGLIP}"
        )
    return tower.requires_grad_(False)


_AGAIN = "export it again with `faceloom export`, or download it again"


def _folder(checkpoint: str | Path) -> Path:
    path = Path(checkpoint)
    if (path / RUN_RECORD).is_file() and (path / CHECKPOINTS).is_dir():
        raise UserError(
            f"{path} is a run; export one of its checkpoints: faceloom export {path / CHECKPOINTS}/step-… --layout diffusers "
            "--out DIR, and name DIR"
        )
    if (path / CHECKPOINT_RECORD).is_file():
        raise UserError(
            f"{path} is a checkpoint of a run; export it: faceloom export {path} --layout diffusers --out DIR, and name DIR"
        )
    transformer = find_part(str(checkpoint), "transformer")
    if transformer is not None:
        return transformer.parent
    if path.is_dir():
        raise UserError(
            f"{path} holds no model to animate with: it lacks transformer/{CONFIG}; name what `faceloom export` wrote, or "
            "the release of SkyReels-A1"
        )
    raise UserError(
        f"{checkpoint} is neither a folder nor a model in the local Hugging Face cache; name what `faceloom export` wrote, "
        "or get the release: hf download Skywork/SkyReels-A1 --local-dir DIR"
    )


def _read_record(path: Path) -> TrainedOn:
    record = read_json(path)
    if not {"config", "drawings", "fps"} <= record.keys():
        raise UserError(
            f"{path} does not say how the landmarks were drawn, as that of an earlier faceloom does not; export again"
        )
    try:
        config = TrainConfig.model_validate(record["config"])
        drawings = dict(record["drawings"])
        backend = drawings.pop("backend")
        return TrainedOn(
            layout=config.data.layout,
            backend=backend,
            render=RenderConfig.model_validate(drawings),
            codec=config.codec.codec,
            face_tokens=config.data.face_tokens,
            shrink=config.data.shrink if config.codec.codec == "pixels" else 1,
            fps=int(record["fps"]),
        )
    except (ValidationError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is of another version of faceloom: {_reason(error)}; export with this one") from None


def _check_transformer(folder: Path, *, export: bool) -> None:
    """Tell models that take no landmarks by the channels of their input."""
    shapes = Weights(folder / "transformer").shapes
    channels = shapes.get("patch_embed.proj.weight", (0, 0))[1]
    if not export and channels == 2 * CHANNELS:
        raise UserError(
            f"{folder} is a CogVideoX, which knows neither landmarks nor faces; train it with `faceloom train`, export that, "
            "and name the export"
        )
    projected = any(name.startswith("patch_embed.pose_proj.") for name in shapes)
    if not projected:
        _present(folder, f"face_projector/{CONFIG}", "the projector of face tokens")


def _present(folder: Path, file: str, what: str) -> Path:
    if not (folder / file).is_file():
        raise UserError(f"{folder} lacks {file}, {what}; {_AGAIN}")
    return folder / file


def _reason(error: Exception) -> str:
    """The first line of a message, without the key of a configuration that nobody here has."""
    first = str(error).strip().splitlines()[0]
    for key in ("model.init: ", "model.guider: ", "codec.vae_model: ", "face.siglip_model: "):
        first = first.removeprefix(key)
    return first
