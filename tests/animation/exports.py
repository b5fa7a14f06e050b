"""A tiny export on disk, such as ``faceloom export --layout diffusers`` writes of a run on thumbnails: frames of 480×720."""

import json
from pathlib import Path

import torch

from tests.training.tiny import GRID
from training import export as exporting
from training.model import build_model
from training.train_config import TrainConfig


def save_export(folder: Path) -> Path:
    """Write a model of one layer and random weights, cells of 120 px, and return ``folder``."""
    tree = {
        "model": {"init": "scratch", "scratch": {"num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 16}},
        "codec": {"codec": "pixels"},
        "data": {"shrink": 15, "face_tokens": "patches"},
        "stages": [{"name": "motion", "steps": 1, "lr": 1e-5, "trainable": [".*"]}],
    }
    config = TrainConfig.model_validate(tree)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(config.model, config.codec, GRID, guider=True)
    folder.mkdir()
    exporting._write(folder, "diffusers", model, config)
    drawings = {"backend": "mediapipe", "mode": "relative", "style": "a1_3d"}
    record = {"drawings": drawings, "fps": 12, "config": config.model_dump(mode="json")}
    (folder / exporting.RECORD).write_text(json.dumps(record))
    return folder
