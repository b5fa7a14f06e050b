"""Fingerprints: one hash over everything that decides the content of a field, so that a reader can refuse a mix."""

import hashlib
import json
from typing import Any


def fingerprint(**parts: Any) -> str:
    """Sha256, in hex, of ``parts`` as canonical JSON: keys sorted, no spaces, UTF-8.

    Parts are JSON values (``config.model_dump(mode="json")`` gives one); a tuple counts as a list. Floats are written
    with the shortest digits that read back as the same double, so equal numbers hash equally on every machine; ``1``
    and ``1.0`` differ. Raises ``TypeError`` for anything else, non-string keys included, and ``ValueError`` for NaN and
    infinities, which have no canonical form.
    """
    _check_keys(parts)
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()


def _check_keys(value: Any) -> None:
    # json would write the key 1 as "1", and two different mappings would get one fingerprint.
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"fingerprint keys must be strings, not {key!r}")
            _check_keys(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_keys(item)
