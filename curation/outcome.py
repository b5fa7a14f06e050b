"""What became of a clip: a closed type, never a magic score."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kept:
    """The clip became a sample."""


@dataclass(frozen=True)
class Rejected:
    """A rule decided against the clip: ``value`` is what was measured, ``threshold`` what the rule asks for."""

    rule: str
    value: float
    threshold: float


@dataclass(frozen=True)
class Failed:
    """No rule decided: ``stage`` broke with ``error`` (a class name) and ``message``."""

    stage: str
    error: str
    message: str


Outcome = Kept | Rejected | Failed
