"""One photo as found in the wild -> one square of uint8; and what a decoding process runs: photos in, rows of an array out.

A decoding process imports as little as it can, no numpy among it: of a few thousand photos its start is a quarter of the time.
"""

from __future__ import annotations

import io
import os
import struct
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from data import formats
from data.memory import keep_freed_memory, resident_bytes, trim
from data.source import UNREAD, Reader, digest_of

if TYPE_CHECKING:  # a decoding process does without it
    import numpy as np

KEPT_BYTES = 2**28  # several times what a process with photos of 24 megapixels holds

MAX_PIXELS = 178_956_970
"""Decoded at once, at 4 bytes each and as much again to turn them: more is a bomb to Pillow too. A JPEG counts as it is decoded,
with down to 1/64 of its pixels; where all its coefficients have to be kept meanwhile, they may take those 8 bytes a pixel."""

_STRIP_ROWS = 256
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_POSTSCRIPT = (b"%!PS", b"\xc5\xd0\xd3\xc6")
_UPRIGHT = {  # by EXIF's orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class TooLargeError(OSError):
    """A photo of more pixels than are decoded at once."""


def decode_image(raw: bytes, image_px: int) -> np.ndarray:
    """`decode_square` as (image_px, image_px, 3) uint8."""
    import numpy as np

    return np.asarray(decode_square(raw, image_px))


def decode_square(raw: bytes, image_px: int, name: str = "") -> Image.Image:
    """Decode, turn upright (EXIF), convert to RGB, scale the short side to `image_px` and cut the middle square.

    name: its ending tells some cameras' raw files from TIFFs. Damaged metadata never matters. Raises TooLargeError, ImportError
    for a format whose package is missing, UnidentifiedImageError with what the file is, and whatever Pillow's decoders
    raise on a broken file: many types.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of damaged metadata and of more than half of MAX_PIXELS
        try:
            return _square(_read(raw, image_px, name), image_px)
        except (TooLargeError, ImportError):
            raise
        except Exception:  # of many types; without metadata once more, what is then raised is of the pixels
            bare = _without_metadata(raw)
            if bare == raw:
                raise
        return _square(_read(bare, image_px, name), image_px)


def _read(raw: bytes, image_px: int, name: str) -> Image.Image:
    """The whole picture, upright, in RGB; a JPEG no larger than the square needs."""
    codec = None if raw.startswith(_JPEG) else formats.codec_of(raw, name)
    if codec is formats.RAW:
        return _develop(raw, image_px)
    with _open(raw, codec) as image:
        full = image.size
        # A JPEG decodes at 1/2, 1/4 or 1/8 of its size where that still covers the square: faster, same pixels wanted.
        image.draft(None, (image_px, image_px))
        _require_room(full, image.width * image.height)
        if full[0] * full[1] > MAX_PIXELS // 2 and isinstance(image, JpegImagePlugin.JpegImageFile):
            _require_room(full, _coefficient_bytes(raw, image, full) // 8)
        image.load()
        return to_rgb(_turn_upright(image))


def _open(raw: bytes, codec: formats.Codec | None) -> Image.Image:
    """Raises UnidentifiedImageError with what the file is, ImportError and TooLargeError."""
    if raw.startswith(_POSTSCRIPT):  # a program: Pillow would have Ghostscript run it
        raise UnidentifiedImageError(formats.describe(raw))
    try:
        if raw.startswith(_JPEG):
            return JpegImagePlugin.jpeg_factory(io.BytesIO(raw))  # as Image.open does, but for its limit on pixels
        return Image.open(io.BytesIO(raw))
    except Image.DecompressionBombError:
        _require_room(_size_of(raw), MAX_PIXELS + 1)
    except Exception as error:
        if codec is None or formats.load_module(codec) is None:
            raise UnidentifiedImageError(formats.describe(raw)) from error
    return _open(raw, None)


def _size_of(raw: bytes) -> tuple[int, int]:
    """Width and height from the header alone, however large."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(io.BytesIO(raw)) as image:
            return image.size
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _require_room(size: tuple[int, int], pixels: int) -> None:
    """size: of the photo. pixels: for which memory is needed at once."""
    if pixels > MAX_PIXELS:
        raise TooLargeError(
            f"{size[0] * size[1] / 1e6:.0f} megapixels ({size[0]} x {size[1]}), too many to decode within memory: scale "
            "it down or save it as a baseline JPEG"
        )


def _coefficient_bytes(raw: bytes, image: JpegImagePlugin.JpegImageFile, full: tuple[int, int]) -> int:
    """What libjpeg keeps while it decodes, at whatever size: all coefficients where they come in several scans."""
    scans = [raw[start + 4] for marker, start, _ in _segments(raw) if marker == 0xDA]  # the first: how many components
    if "progressive" not in image.info and scans == [image.layers]:
        return 0
    sampled = [h * v for _, h, v, _ in image.layer]
    return 2 * full[0] * full[1] * sum(sampled) // max(sampled)


def _turn_upright(image: Image.Image) -> Image.Image:
    try:
        method = _UPRIGHT.get(image.getexif().get(0x0112))
    except Exception:  # noqa: BLE001  damaged EXIF raises many types: the pixels as stored
        return image
    return image if method is None else image.transpose(method)


def _develop(raw: bytes, image_px: int) -> Image.Image:
    """A camera's raw file by LibRaw, upright, with the camera's own white balance; at half its size where that suffices."""
    rawpy = formats.load_module(formats.RAW)
    try:
        with rawpy.imread(io.BytesIO(raw)) as photo:
            size = photo.sizes.width, photo.sizes.height
            is_large = min(size) >= 2 * image_px
            _require_room(size, size[0] * size[1] // (4 if is_large else 1))
            return Image.fromarray(photo.postprocess(use_camera_wb=True, half_size=is_large))
    except rawpy.LibRawError as error:
        raise UnidentifiedImageError(f"camera raw file that rawpy cannot read ({error.args[0]!r})") from error


def _square(upright: Image.Image, image_px: int) -> Image.Image:
    width, height = upright.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2  # whole pixels: nothing is blurred where nothing is scaled
    if side == image_px:
        return upright.crop((left, top, left + side, top + side))
    return upright.resize((image_px, image_px), Image.Resampling.BICUBIC, (left, top, left + side, top + side))


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB: 16-bit greys are scaled (not clipped), transparency is put on white."""
    if image.mode == "RGB":
        return image
    if image.height <= _STRIP_ROWS:
        return _strip_to_rgb(image)
    rgb = Image.new("RGB", image.size)
    for top in range(0, image.height, _STRIP_ROWS):  # what a conversion needs on the way is several times the picture
        strip = image.crop((0, top, image.width, min(top + _STRIP_ROWS, image.height)))
        rgb.paste(_strip_to_rgb(strip), (0, top))
    return rgb


def _strip_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey; convert("RGB") would clip every value above 255 to white
        import numpy as np

        grey = np.asarray(image, dtype=np.float64) / 257.0
        return Image.fromarray(grey.clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _without_metadata(raw: bytes) -> bytes:
    """A JPEG, PNG or TIFF with nothing but what its pixels need; any other file, and one whose parts cannot be found, as it is."""
    if raw.startswith(_JPEG):  # without APP1 to APP15 and comments, but with Adobe's APP14: how colours are stored
        dropped = {0xFE, *range(0xE1, 0xF0)} - {0xEE}
        parts = [raw[start:end] for marker, start, end in _segments(raw) if marker not in dropped]
        return _JPEG[:2] + b"".join(part for part in parts if part[1] not in (0xE0, 0xEE) or len(part) >= 16)
    if raw.startswith(_PNG):
        return _PNG + b"".join(_png_chunks(raw))
    return _tiff_without_texts(raw) if raw.startswith((b"II*\0", b"MM\0*")) else raw


def _tiff_without_texts(raw: bytes) -> bytes:
    """Their type becomes one that readers pass over: a damaged one hides all entries after it."""
    bare = bytearray(raw)
    with suppress(struct.error):
        for at, _, kind, _ in formats.tiff_entries(raw):
            bare[at + 2 : at + 4] = bytes(2) if kind == 2 else raw[at + 2 : at + 4]
    return bytes(bare)


def _segments(raw: bytes) -> Iterator[tuple[int, int, int]]:
    """A JPEG's segments: marker, begin and end; the first scan (0xDA) extends to the end of the file."""
    at = 2
    while raw[at : at + 1] == b"\xff" and at + 4 <= len(raw):
        marker, length = raw[at + 1], int.from_bytes(raw[at + 2 : at + 4], "big")
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        end = len(raw) if marker == 0xDA else at + 2 + length
        yield marker, at, end
        at = end


def _png_chunks(raw: bytes) -> Iterator[bytes]:
    at = len(_PNG)
    while at + 12 <= len(raw):
        end = at + 12 + int.from_bytes(raw[at : at + 4], "big")
        if raw[at + 4 : at + 8] in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            yield raw[at:end]
        at = end


# -- in a process of its own ---------------------------------------------------------------------------------------------


class Rows(NamedTuple):
    """Where an array of squares, (N, image_px, image_px, 3) uint8, begins in its .npy file."""

    path: Path
    offset: int  # bytes
    image_px: int


_reader: Reader | None = None  # one per process


def start_worker(path: Path, is_zip: bool, parent: int) -> None:
    """Open the source, and leave with the parent if it is killed."""
    global _reader
    keep_freed_memory()
    _reader = Reader(path, is_zip)
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


class Decoded(NamedTuple):
    """What became of some photos. digests: DIGEST_BYTES per photo, UNREAD where it could not be read."""

    photos: int
    failed: dict[str, str]  # path: reason
    digests: bytes


def decode_rows(target: Rows, start: int, paths: list[str]) -> Decoded:
    """Decode these photos into the rows from `start` on. Raises OSError where the disk is full.

    Written, not mapped: a fifth of the time (no page is faulted in), and a full disk is an error, not a signal.
    """
    failed, digests = {}, bytearray()
    with target.path.open("r+b") as file:
        for row, path in enumerate(paths, start):
            digest = UNREAD
            try:
                raw = _reader.read(path)
                digest = digest_of(raw)
                square = decode_square(raw, target.image_px, path).tobytes()
            except Exception as error:  # noqa: BLE001  Pillow's decoders raise many types; each is reported by file name
                failed[path] = str(error).split("\n")[0] or type(error).__name__
            else:
                file.seek(target.offset + row * len(square))
                file.write(square)
            digests += digest
    if resident_bytes() > KEPT_BYTES:  # after a huge photo
        trim()
    return Decoded(len(paths), failed, bytes(digests))
