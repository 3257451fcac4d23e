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
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import PIL
from numpy.lib.format import open_memmap
from tqdm import tqdm

from data.cache import FORMAT, check_files, read_manifest, write_manifest
from data.contents import contents_of, has_same_photos, in_two_splits, save_contents
from data.errors import DataError
from data.formats import can_read_now
from data.layouts import SPLITS, Layout, read_layout
from data.names import Photos
from data.rows import Rows, decode_rows, start_worker
from data.sample import generated_by
from data.skew import skew_like_the_lab
from data.source import DIGEST_BYTES, Source, open_source

CHUNK = 64  # photos a task: long enough to hide the hand-over, short enough for a smooth progress bar
WAITING = 4 * (os.cpu_count() or 1)  # tasks: enough that no worker waits for one, few enough to weigh nothing


@dataclass(frozen=True)
class Settings:
    """What decides a cache's content, besides its source."""

    image_px: int = 256
    train_split: str = "auto"  # auto: the skewed split where the source has one, else the full one
    skew: str = "none"  # "lab": derive the skewed split from the full one
    skip_unreadable: bool = False


def prepare(source_path: Path, cache: Path, settings: Settings) -> dict:
    """Make the cache and return its manifest; an up-to-date one is left as it is ("reused" is then true).

    Raises DataError where the source is not understood, a photo cannot be read, or `cache` is no cache of ours.
    """
    try:
        source = open_source(source_path.resolve())
    except OSError as error:
        raise DataError(f"{source_path}: cannot be read ({error}); connect or mount it again, then repeat.") from error
    layout = read_layout(source.files, str(source_path))
    plan, train_split = _plan(layout, settings, str(source_path))
    cache = cache.resolve()  # a link to a bigger disk stays a link
    old = _old_manifest(cache, source.path)
    manifest = _manifest(source, layout, settings, train_split)
    if (
        old
        and all(old.get(key) == value for key, value in manifest.items() if key not in ("source", "source_digest"))
        and (settings.skip_unreadable or not old["skipped"])
        and not can_read_now(old.get("why_skipped", {}).values())
        and _is_whole(cache, old)
        and (old["source_digest"] == source.digest or has_same_photos(cache, old, source, plan, layout.strays))
    ):
        return {**_moved(cache, old, source), "reused": True}
    partial = None
    try:
        partial = _partial_folder(cache)
        manifest.update(_decode_all(source, plan, partial, settings, layout.strays))
        manifest["counts"] = {
            split: np.bincount(np.load(partial / f"{split}.labels.npy"), minlength=len(layout.classes)).tolist()
            for split in SPLITS
        }
        write_manifest(partial, manifest)
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
    return {**manifest, "reused": False}


def _plan(layout: Layout, settings: Settings, source: str) -> tuple[dict[str, Photos], str]:
    """The files of each split of the cache, and which source split trains."""
    available = [name for name in ("skewed_training", "training") if layout.files.get(name)]
    train_split = settings.train_split
    if train_split == "auto":
        train_split = "training" if settings.skew == "lab" else (available or ["training"])[0]
    missing = [name for name in (train_split, "validation", "evaluation") if not layout.files.get(name)]
    if missing:
        found = ", ".join(f"{name} ({len(files)})" for name, files in layout.files.items())
        raise DataError(f"{source}: no images for {' and '.join(missing)}; found {found}.")
    training = layout.files[train_split]
    if settings.skew == "lab":
        if not layout.is_food11 or train_split != "training":
            raise DataError(
                f"{source}: --skew lab needs Food-11's full training split, found {train_split} of "
                f"{len(layout.classes)} classes ({', '.join(layout.classes[:3])}, ...). Leave --skew away."
            )
        training = skew_like_the_lab(training)
    plan = {"training": training, "validation": layout.files["validation"], "evaluation": layout.files["evaluation"]}
    trained = set(training.class_ids)
    for split in ("validation", "evaluation"):
        if unseen := sorted(set(plan[split].class_ids) - trained):
            names = ", ".join(layout.classes[class_id] for class_id in unseen)
            raise DataError(f"{source}: {split} has images of {names}, but {train_split} has none to learn from.")
    return plan, train_split


def _old_manifest(cache: Path, source: Path) -> dict | None:
    if source in cache.parents:
        raise DataError(f"{cache}: lies inside the photos' folder; name a folder outside {source} with --cache.")
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
    for left in cache.parent.glob(prefix + "*"):
        pid = left.name.removeprefix(prefix).split("-")[0]
        if not Path(f"/proc/{pid}").exists() and Path("/proc").exists():
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=cache.parent))


def _manifest(source: Source, layout: Layout, settings: Settings, train_split: str) -> dict:
    chosen = {**asdict(settings), "train_split": train_split}
    del chosen["skip_unreadable"]  # what was skipped is recorded by name
    generated = generated_by(source)
    return {
        "format": FORMAT,
        **chosen,
        "classes": list(layout.classes),
        "is_food11": layout.is_food11,
        "layout": layout.kind,
        "source": str(source.path),
        "source_digest": source.digest,
        **({"generated": generated} if generated else {}),
    }


def _decode_all(source: Source, plan: dict[str, Photos], partial: Path, settings: Settings, strays: list[str]) -> dict:
    """Fill the arrays of all splits. Returns the manifest's remaining keys."""
    failed: dict[str, str] = dict.fromkeys(strays, "no class in its name or folder")
    total, digests = sum(len(files) for files in plan.values()), bytearray()
    pool = ProcessPoolExecutor(
        mp_context=multiprocessing.get_context("spawn"),
        initializer=start_worker,
        initargs=(source.path, source.is_zip, os.getpid()),
    )

    def advance(task: Future) -> None:
        done, reasons, of_these = task.result()
        bar.update(done)
        failed.update(reasons)
        digests.extend(of_these)

    try:
        with tqdm(total=total, unit=" photos", desc="decoding", smoothing=0.1, disable=None) as bar:
            waiting: deque[Future] = deque()
            for rows, start, paths in _tasks(plan, partial, settings.image_px):
                waiting.append(_submit(pool, decode_rows, rows, start, paths))
                if len(waiting) > WAITING:
                    advance(waiting.popleft())
            while waiting:
                advance(waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)
    if failed and not settings.skip_unreadable:
        raise _unreadable_error(failed)
    for split, files in plan.items():
        kept = [i for i, path in enumerate(files.paths) if path not in failed]
        if not kept:
            raise DataError(f"{source.path}: none of the {len(files)} files of {split} could be read.")
        if len(kept) < len(files):
            _keep_rows(partial / f"{split}.images.npy", kept)
        np.save(partial / f"{split}.labels.npy", np.array(files.class_ids, dtype=np.int64)[kept])
    contents = contents_of(source, plan, np.frombuffer(digests, np.uint8).reshape(-1, DIGEST_BYTES))
    save_contents(partial, contents)
    twice = {pair: len(names) for pair, names in in_two_splits(contents, failed).items()}
    return {
        "skipped": sorted(failed),
        **({"why_skipped": failed} if failed else {}),
        **({"photos_in_two_splits": twice} if twice else {}),
        "pillow": PIL.__version__,
    }


def _tasks(plan: dict[str, Photos], partial: Path, image_px: int) -> Iterator[tuple[Rows, int, list[str]]]:
    """Make the arrays of all splits, (N, image_px, image_px, 3) uint8, and say which photos belong in which of their
    rows."""
    for split, files in plan.items():
        target, shape = partial / f"{split}.images.npy", (len(files), image_px, image_px, 3)
        rows = Rows(target, open_memmap(target, mode="w+", dtype=np.uint8, shape=shape).offset, image_px)
        for start in range(0, len(files), CHUNK):
            yield rows, start, files.paths[start : start + CHUNK]


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
    kept = open_memmap(kept_path, mode="w+", dtype=np.uint8, shape=(len(rows), *full.shape[1:]))
    for new, old in enumerate(rows):
        kept[new] = full[old]
    kept.flush()
    os.replace(kept_path, target)


def _unreadable_error(failed: dict[str, str]) -> DataError:
    shown = "; ".join(f"{path} ({failed[path]})" for path in sorted(failed)[:20])
    more = f"; and {len(failed) - 20} more" if len(failed) > 20 else ""
    return DataError(
        f"{len(failed)} unreadable file{'s' if len(failed) > 1 else ''}: {shown}{more}. Mend or remove them, or repeat "
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
