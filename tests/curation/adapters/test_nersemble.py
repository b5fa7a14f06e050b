import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from curation.adapters.nersemble import camera_angles, off_axis_deg
from curation.adapters.table import NERSEMBLE
from tests.curation.adapters.trees import Listed, listed, make

FRONTAL = "222200037"


def camera(yaw_deg: float, pitch_deg: float, world: Rotation | None = None) -> np.ndarray:
    """World-to-camera of a camera 1 m from the origin that looks at it, OpenCV's convention.

    In a world with x right, y down, z away from the frontal camera: turned ``yaw_deg`` to the right about the vertical axis
    and raised by ``pitch_deg``. ``world`` turns the world.
    """
    place = Rotation.from_euler("xy", [-pitch_deg, -yaw_deg], degrees=True).apply([0, 0, -1])
    z = -place
    x = np.cross([0, 1, 0], z)
    x /= np.linalg.norm(x)
    rotation = np.stack([x, np.cross(z, x), z])
    pose = np.eye(4)
    pose[:3, :3] = rotation if world is None else rotation @ world.as_matrix().T
    pose[:3, 3] = [0, 0, 1]
    return pose


RIG = {FRONTAL: (0.0, 0.0), "1": (-12.0, 5.0), "2": (12.0, 0.0), "3": (40.0, 0.0), "4": (-40.0, 0.0), "5": (0.0, -20.0)}


def calibration(rig: dict[str, tuple[float, float]] = RIG) -> str:
    return json.dumps({"world_2_cam": {s: camera(*angles).tolist() for s, angles in rig.items()}, "intrinsics": []})


def list_nersemble(root: Path) -> Listed:
    return listed(NERSEMBLE.entries(root))


def videos(participant: str, sequence: str, *serials: str) -> list[str]:
    return [f"{participant}/sequences/{sequence}/images/cam_{serial}.mp4" for serial in serials]


rotations = st.lists(st.floats(-180, 180), min_size=3, max_size=3).map(
    lambda angles: Rotation.from_euler("xyz", angles, degrees=True)
)


@given(yaw=st.floats(-85, 85), pitch=st.floats(-80, 80), world=rotations)
def test_angles_are_those_the_camera_was_put_at_in_any_world(yaw: float, pitch: float, world: Rotation) -> None:
    angles = camera_angles({FRONTAL: camera(0, 0, world), "a": camera(yaw, pitch, world)})
    assert angles[FRONTAL] == pytest.approx((0, 0), abs=1e-4)
    assert angles["a"] == pytest.approx((yaw, pitch), abs=1e-4)


@given(world=rotations)
def test_without_the_frontal_camera_the_middle_of_the_rig_is_the_front(world: Rotation) -> None:
    rig = {str(yaw): camera(yaw, 0, world) for yaw in (-40, -10, 10, 40)}
    assert [camera_angles(rig)[serial][0] for serial in rig] == pytest.approx([-40, -10, 10, 40], abs=1e-4)


def test_the_angle_to_the_front_is_that_between_two_directions() -> None:
    assert off_axis_deg(0, 0) == 0
    assert off_axis_deg(-30, 0) == pytest.approx(30)
    assert off_axis_deg(0, 30) == pytest.approx(30)
    towards = Rotation.from_euler("xy", [10, 20], degrees=True).apply([0, 0, 1])
    assert off_axis_deg(20, 10) == pytest.approx(np.degrees(np.arccos(towards[2])))


@pytest.mark.parametrize(
    "matrix", [2 * np.eye(4), np.eye(3), np.full((4, 4), np.nan), np.diag([1.0, 1, -1, 1]), np.zeros((4, 4))]
)
def test_a_matrix_that_moves_no_camera_is_refused(matrix: np.ndarray) -> None:
    with pytest.raises(ValueError, match="camera a: no rigid motion"):
        camera_angles({"a": matrix})


def test_cameras_all_round_have_no_front() -> None:
    with pytest.raises(ValueError, match="no side"):
        camera_angles({"a": camera(0, 0), "b": camera(180, 0)})


def test_the_two_most_frontal_cameras_of_a_sequence_are_listed(tmp_path: Path) -> None:
    names = videos("030", "EXP-3-cheeks+nose", *RIG) + videos("030", "SEN-01-cramp_small_danger", "3", "5", "2", "4")
    make(tmp_path, names)
    listing = list_nersemble(make(tmp_path, {"030/calibration/camera_params.json": calibration()}))
    assert set(listing.keys) == {
        f"030/EXP-3-cheeks+nose/cam_{FRONTAL}",
        "030/EXP-3-cheeks+nose/cam_2",
        "030/SEN-01-cramp_small_danger/cam_2",
        "030/SEN-01-cramp_small_danger/cam_5",
    }
    assert {Path(name).name[:-4]: reason.split()[0] for name, reason in listing.left_out.items() if "EXP" in name} == {
        "cam_1": "other",
        "cam_5": "other",
        "cam_3": "its",
        "cam_4": "its",
    }
    clip = next(clip for clip in listing.clips if clip.source_key == "030/EXP-3-cheeks+nose/cam_2")
    assert (clip.dataset, clip.person_id, clip.single_shot) == ("nersemble", "030", True)
    assert clip.path == str(tmp_path / "030/sequences/EXP-3-cheeks+nose/images/cam_2.mp4")
    assert json.loads(clip.labels or "") == {
        "sequence": "EXP-3-cheeks+nose",
        "camera": "2",
        "camera_yaw_deg": 12.0,
        "camera_pitch_deg": 0.0,
    }


@pytest.mark.parametrize("text", ["", "{", "[]", '{"world_2_cam": {}}', '{"world_2_cam": {"1": "x"}}', "[" * 9999])
def test_without_a_usable_calibration_a_participant_is_left_out_and_the_others_listed(
    tmp_path: Path, text: str
) -> None:
    make(tmp_path, videos("001", "FREE", FRONTAL) + videos("002", "FREE", FRONTAL) + videos("003", "FREE", FRONTAL))
    files = {"001/calibration/camera_params.json": text, "002/calibration/camera_params.json": calibration()}
    listing = list_nersemble(make(tmp_path, files))
    assert listing.keys == [f"002/FREE/cam_{FRONTAL}"]
    assert {name[:3]: reason.partition(";")[2] for name, reason in listing.left_out.items()} == {
        "001": " download it again",
        "003": " download it",
    }


def test_a_camera_without_calibration_is_named(tmp_path: Path) -> None:
    make(tmp_path, videos("001", "FREE", FRONTAL, "9"))
    listing = list_nersemble(make(tmp_path, {"001/calibration/camera_params.json": calibration()}))
    assert listing.keys == [f"001/FREE/cam_{FRONTAL}"]
    assert "is not in camera_params.json" in listing.left_out[videos("001", "FREE", "9")[0]]


def test_videos_elsewhere_are_named(tmp_path: Path) -> None:
    odd = ["1/sequences/FREE/images/cam_1.mp4", "001/sequences/FREE/cam_1.mp4", *videos("001", "FREE", "x"), "a.mp4"]
    listing = list_nersemble(make(tmp_path, odd))
    assert set(listing.left_out) == set(odd)
    assert all("give --root the folder of the participants" in reason for reason in listing.left_out.values())


def test_the_table_of_sequences_names_what_is_not_on_disk_and_is_not_available(tmp_path: Path) -> None:
    table = "\ufeffID,wears_glasses,BACKGROUND,FREE,HAIR,EMO-1-shout+laugh\n1,x,x,x,m,\n2,,x,x,x,x\n"
    make(tmp_path, videos("001", "FREE", FRONTAL) + videos("001", "EMO-1-shout+laugh", FRONTAL, "1"))
    files = {"metadata_sequences.csv": table, "001/calibration/camera_params.json": calibration()}
    listing = list_nersemble(make(tmp_path, files))
    assert listing.keys == [f"001/FREE/cam_{FRONTAL}"]
    assert {name for name, reason in listing.left_out.items() if "without a video" in reason} == {
        "metadata_sequences.csv:2 001 HAIR",
        "metadata_sequences.csv:3 002 FREE",
        "metadata_sequences.csv:3 002 HAIR",
        "metadata_sequences.csv:3 002 EMO-1-shout+laugh",
    }
    assert {name for name, reason in listing.left_out.items() if "does not have its sequence" in reason} == {
        *videos("001", "EMO-1-shout+laugh", FRONTAL, "1")
    }
    assert not listing.notices


def test_without_the_table_of_sequences_it_is_said_that_nothing_can_be_missed(tmp_path: Path) -> None:
    listing = list_nersemble(make(tmp_path, videos("001", "FREE", "1")))
    assert ["metadata_sequences.csv is not in" in notice for notice in listing.notices] == [True]


SEQUENCES = ("FREE", "EXP-3-cheeks+nose")


@settings(max_examples=40)
@given(
    on_disk=st.sets(
        st.tuples(st.sampled_from(["001", "002", "7"]), st.sampled_from(SEQUENCES), st.sampled_from([*RIG]))
    ),
    rows=st.none()
    | st.lists(st.tuples(st.sampled_from(["1", "002", "9", "x", "\udcff"]), *[st.sampled_from(["x", "m", ""])] * 2)),
    calibrated=st.sets(st.sampled_from(["001", "002"])),
)
def test_every_video_and_every_available_sequence_is_listed_or_left_out(
    tmp_path_factory: pytest.TempPathFactory,
    on_disk: set[tuple[str, str, str]],
    rows: list[tuple[str, ...]] | None,
    calibrated: set[str],
) -> None:
    root = tmp_path_factory.mktemp("nersemble")
    names = {videos(*place)[0] for place in on_disk}
    make(root, names)
    make(root, {f"{participant}/calibration/camera_params.json": calibration() for participant in calibrated})
    if rows is not None:
        text = "\n".join(["ID," + ",".join(SEQUENCES), *(",".join(row) for row in rows)])
        make(root, {"metadata_sequences.csv": text.encode("utf-8", "surrogateescape")})
    listing = list_nersemble(root)
    of_clips = {Path(clip.path).relative_to(root).as_posix() for clip in listing.clips}
    files_left_out = {name for name in listing.left_out if name.endswith(".mp4")}
    assert of_clips | files_left_out == names
    assert not of_clips & files_left_out
    for participant in ("001", "002"):
        for sequence in SEQUENCES:
            assert sum(key.startswith(f"{participant}/{sequence}/") for key in listing.keys) <= 2
    lines = {name.split()[0] for name in listing.left_out if name.startswith("metadata_sequences.csv")}
    seen: set[str] = set()
    for line, (number, *marks) in enumerate(rows or [], 2):
        participant = number.zfill(3)
        wanted = [s for s, mark in zip(SEQUENCES, marks, strict=True) if mark]
        absent = [s for s in wanted if (participant, s) not in {place[:2] for place in on_disk}]
        unusable = number in ("x", "\udcff") or participant in seen
        assert (f"metadata_sequences.csv:{line}" in lines) == (unusable or bool(absent))
        seen |= set() if unusable else {participant}
