"""What decodes a student's photos: the same pixels but for a level, by a rule of the file alone."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from cache.sources.decoders import (
    AUTO,
    PILLOW,
    TORCHVISION,
    chosen,
    in_its_place,
    squash,
    squash_picture,
)
from cache.sources.decoding import PLAIN, Decoding, UnreadableImage

LOADS = chosen(AUTO) == TORCHVISION
BOTH = [PILLOW, TORCHVISION]  # where it does not load, Pillow decodes in its place


def photo(size=(90, 61), mode="RGB"):
    """Soft colours, as photos have them."""
    small = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).convert(mode)


def file_of(picture, format="JPEG", **options):
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def both(content, side=32, decoding=PLAIN):
    return [squash(content, side, decoding, decoder=one, name="x.jpg").astype(int) for one in BOTH]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "options",
    [{}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}, {"quality": 30}, {"optimize": True}],
)
def test_jpegs_are_squashed_alike_by_both(mode, options):
    pillow, torchvision = both(file_of(photo(mode=mode), **options))
    assert pillow.shape == (32, 32, 3)
    assert np.abs(pillow - torchvision).max() <= 1


@pytest.mark.parametrize("format", ["PNG", "WEBP", "BMP", "GIF", "TIFF", "MPO"])
def test_what_torchvision_is_not_asked_for_goes_through_pillow(format):
    pillow, torchvision = both(file_of(photo(), format))
    assert np.abs(pillow - torchvision).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("exif", [True, False])
def test_both_turn_photos_as_exif_says_or_neither(orientation, exif):
    tags = Image.Exif()
    tags[0x0112] = orientation
    pillow, torchvision = both(file_of(photo(), exif=tags), decoding=Decoding(exif=exif))
    assert np.abs(pillow - torchvision).max() <= 1
    turned = np.abs(pillow - both(file_of(photo()))[0]).max() > 20
    assert turned == (exif and orientation > 1)


@pytest.mark.parametrize("decoder", BOTH)
def test_both_refuse_what_the_other_refuses(decoder):
    content = file_of(photo())
    for wrong in (content[:300], b"\xff\xd8\xff", b"", b"<html>"):
        with pytest.raises(UnreadableImage):
            squash(wrong, 8, PLAIN, decoder=decoder, name="x.jpg")
    with pytest.raises(UnreadableImage, match="of too many pixels: 90 x 61, more than 5,000"):
        squash(content, 8, Decoding(max_pixels=5000), decoder=decoder, name="x.jpg")


@pytest.mark.parametrize("size", [(30_000, 2), (2, 60_000)])
def test_thin_photos_are_squashed_alike(size):
    picture = photo(size)
    pillow, torchvision = (squash_picture(picture, 300, decoder=one).astype(int) for one in BOTH)
    assert np.abs(pillow - torchvision).max() <= 1


def test_auto_is_what_loads_and_another_in_its_place_is_said():
    assert chosen(PILLOW) == PILLOW
    assert chosen(TORCHVISION) == TORCHVISION
    assert in_its_place(PILLOW) == in_its_place("") == ""
    assert in_its_place(chosen(AUTO)) == ""
    assert (in_its_place(TORCHVISION) == "") == LOADS
