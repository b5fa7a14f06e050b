"""Checkpoints of CogVideoX-5B-I2V and of SkyReels-A1's release into :class:`training.model.PortraitModel`, and back.

================================== =========================================== ===========================================
ours                               the release's ``transformer/``              CogVideoX-5B-I2V's ``transformer/``
================================== =========================================== ===========================================
``face.{0,2}.{weight,bias}``       ``patch_embed.pose_proj.{0,2}.…``           none
``transformer.<name>``             ``<name>``                                  ``<name>``
its ``patch_embed.proj.weight``    the same, 48 channels                       32 channels: noise | reference
its ``patch_embed.pos_embedding``  the same, 729 + 17 550 positions            226 + 17 550 positions
================================== =========================================== ===========================================

Names are mapped one to one; a tensor without a place, and a place without a tensor, are refused.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from faceloom.errors import UserError
from shards.schema import FACE_TOKENS
from training.latents import CHANNELS
from training.model_config import FaceTokens

Kind = Literal["base", "release", "export"]
"""CogVideoX-5B-I2V; the release of SkyReels-A1; what ``faceloom export --layout diffusers`` writes."""

INPUTS = 3 * CHANNELS
"""Channels of the transformer's input: noise | landmarks | reference."""

_PROJECTOR = "patch_embed.pose_proj."
_PATCHES = "patch_embed.proj.weight"
_POSITIONS = "patch_embed.pos_embedding"


def kind_of(source: str, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], projector: bool) -> Kind:
    """What the checkpoint ``source`` is, by its transformer's config and tensors; ``projector``: whether one lies beside it.

    Raises :class:`UserError` with the reason for any other model.
    """
    portrait_config(source, config)
    channels = shapes.get(_PATCHES, (0, 0))[1]
    if channels == 2 * CHANNELS:
        return "base"
    if channels == INPUTS and any(name.startswith(_PROJECTOR) for name in shapes):
        return "release"
    if channels == INPUTS and projector:
        return "export"
    reason = {
        0: f"has no tensor {_PATCHES}",
        CHANNELS: "takes no picture: it is a text-to-video model",
        INPUTS: f"has no face projector: neither {_PROJECTOR}* among its tensors nor a folder face_projector/",
    }.get(channels, f"takes {channels} channels")
    raise UserError(
        f"model.init: the transformer of {source} {reason}; name CogVideoX-5B-I2V, the release of SkyReels-A1 or an export"
    )


def portrait_config(source: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of our transformer from the ``config.json`` of a CogVideoX 1.0 image-to-video transformer.

    CogVideoX's files and the release's say 226 tokens, and the release's code takes 729 whatever the file says; models from
    scratch may have fewer (:class:`training.model_config.ScratchConfig`), as their files say. Raises :class:`UserError` for
    CogVideoX 1.5, whose patches span two frames and which takes a frame offset: SkyReels-A1 is built on 1.0.
    """
    for key, meaning in (("patch_size_t", "patches over time"), ("ofs_embed_dim", "an offset embedding")):
        if config.get(key) is not None:
            raise UserError(
                f"model.init: {source} is a CogVideoX 1.5 ({key} {config[key]}: {meaning}); SkyReels-A1 needs 1.0: take "
                "THUDM/CogVideoX-5b-I2V"
            )
    kept = {
        name: value
        for name, value in config.items()
        if not name.startswith("_") and name not in ("patch_size_t", "ofs_embed_dim")
    }
    tokens = kept.get("max_text_seq_length")
    tokens = tokens if tokens in get_args(FaceTokens) else FACE_TOKENS
    return kept | {"in_channels": INPUTS, "out_channels": CHANNELS, "max_text_seq_length": tokens}


def from_base(name: str, tensor: Tensor, config: Mapping[str, Any]) -> Tensor:
    """The tensor ``name`` of a CogVideoX-5B-I2V with this ``config`` as our transformer has it.

    Landmark channels start at zero between noise and reference, and so do the positions of the face tokens. With landmarks
    of any kind, and as many text tokens in place of the face's, the output is then the base model's. (The release's loader
    puts the reference's weights into the landmarks' place.) Raises ``ValueError`` for unexpected shapes.
    """
    if name == _PATCHES:
        noise, reference = torch.split(tensor, CHANNELS, dim=1)
        return torch.cat([noise, torch.zeros_like(noise), reference], dim=1)
    if name == _POSITIONS:
        patches = tensor[:, config.get("max_text_seq_length", 226) :]
        return torch.cat([patches.new_zeros(1, FACE_TOKENS, patches.shape[2]), patches], dim=1)
    return tensor


def from_release(name: str) -> str:
    """Our name of a tensor in the release's ``transformer/``."""
    return f"face.{name.removeprefix(_PROJECTOR)}" if name.startswith(_PROJECTOR) else f"transformer.{name}"


def to_release(name: str) -> str:
    """The inverse of :func:`from_release`. Raises ``ValueError`` for a tensor that has no place there."""
    part, _, rest = name.partition(".")
    if part == "face":
        return f"{_PROJECTOR}{rest}"
    if part == "transformer" and not rest.startswith(_PROJECTOR):
        return rest
    raise ValueError(f"the release's transformer has no place for {name}")


def check_fit(source: str, found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise :class:`UserError` naming a tensor unless ``found`` has exactly the names and shapes that are ``expected``."""
    for problem, names in (
        ("lacks", expected.keys() - found.keys()),
        ("has no place in the model for", found.keys() - expected.keys()),
        ("has another shape of", {name for name in expected.keys() & found.keys() if found[name] != expected[name]}),
    ):
        if names:
            first = min(names)
            shapes = f": {found[first]}, not {expected[first]}" if first in found and first in expected else ""
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise UserError(
                f"the checkpoint {source} {problem} {first}{shapes}{more}; get it again, or name another one"
            )
