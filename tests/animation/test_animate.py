from dataclasses import replace

import av
import numpy as np
import pytest

from animation.animate import ANIMATING, FINDING, Pair, animate, prepare
from animation.animate_config import AnimateConfig
from curation.sample_video import read_sound
from faceloom.errors import UserError
from shards.video import decode_video
from tests import videos
from tests.animation.conftest import Inverting, write_image

QUICK = AnimateConfig.model_validate({"video": {"preset": "ultrafast"}})
STEPS_OF_ALL = {"steps": 10, "guidance": 3.0, "seed": 0, "overlap": 8}


@pytest.fixture(scope="module")
def pair(man, tmp_path_factory):
    """A second of the man talking, with sound, and the man as a portrait."""
    folder = tmp_path_factory.mktemp("pair")
    driving = videos.write(folder / "talking.mp4", list(man[:30]), rate=30, sound=videos.clicks(1, [0.5]))
    return Pair(write_image(folder / "man.png", man[0]), driving, folder / "out.mp4")


def test_a_portrait_and_a_video_become_a_video_with_its_sound(pair, reader, tmp_path):
    model, told = Inverting(), []
    pair = replace(pair, out=tmp_path / "out.mp4", side_by_side=tmp_path / "three.mp4")
    prepared = prepare(pair, model, reader, QUICK, lambda *progress: told.append(progress))
    made = animate(prepared, model, QUICK, lambda *progress: told.append(progress))
    assert (made.frames, made.fps, made.width, made.height, made.seed) == (12, 12, 720, 480, 0)
    assert made.duration_s == 1.0
    assert made.sound
    assert not made.stitched
    frames = decode_video(pair.out.read_bytes())
    assert frames.shape == (12, 480, 720, 3)
    # The model got the portrait on its canvas, and a drawing for each frame, no two of them alike.
    (call,) = model.calls
    assert {name: call[name] for name in STEPS_OF_ALL} == STEPS_OF_ALL
    outside = np.s_[:, :60]
    assert np.abs(frames[0][outside].astype(int) - (255 - call["canvas"][outside])).mean() < 4
    assert call["reference_drawing"].any()
    assert videos.first_click_s(read_sound(str(pair.out), 0.0, 1.0)) == pytest.approx(0.5, abs=0.012)
    assert decode_video(pair.side_by_side.read_bytes()).shape == (12, 480, 720 + 586 + 720, 3)
    assert [progress for progress in told if progress[0] == FINDING][-1] == (FINDING, 11, 12)
    assert [progress for progress in told if progress[0] == ANIMATING] == [(ANIMATING, 8, 12), (ANIMATING, 12, 12)]


def test_equal_settings_give_equal_bytes(pair, reader, tmp_path):
    written = []
    for name in ("a.mp4", "b.mp4"):
        again = replace(pair, out=tmp_path / name)
        animate(prepare(again, Inverting(), reader, QUICK), Inverting(), QUICK)
        written.append(again.out.read_bytes())
    assert written[0] == written[1]


def test_rate_and_settings_are_those_that_are_asked_for(pair, reader, tmp_path):
    config = QUICK.model_copy(update={"fps": 25, "steps": 20, "guidance": 1.5, "seed": 7, "overlap": 12})
    model = Inverting()
    made = animate(prepare(replace(pair, out=tmp_path / "x.mp4"), model, reader, config), model, config)
    assert (made.frames, made.fps) == (25, 25)
    with av.open(str(made.out)) as container:
        assert container.streams.video[0].average_rate == 25
    assert {name: model.calls[0][name] for name in STEPS_OF_ALL} == {
        "steps": 20,
        "guidance": 1.5,
        "seed": 7,
        "overlap": 12,
    }


def test_a_small_face_is_animated_in_a_window_and_put_back(man, pair, reader, tmp_path):
    wall = np.full((433, 301, 3), (70, 110, 90), np.uint8)
    wall[30:174, 90:266] = man[0]
    pair = replace(pair, portrait=write_image(tmp_path / "body.png", wall), out=tmp_path / "out.mp4")
    made = animate(prepare(pair, Inverting(), reader, QUICK), Inverting(), QUICK)
    assert made.stitched
    assert (made.width, made.height) == (300, 432)
    frame = decode_video(made.out.read_bytes())[5].astype(int)
    # The model inverts what it is given: only the window around the face, so the wall below is what it was.
    assert np.abs(frame[250:] - wall[250:432, :300]).mean() < 4
    assert np.abs(frame[60:120, 150:200] - wall[60:120, 150:200]).mean() > 30


def test_what_is_held_is_told(man, pair, reader, tmp_path):
    shots = [man[0], man[5], *[np.full_like(man[0], 128)] * 6, man[10]]
    driving = videos.write(tmp_path / "gaps.mp4", shots, rate=12)
    prepared = prepare(replace(pair, driving=driving), Inverting(), reader, QUICK)
    assert prepared.notes == (
        f"{driving} shows no face in 6 of 9 frames, in gaps too long to be filled; the portrait holds still there",
    )


def test_a_result_never_takes_the_place_of_what_it_is_made_from(pair, reader, tmp_path):
    for change in ({"out": pair.driving}, {"side_by_side": pair.portrait}):
        with pytest.raises(UserError, match="would take the place of what it is made from"):
            prepare(replace(pair, **change), Inverting(), reader, QUICK)
    with pytest.raises(UserError, match="cannot be both videos; choose another --side-by-side"):
        prepare(replace(pair, side_by_side=pair.out), Inverting(), reader, QUICK)
    with pytest.raises(UserError, match="no such folder; name a file in an existing folder with --side-by-side"):
        prepare(replace(pair, side_by_side=tmp_path / "absent/x.mp4"), Inverting(), reader, QUICK)
