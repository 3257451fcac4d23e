"""Splits that are derived: the lab's skewed training split from the full one, and all three from a tree without any.

Both rank the files of a class by a hash of their names: the same choice on every machine, and in every order of the files.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath

from data import food11
from data.errors import DataError
from data.layouts import SPLITS, Layout
from data.names import Photos, parts_of


def skew_like_the_lab(files: Iterable[tuple[str, int]]) -> Photos:
    """Keep food11.SKEWED[c] files of each class c, the same ones on every machine.

    files: (path, class id) pairs of the full training split. Files are ranked by the SHA-256 of their name without the
    flat layout's class number, so the choice is the same in every layout. Raises DataError where a class has too few.
    """
    by_class = _by_class(files)
    kept = []
    for class_id, wanted in enumerate(food11.SKEWED):
        paths = by_class.get(class_id, [])
        if len(paths) < wanted:
            raise DataError(
                f"--skew lab keeps {wanted} training images of class {class_id} ({food11.CLASSES[class_id]}), found "
                f"{len(paths)}; expected Food-11's full training split. Leave --skew away to use what is there."
            )
        ranked = sorted(paths, key=lambda path, prefix=f"{class_id}_": _sha256(_name(path).removeprefix(prefix)))
        kept += [(path, class_id) for path in ranked[:wanted]]
    return Photos(sorted(kept))


def divide(layout: Layout, percentages: str, seed: int) -> dict[str, Photos]:
    """Training, validation and evaluation out of a tree with one split or without any, each class in the same proportions.

    percentages: such as "70,15,15". The files of a class are ranked by the SHA-256 of the seed and their path below the
    class folder, so that one more photo moves at most one other per class and split. Every class gets at least one in each
    split. Raises DataError where a class has fewer than three.
    """
    (photos,) = layout.files.values()
    by_class = _by_class(photos)
    if small := [f"{len(paths)} of {layout.classes[c]}" for c, paths in sorted(by_class.items()) if len(paths) < 3]:
        raise DataError(
            f"--split puts at least one photo of each class into each of {len(SPLITS)} splits, found only "
            f"{', '.join(small[:10])}{', ...' if len(small) > 10 else ''}; add photos or remove these folders."
        )
    parts: dict[str, list[tuple[str, int]]] = {split: [] for split in SPLITS}
    for class_id, paths in by_class.items():
        ranked = sorted(paths, key=lambda path: (_sha256(f"{seed}\0{_below(path, layout.depth)}"), path))
        start = 0
        for split, count in zip(SPLITS, _counts(len(ranked), percentages), strict=True):
            parts[split] += [(path, class_id) for path in ranked[start : start + count]]
            start += count
    return {split: Photos(sorted(pairs)) for split, pairs in parts.items()}


def _counts(n: int, percentages: str) -> tuple[int, int, int]:
    """Of n >= 3 photos of a class: each split's share, rounded, and at least one; the rest is for training."""
    _, *others = map(float, percentages.split(","))
    validation, evaluation = (max(1, int(n * share / 100 + 0.5)) for share in others)
    while validation + evaluation >= n:  # rounding up both leaves nothing to train on
        validation, evaluation = (validation - (validation >= evaluation), evaluation - (validation < evaluation))
    return n - validation - evaluation, validation, evaluation


def _by_class(files: Iterable[tuple[str, int]]) -> dict[int, list[str]]:
    by_class: dict[int, list[str]] = {}
    for path, class_id in files:
        by_class.setdefault(class_id, []).append(path)
    return by_class


def _name(path: str) -> str:
    return PurePosixPath(path).name


def _below(path: str, depth: int) -> str:
    """In composed characters: a folder that came from a Mac is divided as elsewhere."""
    return unicodedata.normalize("NFC", "/".join(parts_of(path)[depth:]))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
