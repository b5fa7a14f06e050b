"""A true S3 endpoint on the loopback interface (moto's server), and faults in front of it, by request."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn
from wsgiref.types import StartResponse, WSGIEnvironment

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from s3fs import S3FileSystem
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

BUCKET = "footage"
ACCESS_KEY, SECRET_KEY = "AKIAFACELOOMTESTS000", "0123456789abcdefSECRETabcdef012345678901"


@dataclass
class Request:
    """One request as the server sees it: ``line`` is ``METHOD /bucket/key?query``."""

    line: str
    environ: WSGIEnvironment


Fault = Callable[[Request, StartResponse], list[bytes] | None]
"""Answers a request in the server's place, or lets it through with None."""


@dataclass
class Endpoint:
    """``lines`` are all requests so far; a fault answers those that match it, after and up to so many."""

    server: BaseWSGIServer
    lines: list[str] = field(default_factory=list)
    faults: list[tuple[re.Pattern[str], Fault, list[int]]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to use it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def empty(self) -> None:
        """Forget all objects and requests, and whatever clients this process has."""
        client = self.client()
        for key in self.objects():
            client.delete_object(Bucket=BUCKET, Key=key)
        S3FileSystem.clear_instance_cache()
        self.lines.clear()

    def client(self) -> Any:
        """An independent client: boto3's."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
        )

    def objects(self, prefix: str = "") -> dict[str, bytes]:
        """Every object below ``prefix``, by what follows it."""
        client = self.client()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return {key.removeprefix(prefix): client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}

    def unfinished_uploads(self) -> list[str]:
        """Keys of uploads in parts that were neither completed nor aborted: nobody sees what they cost."""
        return [upload["Key"] for upload in self.client().list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])]

    def count(self, pattern: str) -> int:
        return sum(re.search(pattern, line) is not None for line in self.lines)

    @contextmanager
    def fault(self, pattern: str, answer: Fault, times: int = 1 << 30, after: int = 0) -> Iterator[None]:
        """While in the block, ``answer`` requests whose line matches ``pattern``."""
        entry = (re.compile(pattern), answer, [times, after])
        self.faults.append(entry)
        try:
            yield
        finally:
            self.faults.remove(entry)


def error(status: str, code: str) -> Fault:
    """The answer with which S3 refuses, such as ``503 Slow Down`` and ``SlowDown``."""

    def answer(request: Request, start: StartResponse) -> list[bytes]:
        start(status, [("Content-Type", "application/xml")])
        if request.line.startswith("HEAD"):
            return []
        return [f"<Error><Code>{code}</Code><Message>{code} for a test</Message></Error>".encode()]

    return answer


def hang_up(request: Request, _: StartResponse) -> NoReturn:
    """Close the connection without an answer, and without reading what is being sent."""
    request.environ["werkzeug.socket"].shutdown(2)
    raise ConnectionResetError


def break_off(share: float) -> Fault:
    """Let the server answer, and close the connection after this share of its body."""

    def answer(request: Request, start: StartResponse) -> list[bytes]:
        headers: list[Any] = []
        body = b"".join(_APP(request.environ, lambda *given: headers.extend(given[:2]) or bytes))
        start(headers[0], [*headers[1], ("Connection", "close")])

        def half() -> Iterator[bytes]:
            yield body[: int(len(body) * share)]
            request.environ["werkzeug.socket"].shutdown(2)

        return half()  # type: ignore[return-value]

    return answer


def needs_key(request: Request, start: StartResponse) -> list[bytes] | None:
    """Refuse whoever does not sign with the known access key, as S3 does."""
    if f"Credential={ACCESS_KEY}/" in request.environ.get("HTTP_AUTHORIZATION", ""):
        return None
    return error("403 Forbidden", "InvalidAccessKeyId")(request, start)


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        """Nothing: the lines are recorded."""


_APP = DomainDispatcherApplication(create_backend_app)


@contextmanager
def s3_endpoint() -> Iterator[Endpoint]:
    """The server in a thread of this process, with an empty bucket."""

    def app(environ: WSGIEnvironment, start: StartResponse) -> Any:
        query = environ.get("QUERY_STRING", "")
        request = Request(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}{'?' + query if query else ''}", environ)
        endpoint.lines.append(request.line)
        for pattern, fault, left in endpoint.faults:
            if pattern.search(request.line):
                if left[1] > 0:
                    left[1] -= 1
                elif left[0] > 0:
                    left[0] -= 1
                    answer = fault(request, start)
                    if answer is not None:
                        return answer
        return _APP(environ, start)

    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    endpoint = Endpoint(server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        endpoint.client().create_bucket(Bucket=BUCKET)
        yield endpoint
    finally:
        server.shutdown()
        thread.join()
