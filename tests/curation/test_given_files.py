from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from curation import given_files
from curation.given_files import read_image
from faceloom.errors import UserError

# Four colours, so that a picture tells how it lies: red and green above blue and grey.
COLOURS = np.array([[(200, 30, 30), (30, 160, 30)], [(30, 30, 200), (128, 128, 128)]], np.uint8)
PICTURE = COLOURS.repeat(32, axis=0).repeat(48, axis=1)


def write(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def differs(image: np.ndarray, expected: np.ndarray = PICTURE) -> float:
    assert image.shape == expected.shape
    assert image.dtype == np.uint8
    return float(np.abs(image.astype(int) - expected).mean())


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "avif", "bmp", "tiff", "gif"])
def test_common_formats_are_read_in_rgb(tmp_path, suffix):
    assert differs(read_image(write(tmp_path / f"x.{suffix}", Image.fromarray(PICTURE), quality=95))) < 4


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_photograph_lies_as_its_camera_was_held(tmp_path, orientation):
    turns = {1: 0, 3: 2, 6: 1, 8: 3}[orientation]  # how far the sensor's picture is turned, counter-clockwise
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write(tmp_path / "x.jpg", Image.fromarray(np.rot90(PICTURE, turns).copy()), exif=exif, quality=95)
    assert differs(read_image(path)) < 4


def test_what_is_transparent_lies_on_white(tmp_path):
    alpha = np.full((*PICTURE.shape[:2], 1), 255, np.uint8)
    alpha[:, :48] = 0
    read = read_image(write(tmp_path / "x.png", Image.fromarray(np.concatenate([PICTURE, alpha], axis=2))))
    assert (read[:, :48] == 255).all()
    assert differs(read[:, 48:], PICTURE[:, 48:]) == 0


def test_grey_palettes_and_sixteen_bits_become_rgb(tmp_path):
    grey = PICTURE[..., 1]
    assert differs(read_image(write(tmp_path / "l.png", Image.fromarray(grey))), grey[..., None].repeat(3, 2)) == 0
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    assert differs(read_image(write(tmp_path / "i.png", deep)), grey[..., None].repeat(3, 2)) == 0
    palette = Image.fromarray(PICTURE).quantize(8)
    assert differs(read_image(write(tmp_path / "p.png", palette))) < 2


def test_cmyk_has_the_colours_that_it_was_made_of(tmp_path):
    path = write(tmp_path / "x.jpg", Image.fromarray(PICTURE).convert("CMYK"), quality=95)
    assert differs(read_image(path)) < 4


def test_colours_of_another_profile_are_brought_to_srgb(tmp_path):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    srgb = ImageCms.createProfile("sRGB")
    # A profile that swaps nothing is no evidence: the picture is stored in L*a*b*, which only its profile can undo.
    stored = ImageCms.profileToProfile(Image.fromarray(PICTURE), srgb, lab, outputMode="LAB")
    path = write(tmp_path / "x.tiff", stored, icc_profile=lab.tobytes())
    assert differs(read_image(path)) < 6


def test_a_profile_that_is_no_profile_is_passed_over(tmp_path):
    assert differs(read_image(write(tmp_path / "x.png", Image.fromarray(PICTURE), icc_profile=b"nonsense"))) == 0


def damaged(data: bytes) -> bytes:
    return data[: len(data) // 2]


def test_what_is_no_picture_is_named_with_the_remedy(tmp_path, monkeypatch):
    buffer = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(buffer, "PNG")
    for name, data in {"text.png": b"no picture", "empty.png": b"", "cut.png": damaged(buffer.getvalue())}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=rf"{name} is no image that can be read; convert it"):
            read_image(tmp_path / name)
    with pytest.raises(UserError, match=r"absent.png: No such file.*--portrait"):
        read_image(tmp_path / "absent.png")
    # PostScript would be drawn by another program.
    (tmp_path / "x.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(UserError, match="is no image"):
        read_image(tmp_path / "x.eps")
    monkeypatch.setattr(given_files, "MAX_IMAGE_PIXELS", 1000)
    path = write(tmp_path / "large.png", Image.fromarray(PICTURE))
    with pytest.raises(UserError, match=r"large.png has 96x64 px"):
        read_image(path)
