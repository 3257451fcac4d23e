"""Small trees of photos, the same pictures in each of Food-11's layouts, and the preparation without its processes."""

from __future__ import annotations

import io
import signal
import zipfile
import zlib
from concurrent.futures import Future
from pathlib import Path

import numpy as np
from PIL import Image

from data import decode
from data import prepare as preparation
from data.__main__ import main
from data.cache import Split
from data.food11 import CLASSES, folder_name
from data.source import Reader

SPLITS = ("training", "validation", "evaluation")
NAMES = {
    "flat": lambda class_id, i: f"{class_id}_{i}.jpg",
    "named": lambda class_id, i: f"{folder_name(CLASSES[class_id])}/{i}.jpg",
    "numbered": lambda class_id, i: f"{class_id}/{i}.jpg",
}


def encode(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise_jpeg(*seed: int, side_px: int = 24) -> bytes:
    """A picture of coarse noise: no two seeds look alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return encode(Image.fromarray(coarse).resize((side_px, side_px)), quality=95)


def photo(split: str, dish: str | int, i: int) -> bytes:
    """The i-th picture of a class and split: the same in every layout."""
    return noise_jpeg(zlib.crc32(f"{split} {dish}".encode()), i)


def food11_files(layout: str, top: str = "", each: int = 1, splits: tuple[str, ...] = SPLITS) -> dict[str, bytes]:
    """{path: JPEG}: `each` pictures a class and split."""
    return {
        f"{top}{split}/{NAMES[layout](class_id, i)}": photo(split, class_id, i)
        for split in splits
        for class_id in range(len(CLASSES))
        for i in range(each)
    }


def two_dishes(each: int = 2) -> dict[str, bytes]:
    """{path: JPEG} of a folder-a-class tree that is not Food-11."""
    return {
        f"{split}/{dish}/{i}.jpg": photo(split, dish, i)
        for split in SPLITS
        for dish in ("pho", "bibimbap")
        for i in range(each)
    }


def class_folders(*classes: str, each: int = 10, top: str = "") -> dict[str, bytes]:
    """{path: JPEG} of a tree without split folders."""
    return {f"{top}{dish}/{i}.jpg": photo("whole", dish, i) for dish in classes for i in range(each)}


def coloured_splits(side_px: int, sizes: tuple[int, int], noise: int, colour: int) -> tuple[Split, Split]:
    """Training and validation of three classes of squares, told apart by colour: `colour` above `noise`, of 0..255."""
    rng = np.random.default_rng(0)

    def make(n: int) -> Split:
        labels = np.arange(n, dtype=np.int64) % 3
        images = rng.integers(0, noise, (n, side_px, side_px, 3), dtype=np.uint8)
        images[np.arange(n), :, :, labels] += colour
        return Split(images, labels)

    train, val = sizes
    return make(train), make(val)


def write_tree(root: Path, files: dict[str, bytes]) -> Path:
    for path, raw in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(raw)
    return root


def write_zip(target: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path, raw in files.items():
            archive.writestr(path, raw)
    return target


def windows_zip(target: Path, files: dict[str, bytes], encoding: str = "utf-8", separator: str = "\\") -> Path:
    """As .NET before 4.6.1 writes it: backslashes, an entry for each folder, made by MS-DOS, names in UTF-8 with its flag.

    encoding: another one, and then no flag; "utf-8 unsaid" is what macOS writes.
    """
    code_page = encoding.removesuffix(" unsaid")
    names = {path: path.replace("/", separator) for path in files}
    folders = {name.rpartition(separator)[0] + separator for name in names.values()}
    raw_names = {}
    with zipfile.ZipFile(target, "w") as archive:
        for name, raw in [*((folder, b"") for folder in sorted(folders)), *((names[p], r) for p, r in files.items())]:
            # zipfile writes ASCII or UTF-8 alone: other bytes are put into the file afterwards, in place of @.
            held = "".join(
                chr(b) if b < 128 and chr(b) != "\\" or name.isascii() else "@" for b in name.encode(code_page)
            )
            entry = zipfile.ZipInfo()
            entry.filename = name if encoding == "utf-8" else held
            entry.create_system, entry.external_attr = 0, 0x20 if raw else 0x10
            archive.writestr(entry, raw)
            raw_names[held.encode()] = name.encode(code_page)
    if encoding != "utf-8":
        content = target.read_bytes()
        for held, name in raw_names.items():
            content = content.replace(held, name)
        target.write_bytes(content)
    return target


def decode_in_process(monkeypatch) -> None:
    """Let `prepare` decode in this process: the same rows and reasons, without half a second for the workers."""

    class InProcess:
        def __init__(self, mp_context, initializer, initargs):
            path, is_zip, _ = initargs
            monkeypatch.setattr(decode, "_reader", Reader(path, is_zip))

        def submit(self, function, *arguments):
            done = Future()
            done.set_result(function(*arguments))
            return done

        def shutdown(self, cancel_futures):
            pass

    monkeypatch.setattr(preparation, "ProcessPoolExecutor", InProcess)


def run_data(*words) -> int:
    """`python -m data WORDS` in this process; returns its exit code. The handler it sets is put back."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        return main([str(word) for word in words])
    finally:
        signal.signal(signal.SIGTERM, handler)
