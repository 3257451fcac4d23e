"""The cache: one folder of uint8 arrays that says what it is, and is refused where it does not hold what is needed.

manifest.json            format, image size, classes, counts, the source and its digest; of a sample its generator
photos.npz               the source's files, by content: data/contents.py
SPLIT.images.npy         (N, image_px, image_px, 3) uint8
SPLIT.labels.npy         (N,) int64
scaled/SPLIT.PX.npy      the same images, smaller: made when a trial first needs them
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data import DataError
from data.contents import compare, listed, read_contents, remember, whole_file
from data.source import Source, open_source

FORMAT = 2  # raised when decoding or the files' meaning change: older caches are then refused
SCALED_AT_ONCE = 64  # images per thread


@dataclass(frozen=True)
class Split:
    images: np.ndarray  # (N, S, S, 3) uint8, memory-mapped; on a GPU the trial holds them as a tensor there
    labels: np.ndarray  # (N,) int64


@dataclass(frozen=True)
class Cache:
    """An opened cache whose manifest has been checked against its files and its source."""

    directory: Path
    manifest: dict

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, indexed by label."""
        return tuple(self.manifest["classes"])

    @property
    def photos(self) -> str:
        """Equal where the same photos are in the same splits: the source's digest, and how `--split` divided it."""
        source, divided = self.manifest["source_digest"], self.manifest.get("split")
        if not divided:
            return source
        return hashlib.sha256(f"{source} {divided} {self.manifest['split_seed']}".encode()).hexdigest()

    def split(self, name: str, store_px: int | None = None) -> Split:
        """Images and labels of a split; with `store_px`, scaled down to that size (never up)."""
        labels = np.load(self.directory / f"{name}.labels.npy")
        return Split(self._images(name, store_px), labels)

    def _images(self, name: str, store_px: int | None) -> np.ndarray:
        full = self.directory / f"{name}.images.npy"
        if store_px is None or store_px >= self.manifest["image_px"]:
            return np.load(full, mmap_mode="r")
        scaled = self.directory / "scaled" / f"{name}.{store_px}.npy"
        if not scaled.exists():
            return _write_scaled(np.load(full, mmap_mode="r"), scaled, store_px)
        return np.load(scaled, mmap_mode="r")


def open_cache(directory: Path, image_px: int = 1) -> Cache:
    """The cache, for training at `image_px`.

    Raises DataError, with the command that repairs it, where it is missing, is of another format, is smaller than
    `image_px`, is damaged, or its source has changed since.
    """
    manifest = read_manifest(directory)
    if manifest is None:
        raise DataError(
            f"{directory}: no cache there (no manifest.json); make one with: "
            f"python -m data prepare SOURCE --cache {directory}"
        )
    if manifest.get("format") != FORMAT:
        raise DataError(
            f"{directory}: the cache has format {manifest.get('format')}, this version reads format {FORMAT}; "
            f"{_rebuild_hint(directory, manifest)}"
        )
    if manifest["image_px"] < image_px:
        raise DataError(
            f"{directory}: the cache holds {manifest['image_px']} px images, {image_px} px are needed; "
            f"{_rebuild_hint(directory, manifest, image_px)}"
        )
    check_files(directory, manifest)
    _check_source(directory, manifest)
    return Cache(directory, manifest)


def read_manifest(directory: Path) -> dict | None:
    """The manifest as written, or None where there is none. Raises DataError where it is not one of ours."""
    try:
        manifest = json.loads((directory / "manifest.json").read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, OSError) as error:
        raise DataError(
            f"{directory}: unreadable manifest.json ({error}); delete the folder and prepare again."
        ) from error
    if not isinstance(manifest, dict) or not {"format", "source", "image_px"} <= manifest.keys():
        raise DataError(f"{directory}: its manifest.json is not a cache's; name another folder with --cache.")
    return manifest


def write_manifest(directory: Path, manifest: dict) -> None:
    """Raises OSError."""
    partial = directory / f"manifest.json.{os.getpid()}.partial"
    partial.write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
    os.replace(partial, directory / "manifest.json")


def _rebuild_hint(directory: Path, manifest: dict, image_px: int | None = None) -> str:
    """The command that makes this cache again, with its own settings; before it, where the photos are missing, that they have
    to be restored."""
    source, reason = manifest.get("source"), ""
    if source:
        _, reason = _open_source(Path(source))
    first = f"{source} {reason}: restore its photos and " if reason else ""
    settings = manifest if source and not reason else {**manifest, "source": "SOURCE"}
    return f"{first}make it again with: {rebuild_command(directory, settings, image_px)}"


def rebuild_command(directory: Path, manifest: dict, image_px: int | None = None) -> str:
    """The command that makes a cache of manifest["source"], with the other settings of the manifest."""
    words = ["python", "-m", "data", "prepare", str(manifest["source"])]
    words += ["--cache", str(directory), "--image-px", str(image_px or manifest.get("image_px", 256))]
    words += ["--train-split", str(manifest.get("train_split", "auto"))]
    words += ["--skew", "lab"] if manifest.get("skew") == "lab" else []
    if manifest.get("split"):
        words += ["--split", str(manifest["split"]), "--split-seed", str(manifest.get("split_seed", 0))]
    words += ["--skip-unreadable"] if manifest.get("skipped") else []
    return shlex.join(words)


def check_files(directory: Path, manifest: dict) -> None:
    """Raises DataError, with the command that repairs it, where an array is not there or not of the manifest's shape."""
    side = manifest["image_px"]
    for name, counts in manifest["counts"].items():
        expected = {"images": (sum(counts), side, side, 3), "labels": (sum(counts),)}
        for part, shape in expected.items():
            try:
                content = str(np.load(directory / f"{name}.{part}.npy", mmap_mode="r").shape)
            except (OSError, ValueError, EOFError) as error:  # EOFError: an empty file
                content = f"nothing readable ({error})"
            if content != str(shape):
                raise DataError(
                    f"{directory}: {name}.{part}.npy should hold an array of shape {shape}, found {content}; "
                    f"{_rebuild_hint(directory, manifest)}"
                )


def require_whole(images: np.ndarray) -> None:
    """Raises DataError where the file behind mapped images has become shorter: reading on would end the process with
    SIGBUS and without a message. A file that was removed or replaced stays readable for a process that has mapped it.
    """
    if not isinstance(images, np.memmap):
        return
    try:
        size = os.stat(images.filename).st_size
    except OSError:
        return
    expected = images.offset + images.nbytes
    if size < expected:
        raise DataError(
            f"{images.filename}: {size} bytes, expected {expected}: the cache became shorter while it was read; "
            f"{_rebuild_of(Path(images.filename).parent)}"
        )


def _rebuild_of(folder: Path) -> str:
    directory = folder.parent if folder.name == "scaled" else folder
    try:
        return _rebuild_hint(directory, read_manifest(directory) or {})
    except DataError:
        return _rebuild_hint(directory, {})


def _check_source(directory: Path, manifest: dict) -> None:
    """Raises DataError where the source has other photos by now. One that cannot be read is taken to be unchanged."""
    path = Path(manifest["source"])
    source, reason = _open_source(path)
    if source and source.digest != manifest["source_digest"]:
        contents = read_contents(directory)
        if contents and contents.source_digest == source.digest:
            return
        # What has to be unpacked first is left to `prepare`: it finds out whether the photos are the same.
        can_compare = contents and source.packed is None
        changes = compare(contents, source, manifest["skipped"]) if can_compare else None
        if changes is None or ((changes.changed or changes.added or changes.removed) and not changes.lost_split):
            what = f" ({changes})" if changes else ""
            raise DataError(
                f"{directory}: the photos in {path} have changed since this cache was made{what}; "
                f"{_rebuild_hint(directory, manifest)}"
            )
        if changes.lost_split:
            reason = f"has none of the photos of {changes.lost_split}"
        elif changes.unread:
            reason = f"cannot be read in part ({listed(changes.unread)})"
        else:
            remember(directory, contents, source)
    if reason:
        print(f"warning: {path} {reason}; {directory} is used as it was made", file=sys.stderr)


def _open_source(path: Path) -> tuple[Source | None, str]:
    """The source; or None, and why its photos are not available."""
    try:
        if not path.exists():
            return None, "is not there"
        source = open_source(path)
    except (OSError, DataError) as error:
        return None, f"cannot be read ({str(error).removeprefix(f'{path}: ').partition('; ')[0]})"
    return (source, "") if len(source.files) or source.packed is not None else (None, "has no photos")


def _write_scaled(full: np.ndarray, target: Path, store_px: int) -> np.ndarray:
    """Scale all images down once, with antialiasing, and keep them; where the folder is read-only, only in memory.

    Trials that start at the same moment may both do the work; the rename makes the last one win with equal bytes.
    """
    shape = (len(full), store_px, store_px, 3)
    try:
        target.parent.mkdir(exist_ok=True)
        with whole_file(target) as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for part in _scaled(full, store_px):
                file.write(part)
    except OSError:
        return np.concatenate([*_scaled(full, store_px)])
    return np.load(target, mmap_mode="r")


def _scaled(full: np.ndarray, store_px: int) -> Iterator[np.ndarray]:
    """The images in order, in parts of (B, store_px, store_px, 3) uint8; in threads, as Pillow scales without Python's
    lock."""

    def scale(start: int) -> np.ndarray:
        images = (Image.fromarray(image) for image in full[start : start + SCALED_AT_ONCE])
        return np.stack([image.resize((store_px, store_px), Image.Resampling.BICUBIC) for image in images])

    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    starts, waiting = range(0, len(full), SCALED_AT_ONCE), 4 * threads  # few: the memory does not grow with the images
    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(starts), waiting):
            yield from pool.map(scale, starts[first : first + waiting])
