"""Where a file or a dataset lies: on this machine, or behind any URL that fsspec has a file system for.

A remote path is a ``UPath`` of the fsspec organisation. It answers to what ``pathlib`` asks of a path, so that one code reads
and lists both; how bytes are moved to and from it is the business of :mod:`faceloom.transfers`.
"""

import re
from pathlib import Path, PurePath
from typing import Any, cast

import fsspec  # type: ignore[import-untyped]

from faceloom.errors import UserError
from faceloom.storage_errors import holds_secret, is_transient, scrubbed

_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.:-]*)://")
_PACKAGES = {
    "s3": "'faceloom[s3]'",
    "s3a": "'faceloom[s3]'",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "az": "adlfs",
}
# s3fs moves parts of 50 MiB, and would hold ten of them. botocore would retry below s3fs's own retries: 25 requests for each
# of ours, at a storage that asks for less.
_S3 = {"max_concurrency": 2, "config_kwargs": {"retries": {"total_max_attempts": 1}}}
_OPTIONS: dict[str, dict[str, Any]] = {"s3": _S3, "s3a": _S3}


def location(text: str) -> Path:
    """The path that a string of a user or of a manifest means.

    Without a protocol, or with ``file://``, it is a plain ``Path``. With another it is a ``UPath``, which is no subclass of
    ``Path`` but has its interface, and is typed as one for that; :func:`is_remote` tells them apart. Nothing is asked of the
    storage yet. Raises :class:`UserError` for a protocol that is unknown or whose package is missing, for chained URLs, and
    for a URL that holds a password or a signature: credentials come from the environment.
    """
    url = _URL.match(text)
    if url is None:
        return Path(text)
    protocol = url[1].lower()
    if protocol in ("file", "local"):
        return Path(text[url.end() :])
    if holds_secret(text):
        raise UserError(
            f"{scrubbed(text)} holds a password or a signature, which would end up in logs and datasets; leave it out and "
            "give credentials in the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if "::" in text:
        raise UserError(f"{text}: chained URLs are not read; name the file itself")
    try:
        fsspec.get_filesystem_class(protocol)
    except ValueError:
        raise UserError(f"{text}: no file system is known for {protocol}://; name a folder or s3://…") from None
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        remedy = f"get it with: pip install {package}" if package else str(error)
        raise UserError(f"{text}: the package that reads {protocol}:// is not installed; {remedy}") from None
    if protocol in _OPTIONS:
        import s3fs.core  # type: ignore[import-untyped]

        s3fs.core.set_custom_error_handler(is_transient)  # it knows of "slow down", and not of a server's errors
    from upath import UPath  # not needed for local paths

    # A listing that is remembered would hide what other processes have written since.
    return cast(Path, UPath(text, use_listings_cache=False, **_OPTIONS.get(protocol, {})))


def local_path(text: str) -> Path:
    """The path of a file or folder that has to be on this machine. Raises :class:`UserError` for a URL."""
    path = location(text)
    if is_remote(path):
        raise UserError(
            f"{path} is a URL, and this has to be a file or folder of this machine; name one, and copy it there"
        )
    return path


def is_remote(path: PurePath) -> bool:
    """Whether ``path`` lies behind a URL, so that it can be neither renamed nor given to a program that opens files."""
    return not isinstance(path, PurePath)
