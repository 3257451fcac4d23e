"""Full disks and caches that change under a trial: a clear line, the last checkpoint whole, nothing torn."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from test_trial_interrupted import COMMAND, curve, hyperparameters, settings

from data.cache import open_cache
from data.errors import DataError
from trial.epoch_log import EpochLog, epoch_line
from trial.errors import TrialError
from trial.run import run_trial

METRICS = {
    "epoch": 1,
    "lr": 0.1,
    "train_loss": 2.0,
    "train_accuracy": 0.1,
    "val_loss": 2.0,
    "val_accuracy": 0.1,
    "val_macro": 0.1,
}


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 160 MB: it holds the first epoch's checkpoint (45 MB of weights, 45 of momentum) and not the
    second's beside it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("file systems may not be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def trial(folder: Path, cache: Path, limit: int | None = None) -> subprocess.CompletedProcess:
    """Three epochs, of which the first stays the best: the learning rate is almost nothing."""
    words = ["--epochs", "3", "--lr", "1e-8", "--cache", str(cache), "--output", str(folder)]
    return subprocess.run(
        [*COMMAND, *words], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        preexec_fn=lambda: limit and resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip


def test_a_full_disk_ends_the_trial_and_more_room_lets_it_go_on(small_disk, tiny_cache):
    done = trial(small_disk, tiny_cache)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "checkpoint-even.pt: cannot be written (No space left on device); free space there" in done.stderr
    assert len(curve(small_disk)) == 1 and not (small_disk / "checkpoint-even.pt").exists()
    subprocess.run(["mount", "-o", "remount,size=400m", str(small_disk)], check=True)
    again = trial(small_disk, tiny_cache)
    assert again.returncode == 0 and "continued after epoch 1" in again.stdout, again.stderr
    assert len(curve(small_disk)) == 3


def test_a_limit_on_file_sizes_ends_it_as_a_full_disk_does(tmp_path, tiny_cache):
    done = trial(tmp_path, tiny_cache, limit=60 * 2**20)  # the second epoch's checkpoint holds weights and momentum
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "checkpoint-even.pt: cannot be written (File too large)" in done.stderr
    again = trial(tmp_path, tiny_cache)
    assert again.returncode == 0 and "continued after epoch 1" in again.stdout, again.stderr


def test_the_epoch_log_tells_of_a_full_disk_at_once_and_without_a_thread(small_disk, capfd):
    log = EpochLog(small_disk, [])
    with (small_disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space left"):
        while True:
            filler.write(bytes(4096))
    with pytest.raises(TrialError, match=r"cannot be written \(No space left on device\)"):
        for epoch in range(1, 100):  # the files' last pages take a few lines more
            log.add(epoch_line({**METRICS, "epoch": epoch}, 1.0))
    assert capfd.readouterr().err == ""
    (small_disk / "filler").unlink()


def test_a_cache_that_is_removed_stays_readable(tiny_cache, tmp_path):
    cache = tmp_path / "cache"
    shutil.copytree(tiny_cache, cache)
    opened = open_cache(cache)
    final = run_trial(
        hyperparameters(epochs=2),
        opened,
        settings(tmp_path / "out"),
        lambda m: shutil.rmtree(cache, ignore_errors=True),
    )
    assert not cache.exists() and final["epochs_run"] == 2 and final["evaluation_n"] == 22


def test_a_cache_that_is_cut_short_is_a_clear_line_and_no_bus_error(tiny_cache, tmp_path):
    cache, out = tmp_path / "cache", tmp_path / "out"
    shutil.copytree(tiny_cache, cache)

    def cut(metrics):
        with (cache / "training.images.npy").open("r+b") as file:
            file.truncate(5000)

    h = hyperparameters(epochs=2)
    with pytest.raises(DataError) as error:
        run_trial(h, open_cache(cache), settings(out), cut)
    for part in ("training.images.npy: 5000 bytes, expected 316928", "python -m data prepare", f"--cache {cache}"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    shutil.copytree(tiny_cache, cache, dirs_exist_ok=True)
    assert run_trial(h, open_cache(cache), settings(out), lambda metrics: None)["epochs_run"] == 2
    assert len(curve(out)) == 2


def test_reading_a_cut_map_is_what_kills_a_plain_script(tiny_cache, tmp_path):
    """What `require_whole` is for: without it the process is gone, with no word."""
    shutil.copy(tiny_cache / "training.images.npy", tmp_path / "images.npy")
    code = (
        "import numpy, os, sys; images = numpy.load(sys.argv[1], mmap_mode='r'); os.truncate(sys.argv[1], 5000); "
        "images[60:].sum(); print('read')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "images.npy")], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (-7, "", "")
