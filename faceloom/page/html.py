"""A page put together: one HTML file with its style, its script and all that it shows."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any


def assemble(title: str, assets: Traversable, scripts: Sequence[str], contents: Mapping[str, Any]) -> bytes:
    """The HTML of a page with this ``title``, whose script finds ``contents`` in it as JSON.

    ``body.html`` among the ``assets`` is what it shows until then. Its ``page.css`` and its ``scripts``, in their order, come
    after those that all pages share. Its content security policy lets nothing run but its own script, by hash, and nothing
    load but what is inside it.
    """
    shared = files("faceloom.page") / "assets"
    style = "".join((folder / "page.css").read_text("utf-8") for folder in (shared, assets))
    parts = [part.read_text("utf-8") for part in (shared / "elements.js", *(assets / name for name in scripts))]
    script = "(() => {\n'use strict';\n" + "\n".join(parts) + "\n})();\n"
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            "media-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    page = (shared / "page.html").read_text("utf-8")
    for name, text in {
        "{{policy}}": policy,
        "{{title}}": title,
        "{{style}}": style,
        "{{body}}": (assets / "body.html").read_text("utf-8"),
        "{{script}}": script,
        # Last, since file names of strangers are in it: no place is looked for in them.
        "{{contents}}": _script_json(contents),
    }.items():
        before, found, after = page.partition(name)
        assert found, f"page.html has no place for {name}"
        page = before + text + after
    return page.encode()


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _script_json(value: Any) -> str:
    """JSON for a ``<script>``: nothing in it can end the element, or begin a comment in it."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
