import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from scipy.spatial.transform import Rotation

from faceloom.errors import UserError
from landmarks.flame import FlameModel, read_flame, rotation_matrices
from tests.landmarks import flame_files

Files = tuple[Path, Path, Path, Path]
JAW = 2


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Files:
    return flame_files.write_all(tmp_path_factory.mktemp("flame"), np.random.default_rng(3))


@pytest.fixture(scope="module")
def content(files: Files) -> dict[str, np.ndarray]:
    """Every array of every file, by its key."""
    model, embedding, left, right = files
    return {**np.load(model), **np.load(embedding), "left": np.load(left), "right": np.load(right)}


@pytest.fixture(scope="module")
def flame(files: Files) -> FlameModel:
    return read_flame(*files)


def motion(frames: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "shape": rng.normal(0, 1, 300),
        "expression": rng.normal(0, 1, (frames, 50)),
        "rotation": Rotation.random(frames, rng=rng).as_matrix(),
        "jaw": rng.normal(0, 0.3, (frames, 3)),
        "eyelids": rng.uniform(0, 1, (frames, 2)),
    }


def at_rest(frames: int = 1) -> dict[str, np.ndarray]:
    return {
        "shape": np.zeros(300),
        "expression": np.zeros((frames, 50)),
        "rotation": np.tile(np.eye(3), (frames, 1, 1)),
        "jaw": np.zeros((frames, 3)),
        "eyelids": np.zeros((frames, 2)),
    }


def on_surface(content: dict[str, np.ndarray], vertices: np.ndarray) -> np.ndarray:
    """The landmarks of a mesh ``vertices[5023, 3]``, one after another."""
    return np.array(
        [
            sum(w * vertices[v] for w, v in zip(weights, content["f"][triangle], strict=True))
            for triangle, weights in zip(content["lmk_face_idx"], content["lmk_b_coords"], strict=True)
        ]
    )


def slow_vertices(content: dict[str, np.ndarray], moved: dict[str, np.ndarray], frame: int) -> np.ndarray:
    """SMPL's equations 2 to 10 for the whole head, vertex by vertex, with homogeneous matrices."""
    betas = np.concatenate([moved["shape"], moved["expression"][frame], np.zeros(50)])
    shaped = content["v_template"] + content["shapedirs"].astype(np.float64) @ betas
    joints = content["J_regressor"] @ shaped
    turns = [np.eye(3)] * 5
    turns[0] = moved["rotation"][frame]
    turns[JAW] = Rotation.from_rotvec(moved["jaw"][frame]).as_matrix()
    posed = shaped + content["posedirs"] @ np.concatenate([(turn - np.eye(3)).ravel() for turn in turns[1:]])

    world: list[np.ndarray] = []
    for joint, parent in enumerate([-1, *content["kintree_table"][0, 1:].astype(int)]):
        local = np.eye(4)
        local[:3, :3] = turns[joint]
        local[:3, 3] = joints[joint] - (joints[parent] if joint else 0)
        world.append(world[parent] @ local if joint else local)
    from_rest = []
    for joint in range(5):
        to_joint = np.eye(4)
        to_joint[:3, 3] = -joints[joint]
        from_rest.append(world[joint] @ to_joint)

    skinned = np.empty((5023, 3))
    for vertex in range(5023):
        blend = sum(content["weights"][vertex, joint] * from_rest[joint] for joint in range(5))
        skinned[vertex] = (blend @ [*posed[vertex], 1])[:3]
    left, right = moved["eyelids"][frame]
    return skinned + left * content["left"] + right * content["right"]


def test_a_head_at_rest_is_the_template(flame: FlameModel, content):
    expected = on_surface(content, content["v_template"])
    np.testing.assert_allclose(flame.landmarks(**at_rest())[0], expected, atol=1e-12)


def test_landmarks_equal_the_papers_equations_written_out_for_each_vertex(flame: FlameModel, content):
    moved = motion(3)
    expected = [on_surface(content, slow_vertices(content, moved, frame)) for frame in range(3)]
    np.testing.assert_allclose(flame.landmarks(**moved), expected, atol=1e-9)


def test_turning_the_head_turns_all_of_it_about_its_root_joint(flame: FlameModel, content):
    R = Rotation.from_euler("YXZ", [40, -20, 10], degrees=True).as_matrix()
    root = content["J_regressor"][0] @ content["v_template"]
    rest = flame.landmarks(**at_rest())[0]
    turned = flame.landmarks(**at_rest() | {"rotation": R[None]})[0]
    np.testing.assert_allclose(turned, (rest - root) @ R.T + root, atol=1e-12)


def test_without_pose_correctives_the_jaw_moves_a_point_by_its_skinning_weight_alone(flame: FlameModel, content):
    jaw = np.array([[0.4, 0.1, -0.05]])
    on_vertices = replace(
        flame, pose_basis=np.zeros_like(flame.pose_basis), barycentric=np.tile([1.0, 0.0, 0.0], (105, 1))
    )
    vertices = content["f"][content["lmk_face_idx"], 0]
    rest = content["v_template"][vertices]
    joint = content["J_regressor"][JAW] @ content["v_template"]
    turned = Rotation.from_rotvec(jaw[0]).apply(rest - joint) + joint
    expected = content["weights"][vertices, JAW, None] * (turned - rest)
    moved = on_vertices.landmarks(**at_rest() | {"jaw": jaw})[0] - rest
    np.testing.assert_allclose(moved, expected, atol=1e-12)


@pytest.mark.parametrize(("eyelids", "key"), [([[0.7, 0]], "left"), ([[0, 0.7]], "right")])
def test_an_eyelid_closes_by_its_share_however_the_head_is_turned(flame: FlameModel, content, eyelids, key):
    moved = motion(1) | {"eyelids": np.zeros((1, 2))}
    closing = flame.landmarks(**moved | {"eyelids": np.array(eyelids)}) - flame.landmarks(**moved)
    np.testing.assert_allclose(closing[0], on_surface(content, 0.7 * content[key]), atol=1e-12)


@pytest.mark.parametrize("angle", [0, 1e-12, 1e-4, 0.3, np.pi, 6])
def test_rotation_matrices_are_those_of_scipy(angle):
    vectors = angle * np.random.default_rng(0).normal(size=(2, 5, 3))
    expected = Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix().reshape(2, 5, 3, 3)
    np.testing.assert_allclose(rotation_matrices(vectors), expected, atol=1e-14)


@pytest.mark.parametrize("protocol", [0, 2])
def test_the_released_pickle_is_read_without_chumpy(tmp_path, flame: FlameModel, files: Files, content, protocol):
    model = {key: content[key] for key in np.load(files[0])}
    flame_files.write_as_python_2_did(tmp_path / "head.pkl", model, protocol)
    read = read_flame(tmp_path / "head.pkl", *files[1:])
    np.testing.assert_array_equal(read.landmarks(**motion(2)), flame.landmarks(**motion(2)))


@pytest.mark.parametrize("protocol", [2, 5])
def test_a_pickle_saved_again_by_python_3_is_read(tmp_path, flame: FlameModel, files: Files, content, protocol):
    model = {key: content[key] for key in np.load(files[0])}
    model["J_regressor"] = scipy.sparse.csc_matrix(model["J_regressor"])
    (tmp_path / "head.pkl").write_bytes(pickle.dumps(model, protocol))
    read = read_flame(tmp_path / "head.pkl", *files[1:])
    np.testing.assert_array_equal(read.landmarks(**motion(2)), flame.landmarks(**motion(2)))


class Malicious:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize(("function", "name"), [(os.mkdir, "posix.mkdir"), (eval, "eval"), (np.save, "save")])
def test_a_pickle_that_calls_anything_is_refused_and_does_not_run(tmp_path, files: Files, function, name, protocol):
    made = str(tmp_path / "made.npy")
    arguments = {os.mkdir: (made,), eval: (f"open({made!r}, 'w')",), np.save: (made, 0)}[function]
    (tmp_path / "head.pkl").write_bytes(pickle.dumps({"f": Malicious(function, *arguments)}, protocol))
    with pytest.raises(UserError, match=rf"head\.pkl was not read: it names \S*{name},"):
        read_flame(tmp_path / "head.pkl", *files[1:])
    assert not Path(made).exists()


def test_a_value_that_chumpy_would_have_to_compute_is_refused_by_its_key(tmp_path, files: Files, content):
    model = {key: content[key] for key in np.load(files[0])}
    model["v_template"] = flame_files.foreign("chumpy.ch_ops", "add", a=model["v_template"], b=0)
    flame_files.write_as_python_2_did(tmp_path / "head.pkl", model, protocol=2)
    with pytest.raises(UserError, match=r"head\.pkl: v_template is no array"):
        read_flame(tmp_path / "head.pkl", *files[1:])


@pytest.mark.parametrize("data", [b"", b"hello", pickle.dumps([1, 2])])
def test_a_file_that_is_no_head_model_is_refused_by_name(tmp_path, files: Files, data):
    (tmp_path / "head.pkl").write_bytes(data)
    with pytest.raises(UserError, match=r"head\.pkl"):
        read_flame(tmp_path / "head.pkl", *files[1:])


BAD_ARRAYS = {
    "another number of shapes": ("shapedirs", np.zeros((5023, 3, 300))),
    "a NaN": ("v_template", np.full((5023, 3), np.nan)),
    "strings": ("weights", np.full((5023, 5), "a")),
    "a triangle beyond the mesh": ("f", np.full((9976, 3), 5023)),
    "a child before its parent": ("kintree_table", np.array([[0, 3, 1, 1, 1], [0, 1, 2, 3, 4]])),
    "a missing key": ("J_regressor", None),
}


@pytest.mark.parametrize(("key", "array"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_an_array_that_does_not_fit_is_named_with_its_file(tmp_path, files: Files, key, array):
    model = dict(np.load(files[0])) | {key: array}
    if array is None:
        del model[key]
    np.savez(tmp_path / "head.npz", **model)
    with pytest.raises(UserError, match=rf"head\.npz: {key}"):
        read_flame(tmp_path / "head.npz", *files[1:])


@pytest.mark.parametrize(
    ("key", "value"), [("lmk_face_idx", 9976), ("landmark_indices", 468), ("lmk_b_coords", np.inf)]
)
def test_an_embedding_that_does_not_fit_is_named_with_its_key(tmp_path, files: Files, key, value):
    places = dict(np.load(files[1]))
    places[key] = np.full(places[key].shape, value)
    np.savez(tmp_path / "places.npz", **places)
    with pytest.raises(UserError, match=rf"places\.npz: {key}"):
        read_flame(files[0], tmp_path / "places.npz", *files[2:])


@pytest.mark.parametrize("other", [8, 46], ids=["without an eye point", "a landmark twice"])
def test_an_embedding_of_other_landmarks_is_named(tmp_path, files: Files, other):
    places = dict(np.load(files[1]))
    numbers = places["landmark_indices"]
    places["landmark_indices"] = np.where(numbers == 33, other, numbers)
    np.savez(tmp_path / "places.npz", **places)
    with pytest.raises(UserError, match=r"places\.npz: landmark_indices .*\[33\]"):
        read_flame(files[0], tmp_path / "places.npz", *files[2:])


def test_an_archive_in_place_of_an_eyelid_is_named(tmp_path, files: Files):
    with (tmp_path / "lid.npy").open("wb") as file:
        np.savez(file, lid=np.zeros((5023, 3)))
    with pytest.raises(UserError, match=r"lid\.npy is no npy file but an archive"):
        read_flame(*files[:3], tmp_path / "lid.npy")


def test_an_eyelid_of_another_mesh_is_named(tmp_path, files: Files):
    np.save(tmp_path / "lid.npy", np.zeros((100, 3)))
    with pytest.raises(UserError, match=r"lid\.npy: .*\[5023, 3\]"):
        read_flame(*files[:3], tmp_path / "lid.npy")


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_a_truncated_file_is_named(tmp_path, files: Files, place):
    paths = list(files)
    paths[place] = tmp_path / f"short{files[place].suffix}"
    shutil.copy(files[place], paths[place])
    os.truncate(paths[place], files[place].stat().st_size // 2)
    with pytest.raises(UserError, match="short"):
        read_flame(*paths)
