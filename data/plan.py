"""Which photos each split of the cache gets, and what a person is to know about the others."""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from data.cache import rebuild_command
from data.errors import DataError
from data.layouts import WHOLE, Layout, read_layout, split_of
from data.left_out import ARCHIVE
from data.names import Photos, class_name, parts_of, printable
from data.skew import divide, skew_like_the_lab
from data.source import Source


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
    if not len(source.files):
        packed = [other for other in source.others if ARCHIVE.search(other)]
        give = " Unpack the archives, each into a folder of its name." if packed else ""
        if len(packed) == 1:
            give = " Give it the archive: " + shlex.join(["python", "-m", "data", "prepare", f"{name}/{packed[0]}"])
        raise DataError(f"{name}: holds no photos; {'; '.join(_left_out(source)) or 'it is empty'}.{give}")
    return read_layout(source.files, name)


def plan_splits(layout: Layout, settings: Settings, names: tuple[str, Path]) -> tuple[dict[str, Photos], str]:
    """The files of each split of the cache, and which source split trains.

    names: the source as the person gave it, and the cache's folder, for messages. Raises DataError where a split has no
    images or settings do not fit what is there.
    """
    source, cache = names
    if len(layout.classes) < 2 and (WHOLE in layout.files or settings.split):
        raise DataError(
            f"{source}: one class alone, {layout.classes[0]}; name the folder that holds the class folders."
        )
    if WHOLE in layout.files and not settings.split:
        raise _undivided(layout, source, cache, settings)
    if settings.split:
        return _divided(layout, settings, source), "training"
    available = [name for name in ("skewed_training", "training") if layout.files.get(name)]
    train_split = settings.train_split
    if train_split == "auto":
        train_split = "training" if settings.skew == "lab" else (available or ["training"])[0]
    missing = [name for name in (train_split, "validation", "evaluation") if not layout.files.get(name)]
    if missing:
        raise _missing(layout, missing, source)
    training = layout.files[train_split]
    if settings.skew == "lab":
        if not layout.is_food11 or train_split != "training":
            raise DataError(
                f"{source}: --skew lab needs Food-11's full training split, found {train_split} of "
                f"{len(layout.classes)} classes ({', '.join(layout.classes[:3])}, ...). Leave --skew away."
            )
        training = skew_like_the_lab(training)
    plan = {"training": training, "validation": layout.files["validation"], "evaluation": layout.files["evaluation"]}
    trained = set(training.class_ids)
    for split in ("validation", "evaluation"):
        if unseen := sorted(set(plan[split].class_ids) - trained):
            names = ", ".join(layout.classes[class_id] for class_id in unseen)
            raise DataError(f"{source}: {split} has images of {names}, but {train_split} has none to learn from.")
    return plan, train_split


def _divided(layout: Layout, settings: Settings, source: str) -> dict[str, Photos]:
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
    parts = parts_of(layout.files[split].paths[0]) if layout.files[split] and Path(source).is_dir() else ()
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
    shown = [first + (f" and {len(more)} beside it" if more else "") for first, *more in folders.values()]
    return ", ".join(shown[:8]) + (", ..." if len(shown) > 8 else "")


def _counted(unused: dict[str, int]) -> str:
    shown = [f"{printable(name)} ({n})" for name, n in list(unused.items())[:10]]
    return ", ".join(shown) + (", ..." if len(unused) > 10 else "")
