"""Whatever a camera or a web page left on the disk becomes the RGB square that a person would see."""

from __future__ import annotations

import io

import numpy as np
import pytest
from fixtures_data import encode, noise_jpeg
from PIL import Image

from data.decode import decode_image

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
    found = decode_image(encode(Image.fromarray(noise), "PNG"), 16)
    assert np.array_equal(found, noise[top : top + 16, left : left + 16])
