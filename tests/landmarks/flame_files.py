"""Made-up files with the layout of FLAME's, which may not be passed on, and SMIRK's."""

import pickle
import struct
import types
from pathlib import Path
from typing import ClassVar

import numpy as np
import scipy.sparse
import timm
import torch

# MediaPipe's numbers of the 105 landmarks, in the order of SMIRK's embedding.
_BROWS = [276, 282, 283, 285, 293, 295, 296, 300, 334, 336, 46, 52, 53, 55, 63, 65, 66, 70, 105, 107]
_LEFT_EYE = [249, 263, 362, 373, 374, 380, 381, 382, 384, 385, 386, 387, 388, 390, 398, 466]
_RIGHT_EYE = [7, 33, 133, 144, 145, 153, 154, 155, 157, 158, 159, 160, 161, 163, 173, 246]
_NOSE = [168, 6, 197, 195, 5, 4, 129, 98, 97, 2, 326, 327, 358]
_LIPS_0 = [0, 13, 14, 17, 37, 39, 40, 61, 78, 80, 81, 82, 84, 87, 88, 91, 95, 146, 178, 181, 185, 191]
_LIPS_1 = [267, 269, 270, 291, 308, 310, 311, 312, 314, 317, 318, 321, 324, 375, 402, 405, 409, 415]
# MediaPipe's numbers of the 105 landmarks, in the order of SMIRK's embedding.
NUMBERS = np.array([*_BROWS, *_LEFT_EYE, *_RIGHT_EYE, *_NOSE, *_LIPS_0, *_LIPS_1])


def head_model(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Arrays shaped as in ``generic_model.pkl``: a cloud of a head's size that nothing in particular distinguishes."""
    regressor = scipy.sparse.random(5, 5023, density=0.002, rng=rng).toarray()
    return {
        "f": rng.integers(0, 5023, (9976, 3)).astype(np.uint32),
        "v_template": rng.normal(0, 0.08, (5023, 3)),
        "shapedirs": rng.normal(0, 0.002, (5023, 3, 400)).astype(np.float32),
        "posedirs": rng.normal(0, 0.003, (5023, 3, 36)),
        "J_regressor": regressor / regressor.sum(axis=1, keepdims=True),
        "weights": rng.dirichlet([0.3] * 5, 5023),
        "kintree_table": np.array([[4294967295, 0, 1, 1, 1], [0, 1, 2, 3, 4]], dtype=np.uint32),
    }


def embedding(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        "lmk_face_idx": rng.integers(0, 9976, 105).astype(np.uint32),
        "lmk_b_coords": rng.dirichlet([1, 1, 1], 105),
        "landmark_indices": NUMBERS,
    }


def write_as_python_2_did(path: Path, model: dict[str, np.ndarray], protocol: int) -> None:
    """The released form: strings of bytes, old module names, chumpy around some arrays, a sparse regressor."""
    content = {
        **model,
        "shapedirs": foreign("chumpy.ch", "Ch", x=model["shapedirs"], _status="new"),
        "weights": foreign("chumpy.ch", "Ch", x=model["weights"], _status="new"),
        "J_regressor": foreign("scipy.sparse.csc", "csc_matrix", **vars(scipy.sparse.csc_matrix(model["J_regressor"]))),
        "bs_type": "lrotmin",
        "bs_style": "lbs",
        "J": np.zeros((5, 3)),
    }
    with path.open("wb") as file:
        _Python2Pickler(file, protocol).dump(content)


def foreign(module: str, name: str, **state: object) -> object:
    """An object of a class ``module.name`` that exists only as long as the pickler looks."""
    value = object.__new__(type(name, (), {"__module__": module}))
    vars(value).update(state)
    return value


class _Python2Pickler(pickle._Pickler):
    """Pickle's Python implementation, with the opcodes and names that Python 2 and numpy 1 used."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def _save_string(self, value):
        data = value.encode("latin1") if isinstance(value, str) else value
        self.write(b"T" + struct.pack("<i", len(data)) + data)  # BINSTRING
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = _save_string

    def save_global(self, value, name=None):
        module = value.__module__.replace("numpy._core", "numpy.core")
        renamed = {"builtins": "__builtin__", "copyreg": "copy_reg"}.get(module, module)
        self.write(b"c" + f"{renamed}\n{value.__name__}\n".encode())
        self.memoize(value)

    dispatch[type] = dispatch[types.FunctionType] = save_global


def write_all(folder: Path, rng: np.random.Generator) -> tuple[Path, Path, Path, Path]:
    """Model (as a plain npz), embedding and eyelids, in the order :func:`landmarks.flame.read_flame` takes them."""
    paths = (
        folder / "flame" / "generic_model.pkl",
        *(folder / "smirk" / name for name in ("mediapipe_landmark_embedding.npz", "l_eyelid.npy", "r_eyelid.npy")),
    )
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    with paths[0].open("wb") as file:
        np.savez(file, **head_model(rng))
    np.savez(paths[1], **embedding(rng))
    for path in paths[2:]:
        np.save(path, rng.normal(0, 0.004, (5023, 3)))
    return paths


SMALL, LARGE = "tf_mobilenetv3_small_minimal_100", "tf_mobilenetv3_large_minimal_100"
PARTS = {  # as georgeretsi/smirk names them: part, backbone, its last channels, head, outputs
    "pose_encoder": (SMALL, 576, "pose_cam_layers", 6),
    "shape_encoder": (LARGE, 960, "shape_layers", 300),
    "expression_encoder": (LARGE, 960, "expression_layers", 55),
}


def backbone(name: str) -> torch.nn.Module:
    return timm.create_model(name, pretrained=False, features_only=True).eval()


def encoder_weights() -> dict[str, torch.Tensor]:
    """What ``SMIRK_em1.pt`` holds, at random: the encoder beside a part of the generator."""
    torch.manual_seed(2)
    stored = {"smirk_generator.conv.weight": torch.zeros(3)}
    for part, (name, channels, head, outputs) in PARTS.items():
        for key, value in backbone(name).state_dict().items():
            stored[f"smirk_encoder.{part}.encoder.{key}"] = value
        stored[f"smirk_encoder.{part}.{head}.0.weight"] = torch.randn(outputs, channels) / 1000
        stored[f"smirk_encoder.{part}.{head}.0.bias"] = torch.randn(outputs)
    # A camera that has the head in the picture, as the real one is initialised.
    stored["smirk_encoder.pose_encoder.pose_cam_layers.0.bias"] = torch.tensor([0.1, -0.1, 0.0, 7.0, 0.0, 0.0])
    return stored


def write_user_files(folder: Path) -> None:
    """Everything that `faceloom models list` asks a user to supply for SMIRK, below ``folder``."""
    write_all(folder, np.random.default_rng(0))
    torch.save(encoder_weights(), folder / "smirk" / "SMIRK_em1.pt")
