"""A preparation that is stopped half way, really: no cache that loads, no half folder, no worker left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import PATIENCE_S
from fixtures_data import SPLITS, encode, two_dishes, write_tree
from PIL import Image

from data import DataError
from data.cache import open_cache
from data.prepare import Settings, prepare

PHOTOS = 10_000
PX = 32
REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """One picture under thousands of names. A PNG of noise takes some 2 ms, so that even 32 cores need a while."""
    noise = np.random.default_rng(0).integers(1, 256, (240, 240, 3), dtype=np.uint8)
    raw = encode(Image.fromarray(noise), "PNG", compress_level=1)
    root = tmp_path_factory.mktemp("many") / "photos"
    write_tree(root, {f"{split}/noise/0.png": raw for split in SPLITS})
    for i in range(1, PHOTOS):
        os.link(root / "training/noise/0.png", root / f"training/noise/{i}.png")
    yield root
    shutil.rmtree(root)  # pytest would keep three of them, and is slow at so many files


def wait_until_decoding(run: subprocess.Popen, folder: Path, deadline_s: float = PATIENCE_S) -> list[psutil.Process]:
    """Wait for the first decoded row in the unfinished folder; returns the processes that `run` has started."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        assert run.poll() is None, f"ended before it could be stopped: {run.communicate()}"
        for array in folder.glob(".cache.partial-*/training.images.npy"):
            if array.stat().st_size > PHOTOS * PX * PX * 3 and np.load(array, mmap_mode="r")[0].any():
                return psutil.Process(run.pid).children(recursive=True)
        time.sleep(0.02)
    raise AssertionError("nothing was decoded in time")


def wait_until_gone(processes: list[psutil.Process], deadline_s: float = PATIENCE_S) -> None:
    """An orphan that has ended may stay a zombie until the system's first process looks: that counts as gone."""
    end = time.monotonic() + deadline_s
    while left := [process for process in processes if is_alive(process)]:
        assert time.monotonic() < end, f"still running: {left}"
        time.sleep(0.02)


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


IN_BACKGROUND = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")  # how a script's `command &` starts: deaf to Ctrl-C


def stop_half_way(many: Path, folder: Path, stop, through: tuple[str, ...] = ()) -> tuple[int, str]:
    """Run the command until it decodes, then `stop(run, its processes)`. Returns exit code and standard error."""
    words = ["prepare", str(many), "--cache", str(folder / "cache"), "--image-px", str(PX)]
    run = subprocess.Popen(
        [*through, sys.executable, "-m", "data", *words],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        workers = wait_until_decoding(run, folder)
        assert workers
        stop(run, workers)
        _, err = run.communicate(timeout=PATIENCE_S)
        wait_until_gone(workers)
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
    return run.returncode, err


def is_deaf(process: psutil.Process, number: int) -> bool:
    """Whether a signal is blocked or ignored there, from the masks in /proc."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigBlk", "SigIgn"))]
    return any(mask >> (number - 1) & 1 for mask in masks)


def press_ctrl_c(run, workers):
    if sys.platform == "linux":  # a worker that is not prints its own traceback, where it waits or still starts
        assert all(is_deaf(worker, signal.SIGINT) for worker in workers)
    os.killpg(run.pid, signal.SIGINT)  # a terminal sends it to the command and to its workers


def terminate(run, workers):
    run.terminate()


@pytest.mark.parametrize("stop, through", [(press_ctrl_c, ()), (terminate, IN_BACKGROUND)])
def test_an_interrupt_leaves_nothing_behind(many, tmp_path, stop, through):
    code, err = stop_half_way(many, tmp_path, stop, through)
    assert (code, err) == (130, "interrupted: nothing incomplete was left; repeat the command to start again\n")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="no cache there"):
        open_cache(tmp_path / "cache")


@pytest.mark.slow
def test_a_killed_preparation_leaves_the_old_cache_whole_and_its_leftovers_to_the_next(many, tmp_path):
    dishes = write_tree(tmp_path / "dishes", two_dishes())
    manifest = prepare(dishes, tmp_path / "cache", Settings(PX))
    code, _ = stop_half_way(many, tmp_path, lambda run, workers: run.kill())
    assert code == -signal.SIGKILL
    assert open_cache(tmp_path / "cache").manifest["source_digest"] == manifest["source_digest"]
    assert len(list(tmp_path.glob(".cache.partial-*"))) == 1
    prepare(dishes, tmp_path / "cache", Settings(16))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "dishes"]


@pytest.mark.slow
def test_a_worker_that_is_killed_stops_the_preparation_in_one_line(many, tmp_path):
    """As the system does where memory is full."""

    def kill_one(run, workers):
        next(worker for worker in workers if "spawn_main" in " ".join(worker.cmdline())).kill()

    code, err = stop_half_way(many, tmp_path, kill_one)
    assert code == 1 and err.count("\n") == 1
    assert err.startswith("error: ") and "a decoding process was killed; free memory" in err
    assert list(tmp_path.iterdir()) == []
