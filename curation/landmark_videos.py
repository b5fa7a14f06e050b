"""Videos to look at: a sample's landmarks beside its frames, and one person's motion on another's face."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from curation.given_files import Picture, check_writable, naming, read_image
from curation.sample_video import SampleVideoConfig, encode_sample
from curation.samples import kept_sample
from curation.video import FrameReader, probe, sample_indices
from faceloom.errors import UserError
from landmarks.backend import BackendName, load_backend
from landmarks.drawing import STYLES, draw
from landmarks.face_reader import FaceReader
from landmarks.record import to_crop
from landmarks.smoothing import smooth
from landmarks.stored import record_of
from shards.schema import FPS, HEIGHT, WIDTH
from shards.storage import write_atomic
from shards.video import decode_video

Mode = Literal["self", "relative", "cross"]


def render_clip(
    dataset: Path,
    clip: str,
    out: Path,
    mode: Mode = "self",
    reference: str | None = None,
    style: str = "a1_3d",
    smoothed: bool = False,
) -> None:
    """Write ``out``: the frames of a kept clip beside its landmarks, 480×720 each, at the sample's rate.

    The backend is the one that the dataset was curated for. ``reference`` is a frame number of the clip in mode
    ``relative`` (default: the sample's reference frame) and another kept clip in mode ``cross``, whose reference frame
    counts; it is shown between the two. Frames that only repeat the clip's last are left out. Raises :class:`UserError`.
    """
    _check_style(style)
    sample = kept_sample(dataset, clip)
    meta = sample["meta.json"]
    record = record_of(sample)
    if smoothed:
        record = smooth(record)
    video = decode_video(sample["video.mp4"])[: len(record)]
    backend = load_backend(meta["landmark_backend"], str(dataset))
    if mode == "self":
        if reference is not None:
            raise UserError(
                f"--reference {reference} has no meaning with --mode self; leave it out, or choose another mode"
            )
        points_px = to_crop(backend.own(record), meta["source_wh"], meta["crop_xywh"], (WIDTH, HEIGHT))
        pictures: list[Picture] = []
    else:
        target, frame = _reference(dataset, sample, mode, reference)
        window = target["meta.json"]
        # Of the same clip: the record at hand, which may be smoothed, and so must its reference be.
        face = record if target is sample else record_of(target)
        points = backend.onto(record, face.frames(slice(frame, frame + 1)))
        points_px = to_crop(points, window["source_wh"], window["crop_xywh"], (WIDTH, HEIGHT))
        pictures = [decode_video(target["video.mp4"])[frame]]
    panels = (
        np.concatenate([shown, *pictures, draw(px, HEIGHT, WIDTH, style)], axis=1)
        for shown, px in zip(video, points_px, strict=True)
    )
    _write(out, panels, meta["fps"])


def retarget(
    portrait: Path,
    driving: Path,
    out: Path,
    style: str = "a1_3d",
    smoothed: bool = False,
    backend_name: BackendName = "mediapipe",
    report: Callable[[str], None] = lambda _line: None,
) -> None:
    """Write ``out``: the frames of ``driving``, the portrait, and the portrait's landmarks moving as the driver does.

    The driver is sampled at 12 fps; gaps of up to three frames without a face are filled, longer ones show no landmarks.
    All pictures have 480 lines. ``report`` gets a line when work begins and one when the driver's face is known. Frames
    are decoded again in place of being kept: memory does not grow with them. Raises :class:`UserError` naming the file
    that cannot be read or shows no face.
    """
    _check_style(style)
    check_writable(out)
    image = read_image(portrait)
    with FaceReader(backend_name, "faceloom landmarks retarget") as reader:
        with naming(portrait, "portrait"):
            reference = reader.still(image)
        with naming(driving, "driving"):
            probed = probe(str(driving))
            shown = sample_indices(probed.pts_s, FPS)
            report(f"finding the face in {len(shown)} frames of {driving}, {FPS} a second")
            driver = reader.moving(lambda: FrameReader(probed).frames(shown))
        backend = reader.backend
    report(f"found in {int(driver.found.sum())} of {len(driver)}; drawing")
    if smoothed:
        driver = smooth(driver)
    still = scaled(image)
    height, width = still.shape[:2]
    points_px = backend.onto(driver, reference) * np.array([width, height], np.float32)
    panels = (
        np.concatenate([scaled(frame), still, draw(px, height, width, style)], axis=1)
        for frame, px in zip(FrameReader(probed).frames(shown), points_px, strict=True)
    )
    _write(out, panels, FPS)


def _reference(dataset: Path, sample: dict[str, Any], mode: Mode, reference: str | None) -> tuple[dict[str, Any], int]:
    """The sample whose face is driven, and which of its frames."""
    if mode == "cross":
        if reference is None:
            raise UserError("--mode cross needs --reference: another kept clip, by its id or source key")
        target = kept_sample(dataset, reference)
        return target, target["meta.json"]["reference_frame"]
    frames = sample["meta.json"]["n_valid"]
    if reference is None:
        return sample, sample["meta.json"]["reference_frame"]
    if not reference.isdecimal() or int(reference) >= frames:
        raise UserError(
            f"--reference {reference}: with --mode relative it is one of the clip's frames, 0 to {frames - 1}"
        )
    return sample, int(reference)


def scaled(image: Picture) -> Picture:
    """The picture with 480 lines. Its width is even, for H.264 with 4:2:0 colour takes no odd one."""
    height, width = image.shape[:2]
    even = max(2, round(width * HEIGHT / height / 2) * 2)
    method = cv2.INTER_AREA if height > HEIGHT else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (even, HEIGHT), interpolation=method))


def _write(out: Path, frames: Iterable[Picture], fps: float) -> None:
    check_writable(out)
    video = encode_sample(frames, fps, None, SampleVideoConfig())
    try:
        write_atomic(out, video)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose another --out") from None


def _check_style(style: str) -> None:
    if style not in STYLES:
        raise UserError(f"no drawing style {style!r}; there is {', '.join(STYLES)}")
