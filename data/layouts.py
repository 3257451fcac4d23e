"""What lies in a folder or a zip: the splits, their classes and files, in any of the layouts that people have.

1. flat: `training/3_17.jpg`, Food-11's class number before the underscore;
2. a folder a class, by name: `training/Noodles-Pasta/17.jpg`;
3. a folder a class, by number: `skewed_training/10/17.jpg`;
4. any other folder-a-class tree, its classes taken from the folder names.

A top folder around the splits is looked through. Class numbers are ordered as numbers: 2 before 10.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from data import food11
from data.errors import DataError
from data.names import Photos

SPLITS = ("training", "validation", "evaluation")  # what the cache holds, whatever the source calls them

_SPLIT_NAMES = {
    "training": "training",
    "train": "training",
    "skewed_training": "skewed_training",
    "skewed training": "skewed_training",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "evaluation": "evaluation",
    "test": "evaluation",
    "eval": "evaluation",
}
_JUNK = {"thumbs.db", "desktop.ini", "__macosx"}
_FLAT_NAME = re.compile(r"^(\d+)_.+\.\w+$")


@dataclass(frozen=True)
class Layout:
    """A source tree, understood. `files` maps a source split to (path in the source, class id) pairs, sorted."""

    kind: str  # "flat", "named", "numbered" or "folders"
    is_food11: bool
    classes: tuple[str, ...]
    files: dict[str, Photos]
    strays: list[str]  # in a flat split, names without a class number; in a class tree, files beside the folders


def read_layout(paths: Iterable[str], source: str) -> Layout:
    """Understand a tree from its relative file paths (posix, as in a zip). Raises DataError where it cannot."""
    by_split = _by_split(paths, source)
    if all(len(below) == 1 for split in by_split.values() for _, below in split):
        return _flat_layout(by_split, source)
    return _folder_layout(by_split, source)


def parts_of(path: str) -> tuple[str, ...]:
    """The folders and the name. Not pathlib's: Python would keep each of many names in a table of its own."""
    return tuple(part for part in path.split("/") if part not in ("", "."))


def is_junk(parts: tuple[str, ...]) -> bool:
    """What file managers and archivers leave behind, and anything hidden."""
    return any(part.startswith(".") or part.lower() in _JUNK for part in parts)


class _Split:
    """The paths below one split folder."""

    def __init__(self, top: tuple[str, ...]) -> None:
        self.top = top
        self.paths: list[str] = []

    def __iter__(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Whole path, and what is below the split folder in parts."""
        return ((path, parts_of(path)[len(self.top) :]) for path in self.paths)


def _by_split(paths: Iterable[str], source: str) -> dict[str, _Split]:
    """What each source split holds, sorted."""
    found: dict[str, _Split] = {}
    for path in sorted(paths):
        parts = parts_of(path)
        if is_junk(parts):
            continue
        # The split folder is the first part that names one; what is above it is a top folder.
        depth = next((i for i, part in enumerate(parts[:-1]) if part.lower() in _SPLIT_NAMES), None)
        if depth is None:
            continue
        name, top = _SPLIT_NAMES[parts[depth].lower()], parts[: depth + 1]
        split = found.setdefault(name, _Split(top))
        if split.top != top:
            raise DataError(
                f"{source}: two folders for the {name} split, {'/'.join(split.top)!r} and {'/'.join(top)!r}; expected "
                "one. Name the folder that holds just one of them."
            )
        split.paths.append(path)
    if not found:
        raise DataError(
            f"{source}: found no folder named training, validation or evaluation; expected Food-11 in one of its "
            "three layouts or a folder-a-class tree (see README, 'Your photos')."
        )
    return found


def _flat_layout(by_split: dict[str, _Split], source: str) -> Layout:
    files: dict[str, Photos] = {}
    strays: list[str] = []
    for name, split in by_split.items():
        numbers = {path: _class_number(below[0]) for path, below in split}
        files[name] = Photos((path, number) for path, number in numbers.items() if number is not None)
        strays += [path for path, number in numbers.items() if number is None]
    if not any(files.values()):
        raise DataError(
            f"{source}: the files of {next(iter(by_split))!r} lie without class folders and without Food-11's class "
            f"number before an underscore; expected names like 3_17.jpg, found {PurePosixPath(strays[0]).name!r}."
        )
    return Layout("flat", True, food11.CLASSES, files, strays)


def _class_number(name: str) -> int | None:
    match = _FLAT_NAME.match(name)
    return int(match[1]) if match and int(match[1]) < len(food11.CLASSES) else None


def _folder_layout(by_split: dict[str, _Split], source: str) -> Layout:
    folders = {below[0] for split in by_split.values() for _, below in split if len(below) > 1}
    kind, is_food11, classes, id_of = _classes_of_folders(folders, source)
    files = {
        name: Photos((path, id_of[below[0]]) for path, below in split if len(below) > 1)
        for name, split in by_split.items()
    }
    strays = [path for split in by_split.values() for path, below in split if len(below) == 1]
    return Layout(kind, is_food11, classes, files, strays)


def _classes_of_folders(folders: set[str], source: str) -> tuple[str, bool, tuple[str, ...], dict[str, int]]:
    """Kind, whether these are Food-11's classes, class names by id, and the id of each folder."""
    if all(folder.isdigit() for folder in folders):
        numbers = sorted(folders, key=int)
        if [int(number) for number in numbers] == list(range(len(food11.CLASSES))):
            return "numbered", True, food11.CLASSES, {number: int(number) for number in numbers}
        return "folders", False, tuple(numbers), {number: i for i, number in enumerate(numbers)}
    known = {folder: food11.class_id_of(folder) for folder in folders}
    if all(class_id is not None for class_id in known.values()):
        if len(set(known.values())) != len(known):
            raise DataError(f"{source}: two folders name the same Food-11 class: {', '.join(sorted(folders))}.")
        return "named", True, food11.CLASSES, known
    names = sorted(folders)
    return "folders", False, tuple(names), {name: i for i, name in enumerate(names)}
