"""What strangers may ask of ``faceloom app``."""

from pydantic import Field

from faceloom.config import Section


class AppConfig(Section):
    """Limits of what is uploaded, and of the time that is spent on it."""

    max_mb: int = Field(200, ge=1)
    """Of an uploaded file."""
    max_seconds: float = Field(60.0, gt=0)
    """Of a driving video."""
    max_megapixels: float = Field(36.0, gt=0)
    """Of a portrait, and of a frame."""
    preview_deadline_s: float = Field(120.0, gt=0)
    """Seconds that reading one file and finding the face may take."""
    deadline_s: float = Field(7200.0, gt=0)
    """Seconds that making one video may take."""
    waiting: int = Field(16, ge=1)
    """Jobs that may wait; who asks for one more is told to come back."""
