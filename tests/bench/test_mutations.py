import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.mutations import KINDS, boxes, mutate, replaced
from tests.videos import clicks, numbered, write

FRAMES = [numbered(i) for i in range(12)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("files")
    made = [
        write(folder / "a.mp4", FRAMES, sound=clicks(0.5, [0.2])),
        write(folder / "b.mp4", FRAMES[::-1], codec="mpeg4"),
        write(folder / "c.mkv", FRAMES),
    ]
    return {path.name: path.read_bytes() for path in made}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["a.mp4", "b.mp4", "c.mkv"])
def test_a_mutation_is_another_file_and_the_same_one_each_time(files, kind, name):
    made = [mutate(kind, files, name, seed) for seed in range(8)]
    assert [mutate(kind, files, name, seed) for seed in range(8)] == made
    assert len(set(made)) > 1
    assert sum(data != files[name] for data in made) >= 4  # a box may be replaced by its equal


def test_boxes_are_those_of_the_file_and_cover_it(files):
    data = files["a.mp4"]
    found = list(boxes(data))
    outer = [box for box in found if not box.parents]
    assert [box.start for box in outer] == [0, *(box.end for box in outer[:-1])]
    assert outer[-1].end == len(data)
    assert [box.kind for box in found].count(b"stsz") == 2  # pictures and sound
    assert not list(boxes(files["c.mkv"]))


@given(st.binary(max_size=200))
def test_boxes_of_anything_end(data: bytes):
    assert all(box.start < box.content <= box.end <= len(data) for box in boxes(data))


def test_a_box_that_is_replaced_leaves_all_others_where_their_parents_say(files):
    data = files["b.mp4"]
    stsz = next(box for box in boxes(data) if box.kind == b"stsz")
    grown = replaced(data, stsz, struct.pack(">I4s", 108, b"stsz") + bytes(100))
    assert [box.kind for box in boxes(grown)] == [box.kind for box in boxes(data)]


def test_a_file_to_damage_is_not_changed_itself(files):
    before = {name: bytes(data) for name, data in files.items()}
    for kind in KINDS:
        mutate(kind, files, "a.mp4", 1)
    assert files == before
