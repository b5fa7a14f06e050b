"""A checkpoint of a run as folders that other programs load.

``release``: what the code of SkyReels-A1 loads, with the face projector among the transformer's tensors and the whole guider
in ``pose_guider/``. ``diffusers``: a stock ``CogVideoXTransformer3DModel``, ``face_projector/`` and ``guider/`` beside it.
Both are float32, and both are accepted as ``model.init``.
"""

import json
import os
import secrets
import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import diffusers
import google_crc32c
import torch
from huggingface_hub import save_torch_state_dict
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load

import faceloom
from faceloom.errors import CheckFailed, UserError
from shards.schema import FPS
from shards.storage import make_folder, move_folder
from training.checkpoint import Checkpoint, latest_checkpoint, read_checkpoint
from training.convert import from_release, to_release
from training.guider import LandmarkGuider, PixelsGuider
from training.model import PortraitModel, build_model, guider_source, load_schedule_config
from training.model_config import ModelConfig
from training.pretrained import CONFIG, WEIGHTS, Weights, find_part
from training.run_folder import CHECKPOINTS, read_record
from training.run_folder import RECORD as RUN_RECORD
from training.train_config import TrainConfig
from training.vae import load_vae

Layout = Literal["release", "diffusers"]

RECORD = "faceloom.json"
"""What was exported: step, configuration, whether it is the average; ``drawings`` and ``fps``: how the landmarks were drawn
that it learned from (:attr:`training.data.TrainingData.drawings`), and how many frames a second it makes."""

_FILE_SIZE = "5GB"
"""Of one file of tensors, at most."""

_SMALL = 50_000_000
"""Parameters of a model that is run twice to verify its export."""

_TEXT_HINT = (
    "text_encoder/ and tokenizer/ are not in it, since faces replace the text: give the release's pipeline text_encoder=None "
    "and tokenizer=None, or copy both from CogVideoX-5B-I2V"
)


@dataclass(frozen=True)
class Export:
    """What was written."""

    path: Path
    step: int
    parameters: int
    trained: int
    """How many of the parameters come from the checkpoint; the others are the initial ones."""
    notes: tuple[str, ...]
    """What whoever loads it should know."""
    verified: str | None
    """What was compared, if anything was asked to be."""


def export(checkpoint: Path, layout: Layout, out: Path, *, ema: bool = False, verify: bool = False) -> Export:
    """Write the model of ``checkpoint`` (``RUN_DIR/checkpoints/step-NNNNNNNN``) to ``out``, whole or not at all.

    ``ema`` takes the moving average of what was trained. ``verify`` reads everything back before the folder gets its name.
    Raises :class:`UserError` for a checkpoint that is not whole, a folder ``out`` that is not empty, and a layout that the
    model has no place in; :class:`CheckFailed` if what was read back is not what was written.
    """
    read = _read(checkpoint)
    config, drawings = _made_by(checkpoint.absolute().parent.parent)
    if layout == "release" and config.codec.codec != "vae":
        raise UserError(
            f"{checkpoint} was trained on the codec {config.codec.codec}, whose guider stands in for the VAE's encoder that "
            "the release has; export it with --layout diffusers"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already; name another --out")
    weights = trained_weights(read, ema=ema)
    model = build_model(config.model, config.codec, config.data.grid, guider=True)
    _overwrite(model, weights, read)

    unfinished = out.absolute().with_name(f".{out.name}.{secrets.token_hex(4)}.faceloom-tmp")
    try:
        make_folder(unfinished)
        _write(unfinished, layout, model, config)
        record: dict[str, Any] = {"faceloom": faceloom.__version__, "layout": layout, "step": read.step, "ema": ema}
        record |= {"drawings": drawings, "fps": FPS, "config": config.model_dump(mode="json")}
        _write_json(unfinished / RECORD, record)
        verified = _verify(unfinished, model, config) if verify else None
        _flush(unfinished)
        move_folder(unfinished, out.absolute())
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"cannot write {out}: {reason}; choose another --out, or make room") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return Export(
        path=out,
        step=read.step,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trained=sum(weight.numel() for weight in weights.values()),
        notes=(_TEXT_HINT,) if layout == "release" else (),
        verified=verified,
    )


def trained_weights(checkpoint: Checkpoint, *, ema: bool) -> dict[str, Tensor]:
    """What the run has trained so far, by parameter name, on the CPU; of ``ema``, the moving averages.

    Needs no process group. Raises :class:`UserError` if the run kept no average, or if a file's bytes are not those that
    were written.
    """
    part = "ema" if ema else "model"
    names = checkpoint.names(part)
    if not names:
        raise UserError(f"{checkpoint.path} holds no moving average: the run had ema.decay 0; export without --ema")
    for name, file in checkpoint.files.items():
        if _crc32c(checkpoint.path / name) != file["crc32c"]:
            raise UserError(
                f"{checkpoint.path / name} is damaged: its bytes are not those that were written; take another step"
            )
    reader = FileSystemReader(checkpoint.path)
    stored = reader.read_metadata().state_dict_metadata
    tensors: dict[str, Any] = {}
    for name in names:
        found = stored[f"{part}.{name}"]
        assert isinstance(found, TensorStorageMetadata)
        tensors[f"{part}.{name}"] = torch.empty(found.size, dtype=found.properties.dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)  # as it should be
        dcp_load(tensors, storage_reader=reader, no_dist=True)
    return {name: tensors[f"{part}.{name}"] for name in sorted(names)}


def _read(checkpoint: Path) -> Checkpoint:
    if (checkpoint / CHECKPOINTS).is_dir():
        newest = latest_checkpoint(checkpoint / CHECKPOINTS)
        example = f", such as {newest.path}" if newest else "; it has none yet"
        raise UserError(f"{checkpoint} is a run; name one of its checkpoints{example}")
    if not checkpoint.is_dir():
        raise UserError(f"{checkpoint} is no folder; name a checkpoint of a run, RUN/checkpoints/step-…")
    return read_checkpoint(checkpoint)


def _made_by(run: Path) -> tuple[TrainConfig, dict[str, str]]:
    """The configuration of a run, and how the landmarks of its data were drawn."""
    record = read_record(run)
    if "drawings" not in record:
        raise UserError(
            f"{run / RUN_RECORD} does not say how the landmarks were drawn, as that of an earlier faceloom does not; "
            "it does once the run was begun again with --resume, even if there is nothing left to do"
        )
    try:
        return TrainConfig.model_validate(record["config"]), record["drawings"]
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{run / RUN_RECORD} is of another version of faceloom: {key}: {first['msg']}; export with that version"
        ) from None


def _overwrite(model: PortraitModel, weights: Mapping[str, Tensor], checkpoint: Checkpoint) -> None:
    parameters = dict(model.named_parameters())
    for name, weight in weights.items():
        if name not in parameters or parameters[name].shape != weight.shape:
            raise UserError(
                f"{checkpoint.path}: the model of the run's configuration has no {name} of shape {list(weight.shape)}; "
                "model.init must be what it was when the run began"
            )
        parameters[name].data = weight.to(torch.float32)


def _write(folder: Path, layout: Layout, model: PortraitModel, config: TrainConfig) -> None:
    components = {
        "transformer": ["diffusers", "CogVideoXTransformer3DModel"],
        "scheduler": ["diffusers", "CogVideoXDDIMScheduler"],
    }
    transformer = model.transformer.state_dict()
    if layout == "release":
        transformer.update((to_release(f"face.{name}"), tensor) for name, tensor in model.face.state_dict().items())
    else:
        face = {"text_embed_dim": model.transformer.config.text_embed_dim}
        _write_model(folder / "face_projector", "FaceProjector", face, model.face.state_dict())
    # What the class of the release has no argument for is at its default in a CogVideoX 1.0.
    absent = ("patch_size_t", "ofs_embed_dim", "patch_bias")
    sizes = {
        name: value
        for name, value in model.transformer.config.items()
        if not name.startswith("_") and name not in absent
    }
    _write_model(folder / "transformer", "CogVideoXTransformer3DModel", sizes, transformer)
    _write_guider(folder / ("pose_guider" if layout == "release" else "guider"), model, config)
    if config.codec.codec == "vae":
        _copy_vae(config.codec.vae_model, folder / "vae")
        components["vae"] = ["diffusers", "AutoencoderKLCogVideoX"]
    schedule = load_schedule_config(config.model) | {"_class_name": "CogVideoXDDIMScheduler"}
    (folder / "scheduler").mkdir()
    _write_json(folder / "scheduler" / "scheduler_config.json", schedule)
    if layout == "release":
        versions = {"_class_name": "SkyReelsA1ImagePoseToVideoPipeline", "_diffusers_version": diffusers.__version__}
        _write_json(folder / "model_index.json", versions | components)


def _write_guider(folder: Path, model: PortraitModel, config: TrainConfig) -> None:
    """The whole autoencoder around a trained encoder, as the release has it; or the stand-in."""
    guider = model.guider
    if isinstance(guider, LandmarkGuider):
        vae = load_vae(guider_source(config.model, config.codec), "fp32", "model.guider")
        vae.encoder = guider.encoder
        vae.save_pretrained(folder)
    else:
        assert isinstance(guider, PixelsGuider)
        _write_model(folder, "PixelsGuider", {"grid": list(guider.grid)}, guider.state_dict())


def _write_model(folder: Path, kind: str, sizes: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    folder.mkdir()
    save_torch_state_dict(
        dict(tensors), folder, filename_pattern=WEIGHTS.replace(".", "{suffix}.", 1), max_shard_size=_FILE_SIZE
    )
    _write_json(folder / CONFIG, {"_class_name": kind, "_diffusers_version": diffusers.__version__, **sizes})


def _copy_vae(model: str, folder: Path) -> None:
    source = Path(model) if (Path(model) / CONFIG).is_file() else find_part(model, "vae")
    if source is None:
        raise UserError(f"codec.vae_model: {model!r} holds no VAE any more; put it back, the export needs a copy")
    folder.mkdir()
    for file in (path for pattern in ("*.json", "*.safetensors") for path in source.glob(pattern)):
        shutil.copy(file, folder / file.name)


def _verify(folder: Path, model: PortraitModel, config: TrainConfig) -> str:
    """Compare what is in ``folder`` with ``model``; what was compared. Raises :class:`CheckFailed` where they differ."""
    expected = dict(model.state_dict())
    count = len(expected)
    for name, tensor in _stored(folder):
        if name not in expected or not torch.equal(expected.pop(name), tensor):
            raise CheckFailed(
                f"{name} was read back otherwise than it was written; look after the disk, and export again"
            )
    if expected:
        raise CheckFailed(f"{min(expected)} was not written (and {len(expected) - 1} more)")
    compared = f"{count} tensors are bit for bit those in memory"
    if sum(parameter.numel() for parameter in model.parameters()) > _SMALL:
        return f"{compared}; the model is too large to be run here"
    source = config.model.model_copy(update={"init": str(folder), "guider": None})
    again = build_model(ModelConfig.model_validate(source.model_dump()), config.codec, config.data.grid, guider=True)
    inputs = _any_inputs(model)
    with torch.inference_mode():
        difference = float((model(**inputs) - again(**inputs)).abs().max())
    if difference != 0:
        raise CheckFailed(f"loaded again, the model gives other velocities: they differ by up to {difference:.3g}")
    return f"{compared}; loaded again, the model gives the same velocities (max|Δ| = 0)"


def _stored(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of an export under the name it has in :class:`PortraitModel`; the autoencoder's decoder left out."""
    projector = folder / "face_projector"
    for name, tensor in Weights(folder / "transformer"):
        yield from_release(name), tensor
    if projector.is_dir():
        for name, tensor in Weights(projector):
            yield f"face.{name}", tensor
    for name, tensor in Weights(folder / ("guider" if projector.is_dir() else "pose_guider")):
        if not name.startswith("decoder."):
            yield f"guider.{name}", tensor


def _any_inputs(model: PortraitModel) -> dict[str, Tensor]:
    frames, channels, height, width = model.latent_shape
    generator = torch.Generator().manual_seed(0)
    noisy, reference = torch.randn(2, 1, frames, channels, height, width, generator=generator)
    return {
        "noisy": noisy,
        "timestep": torch.tensor([500]),
        "reference": reference,
        "face_tokens": torch.randn(1, 729, 1152, generator=generator),
        "renders": torch.randint(
            0, 256, (1, 4 * frames - 3, 8 * height, 8 * width, 3), dtype=torch.uint8, generator=generator
        ),
    }


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", "utf-8")


def _crc32c(path: Path) -> int:
    checksum = 0
    with path.open("rb", buffering=0) as stream:
        while data := stream.read(1 << 24):
            checksum = google_crc32c.extend(checksum, data)
    return checksum


def _flush(folder: Path) -> None:
    """Bring every file below ``folder``, and every folder's list of them, to the disk."""
    for path in (*folder.rglob("*"), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
