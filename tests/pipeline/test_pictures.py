"""Every kind of photo becomes the same upright RGB picture of 8 bits, or a reason why not."""

from __future__ import annotations

import os
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, features

from aape.pipeline.encoders.photo_transforms import Evaluation
from aape.pipeline.pictures import PictureError, as_picture, eight_bits, read_picture, to_rgb

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,  # the camera stores what must be turned back by 270
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def upright() -> Image.Image:
    """A picture (6 wide, 4 high) that no turn maps onto itself, even after JPEG."""
    values = np.zeros((32, 48, 3), np.uint8)
    values[:16, :24] = (250, 0, 0)
    values[:16, 24:] = (0, 250, 0)
    values[16:, :24] = (0, 0, 250)
    values[16:, 24:] = (250, 250, 0)
    return Image.fromarray(values)


def save_lying(path: Path, orientation: int, **options) -> None:
    """Save the upright picture as a camera does that was held in another way."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    lying = upright().transpose(TURNS[orientation]) if orientation != 1 else upright()
    # as bytes: in these alone pillow-heif finds what it writes HEIC's own orientation from
    lying.save(path, exif=exif.tobytes(), **options)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".png", {}),
        (".webp", {"lossless": True}),
        (".tiff", {}),
        (".tif", {"compression": "tiff_lzw"}),
        (".jpg", {"quality": 100, "subsampling": 0}),
        (".jfif", {"quality": 100, "subsampling": 0, "format": "JPEG"}),
        (".avif", {"quality": 100, "subsampling": "4:4:4"}),
        (".mpo", {"quality": 100, "subsampling": 0}),
    ],
)
def test_upright_whatever_the_camera_wrote(
    orientation: int, suffix: str, options: dict, tmp_path: Path
) -> None:
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow is built without AVIF")
    path = tmp_path / f"photo{suffix}"
    save_lying(path, orientation, **options)
    seen = np.asarray(read_picture(path).image, dtype=int)
    difference = np.abs(seen - np.asarray(upright(), dtype=int))
    exact = suffix in (".png", ".webp", ".tiff", ".tif")
    assert difference.max() <= (0 if exact else 12)


def test_heic_is_turned_once(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    for orientation in range(1, 9):
        path = tmp_path / f"{orientation}.heic"
        save_lying(path, orientation, quality=-1)
        seen = np.asarray(read_picture(path).image, dtype=int)
        assert np.abs(seen - np.asarray(upright(), dtype=int)).max() <= 24


def test_orientation_in_xmp_alone(tmp_path: Path) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="3"/></x:xmpmeta>'
    path = tmp_path / "photo.webp"
    upright().transpose(TURNS[3]).save(path, lossless=True, xmp=xmp)
    np.testing.assert_array_equal(read_picture(path).image, upright())


def test_a_damaged_exif_block_does_not_spoil_the_photo(tmp_path: Path) -> None:
    path = tmp_path / "photo.webp"
    upright().save(path, lossless=True, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    np.testing.assert_array_equal(read_picture(path).image, upright())


def test_transforms_turn_too_and_only_once(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    save_lying(path, 6)
    transform = Evaluation(16, 16, (0.5,) * 3, (0.5,) * 3)
    wanted = transform(upright())
    with Image.open(path) as opened:
        assert transform(opened).equal(wanted)
        assert transform(opened.convert("RGB")).equal(wanted)
        assert transform(ImageOps.exif_transpose(opened)).equal(wanted)
    assert transform(read_picture(path).image).equal(wanted)


RAMP = np.array([[0, 257 * 100, 65535]], np.uint16)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_greys_are_divided_by_257(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"grey{suffix}"
    Image.fromarray(RAMP).save(path)
    seen = read_picture(path).image
    assert seen.mode == "RGB"
    assert np.asarray(seen)[0, :, 0].tolist() == [0, 100, 255]


def test_16_bit_greys_of_either_byte_order_and_turned(tmp_path: Path) -> None:
    big = Image.frombytes("I;16B", (3, 1), RAMP.astype(">u2").tobytes())
    assert np.asarray(to_rgb(big))[0, :, 1].tolist() == [0, 100, 255]
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(RAMP).save(tmp_path / "a.png", exif=exif)
    assert np.asarray(read_picture(tmp_path / "a.png").image)[0, :, 1].tolist() == [255, 100, 0]
    Image.fromarray(RAMP).save(tmp_path / "b.tif", exif=exif)
    assert np.asarray(read_picture(tmp_path / "b.tif").image)[0, :, 1].tolist() == [255, 100, 0]


def test_a_dark_16_bit_photo_stays_dark(tmp_path: Path) -> None:
    """No photo is stretched by its own extremes."""
    path = tmp_path / "dark.png"
    Image.fromarray(np.full((2, 2), 200, np.uint16)).save(path)
    assert np.asarray(read_picture(path).image).max() == 1


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (np.array([[0, 100, 255]], np.int32), [0, 100, 255]),
        (np.array([[0, 25700, 65535]], np.int32), [0, 100, 255]),
        (np.array([[0, 0.4, 1.0]], np.float32), [0, 102, 255]),
        (np.array([[-0.0005, 0.4, 1.0004]], np.float32), [0, 102, 255]),
        (np.array([[0, 0.4, 1.7]], np.float32), [0, 102, 255]),  # a highlight beyond white
        (np.array([[0, 102.0, 254.0]], np.float32), [0, 102, 254]),
        (np.array([[0, 25700.0, 65535.0]], np.float32), [0, 100, 255]),
        (np.array([[np.nan, 0.4, np.inf, -np.inf]], np.float32), [255, 102, 255, 0]),
        (np.zeros((1, 2), np.float32), [0, 0]),
    ],
)
def test_wide_tiffs(values: np.ndarray, wanted: list[int], tmp_path: Path) -> None:
    path = tmp_path / "wide.tif"
    Image.fromarray(values).save(path)
    seen = np.asarray(read_picture(path).image)
    assert seen.dtype == np.uint8
    assert seen[0].tolist() == [[value] * 3 for value in wanted]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.array([[0, 1_000_000]], np.int32), "run from 0 to 1e"),
        (np.array([[-5, 20]], np.int32), "run from -5 to 20"),
        (np.array([[-1.0, 1.0]], np.float32), "run from -1 to 1, not within 0 to 1, 255 or"),
        (np.full((1, 2), np.nan, np.float32), "none of its values is a number"),
    ],
)
def test_values_of_unknown_range_are_refused(values: np.ndarray, said: str, tmp_path: Path) -> None:
    path = tmp_path / "wide.tif"
    Image.fromarray(values).save(path)
    with pytest.raises(PictureError, match=said):
        read_picture(path)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "La", "RGBa"])
def test_hidden_colours_stay_hidden(mode: str) -> None:
    picture = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    picture.putpixel((1, 0), (255, 255, 255, 255) if mode in ("LA", "La") else (250, 0, 0, 255))
    if mode == "P":
        picture = picture.quantize(4)
    elif mode == "La":
        picture = picture.convert("LA").convert("La")
    elif mode != "RGBA":
        picture = picture.convert(mode)
    seen = to_rgb(picture)
    assert seen.mode == "RGB"
    assert seen.getpixel((0, 0)) == (255, 255, 255)
    if mode in ("RGBA", "RGBa"):
        assert seen.getpixel((1, 0)) == (250, 0, 0)


def test_half_transparent_is_half_white() -> None:
    assert to_rgb(Image.new("RGBA", (1, 1), (0, 0, 0, 128))).getpixel((0, 0)) == (127, 127, 127)


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_one_transparent_colour_of_a_png(mode: str, tmp_path: Path) -> None:
    """PNG's tRNS names one colour of a palette, a grey or an RGB picture."""
    path = tmp_path / "clear.png"
    if mode == "P":
        picture = Image.new("P", (2, 1), 0)
        picture.putpalette([0, 0, 0, 250, 0, 0])
        picture.putpixel((1, 0), 1)
        picture.save(path, transparency=0)
    else:
        colours = {"L": (0, 90), "RGB": ((0, 0, 0), (90, 90, 90))}[mode]
        picture = Image.new(mode, (2, 1), colours[0])
        picture.putpixel((1, 0), colours[1])
        picture.save(path, transparency=colours[0])
    seen = read_picture(path).image
    assert seen.getpixel((0, 0)) == (255, 255, 255)
    assert seen.getpixel((1, 0)) == ((250, 0, 0) if mode == "P" else (90, 90, 90))


def test_one_transparent_grey_of_16_bits(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "clear.png", transparency=0)
    assert np.asarray(read_picture(tmp_path / "clear.png").image)[0, :, 0].tolist() == [
        255,
        100,
        255,
    ]


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "1", "L", "LAB", "RGBX"])
def test_other_colour_models(mode: str, tmp_path: Path) -> None:
    grey = Image.new("RGB", (4, 4), "white")
    if mode == "LAB":
        spaces = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        picture = ImageCms.applyTransform(grey, ImageCms.buildTransform(*spaces, "RGB", "LAB"))
    else:
        picture = grey.convert(mode)
    assert picture is not None
    seen = to_rgb(picture)
    assert seen.mode == "RGB"
    assert min(seen.getpixel((1, 1))) >= 253
    if mode in ("CMYK", "LAB", "YCbCr"):
        path = tmp_path / ("a.jpg" if mode in ("CMYK", "YCbCr") else "a.tif")
        picture.save(path)
        assert min(read_picture(path).image.getpixel((1, 1))) >= 253


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif", ".avif"])
def test_the_first_frame_is_taken_and_said(suffix: str, tmp_path: Path) -> None:
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow is built without AVIF")
    path = tmp_path / f"moving{suffix}"
    red, blue = Image.new("RGB", (8, 8), (250, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 250))
    red.save(path, save_all=True, append_images=[blue])
    seen = read_picture(path)
    r, _, b = seen.image.getpixel((4, 4))
    assert r > 230
    assert b < 20
    pages, frames = "of several pages: the first is used", "animated: the first frame is used"
    assert seen.remark == (pages if suffix == ".tif" else frames)
    red.save(tmp_path / f"still{suffix}")
    assert read_picture(tmp_path / f"still{suffix}").remark == ""


@pytest.mark.parametrize("suffix", [".jp2", ".j2k", ".bmp", ".dib", ".ppm", ".pgm", ".jpe"])
def test_other_formats(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"photo{suffix}"
    picture = upright().convert("L") if suffix == ".pgm" else upright()
    picture.save(path)
    assert read_picture(path).image.size == (48, 32)


def test_an_opaque_picture_is_left_as_it_is() -> None:
    picture = Image.new("RGB", (2, 2), (1, 2, 3))
    assert to_rgb(picture) is picture


def write_broken(folder: Path) -> dict[str, str]:
    """Write files that cannot be read; return the reason that is to be given for each."""
    (folder / "empty.jpg").write_bytes(b"")
    upright().resize((480, 320)).save(folder / "whole.jpg")
    content = (folder / "whole.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(content[: len(content) // 2])
    upright().save(folder / "whole.png")
    content = bytearray((folder / "whole.png").read_bytes())
    (folder / "cut.png").write_bytes(content[:50])
    (folder / "text.jpg").write_text("<html>404 not found</html>")
    (folder / "script.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n")
    bomb = bytearray((folder / "whole.png").read_bytes())
    bomb[16:24] = struct.pack(">II", 60000, 60000)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bytes(bomb[12:29])))
    (folder / "bomb.png").write_bytes(bomb)
    (folder / "folder.jpg").mkdir()
    return {
        "empty.jpg": "the file is empty",
        "cut.jpg": "truncated",
        "cut.png": "truncated|broken|cut",
        "text.jpg": "no picture in a format that is read",
        "script.png": "no picture in a format that is read",
        "bomb.png": "more than 178,956,970 pixels",
        "folder.jpg": "no regular file",
        "absent.jpg": "it does not exist",
    }


def test_each_reason_is_half_a_sentence(tmp_path: Path) -> None:
    for name, reason in write_broken(tmp_path).items():
        with pytest.raises(PictureError, match=reason) as caught:
            read_picture(tmp_path / name)
        assert str(tmp_path) not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    said: list[str] = []

    def read() -> None:
        try:
            read_picture(tmp_path / "pipe.jpg")
        except PictureError as error:
            said.append(str(error))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(10)
    assert said == ["no regular file"]


def test_heic_without_the_extra_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aape.pipeline import raster

    monkeypatch.setattr(raster, "readable_formats", lambda: ("JPEG", "PNG"))
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic")
    with pytest.raises(PictureError, match=r"HEIC needs pillow-heif; .*aape\[heic\]"):
        read_picture(path)
    assert "aape[heic]" in raster.why_unread(".heic")
    assert raster.why_unread(".avif") == "this Pillow lacks AVIF"


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (np.full((2, 2), 7, np.uint8), (7, 7, 7)),
        (np.full((2, 2, 1), 257 * 7, np.uint16), (7, 7, 7)),
        (np.full((2, 2, 3), 0.2, np.float32), (51, 51, 51)),
        (np.ones((2, 2), bool), (255, 255, 255)),
        (np.zeros((2, 2, 4), np.uint8), (255, 255, 255)),
        (np.array([[[1, 2, 3]]], np.int64), (1, 2, 3)),
    ],
)
def test_arrays_are_pictures(array: np.ndarray, wanted: tuple[int, int, int]) -> None:
    assert as_picture(array).getpixel((0, 0)) == wanted


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((3, 2, 2), np.uint8), r"not \(3, 2, 2\)"),
        (np.zeros((0, 2), np.uint8), r"not \(0, 2\)"),
        ("photo", "str is neither a picture nor"),
        (None, "NoneType is neither"),
    ],
)
def test_what_is_no_picture_is_refused(given: object, said: str) -> None:
    with pytest.raises(PictureError, match=said):
        as_picture(given)


def test_every_16_bit_value_rounds_to_the_nearest() -> None:
    values = np.arange(65536, dtype=np.uint16)
    np.testing.assert_array_equal(eight_bits(values), np.round(values / 257).astype(np.uint8))
