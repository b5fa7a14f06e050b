"""Face tokens into the place of text embeddings."""

import math

from torch import Tensor, nn
from torch.nn import functional

from shards.schema import FACE_DIM, FACE_TOKENS
from training.whereabouts import Whereabouts

HIDDEN = 3 * FACE_DIM
_SIDE = math.isqrt(FACE_TOKENS)


class FaceProjector(Whereabouts, nn.Sequential):
    """``Linear(1152, 3456) → SiLU → Linear(3456, text_embed_dim)``: face tokens [B, 729, 1152] → [B, N, text_embed_dim].

    N is ``tokens``: 729, or for small models the 81, 9 or 1 means over squares of patches.

    Names and shapes are those of ``patch_embed.pose_proj`` in SkyReels-A1. Only the last layer starts at zero, so that the
    output is zero at first. The release's code zeroes both: SiLU(0) = 0 then keeps every gradient but the last bias's at zero
    for ever.
    """

    def __init__(self, text_embed_dim: int, tokens: int = FACE_TOKENS) -> None:
        last = nn.Linear(HIDDEN, text_embed_dim)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        super().__init__(nn.Linear(FACE_DIM, HIDDEN), nn.SiLU(), last)
        self._square = _SIDE // math.isqrt(tokens)

    def forward(self, face_tokens: Tensor) -> Tensor:
        """[B, 729, 1152] → [B, N, text_embed_dim]."""
        if self._square > 1:
            grid = face_tokens.transpose(1, 2).reshape(-1, FACE_DIM, _SIDE, _SIDE)
            face_tokens = functional.avg_pool2d(grid, self._square).flatten(2).transpose(1, 2)
        for layer in self:
            face_tokens = layer(face_tokens)
        return face_tokens
