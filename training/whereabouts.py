"""Where a module's parameters lie, in the words of diffusers' models."""

import torch
from torch import nn


class Whereabouts(nn.Module):
    """Gives a module ``device`` and ``dtype``, as pipelines of diffusers ask each of their parts for them."""

    @property
    def device(self) -> torch.device:
        """Of the first parameter."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the first parameter."""
        return next(self.parameters()).dtype
