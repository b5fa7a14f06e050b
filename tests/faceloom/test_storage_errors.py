"""Which errors are worth another try: judged on what s3fs, botocore, aiohttp and the system truly raise."""

import errno
import http.client
import ssl
from typing import Any

import aiohttp
import botocore.exceptions as boto
import pytest
from aiohttp.client_reqrep import ConnectionKey
from fsspec.exceptions import FSTimeoutError
from s3fs.errors import translate_boto_error

from faceloom.storage_errors import is_of_storage, is_refused, is_transient, reason


def s3_error(status: int, code: str) -> Exception:
    """What s3fs raises when S3 answers so."""
    answer: Any = {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    translated = translate_boto_error(boto.ClientError(answer, "GetObject"))
    assert isinstance(translated, Exception)
    return translated


def http_error(status: int) -> Exception:
    return aiohttp.ClientResponseError(None, (), status=status)  # type: ignore[arg-type]


_KEY = ConnectionKey("h", 443, True, True, None, None, None)

TRANSIENT = [
    s3_error(503, "SlowDown"),
    s3_error(503, "ServiceUnavailable"),
    s3_error(500, "InternalError"),
    s3_error(502, "502"),
    s3_error(429, "TooManyRequests"),
    s3_error(400, "RequestTimeout"),
    s3_error(400, "IncompleteBody"),
    s3_error(409, "OperationAborted"),
    boto.EndpointConnectionError(endpoint_url="http://x"),
    boto.ConnectionClosedError(endpoint_url="http://x"),
    boto.ReadTimeoutError(endpoint_url="http://x"),
    boto.ConnectTimeoutError(endpoint_url="http://x"),
    boto.IncompleteReadError(actual_bytes=1, expected_bytes=2),
    aiohttp.ServerDisconnectedError(),
    aiohttp.ClientPayloadError(),
    aiohttp.ClientOSError(errno.ECONNRESET, "reset"),
    http_error(503),
    http_error(429),
    FSTimeoutError(),
    TimeoutError(),
    ConnectionResetError(),
    BrokenPipeError(),
    OSError(errno.ENETUNREACH, "unreachable"),
    http.client.IncompleteRead(b""),
]
FINAL = [
    s3_error(404, "NoSuchKey"),
    s3_error(404, "NoSuchBucket"),
    s3_error(403, "AccessDenied"),
    s3_error(403, "InvalidAccessKeyId"),
    s3_error(403, "RequestTimeTooSkewed"),
    s3_error(400, "InvalidArgument"),
    s3_error(416, "InvalidRange"),
    boto.NoCredentialsError(),
    boto.SSLError(endpoint_url="https://x", error="certificate has expired"),
    aiohttp.ClientConnectorCertificateError(_KEY, ssl.CertificateError("expired")),
    http_error(403),
    http_error(404),
    FileNotFoundError("a"),
    PermissionError(errno.EACCES, "no"),
    OSError(errno.ENOSPC, "full"),
    MemoryError(),
    ValueError("bad data"),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
def test_what_may_pass_is_transient(error: Exception) -> None:
    assert is_transient(error)
    wrapped = OSError("wrapped")
    wrapped.__cause__ = error
    assert is_transient(wrapped)


@pytest.mark.parametrize("error", FINAL, ids=repr)
def test_what_will_not_pass_is_not(error: Exception) -> None:
    assert not is_transient(error)


def test_refusals_are_told_from_the_rest() -> None:
    refused = [
        s3_error(403, "AccessDenied"),
        s3_error(403, "InvalidAccessKeyId"),
        s3_error(400, "ExpiredToken"),
        boto.NoCredentialsError(),
        http_error(401),
    ]
    assert [is_refused(error) for error in refused] == [True] * len(refused)
    assert not any(is_refused(error) for error in [*TRANSIENT, s3_error(404, "NoSuchKey"), PermissionError("local")])


def test_an_error_is_the_storage_s_own_if_a_storage_library_raised_it() -> None:
    assert is_of_storage(s3_error(404, "NoSuchKey"))
    assert not is_of_storage(FileNotFoundError("a"))
    assert not is_of_storage(ValueError())


def test_the_code_of_an_error_is_in_its_text() -> None:
    assert reason(s3_error(503, "SlowDown")) == "SlowDown: m"
