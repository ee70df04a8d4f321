"""Which files are pictures, told by how they begin: a list of formats that are decoded, and no other.

None of them runs a program, as PostScript would, or is text that names files.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import BinaryIO

from PIL import (
    Image,
    ImageFile,
    WebPImagePlugin,  # noqa: F401 (which makes WEBP known; Pillow alone looks for it only where all else fails)
)

# What it tells of odd files on stderr is in the exception, or is no matter.
logging.getLogger("PIL").addHandler(logging.NullHandler())
# So many bytes of a file tell what it is.
HEAD = 64
# The brands of HEIF's containers: of pictures coded by HEVC, and of any coding.
_HEVC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_ANY_CODING = frozenset({b"mif1", b"msf1", b"miaf"})
_AVIF = frozenset({b"avif", b"avis"})


# Of each format, by Pillow's name of it, the endings of its files; the first is the usual one.
FORMATS = {
    "JPEG": ("jpg", "jpeg", "jpe", "jfif"),
    "PNG": ("png", "apng"),
    "WEBP": ("webp",),
    "BMP": ("bmp",),
    "GIF": ("gif",),
    "TIFF": ("tif", "tiff"),
    "PPM": ("ppm", "pgm", "pbm", "pnm"),
    "JPEG2000": ("jp2", "j2k", "j2c", "jpf", "jpx"),
    "AVIF": ("avif",),
    "HEIF": ("heic", "heif", "hif"),
}


class NoPicture(ValueError):
    """What is of none of the formats."""


class NotDecoded(ValueError):
    """A picture of a format that cannot be decoded here; the message says what it takes."""


def format_of(head: bytes) -> str:
    """Return Pillow's name of a picture's format by the first bytes of its file; '' for no picture."""
    head = head[:HEAD]
    return next((name for name, begins in _BEGINNINGS.items() if begins(head)), "")


def opened(file: BinaryIO) -> Image.Image:
    """Return a picture whose header is read, and nothing decoded: its format, size and mode.

    Raises
    ------
    NoPicture, NotDecoded
        If it is of none of the formats, or of one that cannot be decoded here.
    Exception
        Nearly anything, where the header is damaged.
    """
    head = file.read(HEAD)
    file.seek(0)
    name = format_of(head)
    if not name:
        raise NoPicture(f"it begins with {head[:16]!r}" if head else "it is empty")
    # Not Image.open: its limit of pixels is one for the whole process, and not ours to set.
    return _opener(name, head)(file, "")


def _opener(name: str, head: bytes) -> Callable[[BinaryIO, str], ImageFile.ImageFile]:
    if name == "HEIF":
        try:
            from pillow_heif import HeifImageFile
        except ImportError:
            raise NotDecoded("HEIC pictures take pillow-heif: pip install pillow-heif") from None
        return HeifImageFile
    Image.preinit()
    if name not in Image.OPEN:
        Image.init()
    opener, accepts = Image.OPEN.get(name, (None, None))
    # Which says in words what this Pillow was built without.
    said = accepts(head) if accepts is not None else True
    if opener is None or isinstance(said, str):
        raise NotDecoded(f"this Pillow decodes no {name}: update pillow" if opener is None else str(said))
    return opener


def _is_tiff(head: bytes) -> bool:
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _is_ppm(head: bytes) -> bool:
    return head[:1] == b"P" and head[1:2] in b"123456" and head[2:3] in (b" ", b"\t", b"\n", b"\r", b"#")


def _is_jpeg2000(head: bytes) -> bool:
    return head.startswith((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"))


def _brands(head: bytes) -> tuple[bytes, frozenset[bytes]]:
    """Return the main brand of an ISO container, and the others of those that are in the head."""
    if head[4:8] != b"ftyp":
        return b"", frozenset()
    end = min(int.from_bytes(head[:4], "big"), len(head))
    return head[8:12], frozenset(head[at : at + 4] for at in range(16, end - 3, 4))


def _is_avif(head: bytes) -> bool:
    main, others = _brands(head)
    return main in _AVIF or (main in _ANY_CODING and bool(others & _AVIF))


def _is_heif(head: bytes) -> bool:
    main, _ = _brands(head)
    return main in _HEVC or (main in _ANY_CODING and not _is_avif(head))


_BEGINNINGS: dict[str, Callable[[bytes], bool]] = {
    "JPEG": lambda head: head.startswith(b"\xff\xd8\xff"),
    "PNG": lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"),
    "WEBP": lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP",
    "BMP": lambda head: head.startswith(b"BM"),
    "GIF": lambda head: head[:6] in (b"GIF87a", b"GIF89a"),
    "TIFF": _is_tiff,
    "PPM": _is_ppm,
    "JPEG2000": _is_jpeg2000,
    "AVIF": _is_avif,
    "HEIF": _is_heif,
}
