"""Where networks run, and how they repeat their own bits."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from faceloom.errors import UserError

if TYPE_CHECKING:  # torch costs seconds and hundreds of MB; processes that only read the config never need it
    import torch

Device = Literal["auto", "cpu", "cuda"]


def torch_device(choice: Device, key: str) -> "torch.device":
    """The device for ``choice``; ``auto`` takes CUDA if torch sees it. ``key`` is the config key that a refusal names."""
    import torch

    if choice == "cuda" and not torch.cuda.is_available():
        raise UserError(f"{key} is cuda, but torch sees no CUDA device; set {key} to auto or cpu")
    return torch.device("cuda" if choice != "cpu" and torch.cuda.is_available() else "cpu")


@contextmanager
def repeatable_inference() -> Iterator[None]:
    """No gradients, deterministic cuDNN kernels, full float32: a GPU repeats its bits and stays close to the CPU's.

    On the CPU, bits repeat at an equal thread count, which is the process's to set.
    """
    import torch

    # `flags` switches cuDNN off unless told otherwise.
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield
