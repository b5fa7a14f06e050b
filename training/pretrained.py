"""Folders of pretrained models in the layout of diffusers: found, and read one tensor at a time."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from faceloom.errors import UserError

CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
"""Where the tensors are, if they are in several files."""


def find_pipeline(model: str, key: str) -> Path:
    """The folder of the pipeline ``model``: a folder with ``transformer/`` in it, or an id in the local Hugging Face cache.

    Raises :class:`UserError` naming the config key ``key`` if there is none.
    """
    transformer = find_part(model, "transformer")
    if transformer is None:
        raise UserError(
            f"{key}: {model!r} is neither a folder with transformer/{CONFIG} nor the id of a pipeline in the local Hugging "
            "Face cache; get one with: hf download THUDM/CogVideoX-5b-I2V --include 'transformer/*' 'scheduler/*' 'vae/*'\n"
            f"or for a trial without pretrained weights: --set {key}=scratch"
        )
    return transformer.parent


def find_part(model: str, part: str) -> Path | None:
    """The folder ``part`` of a pipeline, which is a folder or an id in the local Hugging Face cache; None if it has none."""
    if (Path(model) / part / CONFIG).is_file():
        return Path(model) / part
    try:
        cached = try_to_load_from_cache(model, f"{part}/{CONFIG}")
    except HFValidationError:  # it looks like a path
        return None
    return Path(cached).parent if isinstance(cached, str) else None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises :class:`UserError` if the file is missing or holds something else."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; get the checkpoint again") from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}; get the checkpoint again") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold a JSON object; get the checkpoint again")
    return value


class Weights:
    """The tensors of a model's folder: one safetensors file, or several and an index of them.

    Raises :class:`UserError` if a file is missing or damaged, or if index and files disagree.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        index = folder / INDEX
        listed = read_json(index)["weight_map"] if index.is_file() else None
        self._files = [folder / name for name in (sorted(set(listed.values())) if listed else [WEIGHTS])]
        self.shapes: dict[str, tuple[int, ...]] = {}
        """Of every tensor, by its name."""
        for file in self._files:
            with self._open(file) as tensors:
                for name in tensors.keys():  # noqa: SIM118 - it is no mapping
                    self.shapes[name] = tuple(tensors.get_slice(name).get_shape())
        if listed is not None and listed.keys() != self.shapes.keys():
            first = min(listed.keys() ^ self.shapes.keys())
            raise UserError(f"{index} and the files it lists disagree about {first}; get the checkpoint again")

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor under its name, as float32 in memory of its own: only one is ever held twice."""
        for file in self._files:
            with self._open(file) as tensors:
                for name in tensors.keys():  # noqa: SIM118
                    yield name, tensors.get_tensor(name).to(torch.float32, copy=True)

    def _open(self, file: Path) -> Any:
        try:
            return safe_open(file, framework="pt")
        except FileNotFoundError:
            raise UserError(f"{self._folder} lacks {file.name}; get the checkpoint again") from None
        except (OSError, SafetensorError) as error:
            raise UserError(f"cannot read {file}: {error}; get the checkpoint again") from None
