"""What an error of a storage means, whichever library raised it: try again, refused, or final. Told without secrets."""

import asyncio
import errno
import http.client
import os
import re
from collections.abc import Iterator

_TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})
# Codes that say so although their status does not: a body that broke off is 400, a write that met another is 409.
_TRANSIENT_CODES = frozenset(
    {"SlowDown", "RequestTimeout", "IncompleteBody", "OperationAborted", "XAmzContentSHA256Mismatch", "BadDigest"}
    | {"Throttling", "ThrottlingException", "RequestThrottled", "RequestLimitExceeded", "TooManyRequestsException"}
    | {"InternalError", "ServiceUnavailable"}
)
_TRANSIENT_ERRNO = frozenset(
    {errno.ECONNRESET, errno.ECONNABORTED, errno.ECONNREFUSED, errno.EPIPE, errno.ETIMEDOUT}
    | {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETRESET}
)
# By package and name, since none of the packages has to be installed; a class stands for those derived from it.
_TRANSIENT_CLASSES = frozenset(
    {
        "botocore.HTTPClientError",
        "botocore.ConnectionError",
        "botocore.IncompleteReadError",
        "botocore.ResponseParserError",
    }
    | {"aiohttp.ClientPayloadError", "aiohttp.ClientConnectionError", "urllib3.ProtocolError"}
    | {"requests.ConnectionError", "requests.Timeout", "requests.ChunkedEncodingError"}
)
_PERMANENT_CLASSES = frozenset({"botocore.SSLError", "aiohttp.ClientSSLError", "requests.SSLError"})
_REFUSED_STATUS = frozenset({401, 403, 407})
_REFUSED_CODES = frozenset({"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "AuthorizationHeaderMalformed"})
_REFUSED_CLASSES = ("Credential", "ProfileNotFound", "TokenRetrieval", "UnauthorizedSSOToken", "RefreshError")
_PACKAGES = frozenset(
    {"botocore", "aiobotocore", "s3fs", "aiohttp", "gcsfs", "google", "adlfs", "azure", "fsspec", "requests", "urllib3"}
)

_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.:-]*)://")
_USER_IS_SECRET = frozenset({"http", "https", "s3", "s3a", "gs", "gcs"})
_SIGNATURE = re.compile(
    r"([?&](?:x-amz-(?:signature|credential|security-token)|x-goog-(?:signature|credential)|awsaccesskeyid|signature|sig"
    r"|token|access_token|key|api_key|secret|password)=)[^&#\s]+",
    re.IGNORECASE,
)
_USER = re.compile(r"(://)[^/@\s]+@")
_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSWORD|ACCESS_KEY|ACCOUNT_KEY|CONNECTION_STRING|CREDENTIAL")
_SHORTEST_SECRET = 6


def is_transient(error: BaseException) -> bool:
    """Whether the same transfer may succeed a little later: throttling, 5xx, broken connections, timeouts.

    Missing files, refused credentials and bad requests are not, and neither is what this machine lacks.
    """
    found = [_judged(each) for each in _chain(error)]
    return next((verdict for verdict in found if verdict is not None), False)


def is_refused(error: BaseException) -> bool:
    """Whether the storage wants other credentials."""
    return any(
        _status(each) in _REFUSED_STATUS
        or _code(each) in _REFUSED_CODES
        or any(name in type(each).__name__ for name in _REFUSED_CLASSES)
        for each in _chain(error)
    )


def is_of_storage(error: BaseException) -> bool:
    """Whether a storage library raised it."""
    return any(type(each).__module__.partition(".")[0] in _PACKAGES for each in _chain(error))


def reason(error: BaseException) -> str:
    """One line for a person, without secrets."""
    code = next((code for each in _chain(error) if (code := _code(each))), None)
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    told = text.strip().splitlines() or [type(error).__name__]
    line = told[0] if code is None or code in told[0] else f"{code}: {told[0]}"
    return scrubbed(line)


def remedy(error: BaseException) -> str:
    """What to do about an error of the storage."""
    if is_refused(error):
        return (
            "the storage refuses the credentials, or they do not suffice: it takes them from the environment, for S3 "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or the role of the machine"
        )
    if is_transient(error):
        return "the storage is out of reach or busy: see that its address is right (for S3, AWS_ENDPOINT_URL), and try again"
    return "see that the bucket exists and the URL is right"


def _judged(error: BaseException) -> bool | None:
    """None where ``error`` alone does not tell, and what caused it may."""
    names = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    if names & _PERMANENT_CLASSES:
        return False
    if _code(error) in _TRANSIENT_CODES:
        return True
    status = _status(error)
    if status is not None:
        return status in _TRANSIENT_STATUS
    if names & _TRANSIENT_CLASSES or isinstance(
        error, ConnectionError | TimeoutError | http.client.HTTPException | asyncio.IncompleteReadError
    ):
        return True
    if isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNO:
        return True
    return None


def _status(error: BaseException) -> int | None:
    """The HTTP status of an error of botocore, aiohttp, requests, gcsfs or azure."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        found = getattr(response, "status_code", None)
    for name in ("status", "code", "status_code"):
        found = found if found is not None else getattr(error, name, None)
    try:
        return int(found) if found is not None else None
    except (TypeError, ValueError):
        return None


def _code(error: BaseException) -> str | None:
    """The name that S3 gives an error."""
    response = getattr(error, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return str(code) if code else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """``error`` and what it was made of; s3fs makes errors of Python's own kinds of those of botocore."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__


def holds_secret(text: str) -> bool:
    """Whether a URL carries a password, or a signature that opens what is private."""
    url = _URL.match(text)
    if url is None:
        return False
    user, at, _ = text[url.end() :].partition("/")[0].rpartition("@")
    named = bool(at) and (":" in user or url[1].lower() in _USER_IS_SECRET)
    return named or _SIGNATURE.search(text) is not None


def scrubbed(text: str) -> str:
    """``text`` without passwords and signatures of URLs, and without what the environment holds of secrets."""
    text = _SIGNATURE.sub(r"\1***", _USER.sub(r"\1***@", text))
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST_SECRET and _SECRET_NAME.search(name.upper()):
            text = text.replace(value, "***")
    return text
