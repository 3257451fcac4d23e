"""Decode every photo once, in parallel over the cores, into a new cache that replaces the old one only when whole."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import PIL
from numpy.lib.format import open_memmap
from tqdm import tqdm

from data import DataError
from data.cache import FORMAT, check_files, read_manifest, write_manifest
from data.contents import contents_of, has_same_photos, in_two_splits, photos_digest, save_contents
from data.decode import Rows, decode_rows, start_worker
from data.formats import can_read_now
from data.layouts import SPLITS, Layout, Photo
from data.sample import generated_by
from data.source import DIGEST_BYTES, Source, open_source, unpack
from data.splits import Settings, notes_on, plan_splits, understand

CHUNK = 64  # photos per task: long enough to hide the hand-over, short enough for a smooth progress bar
WAITING = 4 * (os.cpu_count() or 1)  # tasks: enough that no worker waits for one, few enough to weigh nothing


def prepare(source_path: Path, cache: Path, settings: Settings) -> dict:
    """Make the cache and return its manifest; an up-to-date one is left as it is ("reused" is then true).

    Raises DataError where the source is not understood, a photo cannot be read, or `cache` is no cache of ours.
    """
    source, cache = open_source(source_path.resolve()), cache.resolve()  # a link to a bigger disk stays a link
    old = _old_manifest(cache, source.path)
    with _unpacked(source, cache) as readable:
        return _prepare(readable, str(source_path), cache, old, settings)


@contextmanager
def _unpacked(source: Source, cache: Path) -> Iterator[Source]:
    """The source with its files readable; what had to be unpacked for that is beside the cache until the end."""
    folder = None
    try:
        try:
            folder = _partial_folder(cache) if source.packed is not None else None
            readable = unpack(source, folder) if folder else source
        except OSError as error:
            raise DataError(
                f"{source.path}: could not be unpacked beside {cache} ({error}); free space there, choose another --cache, or "
                "unpack it yourself and give the folder."
            ) from error
        yield readable
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _prepare(source: Source, name: str, cache: Path, old: dict | None, settings: Settings) -> dict:
    """name: the source as the person gave it; old: the manifest of the cache that exists."""
    layout = understand(source, name)
    plan = plan_splits(layout, settings, name, cache)
    notes = notes_on(source, layout, plan.train_split)
    manifest = _manifest(source, layout, settings, plan.train_split)
    if (
        old
        and all(old.get(key) == value for key, value in manifest.items() if key not in ("source", "source_digest"))
        and (settings.skip_unreadable or not old["skipped"])
        and not can_read_now(old.get("why_skipped", {}).values())
        and _is_whole(cache, old)
        and (old["source_digest"] == source.digest or has_same_photos(cache, old, source, plan.photos, layout.strays))
    ):
        reused = {key: value for key, value in _moved(cache, old, source).items() if key != "notes"}
        return reused | notes | {"reused": True}
    partial = None
    try:
        partial = _partial_folder(cache)
        manifest.update(_decode_all(source, plan.photos, partial, settings, layout.strays))
        labels = {split: np.load(partial / f"{split}.labels.npy") for split in SPLITS}
        manifest["counts"] = {
            split: np.bincount(labels[split], minlength=len(layout.classes)).tolist() for split in SPLITS
        }
        write_manifest(partial, manifest | notes)
        _replace(partial, cache)
    except OSError as error:
        raise DataError(
            f"{cache}: could not write the cache ({error}); free space there or choose another --cache."
        ) from error
    except BrokenProcessPool as error:
        raise DataError(f"{cache}: a decoding process was killed; free memory, then repeat the command.") from error
    finally:
        if partial:
            shutil.rmtree(partial, ignore_errors=True)
    return manifest | notes | {"reused": False}


def _old_manifest(cache: Path, source: Path) -> dict | None:
    if source in cache.parents:
        raise DataError(f"{cache}: is inside the photos' folder; name a folder outside {source} with --cache.")
    if cache.is_file() or (cache.is_dir() and any(cache.iterdir()) and not (cache / "manifest.json").exists()):
        raise DataError(f"{cache}: exists and is not a cache; name another folder with --cache.")
    return read_manifest(cache)


def _is_whole(cache: Path, manifest: dict) -> bool:
    try:
        check_files(cache, manifest)
    except DataError:
        return False
    return True


def _moved(cache: Path, manifest: dict, source: Source) -> dict:
    """The manifest, which names the folder in which its photos are now."""
    moved = {**manifest, "source": str(source.path)}
    if moved != manifest:
        with suppress(OSError):  # a cache of somebody else
            write_manifest(cache, moved)
    return moved


def _partial_folder(cache: Path) -> Path:
    """A new folder beside the cache; those of preparations that were killed are removed first."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{cache.name}.partial-"
    for folder in cache.parent.glob(prefix + "*"):
        pid = folder.name.removeprefix(prefix).split("-")[0]
        if not Path(f"/proc/{pid}").exists() and Path("/proc").exists():
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=cache.parent))


def _manifest(source: Source, layout: Layout, settings: Settings, train_split: str) -> dict:
    content = {**asdict(settings), "train_split": train_split}
    del content["skip_unreadable"]  # what was skipped is recorded by name
    if not settings.split:
        del content["split"], content["split_seed"]
    generated = generated_by(source)
    return {
        "format": FORMAT,
        **content,
        "classes": list(layout.classes),
        "is_food11": layout.is_food11,
        "layout": layout.kind,
        "source": str(source.path),
        "source_digest": source.digest,
        **({"generated": generated} if generated else {}),
    }


def _decode_all(
    source: Source, plan: dict[str, list[Photo]], partial: Path, settings: Settings, strays: list[str]
) -> dict:
    """Fill the arrays of all splits. Returns the manifest's remaining keys."""
    failed: dict[str, str] = dict.fromkeys(strays, "no class in its name or folder")
    digests = _decode_in_processes(source, plan, partial, settings.image_px, failed)
    if failed and not settings.skip_unreadable:
        raise _unreadable_error(failed)
    for split, photos in plan.items():
        rows = [i for i, (path, _) in enumerate(photos) if path not in failed]
        if not rows:
            raise DataError(f"{source.path}: none of the {len(photos)} files of {split} could be read.")
        if len(rows) < len(photos):
            _keep_rows(partial / f"{split}.images.npy", rows)
        np.save(partial / f"{split}.labels.npy", np.array([photos[i][1] for i in rows], dtype=np.int64))
    contents = contents_of(source, plan, np.frombuffer(digests, np.uint8).reshape(-1, DIGEST_BYTES))
    save_contents(partial, contents)
    twice = {pair: len(names) for pair, names in in_two_splits(contents, failed).items()}
    return {
        "photos_digest": photos_digest(contents, plan, failed),
        "skipped": sorted(failed),
        **({"why_skipped": failed} if failed else {}),
        **({"photos_in_two_splits": twice} if twice else {}),
        "pillow": PIL.__version__,
    }


def _decode_in_processes(
    source: Source, plan: dict[str, list[Photo]], partial: Path, image_px: int, failed: dict[str, str]
) -> bytes:
    """Decode the photos of all splits, and add to `failed` why some of them could not be. Returns the digests of all."""
    total, digests = sum(len(photos) for photos in plan.values()), bytearray()
    pool = ProcessPoolExecutor(
        mp_context=multiprocessing.get_context("spawn"),
        initializer=start_worker,
        initargs=(source.where, source.is_zip, os.getpid()),
    )

    def finish(task: Future) -> None:
        done = task.result()
        bar.update(done.photos)
        failed.update(done.failed)
        digests.extend(done.digests)

    try:
        with tqdm(total=total, unit=" photos", desc="decoding", smoothing=0.1, disable=None) as bar:
            waiting: deque[Future] = deque()
            for rows, start, paths in _tasks(plan, partial, image_px):
                waiting.append(_submit(pool, decode_rows, rows, start, paths))
                if len(waiting) > WAITING:
                    finish(waiting.popleft())
            while waiting:
                finish(waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)
    return bytes(digests)


def _tasks(plan: dict[str, list[Photo]], partial: Path, image_px: int) -> Iterator[tuple[Rows, int, list[str]]]:
    """Make the arrays of all splits, (N, image_px, image_px, 3) uint8, and say which photos belong in which of their
    rows."""
    for split, photos in plan.items():
        target, shape = partial / f"{split}.images.npy", (len(photos), image_px, image_px, 3)
        rows = Rows(target, open_memmap(target, mode="w+", dtype=np.uint8, shape=shape).offset, image_px)
        for start in range(0, len(photos), CHUNK):
            yield rows, start, [path for path, _ in photos[start : start + CHUNK]]


def _submit(pool: ProcessPoolExecutor, *task: object) -> Future:
    """The worker that this may start inherits the block: a terminal sends Ctrl-C to it too, and it is the parent's alone."""
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(*task)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)


def _keep_rows(target: Path, rows: list[int]) -> None:
    """Rewrite an array file with these rows alone, without holding it in memory."""
    full = np.load(target, mmap_mode="r")
    kept_path = target.with_suffix(".kept")
    array = open_memmap(kept_path, mode="w+", dtype=np.uint8, shape=(len(rows), *full.shape[1:]))
    for new, old in enumerate(rows):
        array[new] = full[old]
    array.flush()
    os.replace(kept_path, target)


def _unreadable_error(failed: dict[str, str]) -> DataError:
    examples = "; ".join(f"{path} ({failed[path]})" for path in sorted(failed)[:20])
    more = f"; and {len(failed) - 20} more" if len(failed) > 20 else ""
    return DataError(
        f"{len(failed)} photo{'s' if len(failed) > 1 else ''} cannot be decoded: {examples}{more}. Fix or remove them, or repeat "
        "the command with --skip-unreadable to leave them out."
    )


def _replace(partial: Path, cache: Path) -> None:
    """Put the finished folder in the old one's place. A kill in between leaves no cache, never a half one."""
    os.chmod(partial, 0o755)  # mkdtemp makes it private; a cache may be shared
    if cache.exists():
        old = _partial_folder(cache)  # named so that the next preparation removes it if this one is killed here
        os.replace(cache, old)
        os.replace(partial, cache)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(partial, cache)
