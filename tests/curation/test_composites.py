"""Composites of the demo's talking man through the true face stage: a filter that has gone blind fails here.

``bench/filters.py`` asks the same of all cases, with more people.
"""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from bench import composites as make
from bench.composites import Person
from bench.filter_cases import FPS, LENGTH, composites
from bench.filter_labels import Label, Mark, Result, Sample, judge
from bench.filter_runs import decide
from curation.config import CurationConfig
from curation.face_stage import FaceTools
from curation.faces import FaceFinder
from curation.sample_video import SampleVideoConfig, encode_sample
from curation.sources import Clip
from curation.workers import FaceStage
from faceloom import config
from landmarks.geometry import read_geometry

SETTINGS = config.load(CurationConfig, "demo")
# Compression that shows in a still picture of 256 px shows in one of 480 lines no more, once that is shrunk to be compared.
VIDEO = SampleVideoConfig(crf=4, preset="veryfast")


def person(frames: int = 5, height: int = 40, width: int = 60) -> Person:
    """Grey frames that get brighter, and a face in their middle that moves to the right."""
    pictures = np.repeat(np.arange(frames, dtype=np.uint8), height * width * 3).reshape(frames, height, width, 3)
    left = 20 + np.arange(frames)
    boxes = np.stack([left, np.full(frames, 15), left + 8, np.full(frames, 27)], axis=1).astype(float)
    return Person("somebody", pictures, boxes)


# What composites are made of.


def test_someone_who_lasts_longer_than_the_footage_goes_back_and_forth() -> None:
    assert person(4).lasting(9).frames[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2]


@pytest.mark.parametrize(
    "edit",
    [
        Person.flipped,
        lambda p: p.sized(80),
        lambda p: make.widened(p, 90, at=0.3),
        lambda p: make.shifted(p, -7),
        lambda p: p.sized(20).flipped(),
    ],
)
def test_the_face_is_where_its_box_says_after_every_edit(edit: Callable[[Person], Person]) -> None:
    before = person(3, 40, 60)
    frames = np.zeros_like(before.frames)
    for frame, (x0, y0, x1, y1) in zip(frames, before.boxes.astype(int), strict=True):
        frame[y0:y1, x0:x1] = 200
    after = edit(Person("somebody", frames, before.boxes))
    for frame, box in zip(after.frames, after.boxes, strict=True):
        ys, xs = np.nonzero(frame[..., 0] > 100)
        np.testing.assert_allclose([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], box, atol=1)


def test_a_head_is_pasted_beside_the_head_and_only_in_its_frames() -> None:
    main, guest = person(6), person(6).sized(80)
    cutout = make.cut_out(Person("guest", np.full_like(guest.frames, 250), guest.boxes), 6)
    place = make.free_place(main, cutout)
    assert place is not None
    shown = np.array([False, True, True, False, False, True])
    changed = make.pasted(main.frames, cutout, [place] * 6, shown) != main.frames
    assert (changed.any(axis=(1, 2, 3)) == shown).all()
    x0, _, x1, _ = main.head.round().astype(int)
    assert not changed[:, :, max(0, x0) : x1].any()


def test_a_head_that_does_not_fit_has_no_place() -> None:
    assert make.free_place(person(), make.cut_out(person(), 30)) is None


def test_a_dissolve_mixes_by_the_weight_that_it_tells() -> None:
    first, second = np.full((10, 4, 4, 3), 40, np.uint8), np.full((12, 4, 4, 3), 240, np.uint8)
    frames, weight = make.dissolved(first, second, 4)
    assert len(frames) == len(weight) == 18
    np.testing.assert_allclose(frames[:, 0, 0, 0], 40 + 200 * weight, atol=1)
    assert (np.diff(weight) >= 0).all()


def test_a_freeze_repeats_one_frame_and_goes_on_from_there() -> None:
    assert make.frozen(person(8).frames, 2, 3)[:, 0, 0, 0].tolist() == [0, 1, 2, 2, 2, 3, 4, 5]


def test_what_is_named_is_made_only_once_and_alike_every_time() -> None:
    people = [person(12, 90, 160), Person("another", person(12, 90, 160).frames[::-1], person(12).boxes)]
    first, second = (composites(people, CurationConfig().character) for _ in range(2))
    assert [c.name for c in first] == [c.name for c in second]
    assert len({c.name for c in first}) == len(first)
    for one, other in list(zip(first, second, strict=True))[::7]:
        np.testing.assert_array_equal(one.build(), other.build(), one.name)


# What must become of them.

FRAMES = np.arange(10, 59)
WHOLE = (0.0, 0.0, 720.0, 480.0)


def kept(*samples: Sample) -> Result:
    return Result("kept", "", None, None, {}, samples)


def marked(start: int, stop: int) -> np.ndarray:
    return (np.arange(LENGTH) >= start) & (np.arange(LENGTH) < stop)


@pytest.mark.parametrize(
    ("label", "result", "finding"),
    [
        (Label("kept"), kept(Sample(FRAMES, WHOLE)), "right"),
        (Label("kept"), Result("rejected", "yaw", 50, 45, {}, ()), "lost"),
        (Label("split"), Result("failed", "ValueError in crop", None, None, {}, ()), "lost"),
        (Label("rejected", ("yaw",)), Result("rejected", "yaw", 50, 45, {}, ()), "right"),
        (Label("rejected", ("yaw",)), Result("rejected", "roll", 50, 45, {}, ()), "another rule"),
        (Label("rejected", ("yaw",)), kept(Sample(FRAMES, WHOLE)), "leak"),
        (Label("split", marks=(Mark("", marked(0, 10)),)), kept(Sample(FRAMES, WHOLE)), "right"),
        (Label("split", marks=(Mark("", marked(0, 11)),)), kept(Sample(FRAMES, WHOLE)), "leak"),
        (Label("either", marks=(Mark("", marked(0, 11), share=0.03),)), kept(Sample(FRAMES, WHOLE)), "right"),
        (Label("split", marks=(Mark("", marked(0, 60), (718, 0, 800, 99)),)), kept(Sample(FRAMES, WHOLE)), "right"),
        (Label("split", marks=(Mark("", marked(0, 60), (717, 0, 800, 99)),)), kept(Sample(FRAMES, WHOLE)), "leak"),
        (Label("either", apart=((0, 0, 9, 9), (700, 0, 709, 9))), kept(Sample(FRAMES, WHOLE)), "leak"),
        (Label("either", apart=((0, 0, 9, 9), (720, 0, 729, 9))), kept(Sample(FRAMES, WHOLE)), "right"),
        (Label("split", seams=(10,)), kept(Sample(FRAMES, WHOLE)), "right"),
        (Label("split", seams=(58,)), kept(Sample(FRAMES, WHOLE)), "leak"),
        (Label("split", seams=(59,)), kept(Sample(FRAMES, WHOLE)), "right"),
        (Label("split", seams=(30,)), kept(Sample(FRAMES[:20], WHOLE), Sample(FRAMES[15:], WHOLE)), "leak"),
    ],
)
def test_a_label_judges_the_outcome_and_every_sample(label: Label, result: Result, finding: str) -> None:
    assert judge(label, result)[0] == finding


def test_a_result_survives_the_file_it_is_kept_in() -> None:
    result = Result("kept", "", None, None, {"yaw_p95_deg": 3.5}, (Sample(FRAMES, WHOLE),))
    again = Result.from_json(result.as_json())
    assert again.as_json() == result.as_json()
    assert again.samples[0].frames.tolist() == FRAMES.tolist()


# The filters.


@pytest.fixture(scope="module")
def talking_man(man: np.ndarray, finder: FaceFinder) -> Person:
    """The man at 12 fps, in a wide frame; he is shown 192 px wide, where 176 are stored."""
    chosen = man[np.rint(np.arange(48) / FPS * 29.97).astype(int)]
    frames = np.stack([cv2.resize(frame, (192, 144), interpolation=cv2.INTER_CUBIC) for frame in chosen])
    (first,) = finder.census(frames[0])
    boxes = [first.box]
    for frame in frames[1:]:
        face = finder.follow(frame, boxes[-1])
        assert face is not None
        boxes.append(face.box)
    return make.widened(Person("man", frames, np.array([[b.x0, b.y0, b.x1, b.y1] for b in boxes])), 256)


CHOSEN = (
    "clean/man",
    "second_face/h0.40_12_frames",
    "second_face/h0.40_48_frames",
    "two_shot/man",
    "cut/54",
    "freeze/60%",
    "blur/strong",
    "bars/black_letterbox",
    "dissolve/12",
)


@pytest.fixture(scope="module")
def stage(finder: FaceFinder, task_file: Path) -> FaceStage:
    """With the session's models, which are closed at its end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FaceTools, "load", lambda *_: FaceTools(finder, read_geometry(task_file), None))
        return FaceStage(SETTINGS)


@pytest.mark.parametrize("chosen", CHOSEN)
def test_what_becomes_of_a_composite_is_what_its_label_asks_for(
    chosen: str, talking_man: Person, stage: FaceStage, tmp_path: Path
) -> None:
    composite = next(c for c in composites([talking_man], SETTINGS.character) if c.name.startswith(chosen))
    path = tmp_path / "composite.mp4"
    path.write_bytes(encode_sample(composite.build(), FPS, None, VIDEO))
    result, _ = decide(stage, Clip("composites", composite.name, str(path)))
    finding, why = judge(composite.label, result)
    assert finding == "right", f"{composite.name}: {finding}, {why}"
