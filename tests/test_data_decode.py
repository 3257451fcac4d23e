"""Whatever a camera or a web page left on the disk becomes the RGB square that a person would see."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import PATIENCE_S, ROOT
from fixtures_data import encode, noise_jpeg
from PIL import Image, UnidentifiedImageError

from data import formats
from data.decode import TooLargeError, decode_image, decode_square, to_rgb

WITHIN_JPEG = 6  # JPEG (and WebP) rounds colours by a few steps of 255


def decode_flat(raw: bytes) -> list[int]:
    """The one colour of a picture that has one."""
    pixels = decode_image(raw, 16)
    assert pixels.shape == (16, 16, 3) and pixels.dtype == np.uint8
    assert np.ptp(pixels.reshape(-1, 3), axis=0).max() <= WITHIN_JPEG
    return pixels[8, 8].tolist()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_a_colour_picture_keeps_its_colour(kind):
    assert decode_flat(encode(Image.new("RGB", (20, 20), (200, 100, 50)), kind)) == pytest.approx(
        [200, 100, 50], abs=WITHIN_JPEG
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grey_becomes_three_equal_channels(kind):
    assert decode_flat(encode(Image.new("L", (20, 20), 77), kind)) == pytest.approx([77] * 3, abs=2)


def test_cmyk_is_ink_not_light():
    raw = encode(Image.new("CMYK", (20, 20), (0, 255, 255, 0)), quality=95)  # magenta and yellow ink: red
    assert decode_flat(raw) == pytest.approx([255, 0, 0], abs=WITHIN_JPEG)


def test_transparency_goes_onto_white():
    assert decode_flat(encode(Image.new("RGBA", (20, 20), (255, 0, 0, 0)), "PNG")) == [255, 255, 255]
    assert decode_flat(encode(Image.new("RGBA", (20, 20), (255, 0, 0, 128)), "PNG")) == pytest.approx(
        [255, 127, 127], abs=1
    )
    assert decode_flat(encode(Image.new("LA", (20, 20), (0, 51)), "PNG")) == pytest.approx([204] * 3, abs=1)


def test_a_palette_with_a_transparent_entry():
    image = Image.new("P", (20, 20), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    image.paste(0, (0, 0, 10, 20))
    pixels = decode_image(encode(image, "PNG", transparency=0), 20)
    assert (pixels[:, :8] == 255).all() and (pixels[:, 12:] == (10, 200, 30)).all()


@pytest.mark.parametrize("value, expected", [(0, 0), (300, 1), (32768, 128), (64000, 249), (65535, 255)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(kind, value, expected):
    assert decode_flat(encode(Image.fromarray(np.full((20, 20), value, np.uint16)), kind)) == [expected] * 3


CORNERS = {"top left": (4, 4), "top right": (4, 27), "bottom left": (27, 4), "bottom right": (27, 27)}


@pytest.mark.parametrize(
    "orientation, red, green",
    [
        (1, "top left", "top right"),
        (2, "top right", "top left"),
        (3, "bottom right", "bottom left"),
        (4, "bottom left", "bottom right"),
        (5, "top left", "bottom left"),
        (6, "top right", "bottom right"),
        (7, "bottom right", "top right"),
        (8, "bottom left", "top left"),
    ],
)
def test_exif_orientation_turns_the_picture_upright(orientation, red, green):
    stored = Image.new("RGB", (32, 32), "blue")
    stored.paste("red", (0, 0, 16, 16))
    stored.paste("lime", (16, 0, 32, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = decode_image(encode(stored, exif=exif, quality=95), 32)
    expected = dict.fromkeys(CORNERS, (0, 0, 255)) | {red: (255, 0, 0), green: (0, 255, 0)}
    for corner, (row, column) in CORNERS.items():
        assert pixels[row, column].tolist() == pytest.approx(expected[corner], abs=25), corner


@pytest.mark.parametrize("turn", [False, True])
def test_the_middle_square_is_cut_from_a_long_picture(turn):
    image = Image.new("RGB", (60, 20), "lime")
    image.paste("red", (0, 0, 20, 20))
    image.paste("blue", (40, 0, 60, 20))
    raw = encode(image.transpose(Image.Transpose.ROTATE_90) if turn else image, "PNG")
    assert (decode_image(raw, 20) == (0, 255, 0)).all()


def test_a_small_picture_is_scaled_up():
    assert decode_flat(encode(Image.new("RGB", (5, 7), (9, 99, 199)), "PNG")) == [9, 99, 199]


def test_a_large_jpeg_decoded_at_a_fraction_keeps_its_detail():
    detail = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    raw = encode(Image.fromarray(detail).resize((512, 512), Image.Resampling.BICUBIC), quality=95)
    whole = Image.open(io.BytesIO(raw)).resize((100, 100), Image.Resampling.BICUBIC)
    assert np.abs(decode_image(raw, 100).astype(int) - np.asarray(whole)).mean() < 8  # from one too small: 25


@pytest.mark.parametrize("raw", [b"", b"not a picture", noise_jpeg(1)[:-200], noise_jpeg(1)[:40]])
def test_a_broken_file_raises(raw):
    with pytest.raises(OSError):
        decode_image(raw, 16)


@pytest.mark.parametrize("size", [(16, 16), (21, 16), (16, 19)])
def test_a_photo_of_the_right_size_is_cut_and_not_blurred(size):
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    left, top = (size[0] - 16) // 2, (size[1] - 16) // 2
    pixels = decode_image(encode(Image.fromarray(noise), "PNG"), 16)
    assert np.array_equal(pixels, noise[top : top + 16, left : left + 16])


def exif(*entries: tuple[int, int, int, bytes], entry_count: int | None = None, start: int = 8) -> bytes:
    """An APP1 payload by hand, little-endian: (tag, type, count, the four bytes of its value or offset) of one IFD."""
    ifd = b"".join(struct.pack("<HHL4s", *entry) for entry in entries)
    count = len(entries) if entry_count is None else entry_count
    return b"Exif\0\0II*\0" + struct.pack("<LH", start, count) + ifd + bytes(4)


def with_segment(raw: bytes, marker: int, payload: bytes) -> bytes:
    """A JPEG with one more segment at its beginning."""
    return raw[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload + raw[2:]


UPSIDE_DOWN = (0x0112, 3, 1, struct.pack("<HH", 3, 0))
SHORT, LONG, TEXT, RATIONAL, UNDEFINED = 3, 4, 2, 5, 7
DAMAGED_EXIF = {
    "an offset behind the end": exif((0x010F, TEXT, 20, struct.pack("<L", 9_999_999))),
    "four billion characters": exif((0x010F, TEXT, 0xFFFFFFFF, struct.pack("<L", 8)), UPSIDE_DOWN),
    "a billion orientations": exif((0x0112, SHORT, 0x40000000, struct.pack("<L", 3))),
    "orientation 0": exif((0x0112, SHORT, 1, bytes(4))),
    "orientation 9": exif((0x0112, SHORT, 1, b"\x09\0\0\0")),
    "orientation as a text": exif((0x0112, TEXT, 2, b"3\0\0\0")),
    "orientation as bytes": exif((0x0112, UNDEFINED, 4, b"\3\0\0\0")),
    "orientation as a broken fraction": exif((0x0112, RATIONAL, 1, struct.pack("<L", 8))),
    "a directory behind the end": exif(start=77_777),
    "a directory in the header": exif(UPSIDE_DOWN, start=0),
    "more entries than bytes": exif((0x0112, SHORT, 1, bytes(4)), entry_count=65_535),
    "a resolution of nothing": exif((0x011A, RATIONAL, 1, struct.pack("<L", 8)), (0x0128, SHORT, 1, b"\2\0\0\0")),
    "an unknown byte order": b"Exif\0\0XX*\0\x08\0\0\0\1\0",
    "mixed byte orders": b"Exif\0\0MM*\0\x08\0\0\0\1\0",
    "a header alone": b"Exif\0\0II*\0\x08\0\0\0",
    "nothing": b"Exif\0\0",
}


@pytest.mark.parametrize("payload", DAMAGED_EXIF.values(), ids=DAMAGED_EXIF)
def test_damaged_exif_leaves_a_photo_as_it_is_stored(payload):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    raw = encode(image, quality=95)
    np.testing.assert_array_equal(decode_image(with_segment(raw, 0xE1, payload), 16), decode_image(raw, 16))
    for kind, options in {"PNG": {}, "WEBP": {"lossless": True}}.items():
        stored = encode(image, kind, exif=payload, **options)
        np.testing.assert_array_equal(decode_image(stored, 16), decode_image(encode(image, "PNG"), 16))


def test_what_else_is_damaged_in_exif_does_not_hide_the_orientation():
    raw, broken_ifd = noise_jpeg(3), (0x8769, LONG, 1, struct.pack("<L", 77_777))
    turned = decode_image(with_segment(raw, 0xE1, exif(UPSIDE_DOWN, broken_ifd)), 24)
    np.testing.assert_array_equal(turned, decode_image(raw, 24)[::-1, ::-1])


MPF = b"MPF\0II*\0\x08\0\0\0"
DAMAGED_SEGMENTS = {
    "XMP": (0xE1, b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Orientation="9" \xff'),
    "a profile without a number": (0xE2, b"ICC_PROFILE\0"),
    "several pictures, cut": (0xE2, MPF + struct.pack("<H", 2) + struct.pack("<HHL4s", 0xB001, LONG, 1, b"\3\0\0\0")),
    "several pictures, no list": (
        0xE2,
        MPF
        + struct.pack("<H", 2)
        + struct.pack("<HHL4s", 0xB001, LONG, 1, b"\3\0\0\0")
        + struct.pack("<HHL4s", 0xB002, UNDEFINED, 4, b"abcd")
        + bytes(4),
    ),
    "JFIF, cut": (0xE0, b"JFIF\0\1"),
    "Adobe's, cut": (0xEE, b"Adobe"),
    "Photoshop's, cut": (0xED, b"Photoshop 3.0\x008BIM\x03\xed"),
}


@pytest.mark.parametrize("marker, payload", DAMAGED_SEGMENTS.values(), ids=DAMAGED_SEGMENTS)
def test_other_damaged_metadata_refuses_no_jpeg(marker, payload):
    raw = noise_jpeg(4)
    np.testing.assert_array_equal(decode_image(with_segment(raw, marker, payload), 24), decode_image(raw, 24))


def test_the_pixels_of_a_jpeg_with_damaged_metadata_are_still_required():
    with pytest.raises(OSError, match="truncated"):
        decode_image(with_segment(noise_jpeg(4)[:-200], 0xEE, b"Adobe"), 24)


def chunk(kind: bytes, content: bytes, checksum: int | None = None) -> bytes:
    return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", checksum or zlib.crc32(kind + content))


@pytest.mark.parametrize(
    "damaged",
    [
        chunk(b"eXIf", b"II*\0\x08\0\0\0", checksum=1),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(5_000_000))),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n 5\nzzzz")),
        chunk(b"pHYs", b"1"),
        chunk(b"acTL", bytes(8)),
    ],
)
@pytest.mark.parametrize("place", [33, -12])  # behind the header, before the end
def test_damaged_metadata_refuses_no_png(damaged, place):
    raw = encode(Image.open(io.BytesIO(noise_jpeg(5))), "PNG")
    np.testing.assert_array_equal(decode_image(raw[:place] + damaged + raw[place:], 24), decode_image(raw, 24))


@pytest.mark.parametrize("field, value", [(8, 9_999_999), (4, 0x7FFFFFFF)], ids=["offset", "count"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_damaged_text_refuses_no_tiff(compression, field, value):
    """The camera's maker: all that Pillow needs comes after it."""
    raw = bytearray(
        encode(Image.new("RGB", (20, 20), (9, 99, 199)), "TIFF", tiffinfo={271: "a maker"}, compression=compression)
    )
    at = next(at for at, tag, _, _ in formats.tiff_entries(raw) if tag == 271)
    struct.pack_into("<L", raw, at + field, value)
    assert decode_flat(bytes(raw)) == [9, 99, 199]


def with_size(raw: bytes, width: int, height: int, marker: bytes) -> bytes:
    """A JPEG whose frame header, of that marker, says another size."""
    at = raw.index(marker) + 5
    return raw[:at] + struct.pack(">HH", height, width) + raw[at + 4 :]


def interleaved_by_none(raw: bytes) -> bytes:
    """A JPEG whose first scan announces one of its three components."""
    at = raw.index(b"\xff\xda\x00\x0c\x03") + 4
    return raw[:at] + b"\1" + raw[at + 1 :]


BASELINE, PROGRESSIVE = b"\xff\xc0", b"\xff\xc2"


@pytest.mark.parametrize(
    "raw",
    [
        encode(Image.new("1", (20_000, 20_001)), "PNG"),  # 50 kB
        with_size(encode(Image.new("RGB", (16, 16)), progressive=True), 30_000, 20_000, PROGRESSIVE),
        with_size(encode(Image.new("RGB", (16, 16)), progressive=True, subsampling=0), 20_000, 15_000, PROGRESSIVE),
        with_size(interleaved_by_none(encode(Image.new("RGB", (16, 16)))), 30_000, 20_000, BASELINE),
    ],
    ids=["PNG", "progressive", "progressive, no subsampling", "scan by scan"],
)
def test_a_bomb_is_refused_with_its_size_and_what_to_do(raw):
    with pytest.raises(TooLargeError, match=r"^\d00 megapixels \(\d+ x \d+\), too many .* scale it down or save it as"):
        decode_image(raw, 256)


PANORAMA = """
import io, pathlib, sys
from PIL import Image
from data import decode
def peak():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))
folder = pathlib.Path(sys.argv[1])
target = decode.Rows(folder / "rows", 0, 256)
target.path.write_bytes(b"")
decode._reader = decode.Reader(folder, False)
decode.keep_freed_memory()
decode.KEPT_BYTES = 2**26
before = peak()
print(decode.decode_rows(target, 0, [sys.argv[2]])[1], peak() - before, decode.resident_bytes() // 2**20)
print(list(target.path.read_bytes()[: 3]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory from /proc")
@pytest.mark.parametrize(
    "height, options, most_mib",
    [(10_000, {}, 100), (4_000, {"progressive": True}, 200)],
    ids=["baseline", "progressive"],
)
def test_a_panorama_is_used_within_bounded_memory(tmp_path, height, options, most_mib):
    """200 megapixels; 80 of a progressive one, for 2 bytes a pixel (libjpeg's coefficients, grey). It is given back."""
    name = "panorama.jpg"
    Image.new("L", (20_000, height), 77).save(tmp_path / name, **options)
    command = [sys.executable, "-c", PANORAMA, str(tmp_path), name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    figures, pixel = done.stdout.splitlines()
    failed, peak_mib, kept_mib = figures.split()
    assert (failed, pixel, done.stderr) == ("{}", "[77, 77, 77]", "")
    assert int(peak_mib) < most_mib and int(kept_mib) < 100


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "I;16", "CMYK"])
def test_a_tall_picture_is_converted_strip_by_strip_to_the_same_pixels(mode):
    noise = np.random.default_rng(0).integers(0, 256, (600, 3, 4), dtype=np.uint8)
    image = Image.fromarray(noise).convert("L" if mode == "I;16" else mode)
    image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257) if mode == "I;16" else image
    parts = [to_rgb(image.crop((0, top, 3, top + 200))) for top in (0, 200, 400)]
    np.testing.assert_array_equal(np.asarray(to_rgb(image)), np.concatenate([np.asarray(part) for part in parts]))


def ftyp(major: bytes, *compatible: bytes) -> bytes:
    brands = b"".join(compatible)
    return struct.pack(">L4s4sL", 16 + len(brands), b"ftyp", major, 0) + brands + bytes(64)


def tiff(order: str, *entries: tuple[int, int, int]) -> bytes:
    """A TIFF's header and first directory: (tag, type, value)."""
    ends = {SHORT: "H2x", LONG: "L"}
    fields = [struct.pack(f"{order}HHL{ends[kind]}", tag, kind, 1, value) for tag, kind, value in entries]
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(f"{order}LH", 8, len(fields)) + b"".join(fields) + bytes(4)


DNG = [tiff(order, (0xFE, LONG, 1), (0x112, SHORT, 1), (0xC612, LONG, 0x0401)) for order in "<>"]
NEEDS_PACKAGE = [
    ("IMG_0001.HEIC", ftyp(b"heic", b"mif1", b"heic"), "HEIC photo: pip install pillow-heif"),
    ("sent.jpg", ftyp(b"heic", b"mif1", b"heic"), "HEIC photo: pip install pillow-heif"),
    ("burst.heif", ftyp(b"mif1", b"mif1", b"heic", b"hevc"), "HEIC photo: pip install pillow-heif"),
    ("a.jxl", b"\xff\x0a" + bytes(50), "JPEG XL photo: pip install pillow-jxl-plugin"),
    ("a.png", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50), "JPEG XL photo: pip install pillow-jxl-plugin"),
    ("a.cr3", ftyp(b"crx ", b"crx ", b"isom"), "camera raw file: pip install rawpy"),
    ("a.raf", b"FUJIFILMCCD-RAW 0201" + bytes(80), "camera raw file: pip install rawpy"),
    ("a.orf", b"IIRO\x08\0\0\0" + bytes(80), "camera raw file: pip install rawpy"),
    ("a.rw2", b"IIU\0\x18\0\0\0" + bytes(80), "camera raw file: pip install rawpy"),
    ("a.cr2", b"II*\0\x10\0\0\0CR\2\0" + bytes(80), "camera raw file: pip install rawpy"),
    ("a.dng", DNG[0], "camera raw file: pip install rawpy"),
    ("renamed.tif", DNG[1], "camera raw file: pip install rawpy"),
    ("sensor.tif", tiff("<", (0xFE, LONG, 0), (0x106, SHORT, 32803)), "camera raw file: pip install rawpy"),
    ("a.tif", tiff(">", (0xFE, LONG, 1), (0x14A, LONG, 99)), "camera raw file: pip install rawpy"),
    (
        "P1.NEF",
        encode(Image.new("RGB", (160, 120)), "TIFF"),
        "camera raw file: pip install rawpy",
    ),  # never its thumbnail
]


@pytest.mark.parametrize("name, raw, words", NEEDS_PACKAGE)
def test_a_photo_that_a_package_reads_is_named_with_it_by_its_content(monkeypatch, name, raw, words):
    for codec in (formats.HEIC, formats.JXL, formats.RAW):
        monkeypatch.setitem(sys.modules, codec.module, None)  # as where it is not installed
    with pytest.raises(ImportError) as error:
        decode_square(raw, 16, name)
    assert str(error.value) == f"{words}, or save it as JPEG"


def test_an_ordinary_tiff_is_no_raw_file():
    assert decode_flat(encode(Image.new("RGB", (20, 20), (9, 99, 199)), "TIFF")) == [9, 99, 199]


@pytest.fixture
def without_heif():
    """Pillow's list of formats is put back."""
    yield
    Image.OPEN.pop("HEIF", None)
    Image.ID[:] = [name for name in Image.ID if name != "HEIF"]


def test_where_the_plugin_is_installed_the_photo_is_read(monkeypatch, without_heif):
    """pillow_heif's own entry: `register_heif_opener` gives Pillow the format HEIF."""

    def register_heif_opener():
        Image.register_open(
            "HEIF", lambda fp, name: Image.new("RGB", (20, 20), "lime"), lambda prefix: prefix[4:12] == b"ftypheic"
        )

    monkeypatch.setitem(sys.modules, "pillow_heif", SimpleNamespace(register_heif_opener=register_heif_opener))
    assert decode_flat(ftyp(b"heic", b"mif1", b"heic")) == [0, 255, 0]


class Developed:
    """What rawpy.imread returns, as far as it is used."""

    def __init__(self, width, height):
        self.sizes = SimpleNamespace(width=width, height=height)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def postprocess(self, use_camera_wb, half_size):
        assert use_camera_wb
        scale = 2 if half_size else 1
        return np.full((self.sizes.height // scale, self.sizes.width // scale, 3), (1, 2, 3), np.uint8)


def test_where_rawpy_is_installed_a_raw_file_is_developed(monkeypatch):
    rawpy = SimpleNamespace(LibRawError=type("LibRawError", (Exception,), {}), imread=lambda file: Developed(60, 40))
    monkeypatch.setitem(sys.modules, "rawpy", rawpy)
    assert decode_flat(DNG[0]) == [1, 2, 3]  # at half its size
    assert decode_square(DNG[0], 40).getpixel((20, 20)) == (1, 2, 3)
    rawpy.imread = lambda file: Developed(30_000, 20_000)
    with pytest.raises(TooLargeError, match="600 megapixels"):
        decode_square(DNG[0], 15_000)

    def fail(file):
        raise rawpy.LibRawError(b"Unsupported file format or not RAW file")

    rawpy.imread = fail
    with pytest.raises(UnidentifiedImageError, match="camera raw file that rawpy cannot read .*Unsupported"):
        decode_square(DNG[0], 16)


@pytest.mark.parametrize(
    "raw, words",
    [
        (b"", "not an image: empty file"),
        (bytes(5000), "not an image: zero bytes alone"),
        (b"two eggs", "not an image: text"),
        ("süß".encode() * 2000, "not an image: text"),  # a letter is cut where the beginning ends
        (b"\xef\xbb\xbf\n<!DOCTYPE HTML>\n<html>404", "not an image: HTML page"),
        (b"<!-- saved -->\n<html><svg/></html>", "not an image: HTML page"),
        (b'<?xml version="1.0"?><!-- a drawing --><svg xmlns="x">', "not an image: SVG drawing (save it as PNG)"),
        (b'<?xml version="1.0"?><plist/>', "not an image: XML text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "not an image: Git LFS pointer"),
        (b"%PDF-1.7\n%\xe2\xe3", "not an image: PDF document"),
        (encode(Image.new("RGB", (16, 16)), "EPS"), "not an image: PostScript drawing"),  # Ghostscript would run it
        (ftyp(b"mp42", b"isom"), "not an image: video"),
        (ftyp(b"qt  "), "not an image: video"),
        (b"\x1aE\xdf\xa3" + bytes(9), "not an image: video"),
        (b"PK\x03\x04" + bytes(9), "not an image: archive"),
        (b"\0\x05\x16\x07\0\2\0\0Mac OS X", "not an image: note of macOS"),
        (b"\x93\x01\xfe" * 9, "not an image: of no known kind"),
        (noise_jpeg(1)[:40], "damaged JPEG"),
        (b"\x89PNG\r\n\x1a\n" + bytes(9), "damaged PNG"),
        (encode(Image.new("RGB", (16, 16)), "WEBP")[:20], "damaged WebP"),
        (encode(Image.new("RGB", (16, 16)), "AVIF")[:60], "damaged AVIF photo"),
    ],
)
def test_a_file_that_is_no_photo_is_named_by_what_it_is(raw, words):
    with pytest.raises(UnidentifiedImageError) as error:
        decode_image(raw, 16)
    assert str(error.value).startswith(words)
