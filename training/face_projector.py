"""Face tokens into the place of text embeddings."""

from torch import nn

from shards.schema import FACE_DIM
from training.whereabouts import Whereabouts

HIDDEN = 3 * FACE_DIM


class FaceProjector(Whereabouts, nn.Sequential):
    """``Linear(1152, 3456) → SiLU → Linear(3456, text_embed_dim)``: face tokens [B, 729, 1152] → [B, 729, text_embed_dim].

    Names and shapes are those of ``patch_embed.pose_proj`` in SkyReels-A1. Only the last layer starts at zero, so that the
    output is zero at first. The release's code zeroes both: SiLU(0) = 0 then keeps every gradient but the last bias's at zero
    for ever.
    """

    def __init__(self, text_embed_dim: int) -> None:
        last = nn.Linear(HIDDEN, text_embed_dim)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        super().__init__(nn.Linear(FACE_DIM, HIDDEN), nn.SiLU(), last)
