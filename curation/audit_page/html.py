"""A page put together: one HTML file with its style, its script and all that it shows."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources.abc import Traversable
from typing import Any

from curation.audit_page.packing import script_json


def assemble(assets: Traversable, scripts: Sequence[Traversable], contents: Mapping[str, Any]) -> bytes:
    """The HTML that ``page.html`` among the ``assets`` is a form for, with ``page.css``, the ``scripts`` in their order, and
    ``contents`` as JSON.

    Its content security policy lets nothing run but its own script, by hash, and nothing load but what is inside it.
    """
    style = (assets / "page.css").read_text("utf-8")
    parts = [script.read_text("utf-8") for script in scripts]
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
    page = (assets / "page.html").read_text("utf-8")
    for name, text in {
        "{{policy}}": policy,
        "{{style}}": style,
        "{{script}}": script,
        "{{contents}}": script_json(contents),
    }.items():
        before, found, after = page.partition(name)
        assert found, f"page.html has no place for {name}"
        page = before + text + after
    return page.encode()


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
