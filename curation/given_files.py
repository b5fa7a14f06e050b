"""Pictures and videos that a person names: read with care, and named in what is said when that fails."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from curation.video import VideoError
from faceloom.errors import UserError

Picture = np.ndarray  # uint8 RGB [H, W, 3]

MAX_IMAGE_PIXELS = 128_000_000
"""Of a picture: more than any phone takes. A header of a few bytes can ask for a thousand times as much memory."""

# No format that another program would be started for (EPS), and none that is a list of other files.
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM")
# What Pillow raises for damaged files, by format: also plain ones of Python.
_DAMAGED = (OSError, ValueError, SyntaxError, EOFError, IndexError, Image.DecompressionBombError)


def read_image(path: Path) -> Picture:
    """The picture in ``path`` as it is meant to be seen: uint8 RGB ``[H, W, 3]``.

    Turned as its Exif tag says; colours of another profile, CMYK too, brought to sRGB; what is transparent lies on white;
    of several pictures the first. Raises :class:`UserError`, which names the file and the remedy, for a file that cannot be
    read and for one of more than :data:`MAX_IMAGE_PIXELS`.
    """
    with _opened(path) as image:
        return np.asarray(_in_srgb(ImageOps.exif_transpose(image)), np.uint8)


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of the picture in ``path``, of which no more than the header is read. Raises as :func:`read_image`."""
    with _opened(path) as image:
        return image.size


@contextmanager
def naming(path: Path, option: str) -> Iterator[None]:
    """Say in errors which of the user's files they are about, and by which ``option`` (without dashes) to give another."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}; give another file with --{option}") from None
    except VideoError as error:
        # What is wrong is told before the last semicolon; the remedy after it is about manifests.
        raise UserError(f"{str(error).rpartition(';')[0]}; give another file with --{option}") from None


def check_writable(out: Path, option: str = "out") -> None:
    """Raise :class:`UserError` unless a file ``out`` can be: its folder is there, and it is none itself."""
    if out.is_dir():
        raise UserError(f"cannot write {out}: it is a folder; name a file in it with --{option}")
    if not out.absolute().parent.is_dir():
        raise UserError(
            f"cannot write {out}: there is no such folder; name a file in an existing folder with --{option}"
        )


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The picture, not decoded yet; what goes wrong with it in the block is said like what goes wrong here."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; give another image with --portrait") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is a lower one
            image = Image.open(BytesIO(data), formats=_FORMATS)
        width, height = image.size
        if width * height > MAX_IMAGE_PIXELS:
            raise UserError(
                f"{path} has {width}x{height} px, up to {MAX_IMAGE_PIXELS / 1e6:.0f} million are read; shrink it first"
            )
        yield image
    except _DAMAGED:
        raise UserError(f"{path} is no image that can be read; convert it to PNG or JPEG") from None


def _in_srgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image, np.uint16) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        flat = Image.alpha_composite(white, over).convert("RGB")
    else:
        flat = image if image.mode in ("RGB", "CMYK") else image.convert("RGB")
    profile = image.info.get("icc_profile")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            converted = ImageCms.profileToProfile(flat, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            converted = None  # a profile for other channels than the picture has; most programs pass over it, too
        if converted is not None:
            return converted
    return flat.convert("RGB")
