"""Networks in ONNX files that users supply."""

from pathlib import Path

import cv2

from faceloom.errors import UserError


def read_network(file: Path, wanted_by: str) -> cv2.dnn.Net:
    """The network in ``file``, on the CPU. Raises :class:`UserError` if OpenCV cannot read it, naming ``wanted_by``."""
    try:
        return cv2.dnn.readNetFromONNX(str(file))
    except cv2.error as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(
            f"{wanted_by}: {file} is no ONNX network that OpenCV {cv2.__version__} can read ({reason}); "
            "replace it, or do without it"
        ) from None
