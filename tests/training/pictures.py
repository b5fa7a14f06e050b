"""A moving test picture: waves of saturated colour and a red disc that crosses them."""

import cv2
import numpy as np


def moving_picture(frames: int, height: int, width: int) -> np.ndarray:
    """uint8 [frames, height, width, 3] RGB."""
    y, x = np.mgrid[:height, :width] * (480 / height)
    pictures = []
    for t in range(frames):
        red = np.sin(x / 37 + 0.4 * t)
        green = np.sin(y / 29 - 0.5 * t + x / 100)
        blue = np.sin((x + y) / 53 + 0.6 * t)
        picture = (127.5 + 120 * np.stack([red, green, blue], -1)).astype(np.uint8)
        pictures.append(cv2.circle(picture, (width // 8 + t * width // 70, height // 2), height // 8, (255, 0, 0), -1))
    return np.stack(pictures)
