"""What a file is by its content, whatever its name says, and which package reads what Pillow alone does not."""

from __future__ import annotations

import importlib
import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from types import ModuleType
from typing import NamedTuple

from PIL import features


class Codec(NamedTuple):
    """A format of photos that a package beside Pillow reads."""

    name: str
    package: str  # for pip
    module: str


HEIC = Codec("HEIC photo", "pillow-heif", "pillow_heif")
AVIF = Codec("AVIF photo", "pillow-avif-plugin", "pillow_avif")  # Pillow reads it itself from 11.3 on
JXL = Codec("JPEG XL photo", "pillow-jxl-plugin", "pillow_jxl")
RAW = Codec("camera raw file", "rawpy", "rawpy")

_BRANDS = {  # of the `ftyp` box that begins an ISO media file (ISO/IEC 14496-12, 23008-12)
    AVIF: {b"avif", b"avis"},
    HEIC: {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1"},
    RAW: {b"crx "},
}
_JXL_STARTS = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
_RAW_STARTS = rb"FUJIFILMCCD-RAW|FOVb|\0MRM|II\x1a\0\0\0HEAPCCDR|II(R[OS]|U\0)|MMOR|(II\*\0|MM\0\*).{4}CR"
_RAW_NAME = r".*\.(3fr|arw|cr2|dcr|dng|erf|fff|gpr|iiq|k25|kdc|mef|mos|nef|nrw|pef|raw|rwl|sr2|srf|srw)"
_STARTS = {  # the first that fits names the file
    "Git LFS pointer (fetch the photo: git lfs pull)": rb"version https://git-lfs",
    "PDF document": rb"%PDF-",
    "PostScript drawing": rb"%!PS|\xc5\xd0\xd3\xc6",
    "Photoshop document": rb"8BPS",
    "GIMP document": rb"gimp xcf",
    "video": rb"....(ftyp|moov|mdat|wide)|\x1aE\xdf\xa3|RIFF....AVI |\0\0\x01[\xb3\xba]|FLV\x01|\x30\x26\xb2\x75",
    "sound": rb"ID3|RIFF....WAVE|fLaC|OggS",
    "archive (unpack it)": rb"PK\x03\x04|Rar!|7z\xbc\xaf|\x1f\x8b|BZh|\xfd7zXZ",
    "note of macOS beside a file (AppleDouble)": rb"\0\x05\x16\x07",
    "damaged JPEG": rb"\xff\xd8",
    "damaged PNG": rb"\x89PNG",
    "damaged GIF": rb"GIF8[79]a",
    "damaged WebP": rb"RIFF....WEBP",
    "damaged TIFF": rb"(II|MM)(\*\0|\0\*|\+\0|\0\+)",
}
_MARKUP = {"HTML page": ("<!doctype html", "<html", "<head", "<body"), "SVG drawing (save it as PNG)": ("<svg",)}
_BYTES_READ = 4096  # of the beginning: enough for the comments above an <svg>


def codec_of(raw: bytes, name: str = "") -> Codec | None:
    """Who reads this photo, where it is in a format that Pillow does not read by itself; None for all others.

    Half of all cameras' raw files are TIFFs whose first picture, which Pillow reads, is a thumbnail.
    """
    if raw[4:8] == b"ftyp":
        brands = _brands(raw)
        return next((codec for codec, own in _BRANDS.items() if brands & own), None)
    if raw.startswith(_JXL_STARTS):
        return JXL
    if re.match(_RAW_STARTS, raw, re.DOTALL):
        return RAW
    is_tiff = raw.startswith((b"II*\0", b"MM\0*"))
    return RAW if is_tiff and (re.fullmatch(_RAW_NAME, name.lower(), re.DOTALL) or _is_raw_tiff(raw)) else None


def _brands(raw: bytes) -> set[bytes]:
    """The major brand where it is specific, otherwise the compatible ones too."""
    major, end = raw[8:12], min(int.from_bytes(raw[:4], "big"), _BYTES_READ)
    return {major, *(raw[at : at + 4] for at in range(16, end, 4))} if major in (b"mif1", b"msf1") else {major}


def _is_raw_tiff(raw: bytes) -> bool:
    """By the first directory: DNG's version, a sensor's own pixels, or a reduced picture beside which others are."""
    try:
        tags = {tag: value for _, tag, _, value in tiff_entries(raw)}
    except struct.error:  # damaged: Pillow reports how
        return False
    # DNGVersion; PhotometricInterpretation: colour filter array, linear raw; NewSubfileType with SubIFDs
    return 0xC612 in tags or tags.get(0x106) in (32803, 34892) or (tags.get(0xFE) == 1 and 0x14A in tags)


def tiff_entries(raw: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Where each entry of the first directory begins, its tag, type, and first value or offset. Raises struct.error."""
    order = "<" if raw[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}L", raw, 4)
    (entries,) = struct.unpack_from(f"{order}H", raw, start)
    for at in range(start + 2, start + 2 + 12 * entries, 12):
        tag, kind, _ = struct.unpack_from(f"{order}HHL", raw, at)
        (value,) = struct.unpack_from(order + ("H" if kind == 3 else "L"), raw, at + 8)
        yield at, tag, kind, value


def load_module(codec: Codec) -> ModuleType | None:
    """The codec's module, known to Pillow from here on; None where Pillow reads the format by itself.

    Raises ImportError with the command that installs it.
    """
    if codec is AVIF and features.check("avif"):
        return None
    try:
        module = importlib.import_module(codec.module)
    except ImportError as error:
        broken = "" if isinstance(error, ModuleNotFoundError) else f" ({error})"
        raise ImportError(f"{codec.name}: pip install {codec.package}{broken}, or save it as JPEG") from None
    if codec is HEIC:
        module.register_heif_opener()
    return module


def can_read_now(reasons: Iterable[str]) -> bool:
    """Whether a package that was missing, as `load_module` reported in one of these reasons, has been installed since."""
    for codec in (HEIC, AVIF, JXL, RAW):
        if any(f"pip install {codec.package}" in reason for reason in reasons):
            with suppress(ImportError):
                load_module(codec)
                return True
    return False


def describe(raw: bytes, name: str = "") -> str:
    """What a file that is no readable photo is, in words."""
    if codec := codec_of(raw, name):
        return f"damaged {codec.name}"
    start = raw[:_BYTES_READ].removeprefix(b"\xef\xbb\xbf")
    if not raw.strip(b"\0"):
        return f"not an image: {'zero bytes alone' if raw else 'empty file'}"
    kind = next((words for words, magic in _STARTS.items() if re.match(magic, start, re.DOTALL)), _kind_of_text(start))
    return kind if kind.startswith("damaged") else f"not an image: {kind}"


def _kind_of_text(start: bytes) -> str:
    text = start.decode("utf-8", "replace").removesuffix("\ufffd").strip().lower()  # its last character may be cut
    if "\ufffd" in text or not all(character.isprintable() or character.isspace() for character in text):
        return "of no known kind"
    if text.startswith("<"):
        return next((kind for kind, tags in _MARKUP.items() if any(tag in text for tag in tags)), "XML text")
    return "text"
