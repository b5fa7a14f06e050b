import os
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.adapters.table import FOLDER
from curation.adapters.tree import VIDEO_SUFFIXES
from faceloom.errors import UserError
from faceloom.location import location
from tests.curation.adapters.trees import Listed, listed
from tests.s3 import BUCKET, Endpoint


@pytest.fixture
def put(tmp_path):
    """Write files below the root, each with bytes of its own unless given."""

    def write(*names: str, content: bytes | None = None) -> None:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode() if content is None else content)

    return write


def list_folder(root) -> Listed:
    return listed(FOLDER.entries(root))


def test_lists_each_video_once_in_order_of_its_key(tmp_path, put):
    put("b.mp4", "a/z.MKV", "a/b/two words é.webm", "a.mov")
    listing = list_folder(tmp_path)
    assert [clip.source_key for clip in listing.clips] == ["a.mov", "a/b/two words é.webm", "a/z.MKV", "b.mp4"]
    assert {(c.dataset, c.licence, c.t0_s, c.t1_s, c.duplicate_of) for c in listing.clips} == {
        (tmp_path.name, "unknown", 0.0, None, None)
    }
    assert [clip.path for clip in listing.clips] == [str(tmp_path / clip.source_key) for clip in listing.clips]


def test_dataset_is_named_like_the_folder(tmp_path, put, monkeypatch):
    put("hdtf/inner/a.mp4")
    monkeypatch.chdir(tmp_path / "hdtf" / "inner")
    for root in (tmp_path / "hdtf", tmp_path / "hdtf" / "inner" / ".."):
        assert list_folder(root).clips[0].dataset == "hdtf"


def test_ids_survive_a_move_of_the_data(tmp_path, put):
    put("old/set/a.mp4")
    before = list_folder(tmp_path / "old" / "set").clips
    (tmp_path / "old").rename(tmp_path / "new")
    after = list_folder(tmp_path / "new" / "set").clips
    assert [clip.clip_id for clip in after] == [clip.clip_id for clip in before]


def test_decomposed_names_have_composed_keys(tmp_path, put):
    decomposed = unicodedata.normalize("NFD", "Zoë.mp4")
    put(decomposed)
    (clip,) = list_folder(tmp_path).clips
    assert clip.source_key == unicodedata.normalize("NFC", decomposed) != decomposed
    assert clip.path == str(tmp_path / decomposed)


def test_what_only_looks_like_a_video_is_listed_too(tmp_path, put):
    put("folder.mp4/inside.mp4", "good.mp4")
    put("empty.mp4", "empty too.mp4", content=b"")
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.mp4")
    listing = list_folder(tmp_path)
    assert list_folder(tmp_path).keys == [
        "dangling.mp4",
        "empty too.mp4",
        "empty.mp4",
        "folder.mp4",
        "good.mp4",
        "pipe.mp4",
    ]
    assert all(clip.duplicate_of is None for clip in listing.clips)


def test_counts_what_it_passes_over_by_suffix(tmp_path, put):
    put("a.mp4", "a.wav", "b/c.WAV", "b/readme", "notes.txt")
    assert list_folder(tmp_path).ignored == {"": 1, ".txt": 1, ".wav": 2}


def test_linked_folders_are_followed_and_loops_end(tmp_path, put):
    put("root/real/a.mp4", "elsewhere/b.mp4")
    root = tmp_path / "root"
    (root / "loop").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    (root / "again").symlink_to(root / "real")
    (root / "out").symlink_to(tmp_path / "elsewhere")
    assert list_folder(root).keys == ["out/b.mp4", "real/a.mp4"]


def test_folders_that_cannot_be_listed_are_named(tmp_path, put, monkeypatch):
    put("a.mp4", "locked/b.mp4")
    scan = os.scandir

    def scandir(folder):
        if folder.name == "locked":
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    listing = list_folder(tmp_path)
    assert listing.left_out == {"locked": "cannot be listed, its videos are missing (Permission denied)"}
    assert len(listing.clips) == 1


def test_a_name_that_is_not_utf8_is_left_out_and_the_rest_listed(tmp_path, put):
    put("a.mp4", "z.mp4")
    (tmp_path / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"x")
    listing = list_folder(tmp_path)
    assert [clip.source_key for clip in listing.clips] == ["a.mp4", "z.mp4"]
    ((name, reason),) = listing.left_out.items()
    assert name == r"caf\xe9.mp4"
    assert "rename" in reason


def test_of_names_that_differ_only_in_their_unicode_form_the_first_is_listed(tmp_path, put):
    composed, decomposed = (unicodedata.normalize(form, "Zoë.mp4") for form in ("NFC", "NFD"))
    put(composed, decomposed, "a.mp4")
    listing = list_folder(tmp_path)
    assert [clip.path for clip in listing.clips] == [str(tmp_path / decomposed), str(tmp_path / "a.mp4")]
    assert list(listing.left_out) == [composed]
    assert len({clip.clip_id for clip in listing.clips}) == 2


def test_root_must_be_a_folder(tmp_path, put):
    with pytest.raises(UserError, match="does not exist; give --root"):
        list_folder(tmp_path / "nope")
    put("a.wav")
    with pytest.raises(UserError, match="is not a folder; give --root"):
        list_folder(tmp_path / "a.wav")


PARTS = [
    b"a",
    b"b.mp4",
    b"c.MKV",
    b"d.txt",
    b".mp4",
    b"e.",
    b"caf\xe9.mp4",
    "Zoë.mp4".encode(),
    "Zoe\u0308.mp4".encode(),
]


@settings(max_examples=50)
@given(paths=st.sets(st.lists(st.sampled_from(PARTS), min_size=1, max_size=3).map(tuple), max_size=10))
def test_every_video_is_one_clip_or_left_out_and_every_other_file_is_counted(tmp_path_factory, paths):
    root = tmp_path_factory.mktemp("folder")
    for parts in sorted(paths, key=len, reverse=True):  # what has files below it is a folder
        path = root.joinpath(*map(os.fsdecode, parts))
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    videos, others = set(), 0
    for path in root.rglob("*"):
        above = [part for part in path.relative_to(root).parents if part.suffix.lower() in VIDEO_SUFFIXES]
        if above:
            continue  # inside of a folder that calls itself a video
        if path.suffix.lower() in VIDEO_SUFFIXES:
            videos.add(path)
        elif path.is_file():
            others += 1
    listing = list_folder(root)
    of_clips = {clip.path for clip in listing.clips}
    shown = {os.fsencode(path.relative_to(root)).decode("utf-8", "backslashreplace"): str(path) for path in videos}
    assert of_clips | {shown[name] for name in listing.left_out} == {str(path) for path in videos}
    assert len(of_clips) + len(listing.left_out) == len(videos)
    assert sum(listing.ignored.values()) == others


def test_what_lies_behind_a_url_is_listed_as_a_folder_is(s3: Endpoint):
    for key in ("talks/a.mp4", "talks/b/two words é #1.webm", "talks/notes.txt", "other/c.mp4"):
        s3.client().put_object(Bucket=BUCKET, Key=key, Body=b"same")
    listing = list_folder(location("s3://footage/talks"))
    assert [(clip.dataset, clip.source_key, clip.path) for clip in listing.clips] == [
        ("talks", "a.mp4", "s3://footage/talks/a.mp4"),
        ("talks", "b/two words é #1.webm", "s3://footage/talks/b/two words é #1.webm"),
    ]
    assert listing.ignored == {".txt": 1}
    assert any("not compared" in notice for notice in listing.notices)
    assert {clip.dataset for clip in list_folder(location("s3://footage")).clips} == {"footage"}


def test_a_url_below_which_there_is_nothing_is_refused(s3: Endpoint):
    with pytest.raises(UserError, match="s3://footage/absent does not exist"):
        list_folder(location("s3://footage/absent"))
