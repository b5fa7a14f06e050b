"""What of Gradio's server is reached from outside: the page and its files, uploads, and the queue of jobs; nothing else.

Gradio serves more than an app uses: routes that hand uploads to FFmpeg in the server, call functions around the queue, pass
requests on to other hosts. And it fetches a file that is named by an address. Neither is for strangers.
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_JOIN = "/gradio_api/queue/join"
_EXACT = frozenset(
    {
        *("/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt", "/pwa_icon"),
        *("/gradio_api/startup-events", "/gradio_api/info", "/gradio_api/app_id", "/gradio_api/upload"),
        *("/gradio_api/upload_progress", _JOIN, "/gradio_api/queue/data", "/gradio_api/reset", "/gradio_api/cancel"),
    }
)  # fmt: skip
_BELOW = ("/assets/", "/static/", "/svelte/", "/gradio_api/file=", "/gradio_api/heartbeat/", "/gradio_api/static/")
_MOST_ASKED_BYTES = 1 << 16
# A blob: is what the page itself has made; Gradio cuts videos with an FFmpeg in the browser, which is loaded from one.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; connect-src 'self' blob:; worker-src 'self' blob:; "
    "font-src 'self' data:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)


class Gate:
    """ASGI middleware: answers 404 to all that the page does not use, 400 to jobs that name files by addresses.

    What the page may load from where is told to the browser, too.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        path = scope["path"]
        if path not in _EXACT and not path.startswith(_BELOW):
            await _refuse(send, 404)
            return
        if path == _JOIN:
            body = await _whole(receive)
            if body is None or names_address(body):
                await _refuse(send, 400)
                return
            receive = _again(body, receive)

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(b"content-security-policy", _POLICY.encode()), (b"x-content-type-options", b"nosniff")]
                message["headers"] = [*message.get("headers", []), *added, (b"referrer-policy", b"no-referrer")]
            await send(message)

        await self._app(scope, receive, with_policy)


def names_address(body: bytes) -> bool:
    """Whether the job in ``body`` names a file by an address, or is no JSON at all."""
    try:
        return _any_address(json.loads(body))
    except (ValueError, RecursionError):
        return True


def _any_address(value: Any) -> bool:
    if isinstance(value, dict):
        path = value.get("path")
        if isinstance(path, str) and "://" in path:
            return True
        return any(_any_address(each) for each in value.values())
    return isinstance(value, list) and any(_any_address(each) for each in value)


async def _whole(receive: Receive) -> bytes | None:
    """The body of a request; None if it is larger than any that the page sends."""
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += bytes(message.get("body", b""))
        if len(body) > _MOST_ASKED_BYTES:
            return None
        if not message.get("more_body"):
            return body


def _again(body: bytes, receive: Receive) -> Receive:
    """A receiver that gives ``body`` first."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _refuse(send: Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"not served here\n"})
