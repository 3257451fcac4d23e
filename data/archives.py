"""Archives: which kind a file is, what a zip or a tar holds, and how to unpack the kinds that are not read.

A file is known by its first bytes, whatever its name. Zips and plain tars are read in place; a compressed tar and an archive in
an archive are copied out once (`Source.packed`), since no single photo can be read from them.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import posixpath
import re
import shlex
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from data import DataError
from data.layouts import parts_of

_COMPRESSED = {"gzip": (b"\x1f\x8b", gzip.open), "bzip2": (b"BZh", bz2.open), "xz": (b"\xfd7zXZ\0", lzma.open)}
_PIECE = re.compile(r"(?<!\.7z)(?<!\.rar)\.(\d{3}|part[-_]?\w{1,3}|[a-c][a-z])$", re.IGNORECASE)  # cat joins them
_PART = re.compile(r"\.z\d\d$|\.r\d\d$|\.\d{3}$|\.part\d+\.rar$", re.IGNORECASE)  # 7z finds the others
_FOREIGN = {  # first bytes: what it is, and the program that unpacks it
    b"Rar!\x1a\x07": ("a RAR archive", "7z"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "7z"),
    b"\x28\xb5\x2f\xfd": ("compressed with Zstandard", "tar"),
    b"\x04\x22\x4d\x18": ("compressed with LZ4", "tar"),
    b"LZIP": ("compressed with lzip", "tar"),
    b"\x5d\0\0": ("compressed with LZMA", "tar"),
    b"\x1f\x9d": ("compressed with compress", "tar"),
    b"MSCF": ("a Windows cabinet", "7z"),
    b"PK\7\10": ("one part of a split zip", "7z"),
    b"\xff\xd8\xff": ("a single photo", None),
    b"\x89PNG": ("a single photo", None),
    b"version https://git-lfs": ("a Git LFS pointer and not the file itself, which git lfs pull fetches", None),
    b"<!doctype html": ("a web page and not the file itself: the download asked for a login or a confirmation", None),
    b"<html": ("a web page and not the file itself: the download asked for a login or a confirmation", None),
}


class _Member(NamedTuple):
    """A file in an archive."""

    path: str  # with slashes
    stamp: str  # changes when the file does
    where: zipfile.ZipInfo | tuple[int, int] | str  # in a tar: (offset, bytes), or the path that a link leads to


def kind_of(path: Path, label: str) -> str:
    """ "zip", "tar", or the compression: "gzip", "bzip2" or "xz". Raises DataError for every other file.

    label: the file as messages name it.
    """
    with path.open("rb") as file:
        head = file.read(tarfile.BLOCKSIZE)
    if not _is_tar(head) and zipfile.is_zipfile(path):
        return "zip"
    if _PIECE.search(label) or _PART.search(label):
        raise _one_part(label)
    compression = next((kind for kind, (magic, _) in _COMPRESSED.items() if head.startswith(magic)), None)
    if not compression and not _is_tar(head):
        raise _unknown(head, label, path.stat().st_size)
    return compression or "tar"


def zip_members(archive: zipfile.ZipFile, label: str) -> Iterator[_Member]:
    """Its files. Raises DataError where they are encrypted or compressed in a way that Python cannot undo."""
    for entry in archive.infolist():
        path = _zip_path(entry)
        if path.endswith("/") or entry.external_attr & 0x10 and not entry.file_size:  # MS-DOS's mark of a folder
            continue
        if entry.flag_bits & 1:
            raise DataError(f"{label}: the zip is encrypted; unpack it with its password and give the folder.")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
            method = zipfile.compressor_names.get(entry.compress_type, "an unknown method").capitalize()
            raise _cannot_read(label, f"a zip compressed with {method} (method {entry.compress_type})", "7z")
        yield _Member(path, f"{entry.file_size} {entry.CRC}", entry)


def open_zip(path: Path, label: str) -> zipfile.ZipFile:
    """Raises DataError for one that is split or damaged."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:  # ValueError: names that are not UTF-8
        if "multiple disks" in str(error):
            raise _one_part(label) from error
        raise _cannot_read(label, f"a zip that is damaged or that Python does not know ({error})", "7z") from error
    if _disks(path):
        archive.close()
        raise _one_part(label)
    return archive


def tar_members(path: Path, label: str) -> Iterator[_Member]:
    """The files of a plain tar. Raises DataError where it is cut off or damaged."""
    try:
        with tarfile.open(path, "r:", encoding="utf-8") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # it would keep all
                name, target = _plain(member.name), member.linkname
                if member.isreg():
                    yield _Member(name, f"{member.size} {member.mtime:.0f}", (member.offset_data, member.size))
                elif member.islnk():
                    yield _Member(name, f"link {target}", _plain(target))
                elif member.issym():
                    yield _Member(name, f"link {target}", _plain(posixpath.join(posixpath.dirname(name), target)))
            end = archive.offset
    except (tarfile.TarError, EOFError) as error:
        raise _damaged_tar(label, str(error)) from error
    with path.open("rb") as file:
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile takes anything else for an end as well
            raise _damaged_tar(label, f"no mark of its end, {end} bytes of it are sound")


def decompress(path: Path, kind: str, target: Path, label: str) -> None:
    """Write what is compressed in `path` to `target`. Raises DataError where it is cut off or damaged, and OSError where
    the disk is full."""
    from tqdm import tqdm  # not above: a decoding process does not need it

    bar = {"total": path.stat().st_size, "desc": "unpacking", "unit": "B", "unit_scale": True, "disable": None}
    with (
        path.open("rb") as raw,
        tqdm.wrapattr(raw, "read", **bar) as read,
        _COMPRESSED[kind][1](read) as content,
        target.open("wb") as file,
    ):
        while block := _next_block(content, label):
            file.write(block)


def _next_block(content: gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile, label: str) -> bytes:
    try:
        return content.read(1 << 20)
    except EOFError as error:
        raise DataError(f"{label}: cut off: it ends in the middle of a file; copy or download it again.") from error
    except (OSError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{label}: damaged ({error}); copy or download it again.") from error


def _zip_path(entry: zipfile.ZipInfo) -> str:
    """The intended name, with slashes: archivers on Windows write backslashes, and those on Macs UTF-8 without its flag,
    which Python then takes for cp437."""
    name = _unicode_path(entry) or entry.filename
    if not entry.flag_bits & 0x800 and name == entry.filename:
        with suppress(UnicodeError):  # another code page: the letters stay wrong, and the same for all files
            name = name.encode("cp437").decode("utf-8")
    # In a Japanese or Chinese code page a backslash may be the second byte of a letter: there, slashes are the separators.
    is_text = name.isascii() or entry.flag_bits & 0x800
    if "/" not in name or (is_text and entry.create_system != 3):  # 3: Unix, where a backslash is a letter
        name = name.replace("\\", "/")
    return name


def _unicode_path(entry: zipfile.ZipInfo) -> str | None:
    """The name in UTF-8 that WinZip and others put beside one in a code page (APPNOTE 4.6.9); newer Pythons read it."""
    extra = entry.extra
    while len(extra) > 9:
        kind, size, _, checksum = struct.unpack_from("<HHBI", extra)
        if kind == 0x7075 and checksum == zlib.crc32(entry.orig_filename.encode("cp437", "replace")):
            return extra[9 : 4 + size].decode("utf-8", "replace")
        extra = extra[4 + size :]
    return None


def _plain(path: str) -> str:
    """Without `.` and `..` and a slash before it."""
    return "/".join(parts_of(posixpath.normpath(path)))


def _is_tar(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _disks(path: Path) -> int:
    """The number of parts before this one, from the record at a zip's end."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - (1 << 16) - 22))
        tail = file.read()
    at = tail.rfind(b"PK\5\6")
    disk = struct.unpack_from("<H", tail, at + 4)[0] if 0 <= at <= len(tail) - 22 else 0
    return 0 if disk == 0xFFFF else disk  # then its 64-bit record has it, which zipfile reads


def _unknown(head: bytes, label: str, size: int) -> DataError:
    start = head.lstrip().lower() if head.lstrip().startswith(b"<") else head
    for magic, (what, program) in _FOREIGN.items():
        if start.startswith(magic) and program:
            return _cannot_read(label, what, program)
        if start.startswith(magic):
            return DataError(f"{label}: {what}; expected the photos' folder, zip or tar as SOURCE.")
    if head.startswith(b"PK\3\4"):
        return DataError(
            f"{label}: a zip that is cut off: the table of contents at its end is missing after {size} bytes; copy or "
            "download it again."
        )
    kind = "an empty file" if not head else f"no folder and no archive that is known (it begins with {head[:8]!r})"
    return DataError(f"{label}: {kind}; expected the photos' folder, zip or tar as SOURCE.")


def _cannot_read(label: str, what: str, program: str) -> DataError:
    """program: 7z or tar; the command that unpacks it is named."""
    reason = f"{label}: {what}, which is not read here; unpack it and give the folder"
    if not Path(label).exists():  # it is in another archive
        return DataError(f"{reason}.")
    file = shlex.quote(_first_part(label))
    folder = shlex.quote(re.sub(r"(\.tar)?\.[^./]+$", "", _PART.sub("", label)) + "_photos")
    unpack = f"7z x {file} -o{folder}" if program == "7z" else f"mkdir {folder} && tar -xf {file} -C {folder}"
    return DataError(f"{reason}: {unpack} && python -m data prepare {folder}")


def _one_part(label: str) -> DataError:
    what = "one part of a split archive"
    if not (piece := _PIECE.search(label)):
        return _cannot_read(label, f"{what}, whose other parts belong beside it", "7z")
    whole = shlex.quote(label[: piece.start()])
    parts = re.sub(r"\d", "[0-9]", piece[0]) if piece[1].isdigit() else piece[0][:-2] + "[a-z0-9][a-z0-9]"
    return DataError(
        f"{label}: {what}; join them all and give the whole: cat {whole}{parts} > {whole} && python -m data prepare {whole}"
    )


def _first_part(label: str) -> str:
    """The part that a program is given to find the others."""
    for pattern, first in ((r"\.z\d\d$", ".zip"), (r"\.r\d\d$", ".rar"), (r"\.\d{3}$", ".001")):
        label = re.sub(pattern, first, label, flags=re.IGNORECASE)
    return re.sub(r"\.part(\d+)\.rar$", lambda m: f".part{1:0{len(m[1])}}.rar", label, flags=re.IGNORECASE)


def _damaged_tar(label: str, reason: str) -> DataError:
    return DataError(f"{label}: a tar that is cut off or damaged ({reason}); copy or download it again.")
