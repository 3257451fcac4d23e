"""What the network sees: the counts of a cache, and a contact sheet of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data import DataError, food11
from data.cache import Cache
from data.layouts import SPLITS
from data.terminal import columns_of, padded, printable

COLUMNS = 5  # images per class and split
LABEL_PX = 132
_NAME_COLUMNS = 60  # of a table; file systems allow names of 255


def counts_table(manifest: dict) -> str:
    """Images per class and split, Food-11's official counts beside them where the classes are Food-11's."""
    official = manifest["is_food11"]
    train_name = "skewed_training" if manifest["skew"] == "lab" else manifest["train_split"]
    columns = [("training", train_name), ("validation", "validation"), ("evaluation", "evaluation")]
    header = ["id", "class"]
    for split, source in columns:
        header += [split] + ([f"of {sum(food11.OFFICIAL[source])}"] if official else [])
    rows = [header]
    for class_id, name in enumerate(manifest["classes"]):
        row = [str(class_id), printable(name)[:_NAME_COLUMNS]]
        for split, source in columns:
            row.append(str(manifest["counts"][split][class_id]))
            row += [str(food11.OFFICIAL[source][class_id])] if official else []
        rows.append(row)
    totals = ["", "total"]
    for split, source in columns:
        totals.append(str(sum(manifest["counts"][split])))
        totals += [str(sum(food11.OFFICIAL[source]))] if official else []
    rows.append(totals)
    widths = [max(columns_of(row[i]) for row in rows) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            padded(cell, width) if i == 1 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))
        )
        for row in rows
    )


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
