from pathlib import Path
from typing import BinaryIO

import pytest

from faceloom.errors import UserError
from faceloom.location import location
from faceloom.transfers import StorageConfig, attempts
from shards.storage import (
    file_names,
    is_temporary,
    make_folder,
    move_folder,
    parquet_sources,
    read_bytes,
    remove_temporaries,
    write_atomic,
)
from tests.s3 import Endpoint


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


def test_a_remote_file_is_uploaded_when_it_is_whole_and_not_before(s3: Endpoint, tmp_path: Path) -> None:
    path = location("s3://footage/set/shards/part-00000.base.tar")
    make_folder(path.parent)
    with attempts(StorageConfig(scratch=str(tmp_path))):
        write_atomic(path, lambda stream: stream.write(b"first"))

        def half(stream: BinaryIO) -> None:
            stream.write(b"ha")
            assert s3.objects() == {"set/shards/part-00000.base.tar": b"first"}
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_atomic(path, half)
        assert s3.objects() == {"set/shards/part-00000.base.tar": b"first"}
        write_atomic(path, b"second")
    assert s3.objects() == {"set/shards/part-00000.base.tar": b"second"}
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_remote_files_are_read_in_order_and_listed_by_name(s3: Endpoint) -> None:
    folder = location("s3://footage/set")
    assert file_names(folder) == set()
    paths = [folder / f"{number:03}" for number in range(70)]
    for number, path in enumerate(paths):
        write_atomic(path, bytes([number]))
    assert [(path.name, source.read()) for path, source in parquet_sources(paths)] == [  # type: ignore[union-attr]
        (f"{number:03}", bytes([number])) for number in range(70)
    ]
    assert file_names(folder) == {path.name for path in paths}
    assert read_bytes(paths[3]) == b"\x03"


def test_a_remote_folder_cannot_be_moved_and_holds_no_temporaries(s3: Endpoint) -> None:
    folder = location("s3://footage/set")
    write_atomic(folder / ".file.0badcafe.faceloom-tmp", b"somebody else's")
    assert remove_temporaries(folder) == []
    with pytest.raises(UserError, match="name a local folder"):
        move_folder(folder, location("s3://footage/other"))
