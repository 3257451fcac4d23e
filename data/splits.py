"""Which photos each split of the cache gets, and notes about the others.

Splits that are derived (--skew, --split) rank the files of a class by a hash of their names: the same choice on every
machine, and in every order of the files.
"""

from __future__ import annotations

import hashlib
import shlex
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from data import DataError, food11, printable
from data.cache import rebuild_command
from data.layouts import SPLITS, WHOLE, Layout, Photo, class_name, parts_of, read_layout, split_of
from data.source import ARCHIVE, Source


@dataclass(frozen=True)
class Settings:
    """What decides a cache's content, besides its source."""

    image_px: int = 256
    train_split: str = "auto"  # auto: the skewed split where the source has one, else the full one
    skew: str = "none"  # "lab": derive the skewed split from the full one
    skip_unreadable: bool = False
    split: str = ""  # percentages such as "70,15,15": divide a tree that has no split folders
    split_seed: int = 0


def understand(source: Source, name: str) -> Layout:
    """`read_layout` of a source. Raises DataError where it holds no photos."""
    if not source.files:
        packed = [other for other in source.others if ARCHIVE.search(other)]
        give = " Unpack the archives, each into a folder of its name." if packed else ""
        if len(packed) == 1:
            give = " Give it the archive: " + shlex.join(["python", "-m", "data", "prepare", f"{name}/{packed[0]}"])
        raise DataError(f"{name}: holds no photos; {'; '.join(_left_out(source)) or 'it is empty'}.{give}")
    return read_layout(source.files, name)


@dataclass(frozen=True)
class _Plan:
    """The photos of each split of the cache, and which source split trains."""

    photos: dict[str, list[Photo]]
    train_split: str


def plan_splits(layout: Layout, settings: Settings, source: str, cache: Path) -> _Plan:
    """Which photos go where. source and cache are for messages: the source as the person gave it, and the cache's folder.

    Raises DataError where a split has no images or settings do not fit the source.
    """
    if len(layout.classes) < 2 and (WHOLE in layout.files or settings.split):
        raise DataError(f"{source}: only one class, {layout.classes[0]}; name the folder that holds the class folders.")
    if WHOLE in layout.files and not settings.split:
        raise _undivided(layout, source, cache, settings)
    if settings.split:
        return _Plan(_divided(layout, settings, source), "training")
    available = [name for name in ("skewed_training", "training") if layout.files.get(name)]
    train_split = settings.train_split
    if train_split == "auto":
        train_split = "training" if settings.skew == "lab" else (available or ["training"])[0]
    missing = [name for name in (train_split, "validation", "evaluation") if not layout.files.get(name)]
    if missing:
        raise _missing(layout, missing, source)
    photos = {"training": layout.files[train_split], **{split: layout.files[split] for split in SPLITS[1:]}}
    if settings.skew == "lab":
        if not layout.is_food11 or train_split != "training":
            raise DataError(
                f"{source}: --skew lab needs Food-11's full training split, found {train_split} of "
                f"{len(layout.classes)} classes ({', '.join(layout.classes[:3])}, ...). Remove --skew."
            )
        photos["training"] = skew_like_the_lab(photos["training"])
    training_classes = {class_id for _, class_id in photos["training"]}
    for split in SPLITS[1:]:
        if unseen := sorted({class_id for _, class_id in photos[split]} - training_classes):
            names = ", ".join(layout.classes[class_id] for class_id in unseen)
            raise DataError(f"{source}: {split} has images of {names}, but {train_split} has none to learn from.")
    return _Plan(photos, train_split)


def _divided(layout: Layout, settings: Settings, source: str) -> dict[str, list[Photo]]:
    if len(layout.files) > 1:
        raise DataError(
            f"{source}: --split divides one folder of photos, found several splits: {_found(layout)}. Remove --split, or "
            "name one of these folders as SOURCE."
        )
    if settings.skew == "lab" or settings.train_split == "skewed_training":
        raise DataError(
            f"{source}: --split makes a training split of its own; --skew lab and --train-split skewed_training need one of "
            "Food-11's. Remove them, or remove --split."
        )
    return divide(layout, settings.split, settings.split_seed)


def _missing(layout: Layout, missing: list[str], source: str) -> DataError:
    strays = f"; {len(layout.strays)} files have no class, such as {layout.strays[0]}" if layout.strays else ""
    name = max(layout.files, key=lambda name: (len(layout.files[name]), name == "training"))
    command = shlex.join(["python", "-m", "data", "prepare", _folder_of(layout, name, source), "--split", "70,15,15"])
    return DataError(
        f"{source}: no images for {' and '.join(missing)}; found {_found(layout)}{strays}. Put a folder for each missing "
        f"split beside the others, such as validation/CLASS/1.jpg, or divide the photos of one: {command}"
    )


def _folder_of(layout: Layout, split: str, source: str) -> str:
    """The folder of a split, where the source is one; the source itself, where it has no other."""
    if len(layout.files) == 1:
        return source
    parts = parts_of(layout.files[split][0][0]) if layout.files[split] and Path(source).is_dir() else ()
    depth = next((i for i, part in enumerate(parts, 1) if split_of(part) == split), 0)
    return str(Path(source, *parts[:depth])) if depth else "FOLDER"


def _found(layout: Layout) -> str:
    splits = ", ".join(f"{name} ({len(files)})" for name, files in layout.files.items())
    return splits + (f"; unused {_counted(layout.unused)}" if layout.unused else "")


def _undivided(layout: Layout, source: str, cache: Path, settings: Settings) -> DataError:
    manifest = {**asdict(settings), "source": source, "skipped": settings.skip_unreadable, "split": "70,15,15"}
    names = f"{', '.join(layout.classes[:5])}{', ...' if len(layout.classes) > 5 else ''}"
    return DataError(
        f"{source}: no folder named training, validation or evaluation; found {len(layout.files[WHOLE])} images of "
        f"{len(layout.classes)} classes ({names}). Divide them with: {rebuild_command(cache, manifest)}"
    )


def skew_like_the_lab(files: Iterable[Photo]) -> list[Photo]:
    """Keep food11.SKEWED[c] files of each class c, the same ones on every machine.

    files: of the full training split. They are ranked by the SHA-256 of their name without the
    flat layout's class number, so the choice is the same in every layout. Raises DataError where a class has too few.
    """
    by_class = _by_class(files)
    selection = []
    for class_id, wanted in enumerate(food11.SKEWED):
        paths = by_class.get(class_id, [])
        if len(paths) < wanted:
            raise DataError(
                f"--skew lab keeps {wanted} training images of class {class_id} ({food11.CLASSES[class_id]}), found "
                f"{len(paths)}; expected Food-11's full training split. Remove --skew to use the photos as they are."
            )
        ranked = sorted(
            paths, key=lambda path, prefix=f"{class_id}_": _sha256(PurePosixPath(path).name.removeprefix(prefix))
        )
        selection += [(path, class_id) for path in ranked[:wanted]]
    return sorted(selection)


def divide(layout: Layout, percentages: str, seed: int) -> dict[str, list[Photo]]:
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
    parts: dict[str, list[Photo]] = {split: [] for split in SPLITS}
    for class_id, paths in by_class.items():
        ranked = sorted(paths, key=lambda path: (_sha256(f"{seed}\0{_below(path, layout.depth)}"), path))
        start = 0
        for split, count in zip(SPLITS, _counts(len(ranked), percentages), strict=True):
            parts[split] += [(path, class_id) for path in ranked[start : start + count]]
            start += count
    return {split: sorted(photos) for split, photos in parts.items()}


def _counts(n: int, percentages: str) -> tuple[int, int, int]:
    """Of n >= 3 photos of a class: each split's share, rounded, and at least one; the rest is for training."""
    _, *others = map(float, percentages.split(","))
    validation, evaluation = (max(1, int(n * share / 100 + 0.5)) for share in others)
    while validation + evaluation >= n:  # rounding up both leaves nothing to train on
        validation, evaluation = (validation - (validation >= evaluation), evaluation - (validation < evaluation))
    return n - validation - evaluation, validation, evaluation


def _by_class(files: Iterable[Photo]) -> dict[int, list[str]]:
    by_class: dict[int, list[str]] = {}
    for path, class_id in files:
        by_class.setdefault(class_id, []).append(path)
    return by_class


def _below(path: str, depth: int) -> str:
    """In composed characters: a folder that came from a Mac is divided as elsewhere."""
    return unicodedata.normalize("NFC", "/".join(parts_of(path)[depth:]))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def notes_on(source: Source, layout: Layout, train_split: str) -> dict[str, list[str]]:
    """{"notes": lines for the person}, if there are any: what was left out, and which folders are one class."""
    notes = _left_out(source)
    if other := [split for split in layout.files if split.endswith("training") and split != train_split]:
        notes.append(f"not used, as {train_split} trains: {other[0]} ({len(layout.files[other[0]])})")
    if layout.unused:
        notes.append(f"not used, as they belong to no split: {_counted(layout.unused)}")
    if source.is_zip and any("\u2310" <= c <= "\u25a0" for name in layout.classes for c in name):  # as cp437 has
        notes.append(
            "the zip's names are in an old code page: unpack it with that, as unzip -O GBK does, and give the folder"
        )
    for folders in layout.merged:
        look_alike = len({unicodedata.normalize("NFC", folder) for folder in folders}) < len(folders)
        names = [ascii(folder) if look_alike else f"'{printable(folder)}'" for folder in folders]
        notes.append(f"one class, {class_name(folders)}, for the folders {', '.join(names)}")
    return {"notes": notes} if notes else {}


def _left_out(source: Source) -> list[str]:
    kinds = (("hidden or system files and folders", source.hidden), ("files that are no photos", source.others))
    return [f"left out, {what}: {len(names)} ({_by_folder(names)})" for what, names in kinds if len(names)]


def _by_folder(names: Iterable[str]) -> str:
    """The first name of each folder, and how many more are there."""
    folders: dict[str, list[str]] = {}
    for name in names:
        folders.setdefault(name.rstrip("/").rpartition("/")[0], []).append(printable(name))
    examples = [first + (f" and {len(more)} beside it" if more else "") for first, *more in folders.values()]
    return ", ".join(examples[:8]) + (", ..." if len(examples) > 8 else "")


def _counted(unused: dict[str, int]) -> str:
    examples = [f"{printable(name)} ({n})" for name, n in list(unused.items())[:10]]
    return ", ".join(examples) + (", ..." if len(unused) > 10 else "")
