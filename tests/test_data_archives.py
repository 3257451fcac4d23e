"""Archives as people have them: read as the folder that was packed, or named with what to do about them."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import re
import shlex
import shutil
import struct
import subprocess
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from fixtures_data import SPLITS, decode_in_process, noise_jpeg, photo, two_dishes, windows_zip, write_tree, write_zip

from data import DataError, archives
from data import prepare as preparation
from data.cache import open_cache
from data.decode import decode_image
from data.layouts import read_layout
from data.prepare import Settings, prepare
from data.source import Reader, open_source

PX = 16
CLASSES = ("café", "pho", "面条")
DISHES = {f"{split}/{dish}/{i}.jpg": photo(split, dish, i) for split in SPLITS for dish in CLASSES for i in range(2)}


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    decode_in_process(monkeypatch)


def tar_of(files: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """As `tar -C FOLDER .` packs it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for path, raw in files.items():
            member = tarfile.TarInfo(f"./{path}")
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
    return buffer.getvalue()


def packed(files: dict[str, bytes], folder) -> bytes:
    return write_zip(folder / "inner.zip", files).read_bytes()


KINDS = {
    "zip": packed,
    "tar": lambda files, _: tar_of(files),
    "old tar": lambda files, _: tar_of(files, tarfile.GNU_FORMAT),
    "tar.gz": lambda files, _: gzip.compress(tar_of(files)),
    "tar.bz2": lambda files, _: bz2.compress(tar_of(files)),
    "tar.xz": lambda files, _: lzma.compress(tar_of(files)),
    "zip.gz": lambda files, folder: gzip.compress(packed(files, folder)),
    "zip in zip": lambda files, folder: packed({"Food 11.zip": packed(files, folder), "README.txt": b"x"}, folder),
    "zip in zip in zip": lambda files, folder: packed({"a/b.zip": KINDS["zip in zip"](files, folder)}, folder),
    "tar.gz in zip": lambda files, folder: packed({"f.tgz": gzip.compress(tar_of(files))}, folder),
    "zip in tar": lambda files, folder: tar_of({"f.zip": packed(files, folder)}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_archive_gives_the_pictures_and_labels_of_the_folder_and_leaves_nothing_beside(tmp_path, kind):
    path = tmp_path / "download"  # known by its content, whatever its name
    path.write_bytes(KINDS[kind](DISHES | {"training/.DS_Store": b"x"}, tmp_path))
    (tmp_path / "inner.zip").unlink(missing_ok=True)
    manifest = prepare(path, tmp_path / "cache", Settings(PX))
    assert (manifest["classes"], manifest["source"]) == (list(CLASSES), str(path))
    assert manifest["notes"][0].endswith("1 (training/.DS_Store)")
    cache = open_cache(tmp_path / "cache")  # the source has not changed
    for split in SPLITS:
        wanted = [decode_image(photo(split, dish, i), PX) for dish in CLASSES for i in range(2)]
        np.testing.assert_array_equal(cache.split(split).images, wanted)
    assert prepare(path, tmp_path / "cache", Settings(PX))["reused"]
    assert sorted(os.listdir(tmp_path)) == ["cache", "download"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_with_another_photo_in_it_is_another_source(tmp_path, kind):
    path = tmp_path / "download"
    path.write_bytes(KINDS[kind](DISHES, tmp_path))
    digest = open_source(path).digest
    os.utime(path, (1, 1))
    assert open_source(path).digest == digest
    path.write_bytes(KINDS[kind](DISHES | {"training/pho/0.jpg": noise_jpeg(9)}, tmp_path))
    assert open_source(path).digest != digest


def labelled(path) -> dict[tuple[str, str, bytes], str]:
    source = open_source(path)
    layout, reader = read_layout(source.files, "x"), Reader(path, source.is_zip)
    photos = {(s, layout.classes[c], reader.read(file)) for s, pairs in layout.files.items() for file, c in pairs}
    return {(split, name, raw): name for split, name, raw in photos}


@pytest.mark.parametrize("top", ["", "food11/", "C:/Users/me/food/", "../../"])
def test_zips_of_windows_and_macs_are_read_as_they_were_meant(tmp_path, top):
    expected = {(*path.split("/")[:2], raw) for path, raw in DISHES.items()}
    files = {f"{top}{path}": raw for path, raw in DISHES.items()}
    for archive in (
        windows_zip(tmp_path / "net.zip", files),
        windows_zip(tmp_path / "explorer.zip", files, separator="/"),
        windows_zip(tmp_path / "mac.zip", files, encoding="utf-8 unsaid", separator="/"),
    ):
        assert set(labelled(archive)) == expected, archive.name


def test_a_backslash_that_is_half_of_a_letter_separates_nothing(tmp_path):
    """表 is 95 5C in Japanese Windows' code page; which one it was is said nowhere, so that the letters stay wrong."""
    files = {f"{split}/{dish}/1.jpg": photo(split, dish, 1) for split in SPLITS for dish in ("表", "pho")}
    zipped = windows_zip(tmp_path / "s.zip", files | {f"training/{'寿司'}/1.jpg": noise_jpeg(1)}, "cp932", "/")
    manifest = prepare(zipped, tmp_path / "cache", Settings(PX))
    assert manifest["counts"]["training"] == [1, 1, 1] and "pho" in manifest["classes"]
    assert manifest["notes"] == [
        "the zip's names are in an old code page: unpack it with that, as unzip -O GBK does, and give the folder"
    ]


def test_the_unicode_name_beside_one_in_a_code_page_is_taken(tmp_path):
    """As WinZip writes it: what the code page lacks is a question mark in the name itself."""
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for i, (path, raw) in enumerate(DISHES.items()):
            name = path.encode("ascii", "replace").replace(b"?", b"_") + str(i).encode()
            entry, utf8 = zipfile.ZipInfo(name.decode()), path.encode()
            entry.extra = struct.pack("<HHBI", 0x7075, 5 + len(utf8), 1, zlib.crc32(name)) + utf8
            entry.extra = struct.pack("<HHI", 0x9999, 4, 0) + entry.extra
            entry.create_system = 0
            archive.writestr(entry, raw)
    assert set(labelled(tmp_path / "s.zip")) == {(*path.split("/")[:2], raw) for path, raw in DISHES.items()}


def test_a_backslash_in_a_name_from_unix_is_a_letter(tmp_path):
    files = {f"{split}/pho/a\\b.jpg": noise_jpeg(1) for split in SPLITS}
    assert read_layout(open_source(write_zip(tmp_path / "s.zip", files)).files, "x").classes == ("pho",)


def test_links_in_a_tar_are_followed_and_those_to_nowhere_are_unreadable(tmp_path):
    write_tree(tmp_path / "s", {f"{split}/pho/1.jpg": noise_jpeg(1) for split in SPLITS})
    os.link(tmp_path / "s/training/pho/1.jpg", tmp_path / "s/training/pho/2.jpg")
    (tmp_path / "s/training/pho/3.jpg").symlink_to("../../evaluation/pho/1.jpg")
    (tmp_path / "s/training/pho/4.jpg").symlink_to("4.jpg")
    (tmp_path / "s/training/pho/5.jpg").symlink_to("gone.jpg")
    subprocess.run(["tar", "-C", str(tmp_path / "s"), "-cf", str(tmp_path / "s.tar"), "."], check=True)
    source, reader = open_source(tmp_path / "s.tar"), Reader(tmp_path / "s.tar", False)
    assert len(source.files) == 7
    assert {reader.read(f"training/pho/{i}.jpg") for i in (1, 2, 3)} == {noise_jpeg(1)}
    for name in ("4.jpg", "5.jpg"):
        with pytest.raises(OSError):
            reader.read(f"training/pho/{name}")


SOUND = {
    "food.rar": (b"Rar!\x1a\x07\x01\0", "a RAR archive", "7z x food.rar -ofood_photos"),
    "food.part2.rar": (b"Rar!\x1a\x07\x01\0", "one part of a split archive", "7z x food.part1.rar -ofood_photos"),
    "food.r00": (b"anything", "one part of a split archive", "7z x food.rar -ofood_photos"),
    "food.7z": (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "7z x food.7z -ofood_photos"),
    "food.7z.002": (b"anything", "one part of a split archive", "7z x food.7z.001 -ofood_photos"),
    "food.z01": (b"PK\7\10PK\3\4", "one part of a split archive", "7z x food.zip -ofood_photos"),
    "food.zip.001": (b"PK\3\4", "one part of a split archive", "cat food.zip.[0-9][0-9][0-9] > food.zip"),
    "food.tar.gz.partab": (b"anything", "one part of a split", "cat food.tar.gz.part[a-z0-9][a-z0-9] > food.tar.gz"),
    "food.tar.zst": (b"\x28\xb5\x2f\xfd", "compressed with Zstandard", "mkdir food_photos && tar -xf food.tar.zst -C"),
}


@pytest.mark.parametrize("name", SOUND)
def test_what_is_not_read_is_named_with_the_command_that_unpacks_it(tmp_path, monkeypatch, name):
    start, what, command = SOUND[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(start + bytes(600))
    with pytest.raises(DataError) as error:
        open_source(tmp_path / name, name)
    assert f"{name}: {what}" in str(error.value) and command in str(error.value)
    assert "download" not in str(error.value) and "&& python -m data prepare food" in str(error.value)


def test_deflate64_is_named_as_what_it_is(tmp_path):
    """As Explorer packs files above 2 GiB: method 9 in the local and the central header."""
    raw = bytearray(write_zip(tmp_path / "s.zip", two_dishes()).read_bytes())
    for mark, offset in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        for match in re.finditer(re.escape(mark), bytes(raw)):
            raw[match.start() + offset] = 9
    (tmp_path / "s.zip").write_bytes(raw)
    with pytest.raises(
        DataError, match=r"a zip compressed with Deflate64 \(method 9\).*7z x .*s.zip -o.*s_photos"
    ) as error:
        open_source(tmp_path / "s.zip")
    assert "download" not in str(error.value)


@pytest.mark.skipif(not shutil.which("zip"), reason="Info-ZIP writes split zips")
def test_a_split_zip_is_known_from_its_last_part(tmp_path):
    write_tree(tmp_path / "s", {f"training/pho/{i}.jpg": noise_jpeg(i, side_px=300) for i in range(40)})
    subprocess.run(["zip", "-q", "-r", "-s", "64k", str(tmp_path / "food.zip"), "s"], cwd=tmp_path, check=True)
    assert (tmp_path / "food.z01").exists()
    for part in ("food.zip", "food.z01", "food.z02"):
        with pytest.raises(DataError, match="one part of a split archive.*7z x .*food.zip -o"):
            open_source(tmp_path / part)


UNSOUND = {
    "page.zip": (b"\n<!DOCTYPE html><html>", "a web page and not the file itself"),
    "pointer.zip": (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
    "photo.zip": (noise_jpeg(1), "a single photo"),
    "empty.zip": (b"", "an empty file"),
    "notes.txt": (b"two eggs", "no archive that is known (it begins with b'two eggs')"),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_what_is_no_archive_is_called_what_it_is(tmp_path, name):
    (tmp_path / name).write_bytes(UNSOUND[name][0])
    with pytest.raises(DataError, match=re.escape(UNSOUND[name][1]) + ".*expected the photos' folder, zip or tar"):
        open_source(tmp_path / name)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz", "zip.gz"])
@pytest.mark.parametrize("kept", [0.3, 0.8])
def test_an_archive_that_is_cut_off_is_told_so(tmp_path, kind, kept):
    raw = KINDS[kind]({f"training/pho/{i}.jpg": noise_jpeg(i) for i in range(40)}, tmp_path)
    path = tmp_path / f"food.{kind}"
    path.write_bytes(raw[: int(len(raw) * kept)])
    with pytest.raises(DataError, match=r"cut off.*; copy or download it again"):
        prepare(path, tmp_path / "cache", Settings(PX))
    assert not [left for left in os.listdir(tmp_path) if "cache" in left]


def test_a_tar_with_a_damaged_header_in_it_is_not_taken_for_a_short_one(tmp_path):
    raw = bytearray(tar_of(DISHES))
    raw[raw.index(b"./validation/pho") + 20] ^= 0xFF
    (tmp_path / "s.tar").write_bytes(raw)
    with pytest.raises(DataError, match="a tar that is cut off or damaged"):
        open_source(tmp_path / "s.tar")


def test_a_source_that_is_not_there_or_encrypted_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such folder or zip; expected the photos' folder or zip file"):
        open_source(tmp_path / "nowhere")
    raw = bytearray(write_zip(tmp_path / "s.zip", {"training/pho/1.jpg": b"secret"}).read_bytes())
    raw[raw.index(b"PK\1\2") + 8] |= 1  # the flag of an encrypted entry, in the central directory
    (tmp_path / "s.zip").write_bytes(raw)
    with pytest.raises(DataError, match="the zip is encrypted; unpack it"):
        open_source(tmp_path / "s.zip")


def test_several_archives_in_one_and_one_in_a_folder_are_told_what_to_do(tmp_path):
    both = write_zip(tmp_path / "both.zip", {"train.zip": b"x", "test.zip": b"x"})
    with pytest.raises(DataError, match=r"holds no photos but 2 archives \(test.zip, train.zip\); unpack it and them"):
        open_source(both)
    write_tree(tmp_path / "my downloads", {"food.zip": b"x", "README.md": b"x"})
    with pytest.raises(DataError) as error:
        prepare(tmp_path / "my downloads", tmp_path / "cache", Settings(PX))
    command = str(error.value).partition("Give it the archive: ")[2]
    assert shlex.split(command) == ["python", "-m", "data", "prepare", str(tmp_path / "my downloads/food.zip")]


def test_archives_without_end_are_given_up(tmp_path):
    raw = packed(DISHES, tmp_path)
    for _ in range(6):
        raw = gzip.compress(raw)
    (tmp_path / "s.gz").write_bytes(raw)
    with pytest.raises(DataError, match="archives in archives, more than 5 deep; unpack it"):
        prepare(tmp_path / "s.gz", tmp_path / "cache", Settings(PX))


@pytest.mark.parametrize("kind", ["tar.gz", "zip in zip"])
def test_a_disk_that_is_full_while_unpacking_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, kind):
    (tmp_path / "download").write_bytes(KINDS[kind](DISHES, tmp_path))
    before = sorted(os.listdir(tmp_path))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archives, "decompress", full)
    monkeypatch.setattr(Reader, "blocks", full)
    with pytest.raises(
        DataError, match=r"download: could not be unpacked beside .*cache \(.*No space left on device\)"
    ):
        prepare(tmp_path / "download", tmp_path / "cache", Settings(PX))
    assert sorted(os.listdir(tmp_path)) == before


def test_a_place_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "download").write_bytes(KINDS["tar.gz"](DISHES, tmp_path))
    with pytest.raises(DataError, match="could not be unpacked beside .*choose another --cache"):
        prepare(tmp_path / "download", tmp_path / "file/cache", Settings(PX))


def test_an_interrupt_while_an_archive_is_decoded_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "download").write_bytes(KINDS["tar.gz"](DISHES, tmp_path))

    def interrupted(*_):
        assert [left for left in os.listdir(tmp_path) if "partial" in left]
        raise KeyboardInterrupt

    monkeypatch.setattr(preparation, "_decode_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "download", tmp_path / "cache", Settings(PX))
    assert os.listdir(tmp_path) == ["download"]
