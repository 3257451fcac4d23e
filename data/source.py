"""A folder or a zip of photos, read without being changed: which files it has, their bytes, and a digest of it all."""

from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data.errors import DataError
from data.layouts import is_junk


@dataclass(frozen=True)
class Source:
    """What `open_source` found."""

    path: Path
    is_zip: bool
    files: list[str]  # relative posix paths
    digest: (
        str  # SHA-256 over all names, sizes and stamps but junk's: cheap enough to compare at every start of a trial
    )


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
            return _source(path, True, {entry.filename: f"{entry.file_size} {entry.CRC}" for entry in entries})
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path}: not a folder and not a readable zip ({error}); download it again.") from error


def _source(path: Path, is_zip: bool, stamps: dict[str, str]) -> Source:
    """stamps: of each relative path something that changes when the file does; not kept, as there may be many."""
    digest = hashlib.sha256()
    for name in sorted(stamps):
        if not is_junk(PurePosixPath(name).parts):
            digest.update(f"{name}\0{stamps[name]}\n".encode("utf-8", "surrogateescape"))
    return Source(path, is_zip, list(stamps), digest.hexdigest())


def _list_folder(path: Path) -> dict[str, str]:
    files = {}
    for folder, _, names in os.walk(path, followlinks=True):
        below = os.path.relpath(folder, path).replace(os.sep, "/")
        prefix = "" if below == "." else below + "/"
        for name in names:
            try:
                stat = os.stat(os.path.join(folder, name))
            except OSError:  # a dangling link: listed, so that the preparation names it as unreadable
                files[prefix + name] = "unreadable"
                continue
            files[prefix + name] = f"{stat.st_size} {stat.st_mtime_ns}"
    return files


class Reader:
    """Bytes of single files; opened once a worker process, because a ZipFile handle cannot be shared."""

    def __init__(self, path: Path, is_zip: bool) -> None:
        self._folder = path
        self._archive = zipfile.ZipFile(path) if is_zip else None

    def read(self, path: str) -> bytes:
        """The file's bytes. Raises OSError or zipfile.BadZipFile (a bad checksum) where it cannot be read."""
        return self._archive.read(path) if self._archive else (self._folder / path).read_bytes()
