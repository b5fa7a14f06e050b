"""Contact sheets: one picture a kept clip that shows what its sample holds, read back from the shard.

Frames with their landmarks, the same frames under the loss weight, the aligned face, the reference frame, provenance and
every statistic. What is wrong with a sample is seen here or nowhere before training.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from curation.flow import CELL, STRIDE
from curation.samples import kept_samples
from curation.statistics import STATISTICS
from faceloom.errors import UserError
from landmarks.drawing import draw_on
from landmarks.record import dequantise, to_crop
from shards.motion_weight import DELTAS, motion_weight
from shards.schema import FRAMES, HEIGHT, WIDTH
from shards.storage import make_folder, write_atomic
from shards.video import decode_video

Picture = NDArray[np.uint8]

_STEP = 2 * STRIDE
"""Frames between those shown; a multiple of a latent's, so that each stands at the end of a latent of its own."""
_DELTA = DELTAS["norm"]
_THUMB_HEIGHT, _THUMB_WIDTH = 176, 264
_BIG = 384
_GAP = 8
_LINE = 20
_COLUMNS = 3
_BACKGROUND, _INK, _FAINT = (250, 250, 248), (25, 25, 25), (120, 120, 120)


def write_contact_sheets(dataset: Path, out: Path, clip: str | None = None) -> list[Path]:
    """Write ``out/<clip_id>.png`` for every kept clip, or for those that ``clip`` names: a clip id or a source key.

    Raises :class:`UserError` saying why there is none: no such clip, not kept, or a damaged shard.
    """
    written = []
    try:
        for sample in kept_samples(dataset, clip):
            make_folder(out.absolute())
            path = out / f"{sample['meta.json']['clip_id']}.png"
            png = cv2.imencode(".png", draw_sheet(sample)[..., ::-1])[1]
            write_atomic(path, bytes(png))
            written.append(path)
    except OSError as error:
        raise UserError(f"{error.filename or out}: {error.strerror}; name another folder with --out") from None
    return written


def draw_sheet(sample: Mapping[str, Any]) -> Picture:
    """The sheet of a sample, given its fields decoded by the schema; RGB ``[H, W, 3]``."""
    meta = sample["meta.json"]
    video = decode_video(sample["video.mp4"])
    points = dequantise(sample["landmarks.u16.npy"])
    points_px = to_crop(points, meta["source_wh"], meta["crop_xywh"], (WIDTH, HEIGHT))
    weights = motion_weight(sample["flow.npy"], meta["flow"]["p995"])
    shown = range(0, FRAMES, _STEP)

    heading = _heading(meta)
    top = 2 * _GAP + _LINE * (len(heading) + 1)
    row = _THUMB_HEIGHT + _LINE + _GAP
    width = _GAP + len(shown) * (_THUMB_WIDTH + _GAP)
    statistics_height = _LINE * (1 - len(STATISTICS) // -_COLUMNS)
    height = top + 2 * row + _LINE + max(_BIG, statistics_height) + _GAP
    sheet: Picture = np.full((height, width, 3), _BACKGROUND, np.uint8)

    _text(sheet, _GAP, _GAP, f"{meta['clip_id']}   {meta['dataset']}: {meta['source_key']}", size=18, bold=True)
    for i, line in enumerate(heading, 1):
        _text(sheet, _GAP, _GAP + 4 + i * _LINE, line)
    for i, frame in enumerate(shown):
        x = _GAP + i * (_THUMB_WIDTH + _GAP)
        _paste(sheet, x, top, draw_on(_thumb(video[frame]), points_px[frame] * (_THUMB_WIDTH / WIDTH)))
        _text(sheet, x, top + _THUMB_HEIGHT, _frame_caption(meta, frame), _FAINT)
        latent = frame // STRIDE
        _paste(sheet, x, top + row, _thumb(_heat(video[frame], weights[latent])))
        caption = f"latent {latent}, mean weight {weights[latent].mean():.2f}"
        _text(sheet, x, top + row + _THUMB_HEIGHT, caption, _FAINT)

    y = top + 2 * row
    reference_x = 2 * _GAP + _BIG
    _paste(sheet, _GAP, y, _resized(_read_jpeg(sample["face.jpg"]), _BIG, _BIG))
    _text(sheet, _GAP, y + _BIG, f"face, from frame {meta['face_frame']}", _FAINT)
    _paste(sheet, reference_x, y, _resized(_read_jpeg(sample["reference.jpg"]), _BIG, _BIG * WIDTH // HEIGHT))
    _text(sheet, reference_x, y + _BIG, f"reference, frame {meta['reference_frame']}", _FAINT)
    statistics_x = reference_x + _BIG * WIDTH // HEIGHT + 2 * _GAP
    _statistics(sheet, statistics_x, y, meta["statistics"])
    return sheet


def _heading(meta: Mapping[str, Any]) -> Sequence[str]:
    x, y, w, h = meta["crop_xywh"]
    x0, x1 = meta["valid_x0x1"]
    flow = meta["flow"]
    bars = "" if (x0, x1) == (0, WIDTH) else f", content in columns {x0} to {x1}"
    return (
        f"licence {meta['licence']}   person {meta['person_id'] or 'not known'}   "
        f"{meta['n_valid']} of {FRAMES} frames are the clip's own, at {meta['fps']:.4g} fps",
        f"crop {w:g} × {h:g} at ({x:g}, {y:g}) of {meta['source_wh'][0]} × {meta['source_wh'][1]} px, "
        f"{meta['crop_mode']}{bars}",
        f"flow {flow['model']}, scale {flow['scale']:g}, {flow['iterations']} iterations, p99.5 {flow['p995']:.3g} px   "
        f"face tokens {meta['face_encoder']}",
        f"first row: landmarks on frames of the sample; second row: their loss weight, 1 (black) to {1 + _DELTA} (yellow)",
    )


def _frame_caption(meta: Mapping[str, Any], frame: int) -> str:
    note = ", repeated" if frame >= meta["n_valid"] else "" if meta["found"][frame] else ", landmarks interpolated"
    return f"frame {frame}, {meta['pts_s'][frame]:.2f} s{note}"


def _heat(frame: Picture, weights: np.ndarray) -> Picture:
    """The frame in grey under its loss weight ``[60, 90]``, 1 … 1 + δ as black … yellow."""
    full = np.kron(weights, np.ones((CELL, CELL), np.float32))
    colours = cv2.applyColorMap(((full - 1) / _DELTA * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    grey = cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    mixed: Picture = cv2.addWeighted(grey, 0.4, np.ascontiguousarray(colours), 0.6, 0)
    return mixed


def _statistics(sheet: Picture, x: int, y: int, values: Mapping[str, float]) -> None:
    rows = -(len(STATISTICS) // -_COLUMNS)
    pitch = (sheet.shape[1] - x) // _COLUMNS
    for i, statistic in enumerate(STATISTICS.values()):
        left, line = x + i // rows * pitch, y + i % rows * _LINE
        value = values.get(statistic.name)
        _text(sheet, left, line, statistic.name)
        _text(sheet, left + 180, line, "-" if value is None else f"{value:.4g}")
        _text(sheet, left + 235, line, statistic.unit, _FAINT)


def _read_jpeg(data: bytes) -> Picture:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise ValueError("a JPEG of the sample cannot be decoded")
    return np.asarray(image, np.uint8)


def _thumb(image: Picture) -> Picture:
    return _resized(image, _THUMB_HEIGHT, _THUMB_WIDTH)


def _resized(image: Picture, height: int, width: int) -> Picture:
    small: Picture = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return small


def _paste(sheet: Picture, x: int, y: int, image: Picture) -> None:
    sheet[y : y + image.shape[0], x : x + image.shape[1]] = image


def _text(
    sheet: Picture, x: int, y: int, text: str, colour: tuple[int, int, int] = _INK, size: int = 13, bold: bool = False
) -> None:
    """Write one line whose top left corner is ``x, y``, any script."""
    cv2.putText(sheet, text, (x, y + size + 2), colour, cv2.FontFace("sans"), size, 600 if bold else 400)
