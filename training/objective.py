"""The loss: the weighted error of the predicted velocity, in float32 (SkyReels-A1 Eq. 8).

For the error of x̂0 weighted by 1/(1 − ᾱ), as diffusers' CogVideoX scripts write it, the velocity's is the same number, and
divides by nothing that is nearly 0.
"""

from torch import Tensor


def velocity_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The loss of each sample, float32 [B]: the mean over frames, cells and channels of weight · (prediction − target)².

    ``prediction`` and ``target`` are [B, F, C, h, w] of any dtype, ``weight`` float32 [B, F, h, w]. Where all weights are 1
    it is the plain mean square error.
    """
    error = prediction.float() - target.float()
    return (error.square().mean(dim=2) * weight).mean(dim=(1, 2, 3))
