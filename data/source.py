"""A folder, a zip or a tar of photos, read without being changed: which files it has, their bytes, and a digest of it all."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import zipfile
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from data import DataError, archives
from data.layouts import parts_of

MAX_FILE_BYTES = 2**30  # of a photo; a film or a decompression bomb would fill the memory of every decoding process
DIGEST_BYTES = 16
UNREAD = bytes(DIGEST_BYTES)  # in a digest's place
_LEVELS = 5  # archives in archives in archives ...

ARCHIVE = re.compile(r"\.(zip|tar|tgz|tbz2?|txz|tzst|gz|bz2|xz|zst|rar|7z)(\.\d{3})?$|\.z\d\d$|\.r\d\d$", re.IGNORECASE)

# Files of systems and archivers; also everything whose name begins with a dot.
_SYSTEM = re.compile(
    r"thumbs\.db|ehthumbs(_vista)?\.db|iconcache\.db|desktop\.ini|icon\r|autorun\.inf|__macosx|__pycache__|lost\+found|"
    r"lost\.dir|found\.\d{3}|\$recycle\.bin|\$extend|system volume information|network trash folder|temporary items|"
    r"@eadir|@recycle|@recently-snapshot|#recycle|#snapshot",
    re.IGNORECASE,
)
# What people keep beside photos, by its ending. Any other file should be a photo, whatever its ending.
_OTHER = re.compile(
    r"(readme|licen[sc]e|copying|changelog|authors|makefile|(md5|sha1|sha256)sums)|.*\.(txt|md|rst|rtf|pdf|docx?|odt|xlsx?|ods|"
    r"pptx?|html?|mht|css|js|csv|tsv|jsonl?|ndjson|xml|ya?ml|toml|ini|cfg|conf|log|lock|sql|sqlite3?|db|mat|np[yz]|pkl|"
    r"pickle|h5|hdf5|parquet|feather|arrow|tfrecord|lmdb|mdb|rec|idx|names|data|pt|pth|onnx|safetensors|ckpt|pyc?|ipynb|r|m|c|"
    r"cpp|h|java|sh|bat|cmd|ps1|exe|dll|msi|apk|dmg|iso|lnk|url|webloc|torrent|crdownload|part|partial|download|tmp|bak|swp|"
    r"aae|xmp|thm|lrv|srt|vtt|ass|svg|mp4|m4v|mov|avi|mkv|webm|wmv|flv|mpe?g|3gp|m2?ts|mp3|m4a|wav|ogg|flac|aac|md5|sha1|"
    r"sha256|sfv|sig|asc|bib|tex|license)",
    re.IGNORECASE | re.DOTALL,
)


def digest_of(raw: bytes) -> bytes:
    """By which photos are compared; of SHA-256, as processors compute it themselves."""
    return hashlib.sha256(raw).digest()[:DIGEST_BYTES]


@dataclass(frozen=True)
class Source:
    """The files of a folder or an archive."""

    path: Path
    is_zip: bool
    files: list[str]  # relative posix paths, sorted: photos, as far as their names tell
    digest: str  # SHA-256 over these names, sizes and stamps: cheap enough to compare at every start of a trial
    stamps: array = field(default_factory=lambda: array("I"))  # (N,) uint32: changes with a file's size or time
    others: list[str] = field(default_factory=list)  # no photos by their ending
    hidden: list[str] = field(default_factory=list)  # hidden and system files and folders, the latter with a slash
    opened: Path | None = None  # where the bytes are read, if not in `path`
    packed: str | None = None  # what has to be copied out first: an archive in it, or "" for a compressed tar

    @property
    def where(self) -> Path:
        """What `Reader` opens."""
        return self.opened or self.path


def open_source(path: Path, label: str = "") -> Source:
    """List a folder (symbolic links followed) or an archive. Raises DataError where it is neither, or cannot be listed.

    label: the archive as messages name it; the path, if it is not given.
    """
    label = label or str(path)
    if path.is_dir():
        root = os.path.realpath(path)
        return _source(path, False, _list_folder(str(path), "", (root,)))
    if not path.exists():
        raise DataError(f"{label}: no such folder or zip; expected the photos' folder or zip file as SOURCE.")
    try:
        kind = archives.kind_of(path, label)
        if kind == "zip":
            with archives.open_zip(path, label) as archive:
                stamps = {member.path: member.stamp for member in archives.zip_members(archive, label)}
                return _with_packed(_source(path, True, sorted(stamps.items())), stamps, label)
        if kind == "tar":
            stamps = {member.path: member.stamp for member in archives.tar_members(path, label)}
            return _with_packed(_source(path, False, sorted(stamps.items())), stamps, label)
        return Source(path, False, [], _sampled_digest(path), packed="")
    except OSError as error:
        raise DataError(f"{label}: cannot be read ({error.strerror or error}).") from error


def unpack(source: Source, folder: Path) -> Source:
    """The same source, its files readable: archives in archives and compressed tars are copied into `folder` first.

    Raises DataError where one of them is damaged, and OSError where the disk is full.
    """
    current, label = source, str(source.path)
    for level in range(_LEVELS):
        if current.packed is None:
            return replace(current, path=source.path, digest=source.digest, opened=current.path)
        target = folder / f"unpacked-{level}"
        if current.packed:
            _copy_out(current, target, label)
        else:
            archives.decompress(current.path, archives.kind_of(current.path, label), target, label)
        if level:
            current.path.unlink()
        label = f"{label}/{current.packed}".rstrip("/")
        current = open_source(target, label)
    raise DataError(f"{source.path}: archives in archives, more than {_LEVELS} deep; unpack it and give the folder.")


def _source(path: Path, is_zip: bool, stamps: Iterable[tuple[str, str]]) -> Source:
    """stamps: each relative path, sorted, and something that changes when the file does; not kept, as there may be
    many. What `_list_folder` did not go into has no stamp."""
    digest, sums = hashlib.sha256(), array("I")
    files: list[str] = []
    others: list[str] = []
    hidden: dict[str, None] = {}
    for name, stamp in stamps:
        # In an ASCII locale Python escapes the bytes of a name: here UTF-8 is text again.
        name = name.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
        if part := _hidden_part(name):
            hidden[part] = None
        elif _is_other(name):
            others.append(name)
        else:
            line = f"{name}\0{stamp}\n".encode("utf-8", "surrogateescape")
            digest.update(line)
            sums.append(zlib.crc32(line))
            files.append(name)
    return Source(path, is_zip, files, digest.hexdigest(), sums, others, [*hidden])


def _hidden_part(name: str) -> str | None:
    """The path down to its first hidden or system part; a folder's has a slash."""
    parts = parts_of(name)
    for i, part in enumerate(parts, 1):
        if part.startswith(".") or _SYSTEM.fullmatch(part):
            return "/".join(parts[:i]) + ("/" if i < len(parts) or name.endswith("/") else "")
    return None


def _is_other(name: str) -> bool:
    """Whether a file is no photo by its name."""
    name = name.rpartition("/")[2]
    return bool(_OTHER.fullmatch(name) or ARCHIVE.search(name))


def _with_packed(source: Source, stamps: dict[str, str], label: str) -> Source:
    """Without photos of its own, an archive is what the one archive in it is."""
    inner = [name for name in source.others if ARCHIVE.search(name)]
    if source.files or not inner:
        return source
    if len(inner) > 1:
        raise DataError(
            f"{label}: holds no photos but {len(inner)} archives ({', '.join(inner[:5])}{', ...' if inner[5:] else ''}); "
            "unpack it and them into one folder, a folder per archive, and give that."
        )
    digest = hashlib.sha256(f"{inner[0]}\0{stamps[inner[0]]}\n".encode("utf-8", "surrogateescape"))
    return replace(source, packed=inner[0], digest=digest.hexdigest())


def _sampled_digest(path: Path) -> str:
    """SHA-256 over the size and 64 samples, the end among them, where compressed files keep their checksums."""
    size, sample = path.stat().st_size, 1 << 12
    digest = hashlib.sha256(f"{size}\n".encode())
    with path.open("rb") as file:
        for i in range(64):
            file.seek(max(0, size - sample) * i // 63)
            digest.update(file.read(sample))
    return digest.hexdigest()


def _copy_out(source: Source, target: Path, label: str) -> None:
    with target.open("wb") as file:
        try:
            for block in Reader(source.path, source.is_zip).blocks(source.packed):
                file.write(block)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise DataError(f"{label}: {source.packed} in it is damaged ({error}).") from error


def _list_folder(folder: str, prefix: str, above: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The files below, sorted by their whole path, one folder at a time in memory. Hidden and system folders are named,
    with a slash, and not listed.

    above: the real paths of this folder and of those that led to it. Raises DataError where one cannot be listed, or a
    link leads back to one of them or to what is above it.
    """
    try:
        with os.scandir(folder) as listing:
            # A folder's slash counts: "a-b" is before "a/b".
            entries = sorted((entry.name + "/" if _is_folder(entry) else entry.name) for entry in listing)
    except OSError as error:
        raise DataError(
            f"{folder}: this folder cannot be listed ({error.strerror or error}); make it readable, or move it out of "
            "the photos' folder."
        ) from error
    for name in entries:
        below = os.path.join(folder, name.rstrip("/"))
        if _hidden_part(name):
            yield prefix + name, ""
        elif name.endswith("/"):
            yield from _list_folder(below, prefix + name, (*above, _real_folder(below, above)))
        elif (stamp := _stamp(below)) is not None:
            yield prefix + name, stamp


def _real_folder(folder: str, above: tuple[str, ...]) -> str:
    if not os.path.islink(folder):
        return os.path.join(above[-1], os.path.basename(folder))
    real = os.path.realpath(folder)
    if any(os.path.commonpath([real, other]) == real for other in above):
        raise DataError(f"{folder}: a link that leads back up to {real}, an endless loop; remove it.")
    return real


def _stamp(file: str) -> str | None:
    """Size and time; None for a pipe, socket or device, which reading would wait for."""
    try:
        status = os.stat(file)
    except OSError:  # a dangling link: listed, so that the preparation names it as unreadable
        return "unreadable"
    return f"{status.st_size} {status.st_mtime_ns}" if stat.S_ISREG(status.st_mode) else None


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


class Reader:
    """Bytes of single files; opened once per worker process, because an archive's handle cannot be shared."""

    def __init__(self, path: Path, is_zip: bool) -> None:
        self._path = os.fsencode(path)
        self._zip = zipfile.ZipFile(path) if is_zip else None
        self._is_tar = not is_zip and not path.is_dir()
        if self._is_tar:
            self._members = {member.path: member.where for member in archives.tar_members(path, str(path))}
        elif is_zip:
            members = archives.zip_members(self._zip, str(path))
            self._members = {member.path: member.where for member in members if member.path != member.where.filename}

    def read(self, path: str) -> bytes:
        """The file's bytes. Raises OSError or zipfile.BadZipFile (a bad checksum) where it cannot be read or is no photo."""
        if self._size(path) > MAX_FILE_BYTES:
            raise OSError(f"not a photo: {self._size(path) / 1e6:.0f} MB")
        if self._zip or self._is_tar:
            return b"".join(self.blocks(path, -1))
        with open(self._file(path), "rb") as file:
            return file.read()

    def _size(self, path: str) -> int:
        if self._zip:
            member = self._members.get(path, path)
            return (self._zip.getinfo(member) if isinstance(member, str) else member).file_size
        return self._span(path)[1] if self._is_tar else os.stat(self._file(path)).st_size

    def _file(self, path: str) -> bytes:
        """In any locale."""
        return os.path.join(self._path, path.encode("utf-8", "surrogateescape"))

    def blocks(self, path: str, size: int = 1 << 20) -> Iterator[bytes]:
        """Of a file in the archive, `size` bytes each; all at once with -1."""
        if self._zip:
            with self._zip.open(self._members.get(path, path)) as file:
                while block := file.read(size):
                    yield block
            return
        start, remaining = self._span(path)
        with open(self._path, "rb") as tar:
            tar.seek(start)
            while remaining:
                block = tar.read(remaining if size < 0 else min(size, remaining))
                if not block:
                    raise OSError(f"the archive ends before it does, {remaining} bytes are missing")
                yield block
                remaining -= len(block)

    def _span(self, path: str) -> tuple[int, int]:
        """A file's offset in the tar, and its bytes; links are followed."""
        for _ in range(40):  # as Linux does
            where = self._members.get(path)
            if where is None:
                raise FileNotFoundError(2, "No such file in the archive", path)
            if not isinstance(where, str):
                return where
            path = where
        raise OSError(f"{path}: a link that leads to itself")
