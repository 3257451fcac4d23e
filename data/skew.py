"""The lab's skewed training split, derived from the full one: a fixed choice of the lab's counts a class."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import PurePosixPath

from data import food11
from data.errors import DataError
from data.names import Photos


def skew_like_the_lab(files: Iterable[tuple[str, int]]) -> Photos:
    """Keep food11.SKEWED[c] files of each class c, the same ones on every machine.

    files: (path, class id) pairs of the full training split. Files are ranked by the SHA-256 of their name without the
    flat layout's class number, so the choice is the same in every layout. Raises DataError where a class has too few.
    """
    by_class: dict[int, list[str]] = {class_id: [] for class_id in range(len(food11.CLASSES))}
    for path, class_id in files:
        by_class[class_id].append(path)
    kept = []
    for class_id, wanted in enumerate(food11.SKEWED):
        paths = by_class[class_id]
        if len(paths) < wanted:
            raise DataError(
                f"--skew lab keeps {wanted} training images of class {class_id} ({food11.CLASSES[class_id]}), found "
                f"{len(paths)}; expected Food-11's full training split. Leave --skew away to use what is there."
            )
        ranked = sorted(paths, key=lambda path, prefix=f"{class_id}_": _rank(path, prefix))
        kept += [(path, class_id) for path in ranked[:wanted]]
    return Photos(sorted(kept))


def _rank(path: str, prefix: str) -> str:
    name = PurePosixPath(path).name.removeprefix(prefix)
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
