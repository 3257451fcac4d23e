"""How a training was made, from its result.json: machine, versions, commit, photos."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from .records import Trial
from .values import load_json

MADE = (
    "compute",
    "versions",
    "revision",
    "source_digest",
    "generated",
    "photos_in_two_splits",
    "hyperparameters",
    "classes",
)
"""What is kept of a training's result.json: machine, versions, commit, digest of the photos, which generator made them (None
for photos, and where it is not recorded), how many photos two splits have in common, all that it used, classes."""


def best_result(best: Trial | None) -> dict[str, Any]:
    """The trial's result.json, an extra of our own trial: all else comes from the database; empty where there is none."""
    if best is None or best.folder is None:
        return {}
    try:
        result = load_json((best.folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return result if isinstance(result, dict) else {}


def made_of(result: dict[str, Any]) -> dict[str, Any]:
    """What a training's result.json says about its making, None where it does not: MADE, `cache` (the folder's name), and
    `images`, the numbers of training, validation and evaluation images."""
    splits = [result.get(split) for split in ("training", "validation", "evaluation")]
    return {
        **{key: result.get(key) for key in MADE},
        "cache": PurePath(str(result["cache"])).name if result.get("cache") else None,
        "images": [split.get("n") if isinstance(split, dict) else None for split in splits],
    }


def shared_photos(result: dict[str, Any]) -> list[str]:
    """From a training's result.json: what its accuracies are worth where splits have photos in common."""
    counts = result.get("photos_in_two_splits")
    notes = []
    for pair, n in counts.items() if isinstance(counts, dict) else ():
        one, _, other = str(pair).partition("/")
        photos = "1 photo is" if n == 1 else f"{n} photos are"
        notes.append(f"{photos} in both {one} and {other}: the {other} accuracy is too optimistic")
    return notes
