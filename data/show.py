"""What the network sees: the counts of a cache, and a contact sheet of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data import DataError, columns_of, food11, padded, printable
from data.cache import Cache
from data.layouts import SPLITS

COLUMNS = 5  # images per class and split
LABEL_PX = 132
_NAME_COLUMNS = 60  # of a table; file systems allow names of 255


def counts_table(manifest: dict) -> str:
    """Images per class and split, Food-11's official counts beside them where the classes are Food-11's."""
    training_split = "skewed_training" if manifest["skew"] == "lab" else manifest["train_split"]
    columns = [["id", *map(str, range(len(manifest["classes"]))), ""]]
    columns.append(["class", *(printable(name)[:_NAME_COLUMNS] for name in manifest["classes"]), "total"])
    for split, source in (("training", training_split), ("validation", "validation"), ("evaluation", "evaluation")):
        counts = manifest["counts"][split]
        columns.append([split, *map(str, counts), str(sum(counts))])
        if manifest["is_food11"]:
            official = food11.OFFICIAL[source]
            columns.append([f"of {sum(official)}", *map(str, official), str(sum(official))])
    widths = [max(map(columns_of, column)) for column in columns]
    lines = []
    for number, name, *counts in zip(*columns, strict=True):
        cells = [cell.rjust(width) for cell, width in zip(counts, widths[2:], strict=True)]
        lines.append("  ".join([number.rjust(widths[0]), padded(name, widths[1]), *cells]))
    return "\n".join(lines)


def contact_sheet(cache: Cache, tile_px: int = 72) -> Image.Image:
    """A row per class: COLUMNS images of each split side by side, spread over the files from first to last."""
    gap = tile_px // 6
    width = LABEL_PX + len(SPLITS) * (COLUMNS * tile_px + gap)
    sheet = Image.new("RGB", (width, 24 + len(cache.classes) * (tile_px + 2)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for s, name in enumerate(SPLITS):
        left = LABEL_PX + s * (COLUMNS * tile_px + gap)
        split = cache.split(name)
        draw.text((left, 5), f"{name} (n = {len(split.labels)})", "black", font)
        for class_id in range(len(cache.classes)):
            rows = np.flatnonzero(split.labels == class_id)
            top = 24 + class_id * (tile_px + 2)
            if s == 0:
                draw.text((6, top + tile_px // 2 - 8), printable(cache.classes[class_id])[:20], "black", font)
            for column, pick in enumerate(
                np.unique(np.linspace(0, len(rows) - 1, COLUMNS).astype(int)) if len(rows) else ()
            ):
                tile = Image.fromarray(split.images[rows[pick]]).resize((tile_px, tile_px))
                sheet.paste(tile, (left + column * tile_px, top))
    return sheet


def save_contact_sheet(cache: Cache, target: Path) -> None:
    """Write the contact sheet as a PNG. Raises DataError where it cannot be written."""
    sheet = contact_sheet(cache)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(target)
    except (OSError, ValueError) as error:  # ValueError: an ending that names no image format
        raise DataError(f"{target}: could not write the contact sheet ({error}); name a .png with --out.") from error
