"""One photo as found in the wild -> one square of uint8."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

if TYPE_CHECKING:  # a decoding process does without it: data/rows.py
    import numpy as np


def decode_image(raw: bytes, image_px: int) -> np.ndarray:
    """`decode_square` as (image_px, image_px, 3) uint8."""
    import numpy as np

    return np.asarray(decode_square(raw, image_px))


def decode_square(raw: bytes, image_px: int) -> Image.Image:
    """Decode, turn upright (EXIF), convert to RGB, scale the short side to `image_px` and cut the middle square.

    Raises whatever Pillow's decoders raise on a broken file: many types.
    """
    with Image.open(io.BytesIO(raw)) as image:
        # A JPEG decodes at 1/2, 1/4 or 1/8 of its size where that still covers the square: faster, same pixels wanted.
        image.draft(None, (image_px, image_px))
        image.load()
        ImageOps.exif_transpose(image, in_place=True)  # else it copies what stands upright already
        upright = to_rgb(image)
    width, height = upright.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2  # whole pixels: nothing is blurred where nothing is scaled
    if side == image_px:
        return upright.crop((left, top, left + side, top + side))
    return upright.resize((image_px, image_px), Image.Resampling.BICUBIC, (left, top, left + side, top + side))


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB: 16-bit greys are scaled (not clipped), transparency goes onto white."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # 16-bit grey; convert("RGB") would clip every value above 255 to white
        import numpy as np

        grey = np.asarray(image, dtype=np.float64) / 257.0
        return Image.fromarray(grey.clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")
