"""Tiny exports on disk, such as ``faceloom export`` writes of a run."""

import json
from pathlib import Path

import torch

from tests.training.tiny import GRID
from training import export as exporting
from training.model import PortraitModel, build_model
from training.train_config import TrainConfig


def save_export(folder: Path) -> Path:
    """Write a model of one layer and random weights for thumbnails, cells of 120 px in 480×720, and return ``folder``."""
    tree = {
        "model": {
            "init": "scratch",
            "scratch": {"num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 16, "face_tokens": 9},
        },
        "codec": {"codec": "pixels"},
        "data": {"shrink": 15, "face_tokens": "patches"},
        "stages": [{"name": "motion", "steps": 1, "lr": 1e-5, "trainable": [".*"]}],
    }
    config = TrainConfig.model_validate(tree)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(config.model, config.codec, GRID, guider=True)
    return _write(folder, "diffusers", model, config, "relative")


def save_release_again(folder: Path, release: Path, layout: exporting.Layout) -> Path:
    """Write the weights of the folder ``release`` as an export of a run that began with them, and return ``folder``."""
    tree = {
        "model": {"init": str(release)},
        "codec": {"codec": "vae", "vae_model": str(release)},
        "data": {"layout": "ref1+48"},
        "stages": [{"name": "motion", "steps": 1, "lr": 1e-5, "trainable": [".*"]}],
    }
    config = TrainConfig.model_validate(tree)
    return _write(folder, layout, build_model(config.model, config.codec, GRID, guider=True), config, "self")


def _write(folder: Path, layout: exporting.Layout, model: PortraitModel, config: TrainConfig, mode: str) -> Path:
    folder.mkdir()
    exporting._write(folder, layout, model, config)
    drawings = {"backend": "mediapipe", "mode": mode, "style": "a1_3d"}
    record = {"drawings": drawings, "fps": 12, "config": config.model_dump(mode="json")}
    (folder / exporting.RECORD).write_text(json.dumps(record))
    return folder
