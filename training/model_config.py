"""The configuration of the model: where its weights come from."""

from typing import Literal

from pydantic import Field, model_validator

from faceloom.config import Section

SCRATCH = "scratch"

FaceTokens = Literal[729, 81, 9, 1]
"""How many a model may see: all, or means over squares of 3, 9 or 27 patches."""


class ScratchConfig(Section):
    """Sizes of a transformer without pretrained weights; read with ``model.init: scratch`` only.

    A stand-in: it shows on a small machine that training works, and draws nothing worth looking at.
    """

    num_layers: int = Field(4, ge=1)
    num_attention_heads: int = Field(4, ge=1)
    attention_head_dim: int = Field(32, ge=16, multiple_of=16)
    """Channels of a head. The rotary embedding gives a quarter to time and three eighths to each of height and width."""
    time_embed_dim: int = Field(128, ge=1)
    text_embed_dim: int = Field(128, ge=1)
    """What the face projector's tokens have; 4096 in the real model, after the T5 embeddings they replace."""
    face_tokens: FaceTokens = 729
    """Fewer than 729 are their means over squares of patches. Beside the few cells of a small grid, 729 would take most of
    the time."""


class ModelConfig(Section):
    """Where the weights come from before the first step."""

    init: str = "THUDM/CogVideoX-5b-I2V"
    """A folder, or the id of one in the local Hugging Face cache: of CogVideoX-5B-I2V, of the release of SkyReels-A1, or one
    that ``faceloom export`` wrote; which of them is told from its tensors. ``scratch``: random weights, see ``scratch``."""
    guider: str | None = None
    """Folder of the autoencoder whose encoder the landmark guider starts as: its own, or one that holds ``pose_guider/``,
    ``guider/`` or ``vae/``. By default the guider of ``init``, or the codec's VAE if ``init`` has none."""
    scratch: ScratchConfig = ScratchConfig()
    seed: int = 0
    """Of the weights that no checkpoint gives: the face projector's first layer after CogVideoX, all of them with
    ``scratch``."""

    @model_validator(mode="after")
    def _named(self) -> "ModelConfig":
        if not self.init:
            raise ValueError("init must name a folder, a model in the Hugging Face cache, or scratch")
        return self
