"""What a tree of paths holds: the splits, their classes and files, in any of the layouts that people have.

1. flat: `training/3_17.jpg`, Food-11's class number before the underscore;
2. a folder per class, by name: `training/Noodles-Pasta/17.jpg`;
3. a folder per class, by number: `skewed_training/10/17.jpg`;
4. any other folder-per-class tree, its classes taken from the folder names;
5. one of these without split folders: `apple_pie/17.jpg`, to be divided by `prepare --split`.

Folders around all of it are searched. Class numbers are ordered as numbers: 2 before 10.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from data import DataError, food11, printable

SPLITS = ("training", "validation", "evaluation")  # what the cache holds, whatever the source calls them
WHOLE = "whole"  # the one split of a tree without split folders

_SPLIT_NAMES = {
    "training": re.compile(r"train(ing)?|trn"),
    "skewed_training": re.compile(r"skewed train(ing)?"),
    "validation": re.compile(r"val|valid|validate|validation|dev|development"),
    "evaluation": re.compile(r"eval|evaluate|evaluation|test|testing|tst|hold ?out"),
}
_TEST = re.compile(r"te?st|hold")
_SPLIT_SUFFIX = re.compile(r" ?(set|split|data|images|imgs|photos|pictures)$")
_FLAT_NAME = re.compile(r"^(\d+)_.+\.\w+$")

Folder = tuple[str, ...]  # the names from the source's top down
Photo = tuple[str, int]  # path in the source, class id


@dataclass(frozen=True)
class Layout:
    """What a source tree holds. `files`: the photos of each source split, sorted by path."""

    kind: str  # "flat", "named", "numbered" or "folders"
    is_food11: bool
    classes: tuple[str, ...]
    files: dict[str, list[Photo]]
    strays: list[str]  # in a flat split, names without a class number; in a class tree, files beside the folders
    unused: dict[str, int] = field(default_factory=dict)  # images in each folder (or file) that belongs to no split
    merged: list[list[str]] = field(default_factory=list)  # class folders that are one class by `_class_key`
    depth: int = 0  # of a single split: how many folders are above what a path says besides split and class


def read_layout(paths: Iterable[str], source: str) -> Layout:
    """Understand a tree from its relative file paths (posix, as in a zip). Raises DataError where it cannot."""
    paths = sorted(paths)
    folders = Counter(parts_of(path)[:-1] for path in paths)
    tops = _split_folders(folders, source)
    if not tops or _are_classes(tops, folders, paths):
        tops = {_class_root(folders): WHOLE}
    by_split, unused = _by_split(paths, tops)
    if all(len(below) == 1 for split in by_split.values() for _, below in split):
        return _flat_layout(by_split, unused, source)
    return _folder_layout(by_split, unused, source)


def parts_of(path: str) -> Folder:
    """The folders and the name. Not pathlib's: Python would keep each of many names in a table of its own."""
    return tuple(part for part in path.split("/") if part not in ("", ".", ".."))


def class_name(folders: Iterable[str]) -> str:
    """The printable name of the class that these folders hold, in composed characters (NFC): the first of them that needs
    no escape, or the first."""
    names = [printable(unicodedata.normalize("NFC", folder).strip()) or ascii(folder) for folder in folders]
    return min(names, key=lambda name: "\\" in name)


def _class_key(folder: str) -> str:
    """Equal for folders that a person considers the same class: Unicode form, case, width, spaces, `_` and characters
    without a shape aside."""
    text = "".join(c for c in folder if unicodedata.category(c) != "Cf")
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(re.split(r"[\s_\x00-\x1f\x7f]+", text)).strip() or folder


def split_of(folder: str) -> str | None:
    """The split that a folder of this name holds: `train`, `Training`, `test_set`, `val-images`, ..."""
    name = _class_key(folder).replace("-", " ")
    name = _SPLIT_SUFFIX.sub("", name) or name
    return next((split for split, pattern in _SPLIT_NAMES.items() if pattern.fullmatch(name)), None)


class _Split:
    """The paths below one split folder."""

    def __init__(self, top: Folder) -> None:
        self.top = top
        self.paths: list[str] = []

    def __iter__(self) -> Iterator[tuple[str, Folder]]:
        """Whole path, and what is below the split folder in parts."""
        return ((path, parts_of(path)[len(self.top) :]) for path in self.paths)


def _split_folders(folders: Iterable[Folder], source: str) -> dict[Folder, str]:
    """Each split's folder. Raises DataError where two hold the same split."""
    start = _around(folders)
    tops: dict[Folder, str] = {}
    for folder in folders:
        # The split folder is the first part that names one; what is above it is a folder around it.
        depth = next((i for i, part in enumerate(folder) if i >= start and split_of(part)), None)
        if depth is not None:
            tops[folder[: depth + 1]] = split_of(folder[depth])
    tops = tops or _with_words_in_common(folders)
    _tell_eval_from_test(tops)
    for top, name in tops.items():
        if twin := next((other for other, split in tops.items() if split == name and other != top), None):
            raise DataError(
                f"{source}: two folders for the {name} split, {'/'.join(top)!r} and {'/'.join(twin)!r}; expected "
                "one, with the class folders in it. Name the folder that holds just one of them."
            )
    return {_innermost(top, folders): name for top, name in tops.items()}


def _with_words_in_common(folders: Iterable[Folder]) -> dict[Folder, str]:
    """`seg_train` and `seg_test`: side by side, the first or last word names a split and all others are the same."""
    families: dict[tuple, dict[Folder, str]] = {}
    for folder in sorted({whole[: depth + 1] for whole in folders for depth in range(len(whole))}):
        words = _class_key(folder[-1]).replace("-", " ").split()
        for at, rest in ((0, words[1:]), (-1, words[:-1])):
            if rest and (split := split_of(words[at])):
                families.setdefault((folder[:-1], at, *rest), {})[folder] = split
    return next((family for _, family in sorted(families.items()) if len(set(family.values())) > 1), {})


def _tell_eval_from_test(tops: dict[Folder, str]) -> None:
    """Where there are both and no `val`, `eval` is the validation split."""
    evaluations = {top: bool(_TEST.match(_class_key(top[-1]))) for top, name in tops.items() if name == "evaluation"}
    if "validation" not in tops.values() and sorted(evaluations.values()) == [False, True]:
        tops[min(evaluations, key=evaluations.get)] = "validation"


def _around(folders: Iterable[Folder]) -> int:
    """How many folders are around all splits. Such a one is no split, whatever its name."""
    depth = 0
    while len({folder[depth] for folder in folders if len(folder) > depth}) == 1:
        inside = {split_of(folder[depth + 1]) for folder in folders if len(folder) > depth + 1}
        if not inside or (None in inside and len(inside) < 3):  # one split among others is a class of that name
            break
        depth += 1
    return depth


def _innermost(top: Folder, folders: Iterable[Folder]) -> Folder:
    """Down to `training_set/training_set`, as some archives are packed: the class folders are below that."""
    below = {folder[len(top) : len(top) + 1] for folder in folders if folder[: len(top)] == top}
    child = below.pop()
    if below or not child:
        return top
    same = _class_key(child[0]) == _class_key(top[-1]) or split_of(child[0]) == split_of(top[-1]) is not None
    return _innermost(top + child, folders) if same else top


def _are_classes(tops: dict[Folder, str], folders: Iterable[Folder], paths: Iterable[str]) -> bool:
    """Whether these only look like splits: classes called `train` and `test` among others, with photos right in them."""
    beside = [f for f in folders if not _top_of(f, tops) and any(len(f) == len(top) for top in tops)]
    if len(beside) < max(2, len(tops)) or any(len(f) > len(top) for f in folders if (top := _top_of(f, tops))):
        return False
    return not any(_class_number(parts[-1]) is not None for parts in map(parts_of, paths) if _top_of(parts[:-1], tops))


def _top_of(folder: Folder, tops: Iterable[Folder]) -> Folder | None:
    return next((top for top in tops if folder[: len(top)] == top), None)


def _class_root(folders: Iterable[Folder]) -> Folder:
    """Of a tree without split folders: the folder that holds the class folders."""
    inside, depth = [folder for folder in folders if folder], 0
    while len({folder[: depth + 1] for folder in inside}) == 1 and any(len(folder) > depth + 1 for folder in inside):
        depth += 1
    return inside[0][:depth] if inside else ()


def _by_split(paths: Iterable[str], tops: dict[Folder, str]) -> tuple[dict[str, _Split], dict[str, int]]:
    """What each source split holds, sorted; and how many images are elsewhere, by folder."""
    splits = {name: _Split(top) for top, name in tops.items()}
    unused: Counter[str] = Counter()
    for path in paths:
        parts = parts_of(path)
        top = _top_of(parts[:-1], tops)
        if top is None:
            around = max(len(os.path.commonprefix([parts[:-1], other])) for other in tops)
            unused["/".join(parts[: around + 1])] += 1
        else:
            splits[tops[top]].paths.append(path)
    return splits, dict(unused)


def _flat_layout(by_split: dict[str, _Split], unused: dict[str, int], source: str) -> Layout:
    files: dict[str, list[Photo]] = {}
    strays: list[str] = []
    for name, split in by_split.items():
        numbers = {path: _class_number(below[0]) for path, below in split}
        files[name] = [(path, number) for path, number in numbers.items() if number is not None]
        strays += [path for path, number in numbers.items() if number is None]
    if not any(files.values()):
        folder = "/".join(next(iter(by_split.values())).top)
        raise DataError(
            f"{source}: the files {f'of {folder!r} ' if folder else ''}have neither class folders nor Food-11's class "
            f"number before an underscore; expected names like 3_17.jpg or pho/17.jpg, found "
            f"{parts_of(strays[0])[-1]!r} and {len(strays) - 1} more. Move each class into a folder of its name."
        )
    return Layout("flat", True, food11.CLASSES, files, strays, unused, depth=_depth(by_split, 0))


def _class_number(name: str) -> int | None:
    match = _FLAT_NAME.match(name)
    return int(match[1]) if match and int(match[1]) < len(food11.CLASSES) else None


def _folder_layout(by_split: dict[str, _Split], unused: dict[str, int], source: str) -> Layout:
    sizes = Counter(below[0] for split in by_split.values() for _, below in split if len(below) > 1)
    folders = sorted(
        sizes, key=lambda name: (-sizes[name], name)
    )  # a class takes the name that most of its photos have
    kind, is_food11, classes, id_of = _classes_of_folders(folders)
    files = {
        name: [(path, id_of[below[0]]) for path, below in split if len(below) > 1] for name, split in by_split.items()
    }
    strays = [path for split in by_split.values() for path, below in split if len(below) == 1]
    by_id: dict[int, list[str]] = {}
    for folder in folders:
        by_id.setdefault(id_of[folder], []).append(folder)
    merged = [same for same in by_id.values() if len(same) > 1]
    return Layout(kind, is_food11, classes, files, strays, unused, merged, _depth(by_split, 1))


def _depth(by_split: dict[str, _Split], class_folders: int) -> int:
    return len(next(iter(by_split.values())).top) + class_folders if len(by_split) == 1 else 0


def _classes_of_folders(folders: list[str]) -> tuple[str, bool, tuple[str, ...], dict[str, int]]:
    """Kind, whether these are Food-11's classes, class names by id, and the id of each folder."""
    keys: dict[str, list[str]] = {}
    for folder in folders:
        keys.setdefault(_class_key(folder), []).append(folder)
    if all(key.isdecimal() for key in keys):
        numbers = sorted({int(key) for key in keys})
        if numbers == list(range(len(food11.CLASSES))):
            return "numbered", True, food11.CLASSES, {folder: int(folder) for folder in folders}
        names = [class_name([f for key in keys if int(key) == number for f in keys[key]]) for number in numbers]
        return "folders", False, tuple(names), {folder: numbers.index(int(_class_key(folder))) for folder in folders}
    official_ids = {folder: food11.class_id_of(_class_key(folder)) for folder in folders}
    if all(class_id is not None for class_id in official_ids.values()):
        return "named", True, food11.CLASSES, official_ids
    names = {key: class_name(same) for key, same in keys.items()}
    ordered = sorted(keys, key=lambda key: names[key])
    ids = {folder: i for i, key in enumerate(ordered) for folder in keys[key]}
    return "folders", False, tuple(names[key] for key in ordered), ids
