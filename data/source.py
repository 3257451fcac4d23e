"""A folder or a zip of photos, read without being changed: which files it has, their bytes, and a digest of it all."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data.errors import DataError
from data.layouts import is_junk, parts_of
from data.names import Names

MAX_FILE_BYTES = 2**30  # of a photo; a film or a bomb would fill the memory of every decoding process
DIGEST_BYTES = 16
UNREAD = bytes(DIGEST_BYTES)  # in a digest's place


def digest_of(raw: bytes) -> bytes:
    """By which photos are compared; of SHA-256, as processors compute it themselves."""
    return hashlib.sha256(raw).digest()[:DIGEST_BYTES]


@dataclass(frozen=True)
class Source:
    """What `open_source` found."""

    path: Path
    is_zip: bool
    files: Names  # relative posix paths, sorted
    digest: (
        str  # SHA-256 over all names, sizes and stamps but junk's: cheap enough to compare at every start of a trial
    )
    stamps: array  # (N,) uint32, of each file: another number after a change of its size or time


def open_source(path: Path) -> Source:
    """List a folder (symbolic links followed) or a zip. Raises DataError where it is neither."""
    if path.is_dir():
        return _source(path, False, _list_folder(path))
    if not path.exists():
        raise DataError(f"{path}: no such folder or zip; expected the photos' folder or zip file as SOURCE.")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if any(entry.flag_bits & 1 for entry in entries):
                raise DataError(f"{path}: the zip is encrypted; unpack it with its password and give the folder.")
            stamps = {entry.filename: f"{entry.file_size} {entry.CRC}" for entry in entries}
            return _source(path, True, sorted(stamps.items()))
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path}: not a folder and not a readable zip ({error}); download it again.") from error


def _source(path: Path, is_zip: bool, stamps: Iterable[tuple[str, str]]) -> Source:
    """stamps: each relative path, sorted, and something that changes when the file does; not kept, as there may be
    many."""
    digest, sums = hashlib.sha256(), array("I")

    def names() -> Iterator[str]:
        for name, stamp in stamps:
            line = f"{name}\0{stamp}\n".encode("utf-8", "surrogateescape")
            if not is_junk(parts_of(name)):
                digest.update(line)
            sums.append(zlib.crc32(line))
            yield name

    files = Names(names())
    return Source(path, is_zip, files, digest.hexdigest(), sums)


def _list_folder(folder: Path | str, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The files below, sorted by their whole path, one folder at a time in memory; unreadable folders are left out."""
    try:
        with os.scandir(folder) as found:
            # A folder's slash counts: "a-b" is before "a/b".
            entries = sorted((entry.name + "/" if _is_folder(entry) else entry.name) for entry in found)
    except OSError:
        return
    for name in entries:
        below = os.path.join(folder, name)
        if name.endswith("/"):
            yield from _list_folder(below, prefix + name)
            continue
        try:
            stat = os.stat(below)
        except OSError:  # a dangling link: listed, so that the preparation names it as unreadable
            yield prefix + name, "unreadable"
            continue
        yield prefix + name, f"{stat.st_size} {stat.st_mtime_ns}"


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


class Reader:
    """Bytes of single files; opened once a worker process, because a ZipFile handle cannot be shared."""

    def __init__(self, path: Path, is_zip: bool) -> None:
        self._folder = path
        self._archive = zipfile.ZipFile(path) if is_zip else None

    def read(self, path: str) -> bytes:
        """The file's bytes. Raises OSError or zipfile.BadZipFile (a bad checksum) where it cannot be read or is no photo."""
        size = self._archive.getinfo(path).file_size if self._archive else os.stat(self._folder / path).st_size
        if size > MAX_FILE_BYTES:
            raise OSError(f"not a photo: {size / 1e6:.0f} MB")
        return self._archive.read(path) if self._archive else (self._folder / path).read_bytes()
