"""The landmark record of a clip, out of the arrays that a dataset keeps of it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from landmarks.record import LandmarkRecord, dequantise
from landmarks.smirk_motion import SmirkMotion


def record_of(sample: Mapping[str, Any]) -> LandmarkRecord:
    """The record of a sample's own frames; those that only repeat its last are left out.

    ``sample`` holds its decoded fields by name.
    """
    meta = sample["meta.json"]
    own = slice(meta["n_valid"])
    width, height = meta["source_wh"]
    smirk = None
    if "smirk.npy" in sample:
        smirk = SmirkMotion(sample["smirk.npy"][own], sample["smirk_shape.npy"], sample["smirk_crop.npy"][own])
    return LandmarkRecord(
        points=dequantise(sample["landmarks.u16.npy"][own]),
        blendshapes=sample["blendshapes.npy"][own].astype(np.float32),
        pose=sample["pose.npy"][own],
        found=np.array(meta["found"][own]),
        width=width,
        height=height,
        smirk=smirk,
    )
