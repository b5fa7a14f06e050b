"""Local files for a while, which no death leaves for ever."""

import subprocess
import sys
from pathlib import Path

import pytest

from faceloom.errors import UserError
from faceloom.scratch import Scratch

_HOLD = """
import sys, time
from faceloom.scratch import Scratch
scratch = Scratch(sys.argv[1])
scratch.file(".mp4").write_bytes(b"half")
print(scratch.folder, flush=True)
time.sleep(600)
"""


def test_a_folder_is_gone_with_its_files_when_it_is_closed(tmp_path: Path) -> None:
    with Scratch(str(tmp_path)) as scratch:
        file = scratch.file(".mp4")
        file.write_bytes(b"x")
        assert file.suffix == ".mp4"
        assert scratch.file(".mp4") != file
        assert oct(scratch.folder.parent.stat().st_mode)[-3:] == "700"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_killed_process_s_files_are_removed_by_the_next_and_a_living_one_s_are_not(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        try:
            with Scratch(str(tmp_path)):
                assert len(list(folder.iterdir())) == 1
        finally:
            process.kill()
        process.wait()
        assert folder.exists()
        with Scratch(str(tmp_path)) as mine:
            assert not folder.exists()
            assert sorted(mine.folder.parent.iterdir()) == [
                mine.folder,
                mine.folder.with_name(mine.folder.name + ".lock"),
            ]


def test_a_root_that_cannot_be_used_is_named_with_the_key_that_names_another(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"/absent .*storage\.scratch"):
        Scratch(str(tmp_path / "absent"))
