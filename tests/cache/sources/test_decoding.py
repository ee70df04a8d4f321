"""Pictures of every kind, drawn here, as 8-bit RGB."""

from __future__ import annotations

import importlib.util
import io

import numpy as np
import pytest
from PIL import Image, features

from cache.sources.accounts import Reason
from cache.sources.decoding import ENDINGS, PLAIN, Decoding, UnreadableImage, ending_of

RED = (250, 20, 30)
RAMP = np.linspace(0, 1, 64).reshape(8, 8)
NO_HEIF = importlib.util.find_spec("pillow_heif") is None


def file_of(picture, format, **options):
    file = io.BytesIO()
    picture.save(file, format=format, **options)
    return file.getvalue()


def drawn(size=(40, 24)):
    """Red, its top left corner white."""
    picture = Image.new("RGB", size, RED)
    picture.paste((255, 255, 255), (0, 0, 12, 10))
    return picture


def decoded(content, **options):
    return np.asarray(Decoding(**options).picture(content, "x.jpg"))


def file_in(format):
    if format == "HEIF":
        pillow_heif = pytest.importorskip("pillow_heif")
        file = io.BytesIO()
        pillow_heif.from_pillow(drawn()).save(file, quality=90)
        return file.getvalue()
    if format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    if format == "JPEG2000" and not features.check("jpg_2000"):
        pytest.skip("this Pillow has no JPEG 2000")
    return file_of(drawn(), format)


ENDING_OF = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "GIF": "gif", "TIFF": "tif", "PPM": "ppm", "JPEG2000": "jp2", "AVIF": "avif", "HEIF": "heic"}  # fmt: skip


@pytest.mark.parametrize("format", ENDING_OF)
def test_a_picture_is_decoded_by_its_content(format):
    content = file_in(format)
    pixels = decoded(content)
    assert pixels.shape == (24, 40, 3)
    assert np.abs(pixels[20, 30].astype(int) - RED).max() < 30
    assert pixels[3, 3].min() > 225
    assert ending_of(content) == ending_of(content[:64]) == ENDING_OF[format]
    assert f".{ENDING_OF[format]}" in ENDINGS


@pytest.mark.parametrize("format", ["GIF", "TIFF", "WEBP", "PNG"])
def test_of_several_frames_the_first_is_taken(format):
    more = [Image.new("RGB", (40, 24), (0, 0, 0))]
    options = {"lossless": True} if format == "WEBP" else {}
    content = file_of(drawn(), format, save_all=True, append_images=more, **options)
    assert np.abs(decoded(content)[20, 30].astype(int) - RED).max() < 10


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html>", "of no picture format: it begins with b'<!DOCTYPE html><'"),
        (b"", "of no picture format: it is empty"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "of no picture format"),
        (b"%PDF-1.7\n", "of no picture format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "of no picture format"),
        (b"\xff\xd8\xff\xe0" + bytes(40), ""),
        (b"\0\0\0\x18ftypheic" + bytes(200), ""),
        (b"II*\0" + bytes(40), ""),
        (b"GIF89a", ""),
    ],
)
def test_what_is_no_picture_says_so(content, words):
    with pytest.raises(UnreadableImage) as error:
        decoded(content)
    assert str(error.value).startswith(words)
    assert "\n" not in str(error.value)
    told = Reason.told_by(str(error.value))
    assert told is (Reason.FORMAT if words else Reason.UNREADABLE)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM"])
def test_a_file_that_is_cut_is_unreadable(format):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8))
    content = file_of(noise, format)
    with pytest.raises(UnreadableImage):
        decoded(content[: len(content) // 2])


@pytest.mark.skipif(not NO_HEIF, reason="pillow-heif is installed")
def test_without_pillow_heif_a_heic_says_what_it_takes():
    with pytest.raises(UnreadableImage, match="pip install pillow-heif"):
        decoded(b"\0\0\0\x18ftypheic" + bytes(200))


# How each orientation lies: what turns an upright picture into what its file holds.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def turned(orientation, format="PNG", **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return file_of(drawn().transpose(STORED[orientation]), format, exif=exif, **options)


@pytest.mark.parametrize("orientation", STORED)
def test_a_picture_is_turned_as_its_exif_says(orientation):
    upright = np.asarray(drawn())
    np.testing.assert_array_equal(decoded(turned(orientation)), upright)
    as_stored = np.asarray(drawn().transpose(STORED[orientation]))
    np.testing.assert_array_equal(decoded(turned(orientation), exif=False), as_stored)


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "TIFF", "AVIF"])
def test_orientation_is_read_in_every_format_that_has_it(format):
    if format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    pixels = decoded(turned(6, format))
    assert pixels.shape == (24, 40, 3)
    assert pixels[3, 3].min() > 225


def test_odd_exif_makes_no_picture_unreadable():
    content = file_of(drawn(), "JPEG", exif=b"Exif\0\0MM\0*" + bytes([255]) * 40)
    assert decoded(content).shape == (24, 40, 3)
    exif = Image.Exif()
    exif[0x0112] = 77
    assert decoded(file_of(drawn(), "PNG", exif=exif)).shape == (24, 40, 3)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_grey_of_more_bits_is_scaled_by_the_depth_of_its_numbers(format, bits):
    numbers = np.rint(RAMP * (2**bits - 1)).astype(np.uint16)
    content = file_of(Image.fromarray(numbers), format)
    for channel in np.moveaxis(decoded(content), -1, 0):
        np.testing.assert_allclose(channel, RAMP * 255, atol=1.01)


def test_a_tiff_of_twelve_bits_a_pixel_is_taken_at_its_word():
    rows = np.full((4, 8), 1000, dtype=np.uint16)  # in ten bits it would be white
    packed = b"".join(
        bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in rows.reshape(-1, 2).tolist()
    )
    tags = [(256, 3, 8), (257, 3, 4), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 200), (277, 3, 1), (278, 3, 4), (279, 4, len(packed))]  # fmt: skip
    entries = b"".join(
        tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + (1).to_bytes(4, "little") + value.to_bytes(4, "little")
        for tag, kind, value in tags
    )  # fmt: skip
    head = b"II*\0" + (8).to_bytes(4, "little") + len(tags).to_bytes(2, "little") + entries + bytes(4)
    assert set(decoded(head.ljust(200, b"\0") + packed).ravel().tolist()) == {round(1000 * 255 / 4095)}


@pytest.mark.parametrize(
    ("numbers", "white"),
    [(RAMP, 1), (RAMP * 255, 255), (RAMP * 4095, 4095), (RAMP * 65535, 65535), (RAMP * 0, 1)],
)
def test_a_tiff_of_fractions_is_scaled(numbers, white):
    grey = decoded(file_of(Image.fromarray(numbers.astype(np.float32)), "TIFF"))[..., 0]
    np.testing.assert_allclose(grey, numbers / white * 255, atol=1.01)


def test_what_is_negative_or_no_number_is_black():
    numbers = np.array([[-5.0, np.nan, np.inf, 1.0]], dtype=np.float32)
    assert decoded(file_of(Image.fromarray(numbers), "TIFF"))[0, :, 0].tolist() == [0, 0, 0, 255]
    whole = np.array([[-70_000, 0, 70_000, 2**24 - 1]], dtype=np.int32)
    assert decoded(file_of(Image.fromarray(whole), "TIFF"))[0, :, 0].tolist() == [0, 0, 1, 255]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_other_modes_are_as_they_are_seen_without_their_transparency(mode):
    format = "TIFF" if mode == "CMYK" else "PNG"
    picture = drawn().quantize(4) if mode == "P" else drawn().convert(mode)
    if mode in ("LA", "RGBA"):
        picture.putalpha(90)
    options = {"transparency": 0} if mode == "P" else {}
    pixels = decoded(file_of(picture, format, **options))
    grey = mode in ("1", "L", "LA")
    assert pixels[3, 3].min() > 250
    assert pixels.shape == (24, 40, 3)
    assert (np.ptp(pixels[20, 30]) == 0) if grey else (np.abs(pixels[20, 30].astype(int) - RED).max() < 30)


def test_a_cmyk_jpeg_is_not_its_own_negative():
    pixels = decoded(file_of(drawn().convert("CMYK"), "JPEG", quality=95))
    assert pixels[3, 3].min() > 225
    assert np.abs(pixels[20, 30].astype(int) - RED).max() < 30


def test_too_many_pixels_are_told_apart_from_unreadable_ones_and_nothing_is_decoded():
    content = file_of(drawn(), "PNG")[:60]  # the header, and no pixels
    with pytest.raises(UnreadableImage, match="of too many pixels: 40 x 24, more than 959") as error:
        decoded(content, max_pixels=959)
    assert Reason.told_by(str(error.value)) is Reason.TOO_LARGE
    with pytest.raises(UnreadableImage) as error:
        decoded(content, max_pixels=960)
    assert Reason.told_by(str(error.value)) is Reason.UNREADABLE


def test_pillows_limit_for_the_whole_process_is_not_asked(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert decoded(file_of(drawn(), "PNG"), max_pixels=10_000).shape == (24, 40, 3)
    assert PLAIN.max_pixels == 89_478_485
