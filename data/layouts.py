"""What lies in a folder or a zip: the splits, their classes and files, in any of the layouts that people have.

1. flat: `training/3_17.jpg`, Food-11's class number before the underscore;
2. a folder a class, by name: `training/Noodles-Pasta/17.jpg`;
3. a folder a class, by number: `skewed_training/10/17.jpg`;
4. any other folder-a-class tree, its classes taken from the folder names.

A top folder around the splits is looked through. Class numbers are ordered as numbers: 2 before 10.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from data import food11
from data.errors import DataError

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
    files: dict[str, list[tuple[str, int]]]
    strays: list[str]  # in a flat split, names without a class number; in a class tree, files beside the folders


def read_layout(paths: Iterable[str], source: str) -> Layout:
    """Understand a tree from its relative file paths (posix, as in a zip). Raises DataError where it cannot."""
    by_split = _by_split(paths, source)
    flat = {name: all(len(parts) == 1 for parts in files) for name, files in by_split.items()}
    if all(flat.values()):
        return _flat_layout(by_split, source)
    return _folder_layout(by_split, source)


def is_junk(parts: tuple[str, ...]) -> bool:
    """What file managers and archivers leave behind, and anything hidden."""
    return any(part.startswith(".") or part.lower() in _JUNK for part in parts)


def _by_split(paths: Iterable[str], source: str) -> dict[str, dict[tuple[str, ...], str]]:
    """{source split: {path below the split folder, in parts: whole path}}."""
    found: dict[str, dict[tuple[str, ...], str]] = {}
    tops: dict[str, str] = {}
    for path in sorted(paths):
        parts = PurePosixPath(path).parts
        if is_junk(parts):
            continue
        # The split folder is the first part that names one; what is above it is a top folder.
        depth = next((i for i, part in enumerate(parts[:-1]) if part.lower() in _SPLIT_NAMES), None)
        if depth is None:
            continue
        split, top = _SPLIT_NAMES[parts[depth].lower()], "/".join(parts[: depth + 1])
        if tops.setdefault(split, top) != top:
            raise DataError(
                f"{source}: two folders for the {split} split, {tops[split]!r} and {top!r}; expected one. "
                "Name the folder that holds just one of them."
            )
        found.setdefault(split, {})[parts[depth + 1 :]] = path
    if not found:
        raise DataError(
            f"{source}: found no folder named training, validation or evaluation; expected Food-11 in one of its "
            "three layouts or a folder-a-class tree (see README, 'Your photos')."
        )
    return found


def _flat_layout(by_split: dict, source: str) -> Layout:
    files: dict[str, list[tuple[str, int]]] = {}
    strays: list[str] = []
    for split, entries in by_split.items():
        files[split] = []
        for parts, path in entries.items():
            match = _FLAT_NAME.match(parts[0])
            if match and int(match[1]) < len(food11.CLASSES):
                files[split].append((path, int(match[1])))
            else:
                strays.append(path)
    if not any(files.values()):
        raise DataError(
            f"{source}: the files of {next(iter(by_split))!r} lie without class folders and without Food-11's class "
            f"number before an underscore; expected names like 3_17.jpg, found {PurePosixPath(strays[0]).name!r}."
        )
    return Layout("flat", True, food11.CLASSES, files, strays)


def _folder_layout(by_split: dict, source: str) -> Layout:
    folders = {parts[0] for entries in by_split.values() for parts in entries if len(parts) > 1}
    kind, is_food11, classes, id_of = _classes_of_folders(folders, source)
    files: dict[str, list[tuple[str, int]]] = {}
    strays: list[str] = []
    for split, entries in by_split.items():
        files[split] = [(path, id_of[parts[0]]) for parts, path in entries.items() if len(parts) > 1]
        strays += [path for parts, path in entries.items() if len(parts) == 1]
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
