"""The loss weight of a sample on the latent grid: Eq. 7, without what only pads a short clip."""

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from landmarks.record import dequantise, to_crop
from shards.motion_weight import Weights, face_region, motion_weight, valid_shares
from shards.schema import HEIGHT, WIDTH
from training.data_config import WeightConfig
from training.encode_config import Layout

logger = logging.getLogger(__name__)

_WATCHED = 200


class SampleWeight(NamedTuple):
    """The weight of one sample, and what to say of it."""

    weight: Weights  # float32 [13, 60, 90]
    mean: float  # over the clip's own latents, before padding is taken out
    above_1: float  # share of their cells


def sample_weight(fields: Mapping[str, Any], config: WeightConfig, layout: Layout) -> SampleWeight:
    """The weight by which the squared errors of a sample are multiplied before their plain mean.

    ``fields`` hold ``flow.npy`` and ``meta.json``, decoded, and for the variant ``face`` ``landmarks.u16.npy``. In the layout
    ``ref1+48`` latent 0 shows the reference, which has no flow: its weight is 1. A latent of padding has weight 0, one that
    is padded in part counts by its share, and all are raised so that the mean over all cells is Eq. 8's over the valid ones,
    whose number its 1 / (N·H'·W') stands for.
    """
    meta = fields["meta.json"]
    face = None
    if config.variant == "face":
        points = dequantise(fields["landmarks.u16.npy"])
        face = face_region(to_crop(points, meta["source_wh"], meta["crop_xywh"], (WIDTH, HEIGHT)))
    weights = motion_weight(fields["flow.npy"], meta["flow"]["p995"], config.variant, config.delta, face)
    if layout == "ref1+48":
        weights[0] = 1
    shares = valid_shares(meta["n_valid"])
    own = weights[shares > 0]
    padded = weights * (shares / shares.mean(dtype=np.float64))[:, None, None].astype(np.float32)
    return SampleWeight(padded, float(own.mean(dtype=np.float64)), float((own > 1).mean()))


class InertWatch:
    """Says once, by a warning, if none of the first 200 samples or so has a weight above 1: nothing is weighted then.

    That few cells have one is normal: 4 % in ordinary footage.
    """

    def __init__(self, config: WeightConfig) -> None:
        self._variant = config.variant
        self._left = _WATCHED

    def see(self, samples: int, above_1: float) -> None:
        """Count a batch of so many samples, of whose cells the share ``above_1`` has a weight above 1."""
        if self._left <= 0:
            return
        self._left = 0 if above_1 else self._left - samples
        if self._left <= 0 and not above_1:
            logger.warning(
                "the loss weight is inert: no cell of %d samples has more than 1, so that faces count like the background; "
                "weight.variant is %s: try norm or delta, or look at the flow with `faceloom inspect`",
                _WATCHED - self._left,
                self._variant,
            )
