"""The configuration of validation, and of the moving average of the weights that may be validated."""

from pydantic import Field, field_validator

from faceloom.config import Section


class ValidationConfig(Section):
    """What is measured on clips that are not trained on, before the first step and every so many."""

    every: int = Field(200, ge=1)
    """Steps between two validations. One precedes the first step of the run, one follows the last step of each stage."""
    samples: int = Field(16, ge=1)
    """Held-out clips whose loss is measured, from the first on; all if there are fewer."""
    timesteps: tuple[int, ...] = (100, 300, 500, 700, 900)
    """Where the loss is measured, 0 (no noise) to 999 (nothing but noise); the same noise every time."""
    videos: int = Field(2, ge=0)
    """Held-out clips that are also generated from noise and written beside the true ones. 0: none."""
    video_steps: int = Field(10, ge=1, le=1000)
    """DDIM steps for a video, a divisor of 1000; SkyReels-A1's inference code takes 10."""
    guidance: float = Field(3.0, ge=1)
    """Classifier-free guidance of the face in videos; 1 is none. SkyReels-A1's inference code takes 3."""

    @field_validator("timesteps")
    @classmethod
    def _in_schedule(cls, timesteps: tuple[int, ...]) -> tuple[int, ...]:
        if not timesteps or min(timesteps) < 0 or max(timesteps) > 999 or len(set(timesteps)) < len(timesteps):
            raise ValueError(f"must be different numbers from 0 to 999, not {list(timesteps)}")
        return timesteps

    @field_validator("video_steps")
    @classmethod
    def _divides_schedule(cls, steps: int) -> int:
        if 1000 % steps:
            raise ValueError(f"must be a divisor of 1000: diffusers' DDIM leaves noise in after {steps} steps")
        return steps


class EmaConfig(Section):
    """An exponential moving average of the trained parameters, kept beside them."""

    decay: float = Field(0.0, ge=0, lt=1)
    """Share of the average that a step keeps, e.g. 0.9999; 0 keeps none. What is validated is the average, and the next stage
    begins with it."""
