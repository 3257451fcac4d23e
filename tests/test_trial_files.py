"""A trial's folder: full disks, caches that change under a trial, TensorBoard's files, earlier attempts, the commit."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from fixtures_trial import run_trial_command, small_in_place, trial_command
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow
from tensorboard.summary.writer.record_writer import RecordWriter
from test_trial_interrupted import FLAGS, curve, hyperparameters, settings

from data import DataError
from data.cache import open_cache
from trial import TrialError
from trial.checkpoint import refuse_others
from trial.files import (
    EpochLog,
    crc32c,
    epoch_line,
    event_record,
    event_records,
    events_of,
    lock_folder,
    masked_crc32c,
    write_hyperparameters,
    write_json,
)
from trial.hyperparameters import Hyperparameters
from trial.result import code_revision, finished_result, report_again
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


@pytest.fixture
def small_in_places(monkeypatch) -> None:
    """Of the trainings in this process."""
    monkeypatch.setattr("trial.run.build_model", small_in_place)


def trial(folder: Path, cache: Path, file_limit: int | None = None) -> subprocess.CompletedProcess:
    """Three epochs, of which the first stays the best: the learning rate is almost nothing."""
    words = ["--epochs", "3", "--lr", "1e-8", "--cache", str(cache), "--output", str(folder)]
    return trial_command(*FLAGS, *words, file_limit=file_limit).wait()


@pytest.mark.slow
def test_a_full_disk_ends_the_trial_and_more_room_lets_it_go_on(small_disk, tiny_cache):
    done = trial(small_disk, tiny_cache)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "checkpoint-even.pt: cannot be written (No space left on device); free space there" in done.stderr
    assert len(curve(small_disk)) == 1 and not (small_disk / "checkpoint-even.pt").exists()
    subprocess.run(["mount", "-o", "remount,size=400m", str(small_disk)], check=True)
    again = trial(small_disk, tiny_cache)
    assert again.returncode == 0 and "continued after epoch 1" in again.stdout, again.stderr
    assert len(curve(small_disk)) == 3


@pytest.mark.slow
def test_a_limit_on_file_sizes_ends_it_as_a_full_disk_does(tmp_path, tiny_cache):
    done = trial(tmp_path, tiny_cache, 60 * 2**20)  # the second epoch's checkpoint holds weights and momentum
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


def test_a_cache_that_is_removed_stays_readable(small_in_places, tiny_cache, tmp_path):
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


def test_a_cache_that_is_cut_short_is_a_clear_line_and_no_bus_error(small_in_places, tiny_cache, tmp_path):
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


# -- the event files are TensorBoard's own, byte by byte ---------------------------------------------------------------


def test_records_are_those_of_tensorboards_writer():
    for content in (b"", b"a", bytes(range(256)) * 3):
        buffer = io.BytesIO()
        RecordWriter(buffer).write(content)
        assert event_record(content) == buffer.getvalue()
        assert masked_crc32c(content) == pywrap_tensorflow.masked_crc32c(content)


def test_the_published_checksum():
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, appendix B.4


def test_an_epoch_is_an_event_per_value():
    events = events_of({"epoch": 3, "val_accuracy": 0.5, "seconds": 9.0, "time": 1.5})
    value = Summary.Value(tag="val/accuracy", simple_value=0.5)
    expected = Event(wall_time=1.5, step=3, summary=Summary(value=[value])).SerializeToString()
    assert event_records(events) == event_record(expected)


# -- a folder that holds an earlier attempt ----------------------------------------------------------------------------


H = Hyperparameters(lr=0.01)


def ended(folder, interrupted=0):
    """What a training of two epochs leaves that was killed between its result and its report to NNI."""
    log = EpochLog(folder, [])
    for epoch in (1, 2):
        metrics = {
            "train_loss": 2.0,
            "train_accuracy": 0.1,
            "val_loss": 2.0,
            "val_accuracy": epoch / 10,
            "val_macro": 0.1,
            "lr": 0.01,
        }
        log.add(epoch_line({"epoch": epoch, **metrics}, 1.0))
    final = {"default": 0.2, "interrupted": interrupted}
    write_json(folder / "result.json", {"hyperparameters": asdict(H), "best_epoch": 2, "final": final})
    (folder / "best-2.pt").write_bytes(b"weights")
    (folder / "checkpoint-odd.pt").write_bytes(b"state")


def test_a_training_that_nni_did_not_hear_the_end_of_is_reported_again(tmp_path):
    ended(tmp_path)
    seen = []
    assert report_again(tmp_path, finished_result(tmp_path, H), seen.append) == {"default": 0.2, "interrupted": 0}
    assert [(metrics["epoch"], metrics["default"]) for metrics in seen] == [(1, 0.1), (2, 0.2)]
    assert (tmp_path / "best.pt").read_bytes() == b"weights"
    assert not list(tmp_path.glob("best-*.pt")) and not (tmp_path / "checkpoint-odd.pt").exists()


def test_what_did_not_end_well_or_is_of_other_hyperparameters_is_not(tmp_path):
    assert finished_result(tmp_path, H) is None
    ended(tmp_path)
    assert finished_result(tmp_path, Hyperparameters(lr=0.02)) is None
    ended(tmp_path, interrupted=1)
    assert finished_result(tmp_path, H) is None
    (tmp_path / "result.json").write_text('{"hyperparameters": {')
    assert finished_result(tmp_path, H) is None


def test_an_interrupted_training_is_not_written_over_by_another(tmp_path):
    write_hyperparameters(tmp_path, {}, H)
    refuse_others(tmp_path, Hyperparameters(lr=0.02))  # nothing to lose yet
    (tmp_path / "checkpoint-odd.pt").write_bytes(b"state")
    refuse_others(tmp_path, H)
    with pytest.raises(TrialError, match=r"interrupted training with lr = 0.01; give the same again"):
        refuse_others(tmp_path, Hyperparameters(lr=0.02))


def test_two_trainings_do_not_write_to_one_folder(tmp_path, tiny_cache):
    lock_folder(tmp_path, wait_s=0)
    words = ["--cache", str(tiny_cache), "--weights", "none", "--image-px", "32", "--output", str(tmp_path)]
    done = run_trial_command(*words)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "another training writes there" in done.stderr and not (tmp_path / "hyperparameters.json").exists()


# -- the commit that a result names ------------------------------------------------------------------------------------


def git(folder, *words):
    identity = ["-c", "user.name=A Student", "-c", "user.email=student@example.org"]
    return subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_the_commit_and_whether_files_differ_from_it(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "code.py").write_text("a = 1\n")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD").strip()
    assert code_revision(tmp_path) == commit
    (tmp_path / "untracked.txt").write_text("a run's output\n")
    assert code_revision(tmp_path) == commit
    (tmp_path / "code.py").write_text("a = 2\n")
    assert code_revision(tmp_path) == commit + "+changes"


def test_a_copy_without_a_repository_of_its_own_is_unknown(tmp_path):
    git(tmp_path, "init")
    copy = tmp_path / "unpacked"
    copy.mkdir()
    assert code_revision(copy) == "unknown"  # the commit around it is another project's
    assert code_revision(tmp_path) == "unknown"  # no commit yet
