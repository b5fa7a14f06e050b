"""FLAME, the head model behind SMIRK's parameters, at the points of its surface that stand for MediaPipe's.

Written from the equations of SMPL (Loper et al. 2015, §3) and FLAME (Li et al. 2017, §3). The numbers come from the user's
copy of the model. Its pickle is Python 2's and mentions chumpy and scipy; it is read without either, and without letting
it run anything.
"""

import pickle
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from faceloom.errors import UserError
from landmarks.angles import Floats
from landmarks.geometry import MESH_POINTS
from landmarks.smirk_motion import SHAPE
from landmarks.topology import EYES

VERTICES = 5023
TRIANGLES = 9976
LANDMARKS = 105
EXPRESSIONS = 50  # of the 100 that FLAME has: those SMIRK uses
JOINTS = 5  # root, neck, jaw, left eye, right eye
_ROOT, _JAW = 0, 2

_MODEL_SHAPES = {
    "f": (TRIANGLES, 3),
    "v_template": (VERTICES, 3),
    "shapedirs": (VERTICES, 3, 400),  # 300 of shape, 100 of expression
    "posedirs": (VERTICES, 3, 9 * (JOINTS - 1)),
    "J_regressor": (JOINTS, VERTICES),
    "weights": (VERTICES, JOINTS),
    "kintree_table": (2, JOINTS),
}
_EMBEDDING_SHAPES = {"lmk_face_idx": (LANDMARKS,), "lmk_b_coords": (LANDMARKS, 3), "landmark_indices": (LANDMARKS,)}


@dataclass(frozen=True, eq=False)
class FlameModel:
    """FLAME at the V vertices that carry the 105 landmarks; float64, metres, y up.

    Joints are regressed from the whole head, which is linear in the coefficients and so done once, here. As in the
    released models, they follow the expression as well as the shape; the paper regresses them from the shape alone.
    """

    template: NDArray[np.float64]  # [V, 3]
    basis: NDArray[np.float64]  # [V, 3, 350] shape, then expression
    pose_basis: NDArray[np.float64]  # [V, 3, 36]
    weights: NDArray[np.float64]  # [V, 5] of skinning
    eyelids: NDArray[np.float64]  # [2, V, 3] left, right
    joints: NDArray[np.float64]  # [5, 3] of the template
    joint_basis: NDArray[np.float64]  # [5, 3, 350]
    parents: tuple[int, ...]  # of joints 1..4
    corners: NDArray[np.int64]  # [105, 3] vertices of the triangle a landmark lies on
    barycentric: NDArray[np.float64]  # [105, 3] where on it
    numbers: NDArray[np.int64]  # [105] MediaPipe's

    def landmarks(self, shape: Floats, expression: Floats, rotation: Floats, jaw: Floats, eyelids: Floats) -> Floats:
        """The landmarks ``[T, 105, 3]`` of a head over T frames, float64.

        ``shape[300]`` and ``expression[T, 50]`` are coefficients, ``rotation[T, 3, 3]`` turns the head about its root
        joint, ``jaw[T, 3]`` is axis-angle, ``eyelids[T, 2]`` (left, right) close from 0 to 1. Neck and eyeballs stay
        at rest. The eyelids are SMIRK's addition, put on after skinning.
        """
        frames = len(expression)
        coefficients = np.concatenate([np.broadcast_to(shape, (frames, SHAPE)), expression], axis=1, dtype=np.float64)
        shaped = self.template + _combine(self.basis, coefficients)
        joints = self.joints + _combine(self.joint_basis, coefficients)

        turns = np.tile(np.eye(3), (frames, JOINTS, 1, 1))
        turns[:, _ROOT] = rotation
        turns[:, _JAW] = rotation_matrices(jaw)
        posed = shaped + _combine(self.pose_basis, (turns[:, 1:] - np.eye(3)).reshape(frames, -1))

        R, t = self._joint_motion(turns, joints)
        skin_R = np.einsum("vj,tjab->tvab", self.weights, R)
        skin_t = np.einsum("vj,tja->tva", self.weights, t)
        skinned = np.einsum("tvab,tvb->tva", skin_R, posed) + skin_t
        skinned += np.einsum("te,eva->tva", np.asarray(eyelids, dtype=np.float64), self.eyelids)
        return np.asarray(np.einsum("tnca,nc->tna", skinned[:, self.corners], self.barycentric))

    def _joint_motion(
        self, turns: NDArray[np.float64], joints: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What each joint does to a point at rest: R ``[T, 5, 3, 3]``, t ``[T, 5, 3]``, SMPL's equations 3 and 4.

        ``turns[T, 5, 3, 3]`` are rotations relative to the parent, ``joints[T, 5, 3]`` the joints at rest.
        """
        R, t = turns.copy(), np.empty_like(joints)
        t[:, _ROOT] = joints[:, _ROOT] - _apply(R[:, _ROOT], joints[:, _ROOT])
        for joint, parent in enumerate(self.parents, start=1):
            R[:, joint] = R[:, parent] @ turns[:, joint]
            # The joint itself goes where its parent takes it.
            place = _apply(R[:, parent], joints[:, joint]) + t[:, parent]
            t[:, joint] = place - _apply(R[:, joint], joints[:, joint])
        return R, t


def rotation_matrices(axis_angle: Floats) -> NDArray[np.float64]:
    """Rodrigues' formula: ``axis_angle[..., 3]`` (radians) to ``[..., 3, 3]``, exact down to no rotation at all."""
    vector = np.asarray(axis_angle, dtype=np.float64)
    x, y, z = np.moveaxis(vector, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*x.shape, 3, 3)
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    # np.sinc(x) is sin(πx) / (πx), finite at zero; (1 − cos θ) / θ² = ½ (sin(θ/2) / (θ/2))².
    first, second = np.sinc(angle / np.pi), np.sinc(angle / (2 * np.pi)) ** 2 / 2
    return np.asarray(np.eye(3) + first * cross + second * (cross @ cross))


def read_flame(model: Path, embedding: Path, left_eyelid: Path, right_eyelid: Path) -> FlameModel:
    """Read FLAME 2020 and what SMIRK adds to it.

    ``model`` is ``generic_model.pkl`` as released, or an npz with its keys. ``embedding`` is SMIRK's
    ``mediapipe_landmark_embedding.npz``, which places 105 of MediaPipe's landmarks on triangles of FLAME; the eyelids are
    its ``l_eyelid.npy`` and ``r_eyelid.npy``, [5023, 3]. Raises :class:`UserError` naming the file, and the key in it
    that is missing or has wrong content, or whatever a pickle wants that this one has no need of.
    """
    read_model = _read_npz if zipfile.is_zipfile(model) else _read_pickle
    arrays = _checked(model, read_model(model, _MODEL_SHAPES), _MODEL_SHAPES)
    places = _checked(embedding, _read_npz(embedding, _EMBEDDING_SHAPES), _EMBEDDING_SHAPES)
    triangles = _indices(model, "f", arrays["f"], VERTICES)
    on_triangle = _indices(embedding, "lmk_face_idx", places["lmk_face_idx"], TRIANGLES)
    numbers = _indices(embedding, "landmark_indices", places["landmark_indices"], MESH_POINTS)
    missing = sorted({point for eye in EYES for point in eye.contour} - set(numbers.tolist()))
    if missing or len(set(numbers.tolist())) != LANDMARKS:
        raise UserError(
            f"{embedding}: landmark_indices must name {LANDMARKS} different landmarks, those around the eyes among them "
            f"(missing: {missing}); supply the file as it was released"
        )
    used, corners = np.unique(triangles[on_triangle], return_inverse=True)

    basis = arrays["shapedirs"][..., : SHAPE + EXPRESSIONS]
    lids = [_read_eyelid(path)[used] for path in (left_eyelid, right_eyelid)]
    return FlameModel(
        template=_float64(arrays["v_template"][used]),
        basis=_float64(basis[used]),
        pose_basis=_float64(arrays["posedirs"][used]),
        weights=_float64(arrays["weights"][used]),
        eyelids=_float64(np.stack(lids)),
        joints=_float64(arrays["J_regressor"] @ arrays["v_template"]),
        joint_basis=_float64(np.tensordot(arrays["J_regressor"], basis, axes=1)),
        parents=_parents(model, arrays["kintree_table"]),
        corners=corners.reshape(LANDMARKS, 3),
        barycentric=_float64(places["lmk_b_coords"]),
        numbers=numbers,
    )


def _combine(basis: NDArray[np.float64], coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear combinations of ``basis[N, 3, K]`` by ``coefficients[T, K]``, ``[T, N, 3]``."""
    return (coefficients @ basis.reshape(-1, basis.shape[-1]).T).reshape(len(coefficients), -1, 3)


def _apply(matrices: NDArray[np.float64], vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.einsum("tab,tb->ta", matrices, vectors))


def _float64(array: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(array, dtype=np.float64)


def _checked(
    path: Path, content: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, NDArray[np.number]]:
    """The arrays of ``content`` that ``shapes`` names, numeric and of these shapes."""
    arrays = {}
    for key, shape in shapes.items():
        if key not in content:
            raise UserError(f"{path}: {key} is missing; supply the file as it was released")
        array = content[key]
        if array.shape != shape or not np.issubdtype(array.dtype, np.number) or not np.isfinite(array).all():
            raise UserError(
                f"{path}: {key} must be {list(shape)} finite numbers, not {array.dtype}{list(array.shape)}; "
                "supply the file as it was released"
            )
        arrays[key] = array
    return arrays


def _indices(path: Path, key: str, array: NDArray[np.number], below: int) -> NDArray[np.int64]:
    if array.min() < 0 or array.max() >= below or (array != np.floor(array)).any():
        raise UserError(
            f"{path}: {key} must hold whole numbers from 0 to {below - 1}; supply the file as it was released"
        )
    return array.astype(np.int64)


def _parents(path: Path, tree: NDArray[np.number]) -> tuple[int, ...]:
    parents = tuple(int(parent) for parent in tree[0, 1:])
    if any(not 0 <= parent < joint for joint, parent in enumerate(parents, start=1)):
        raise UserError(f"{path}: kintree_table must put parents before children, not {parents}; is this FLAME 2020?")
    return parents


def _read_eyelid(path: Path) -> NDArray[np.number]:
    try:
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # numpy lets through whatever zipfile, zlib and its header's parser raise
        raise UserError(f"{path} is no npy file ({error}); supply the file as it was released") from error
    if not isinstance(array, np.ndarray):
        raise UserError(f"{path} is no npy file but an archive of them; supply the file as it was released")
    return _checked(path, {"the array": array}, {"the array": (VERTICES, 3)})["the array"]


def _read_npz(path: Path, keys: Iterable[str]) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as content:
            return {key: content[key] for key in keys if key in content}
    except Exception as error:  # as for the eyelids
        raise UserError(
            f"{path} is no npz file of plain arrays ({error}); supply the file as it was released"
        ) from error


def _read_pickle(path: Path, keys: Iterable[str]) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as file:
            content = _FlameUnpickler(file, path).load()
        return {key: _array(path, key, content[key]) for key in keys if key in content}
    except UserError:
        raise
    except Exception as error:  # what a broken pickle raises is not limited to UnpicklingError, says its documentation
        raise UserError(f"{path} is no readable pickle ({error!r}); supply the file as it was released") from error


class _State:
    """An object of chumpy or scipy with its state and none of its behaviour."""

    def __init__(self, *_arguments: object) -> None:
        pass


# A pickle calls what it names, so it may name these and nothing else. They build arrays and do no harm with any argument.
_ALLOWED = frozenset(
    {
        "numpy.ndarray",
        "numpy.dtype",
        "numpy._core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
        "numpy._core.numeric._frombuffer",
        "_codecs.encode",
        "copyreg._reconstructor",
        "copy_reg._reconstructor",  # Python 2's names of the same
        "builtins.object",
        "__builtin__.object",
    }
)
_SPARSE = frozenset(f"scipy.sparse.{module}.csc_{kind}" for module in ("csc", "_csc") for kind in ("matrix", "array"))


class _FlameUnpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__(file, encoding="latin1")  # Python 2 wrote the arrays' bytes as strings
        self._path = path

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        module = module.replace("numpy.core.", "numpy._core.")
        if module.partition(".")[0] == "chumpy" or f"{module}.{name}" in _SPARSE:
            return _State
        if f"{module}.{name}" not in _ALLOWED:
            raise UserError(
                f"{self._path} was not read: it names {module}.{name}, which a head model has no need of and which could "
                "run code; supply generic_model.pkl as it was released, or an npz of its arrays"
            )
        found: Callable[..., Any] = super().find_class(module, name)
        return found


def _array(path: Path, key: str, value: object) -> NDArray[Any]:
    """The array behind an entry of the pickle: itself, a ``chumpy.ch.Ch`` around it, or a sparse matrix."""
    state = vars(value) if isinstance(value, _State) else {}
    if "x" in state:
        return _array(path, key, state["x"])
    if "indptr" in state:
        return _dense(state["data"], state["indices"], state["indptr"], state["_shape"])
    if not isinstance(value, np.ndarray):
        raise UserError(
            f"{path}: {key} is no array but something computed; supply an npz of the model's arrays instead"
        )
    return value


def _dense(data: NDArray[Any], rows: NDArray[Any], starts: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.float64]:
    """A matrix stored by compressed columns: column c holds ``data[starts[c]:starts[c + 1]]`` in ``rows``."""
    dense = np.zeros(shape)
    np.add.at(dense, (rows, np.repeat(np.arange(shape[1]), np.diff(starts))), data)
    return dense
