"""The photos that a cache was made of, by content: which have really changed since, and which are in two splits.

photos.npz in the cache has the names of the source's files, those decoded first and in their order, and for each how to
recognise a change: a stamp, which needs no reading, and a digest of its bytes.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from pathlib import Path, PurePosixPath
from typing import IO
from zipfile import BadZipFile

import numpy as np

from data.layouts import SPLITS, Photo
from data.source import DIGEST_BYTES, UNREAD, Reader, Source, digest_of

FILE = "photos.npz"


@dataclass(frozen=True)
class _Contents:
    """What is known of a source's files."""

    names: list[str]  # (N,) relative paths
    sizes: tuple[int, ...]  # files of each split, the U first of all; the others were not decoded
    stamps: np.ndarray  # (N,) uint32
    digests: np.ndarray  # (U, DIGEST_BYTES) uint8; zeros where it could not be read
    source_digest: str  # of the listing that the stamps are of

    @property
    def used(self) -> int:
        return sum(self.sizes)


@dataclass(frozen=True)
class _Changes:
    """Names of files that have changed; `unread` cannot be read now."""

    changed: list[str]
    added: list[str]
    removed: list[str]
    unread: list[str]
    lost_split: str | None  # all of its photos are removed and none was added: its disk is probably not mounted

    def __str__(self) -> str:
        parts = {"changed": self.changed, "added": self.added, "removed": self.removed}
        return "; ".join(f"{len(names)} {what}: {listed(names)}" for what, names in parts.items() if names)


def contents_of(source: Source, plan: dict[str, list[Photo]], digests: np.ndarray) -> _Contents:
    """digests: (U, DIGEST_BYTES) uint8, of the plan's photos in its order."""
    places = np.fromiter((bisect_left(source.files, path) for path in _paths(plan)), np.int64)
    unused = np.ones(len(source.files), bool)
    unused[places] = False
    order = np.concatenate([places, np.flatnonzero(unused)])
    names, sizes = [source.files[i] for i in order], tuple(len(plan[split]) for split in SPLITS)
    return _Contents(names, sizes, np.array(source.stamps, np.uint32)[order], digests, source.digest)


def photos_digest(contents: _Contents, plan: dict[str, list[Photo]], skipped: Iterable[str]) -> str:
    """SHA-256, equal where photos of the same bytes are in the same splits and classes, whatever their names and times."""
    left_out, digests = set(skipped), iter(contents.digests)
    rows = [(split, label, next(digests).tobytes(), path) for split in SPLITS for path, label in plan[split]]
    used = sorted(f"{split} {label} {digest.hex()}" for split, label, digest, path in rows if path not in left_out)
    return hashlib.sha256("\n".join(used).encode()).hexdigest()


def _paths(plan: dict[str, list[Photo]]) -> Iterator[str]:
    return (path for split in SPLITS for path, _ in plan[split])


def save_contents(folder: Path, contents: _Contents) -> None:
    """Trials that start at the same moment may all do this: the last one wins. Raises OSError."""
    names = [name.encode("utf-8", "surrogateescape") for name in contents.names]
    ends = np.cumsum([0, *map(len, names)], dtype=np.uint64)  # where each name begins, and where the last one ends
    arrays = {"text": np.frombuffer(b"".join(names), np.uint8), "ends": ends, "sizes": contents.sizes}
    arrays |= {key: getattr(contents, key) for key in ("stamps", "digests", "source_digest")}
    with whole_file(folder / FILE) as file:
        np.savez(file, **arrays)


@contextmanager
def whole_file(target: Path) -> Iterator[IO[bytes]]:
    """A new file that replaces `target` only when it is complete. Raises OSError."""
    handle, partial = tempfile.mkstemp(dir=target.parent, suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.chmod(partial, 0o644)  # mkstemp makes it private; a cache may be shared
        os.replace(partial, target)
    except OSError:
        os.unlink(partial)
        raise


def read_contents(folder: Path) -> _Contents | None:
    """None where an earlier version made the cache, or the file is damaged."""
    try:
        with (folder / FILE).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            text, ends = file["text"].tobytes(), file["ends"].tolist()
            names = [text[start:end].decode("utf-8", "surrogateescape") for start, end in pairwise(ends)]
            sizes = tuple(file["sizes"].tolist())
            contents = _Contents(names, sizes, file["stamps"], file["digests"], str(file["source_digest"]))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
    is_whole = len(contents.stamps) == len(names) and contents.digests.shape == (contents.used, DIGEST_BYTES)
    return contents if is_whole and len(sizes) == len(SPLITS) else None


def compare(contents: _Contents, source: Source, skipped: Iterable[str]) -> _Changes:
    """What has changed, by the bytes of those files whose stamps differ. skipped: photos that are not in the cache; that one
    of them is removed changes nothing, and neither do files that were not decoded.
    """
    rows, reader = {name: i for i, name in enumerate(contents.names)}, Reader(source.where, source.is_zip)
    is_folder = source.where.is_dir()
    changed, added, unread, skipped = [], [], [], set(skipped)
    for name, stamp in zip(source.files, source.stamps):
        i = rows.pop(name, None)
        if i is None:
            (unread if is_folder and not os.path.exists(source.path / name) else added).append(name)
        elif i < contents.used and contents.stamps[i] != stamp:
            try:
                is_same = digest_of(reader.read(name)) == contents.digests[i].tobytes()
            except Exception:  # noqa: BLE001  of the disk or of the archive: many types
                unread.append(name)
            else:
                changed += [] if is_same else [name]
    missing = [(name, i) for name, i in rows.items() if i < contents.used and name not in skipped]
    gone = {i: name for name, i in missing if not is_folder or _is_gone(source.path, name)}
    unread += [name for name, i in missing if i not in gone]
    split = None if _has_photos(added, contents) else _lost_split(contents, gone)
    return _Changes(changed, added, list(gone.values()), unread, split)


def _is_gone(folder: Path, name: str) -> bool:
    """False also where a folder cannot be listed or is a link to a disk that is not mounted."""
    try:
        os.lstat(folder / name)
        return False
    except (FileNotFoundError, NotADirectoryError):
        above = [folder / parent for parent in PurePosixPath(name).parents]
        return not any(path.is_symlink() and not path.exists() for path in above)
    except OSError:
        return False


def _has_photos(names: Iterable[str], contents: _Contents) -> bool:
    """Whether any has the ending of a photo in the cache."""
    endings = {PurePosixPath(contents.names[i]).suffix.lower() for i in range(contents.used)}
    return any(PurePosixPath(name).suffix.lower() in endings for name in names)


def _lost_split(contents: _Contents, gone: dict[int, str]) -> str | None:
    ends = np.cumsum(contents.sizes)
    counts = np.histogram(list(gone), [0, *ends])[0]
    return next((name for name, n, size in zip(SPLITS, counts, contents.sizes) if n == size), None)


def remember(folder: Path, contents: _Contents, source: Source) -> None:
    """Keep the new stamps of unchanged files, so that the next start is cheap again; a folder that cannot be written stays as
    it is."""
    stamps = dict(zip(source.files, source.stamps))
    new = np.array([stamps.get(name, old) for name, old in zip(contents.names, contents.stamps)], np.uint32)
    with suppress(OSError):
        save_contents(folder, replace(contents, stamps=new, source_digest=source.digest))


def has_same_photos(
    folder: Path, manifest: dict, source: Source, plan: dict[str, list[Photo]], strays: Iterable[str]
) -> bool:
    """Whether decoding `plan` would make the cache in `folder` again; new stamps are remembered."""
    contents = read_contents(folder)
    if contents is None or contents.sizes != tuple(len(plan[split]) for split in SPLITS):
        return False
    used = contents.names[: contents.used]
    if used != list(_paths(plan)) or set(strays) != set(manifest["skipped"]) - set(used):
        return False
    changes = compare(contents, source, manifest["skipped"])
    if changes.changed or changes.removed or changes.unread:
        return False
    with suppress(OSError):
        save_contents(folder, contents_of(source, plan, contents.digests))
    return True


def in_two_splits(contents: _Contents, skipped: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
    """{"training/evaluation": the names of a photo in both, for each}, of photos of equal bytes; those skipped are in none."""
    skipped = set(skipped)
    usable = np.array([contents.names[i] not in skipped for i in range(contents.used)], bool) if skipped else True
    rows = np.flatnonzero(usable & (contents.digests != np.frombuffer(UNREAD, np.uint8)).any(axis=1))
    keys = np.ascontiguousarray(contents.digests).view(f"S{DIGEST_BYTES}")[:, 0]
    of_split = np.split(rows, np.searchsorted(rows, np.cumsum(contents.sizes)[:-1]))
    common = {}
    for (one, first), (other, second) in combinations(zip(SPLITS, of_split), 2):
        _, i, k = np.intersect1d(keys[first], keys[second], return_indices=True)
        pairs = sorted((contents.names[a], contents.names[b]) for a, b in zip(first[i], second[k]))
        common |= {f"{one}/{other}": pairs} if pairs else {}
    return common


def warnings_of(folder: Path, manifest: dict) -> list[str]:
    """A line for each two splits of the cache that have photos in common."""
    contents = read_contents(folder)
    lines = []
    for key, pairs in (in_two_splits(contents, manifest["skipped"]) if contents else {}).items():
        one, other = key.split("/")
        photos = "1 photo is" if len(pairs) == 1 else f"{len(pairs)} photos are"
        names = listed([f"{a} = {b}" for a, b in pairs])
        lines.append(f"{photos} in both {one} and {other}, which makes the {other} accuracy too optimistic: {names}")
    return lines


def listed(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
