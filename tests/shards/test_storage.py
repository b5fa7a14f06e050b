from pathlib import Path
from typing import BinaryIO

import pytest

from shards.storage import is_temporary, make_folder, remove_temporaries, write_atomic


def test_a_file_is_created_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"first")
    write_atomic(path, lambda stream: stream.write(b"second"))
    assert path.read_bytes() == b"second"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_failing_callback_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"whole")

    def half(stream: BinaryIO) -> None:
        stream.write(b"ha")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, half)
    assert path.read_bytes() == b"whole"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_target_does_not_exist_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def look(stream: BinaryIO) -> None:
        stream.write(b"x")
        (temporary,) = tmp_path.iterdir()
        assert is_temporary(temporary)
        assert temporary != path

    write_atomic(path, look)
    assert not is_temporary(path)


def test_only_temporaries_are_removed(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", b"")
    (tmp_path / ".hidden").write_bytes(b"")
    leftover = tmp_path / ".file.0badcafe.faceloom-tmp"
    leftover.write_bytes(b"half")
    assert remove_temporaries(tmp_path) == [leftover]
    assert sorted(p.name for p in tmp_path.iterdir()) == [".hidden", "file"]
    assert remove_temporaries(tmp_path / "absent") == []


def test_folders_are_made_with_their_parents(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
