"""The codec ``pixels``: a thumbnail video in the shape of latents. No weights, and no claim to be more than pixels."""

import cv2
import numpy as np

from faceloom.fingerprint import fingerprint
from training.latents import CELL, CHANNELS, STRIDE, bfloat16_bits, check_frames, check_latents

QUARTER = CELL // 2
"""Side in px of the four quarters of a cell, whose differences are its detail."""

LUMA_GAIN = 2.0
CHROMA_GAIN = 8.0
DETAIL_GAIN = 8.0
"""Bring the channels of ordinary footage to a standard deviation of 0.2 to 1.3. Powers of two, so that they round nothing."""

DRAWING_GAIN = 16.0
"""Drawn landmarks are thin lines on black. Counted from black and enlarged so, they too have a standard deviation near 1."""

BLACK = np.zeros((CHANNELS, 1, 1, 1), np.float32)
"""The latents of a black video."""
BLACK[:4] = -LUMA_GAIN

LUMA, ORANGE, GREEN = slice(0, 4), slice(4, 8), slice(8, 12)
ACROSS, DOWN = slice(12, 14), slice(14, 16)


class PixelsCodec:
    """A latent holds the mean colour of its cell in each of its four frames, and where in the cell the light is.

    Colours are YCoCg of R, G, B = (value − 128) / 128: Y = (R + 2G + B) / 4, Co = (R − B) / 2, Cg = (2G − R − B) / 4.

    ======== ============================================================================== ======
    channels                                                                                gain
    ======== ============================================================================== ======
    0–3      Y of frames 4k−3, 4k−2, 4k−1, 4k                                               2
    4–7      Co of the same                                                                 8
    8–11     Cg of the same                                                                 8
    12, 13   (Y of the left half − Y of the right half) / 2; frames 4k−3, 4k−2 | 4k−1, 4k   8
    14, 15   (Y of the upper half − Y of the lower half) / 2; likewise                      8
    ======== ============================================================================== ======

    Latent 0 holds frame 0 four times. The map is linear up to its one rounding, to bfloat16: all before is exact in float32,
    so every machine gives the same bits. It has no variance: the moments are the latents.

    Decoding enlarges the thumbnail: luma of about 120×180, colour of 60×90. Each frame of the release's eight driving videos,
    at 480×720, comes back with 47 dB or more when both are shrunk to 60×90, and with 29 to 38 dB as it is.
    """

    name = "pixels"
    moment_channels = CHANNELS
    fingerprint = fingerprint(
        codec="pixels", version=1, luma=LUMA_GAIN, chroma=CHROMA_GAIN, detail=DETAIL_GAIN, drawing=DRAWING_GAIN
    )

    def encode_video(self, frames: np.ndarray) -> np.ndarray:
        """``frames`` uint8 [4F−3, 8h, 8w, 3] → bits uint16 [16, F, h, w]."""
        check_frames(frames)
        return bfloat16_bits(_latents(frames))

    def encode_landmarks(self, frames: np.ndarray) -> np.ndarray:
        """``frames`` uint8 [4F−3, 8h, 8w, 3] → bits uint16 [16, F, h, w]: ``DRAWING_GAIN`` times what differs from black."""
        check_frames(frames)
        return bfloat16_bits(DRAWING_GAIN * (_latents(frames) - BLACK))

    def encode_reference(self, image: np.ndarray) -> np.ndarray:
        """``image`` uint8 [8h, 8w, 3] → bits uint16 [16, 1, h, w]."""
        return self.encode_video(image[None])

    def decode_landmarks(self, latents: np.ndarray) -> np.ndarray:
        """``latents`` float32 [16, F, h, w] of drawings → frames uint8 [4F−3, 8h, 8w, 3]; the thumbnail enlarged."""
        check_latents(latents)
        return self.decode(latents / DRAWING_GAIN + BLACK)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """``latents`` float32 [16, F, h, w] → frames uint8 [4F−3, 8h, 8w, 3]; the thumbnail enlarged."""
        check_latents(latents)
        luma, orange, green, across, down = (
            _by_frame(latents[channels] / gain)
            for channels, gain in (
                (LUMA, LUMA_GAIN),
                (ORANGE, CHROMA_GAIN),
                (GREEN, CHROMA_GAIN),
                (ACROSS, DETAIL_GAIN),
                (DOWN, DETAIL_GAIN),
            )
        )
        quarters = np.empty((len(luma), 2 * luma.shape[1], 2 * luma.shape[2], 3), np.float32)
        for y, vertical in enumerate((down, -down)):
            for x, horizontal in enumerate((across, -across)):
                light = luma + vertical + horizontal
                quarters[:, y::2, x::2] = np.stack([light + orange - green, light + green, light - orange - green], -1)
        size = (QUARTER * quarters.shape[2], QUARTER * quarters.shape[1])
        enlarged = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) for frame in quarters])
        frames: np.ndarray = np.clip(np.rint(128 * enlarged + 128), 0, 255).astype(np.uint8)
        return frames


def _latents(frames: np.ndarray) -> np.ndarray:
    """uint8 [4F−3, 8h, 8w, 3] → float32 [16, F, h, w]."""
    quarters = _quarter_colours(frames)
    cells = (quarters[:, 0::2] + quarters[:, 1::2]) / 2
    cells = (cells[:, :, 0::2] + cells[:, :, 1::2]) / 2
    luma = quarters[..., 0]
    columns = luma[:, 0::2] + luma[:, 1::2]
    rows = luma[:, :, 0::2] + luma[:, :, 1::2]
    across = (columns[:, :, 0::2] - columns[:, :, 1::2]) / 4
    down = (rows[:, 0::2] - rows[:, 1::2]) / 4

    channels = [_by_latent(cells[..., colour]) for colour in range(3)]
    channels += [_halves(_by_latent(detail)) for detail in (across, down)]
    gains = (LUMA_GAIN, CHROMA_GAIN, CHROMA_GAIN, DETAIL_GAIN, DETAIL_GAIN)
    latents: np.ndarray = np.concatenate([gain * channel for gain, channel in zip(gains, channels, strict=True)])
    return latents


def _quarter_colours(frames: np.ndarray) -> np.ndarray:
    """Mean Y, Co, Cg of each 4×4 px of uint8 [T, H, W, 3]: float32 [T, H/4, W/4, 3]."""
    rows = np.add.reduce([frames[:, y::QUARTER] for y in range(QUARTER)], dtype=np.int32)
    total = np.add.reduce([rows[:, :, x::QUARTER] for x in range(QUARTER)])
    red, green, blue = np.moveaxis(total - 128 * QUARTER**2, -1, 0)
    colours = np.stack([red + 2 * green + blue, 2 * (red - blue), 2 * green - red - blue], -1)
    return colours.astype(np.float32) / (4 * 128 * QUARTER**2)


def _by_latent(values: np.ndarray) -> np.ndarray:
    """One value a frame [4F−3, h, w] → one channel for each of a latent's frames [4, F, h, w]; frame 0 fills latent 0."""
    filled = np.concatenate([values[:1].repeat(STRIDE - 1, axis=0), values])
    by_latent: np.ndarray = filled.reshape(-1, STRIDE, *values.shape[1:]).swapaxes(0, 1)
    return by_latent


def _halves(channels: np.ndarray) -> np.ndarray:
    """Means of the first and the second two of a latent's frames: [4, F, h, w] → [2, F, h, w]."""
    halves: np.ndarray = (channels[0::2] + channels[1::2]) / 2
    return halves


def _by_frame(channels: np.ndarray) -> np.ndarray:
    """Channels [2 or 4, F, h, w] → one value a frame [4F−3, h, w]; frame 0 is the mean of latent 0's channels."""
    each = channels.repeat(STRIDE // len(channels), axis=0)
    frames = each.swapaxes(0, 1).reshape(-1, *each.shape[2:])
    return np.concatenate([each[:, 0].mean(axis=0, keepdims=True), frames[STRIDE:]])
