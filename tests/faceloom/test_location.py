"""What a string of a user means as a path, and what is refused or hidden of it."""

import importlib
import pickle
import sys
from pathlib import Path

import pytest

from faceloom.errors import UserError
from faceloom.location import is_remote, local_path, location
from faceloom.storage_errors import scrubbed


@pytest.mark.parametrize("text", ["data/a.mp4", "/data/a:b.mp4", "/data/x://y.mp4", "data?x=1#2.mp4"])
def test_a_string_without_a_protocol_is_a_plain_path(text: str) -> None:
    assert location(text) == Path(text)
    assert isinstance(location(text), Path)


def test_a_file_url_is_a_plain_path() -> None:
    assert location("file:///data/a.mp4") == Path("/data/a.mp4")


@pytest.mark.parametrize("url", ["s3://bucket/a b/Zoë.mp4", "s3://bucket/a#1.mp4", "s3://bucket/[x]*.mp4"])
def test_a_url_is_a_remote_path_that_keeps_its_name_through_everything(url: str) -> None:
    path = location(url)
    assert is_remote(path)
    assert str(path) == url
    assert str(pickle.loads(pickle.dumps(path))) == url  # noqa: S301
    assert str(path / "ledger" / "part-00001.parquet") == f"{url}/ledger/part-00001.parquet"
    assert (path / "x").relative_to(path).parts == ("x",)


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@host/a.mp4",
        "https://hunter2@host/a.mp4",
        "s3://AKIAXYZ:hunter2@bucket/a.mp4",
        "sftp://user:hunter2@host/a.mp4",
        "https://host/a.mp4?X-Amz-Algorithm=x&X-Amz-Signature=hunter2",
        "https://account.blob.core.windows.net/a.mp4?sv=1&sig=hunter2",
    ],
)
def test_a_url_that_holds_a_secret_is_refused_without_telling_it(url: str) -> None:
    with pytest.raises(UserError, match="in the environment") as refused:
        location(url)
    assert "hunter2" not in str(refused.value)


def test_a_container_of_azure_and_a_user_of_a_host_are_no_secrets() -> None:
    assert scrubbed("s3://bucket/a@b.mp4") == "s3://bucket/a@b.mp4"
    with pytest.raises(UserError, match="pip install adlfs"):
        location("abfs://container@account.dfs.core.windows.net/a.mp4")


def test_a_protocol_whose_package_is_missing_names_the_command_that_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = importlib.import_module("fsspec.registry")
    monkeypatch.delitem(registry._registry, "s3", raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UserError, match=r"s3:// is not installed; get it with: pip install 'faceloom\[s3\]'"):
        location("s3://bucket/a.mp4")


@pytest.mark.parametrize("url", ["nosuch://bucket/a", "simplecache::s3://bucket/a", "zip://a.mp4::s3://bucket/a.zip"])
def test_what_is_not_read_is_refused(url: str) -> None:
    with pytest.raises(UserError, match=r"no file system|chained"):
        location(url)


def test_where_only_a_local_file_will_do_a_url_is_refused() -> None:
    assert local_path("a/b") == Path("a/b")
    with pytest.raises(UserError, match="this machine"):
        local_path("s3://bucket/a")


def test_secrets_of_the_environment_and_of_urls_are_taken_out_of_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "FwoGZXIvYXdzE")
    text = "key wJalrXUtnFEMI/K7MDENG token FwoGZXIvYXdzE at https://me:pw@host/x?X-Amz-Signature=abc&y=1"
    assert scrubbed(text) == "key *** token *** at https://***@host/x?X-Amz-Signature=***&y=1"
