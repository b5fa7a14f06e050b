"""JSON records that know when they were altered: strict, and sealed with a checksum over their own content."""

import hashlib
import json
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from faceloom.errors import UserError
from shards.schema import SCHEMA_VERSION
from shards.storage import write_atomic


class Record(BaseModel):
    """A frozen, strict part of a JSON record."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SealedRecord(Record):
    """A record with a file of its own. It holds no time stamp, so that equal runs write equal bytes."""

    schema_version: int = SCHEMA_VERSION

    @property
    def checksum(self) -> str:
        """sha256 of the content; whatever the content lists by sha256 is identified too."""
        return hashlib.sha256(json.dumps(self._tree(), sort_keys=True, allow_nan=False).encode()).hexdigest()

    def to_bytes(self) -> bytes:
        """The file: the content and its checksum, keys sorted."""
        tree = self._tree() | {"checksum": self.checksum}
        return json.dumps(tree, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"

    def write(self, path: Path) -> None:
        """Create or replace its file, whole or not at all. Raises :class:`UserError` when it cannot be written."""
        try:
            write_atomic(path, self.to_bytes())
        except OSError as error:
            raise UserError(
                f"cannot write {path}: {error.strerror or error}; make room or mend its rights, then run the same command "
                "again"
            ) from None

    @classmethod
    def from_bytes(cls, data: bytes, path: Path, remedy: str) -> Self:
        """The inverse of :meth:`to_bytes`.

        Raises :class:`UserError` that names ``path`` and ends in ``remedy`` unless every byte is the one that was written.
        """
        try:
            tree = json.loads(data)
            version = tree["schema_version"]
            del tree["checksum"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({type(error).__name__}: {error}); {remedy}") from None
        if version != SCHEMA_VERSION:
            raise UserError(f"{path} has schema version {version}, this Faceloom reads version {SCHEMA_VERSION}")
        try:
            record = cls.model_validate_json(json.dumps(tree))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(step) for step in first["loc"])
            raise UserError(f"{path} is damaged ({where}: {first['msg']}); {remedy}") from None
        if record.to_bytes() != data:
            raise UserError(f"{path} was changed after it was written (its checksum differs); {remedy}")
        return record

    def _tree(self) -> dict[str, Any]:
        return self.model_dump(mode="json")
