"""An interrupted trial continues after its last epoch, with the curve that it would have had; and what ends it."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from conftest import PATIENCE_S, ROOT
from fixtures_trial import paced, small_in_place, small_network, trial_command
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data.cache import open_cache
from trial import TrialError
from trial.checkpoint import CheckpointError, Checkpoints, best_file, checkpoints
from trial.device import choose_compute
from trial.hyperparameters import Hyperparameters
from trial.run import Settings, run_trial
from trial.state import EpochMetrics, start_training

EPOCHS = 8
FLAGS = ["--weights", "none", "--image-px", "36", "--lr", "0.02", "--batch-size", "32", "--patience", "0"]
FLAGS += ["--device", "cpu", "--precision", "fp32", "--threads", "1"]


def hyperparameters(**values) -> Hyperparameters:
    given = {"weights": "none", "image_px": 36, "lr": 0.02, "batch_size": 32, "patience": 0, **values}
    return Hyperparameters().merged(given)


def settings(folder: Path, **values) -> Settings:
    return Settings(folder, "cpu", "fp32", 1, **values)


def curve(folder: Path) -> list[dict]:
    """The metrics of each line of epochs.jsonl, without the times."""
    names = [field.name for field in fields(EpochMetrics)]
    lines = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
    return [{name: line[name] for name in names} for line in lines]


class Cut(Exception):
    """Where this process stands in for one that was killed."""


def cut_after(epochs: int):
    def report(metrics):
        if metrics["epoch"] == epochs:
            raise Cut

    return report


@pytest.fixture(scope="module", autouse=True)
def small_networks() -> Iterator[None]:
    """What is kept and continued is the same for every network: those trained in this process are small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trial.run.build_model", small_in_place)
        yield


@pytest.fixture(scope="module")
def whole(tiny_cache, tmp_path_factory) -> Path:
    """A training that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    run_trial(hyperparameters(epochs=EPOCHS), open_cache(tiny_cache), settings(folder), lambda metrics: None)
    return folder


@pytest.fixture(scope="module")
def once_interrupted(tiny_cache, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("interrupted")
    with pytest.raises(Cut):
        run_trial(hyperparameters(epochs=3), open_cache(tiny_cache), settings(folder), cut_after(2))
    return folder


@pytest.fixture
def interrupted(once_interrupted, tmp_path) -> Path:
    """A training of three epochs that was cut after two; a copy for each test."""
    return Path(shutil.copytree(once_interrupted, tmp_path / "out"))


def run_until(folder: Path, words: list[str], epochs: int, number: int) -> subprocess.CompletedProcess:
    """A trial as a process, sent the signal a moment after its epoch: in the midst of the next."""
    process = trial_command(*words, network=paced)
    file, deadline = folder / "epochs.jsonl", time.monotonic() + PATIENCE_S
    epochs = max(epochs, 1 + len(file.read_text().splitlines()) if file.exists() else 0)
    while not file.exists() or len(file.read_text().splitlines()) < epochs:
        assert time.monotonic() < deadline and process.is_running, process.wait()
        time.sleep(0.01)
    time.sleep(0.05)
    process.send(number)
    return process.wait(5)  # NNI's SIGKILL comes then


def test_killed_three_times_the_curve_is_the_same_bit_for_bit(whole, tiny_cache, tmp_path):
    words = [*FLAGS, "--epochs", str(EPOCHS), "--cache", str(tiny_cache), "--output", str(tmp_path)]
    ends = []
    for epochs, number in ((2, signal.SIGKILL), (4, signal.SIGINT), (6, signal.SIGTERM)):
        ends.append(run_until(tmp_path, words, epochs, number))
        assert ends[-1].returncode == (-9 if number == signal.SIGKILL else 128 + number)
        assert checkpoints(tmp_path) and not (tmp_path / "best.pt").exists()
    line = ends[1].stderr
    assert "stopped: SIGINT after epoch" in line and f"--output {tmp_path}" in line
    assert line.count("\n") == 1 and "Traceback" not in line
    assert json.loads((tmp_path / "result.json").read_text())["stopped_by"] == "SIGTERM"
    done = trial_command(*words, network=paced).wait()
    assert done.returncode == 0, done.stderr
    assert "continued after epoch" in done.stdout
    assert curve(tmp_path) == curve(whole)
    compare_results(tmp_path, whole)


def compare_results(folder: Path, whole: Path) -> None:
    result, expected = (json.loads((place / "result.json").read_text()) for place in (folder, whole))
    for name in ("validation", "evaluation", "epochs_run", "best_epoch", "stopped_by", "micro_batch"):
        assert result[name] == expected[name], name
    starts = [attempt["after_epoch"] for attempt in result["attempts"]]
    assert len(starts) == 4 and starts == sorted(set(starts)) and starts[0] == 0 and starts[1] >= 2
    weights, others = (torch.load(place / "best.pt", weights_only=True)["model"] for place in (folder, whole))
    assert all(torch.equal(weights[name], others[name]) for name in others)
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    scalars = events.Scalars("val/accuracy")
    assert [event.step for event in scalars] == list(range(1, EPOCHS + 1))
    left = {file.name for file in folder.iterdir()}
    assert left == {".lock", "best.pt", "epochs.jsonl", "hyperparameters.json", "result.json", "tensorboard"}


def test_a_continued_trial_reports_its_earlier_epochs_again(interrupted, tiny_cache, capsys):
    seen = []
    final = run_trial(hyperparameters(epochs=3), open_cache(tiny_cache), settings(interrupted), seen.append)
    assert [metrics["epoch"] for metrics in seen] == [1, 2, 3] and final["epochs_run"] == 3
    assert [metrics["default"] for metrics in seen] == [line["val_accuracy"] for line in curve(interrupted)]
    assert "continued after epoch 2" in capsys.readouterr().out
    first, last = (json.loads(line)["seconds"] for line in (interrupted / "epochs.jsonl").read_text().splitlines()[::2])
    assert final["duration_s"] > last > first


def test_a_training_that_was_cut_after_its_last_epoch_only_evaluates(tiny_cache, tmp_path):
    h, cache = hyperparameters(epochs=2), open_cache(tiny_cache)
    with pytest.raises(Cut):
        run_trial(h, cache, settings(tmp_path), cut_after(2))
    before = curve(tmp_path)
    assert run_trial(h, cache, settings(tmp_path), lambda metrics: None)["epochs_run"] == 2
    assert curve(tmp_path) == before


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)


DAMAGE = {
    "half written": halve,
    "a byte changed": flip,
    "garbage": lambda file: file.write_bytes(b"\x80\x04garbage" * 1000),
    "empty": lambda file: file.write_bytes(b""),
    "no checkpoint": lambda file: torch.save([1, 2], file),
    "another version's": lambda file: torch.save({"format": 0}, file),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["checkpoint-*.pt", "best-*.pt"])
def test_a_damaged_checkpoint_is_not_continued(name, damage, interrupted, tiny_cache):
    h = hyperparameters(epochs=3)
    own = Checkpoints(interrupted, h, open_cache(tiny_cache), choose_compute("cpu", "fp32", 1))
    state = start_training(small_network(), h)
    own.load(state)
    for file in interrupted.glob(name):
        DAMAGE[damage](file)
    with pytest.raises(CheckpointError, match="^checkpoint-.*$") as refused:
        own.load(state)
    assert "\n" not in str(refused.value)


def test_after_damage_the_training_starts_anew_with_a_line(interrupted, whole, tiny_cache, capsys):
    for file in checkpoints(interrupted):
        halve(file)
    run_trial(hyperparameters(epochs=3), open_cache(tiny_cache), settings(interrupted), lambda metrics: None)
    output = capsys.readouterr().out
    assert re.search(r"checkpoint-(odd|even).pt cannot be read .*; the training starts anew", output)
    assert curve(interrupted) == curve(whole)[:3]  # of the same seed


@pytest.mark.parametrize("damage", [halve, lambda file: file.write_bytes(b""), Path.unlink])
def test_where_the_newest_is_torn_the_one_before_it_is_continued(damage, interrupted, whole, tiny_cache, capsys):
    """Killed, or the machine stopped, while it was written over."""
    damage(interrupted / "checkpoint-even.pt")
    run_trial(hyperparameters(epochs=3), open_cache(tiny_cache), settings(interrupted), lambda metrics: None)
    output = capsys.readouterr().out
    assert "continued after epoch 1" in output
    assert ("checkpoint-even.pt cannot be read" in output and "the one before it is whole" in output) == (
        damage is not Path.unlink
    )
    assert curve(interrupted) == curve(whole)[:3]


def test_both_checkpoints_find_their_best_weights(tiny_cache, tmp_path):
    """After each epoch, whichever was the best by then."""
    h, cache, seen = hyperparameters(epochs=EPOCHS), open_cache(tiny_cache), []

    def look(metrics):
        files = checkpoints(tmp_path)
        states = [torch.load(file, weights_only=True) for file in files]
        assert [len(state["lines"]) for state in states] == [metrics["epoch"], metrics["epoch"] - 1][: len(states)]
        assert all(best_file(tmp_path, state["best_epoch"]).exists() for state in states)
        named = {state["best_epoch"] for state in states}
        assert len(list(tmp_path.glob("best-*.pt"))) == len(named)
        seen.append(named)

    run_trial(h, cache, settings(tmp_path), look)
    assert any(len(named) == 2 for named in seen) and any(len(named) == 1 for named in seen[1:])


def test_another_trainings_checkpoint_is_kept_alone_and_replaced_under_nni(interrupted, tiny_cache, capsys):
    h, cache = hyperparameters(epochs=3, lr=0.03), open_cache(tiny_cache)
    with pytest.raises(TrialError, match=r"another training: lr 0.02 there, 0.03 here; .* choose another --output"):
        run_trial(h, cache, settings(interrupted), lambda metrics: None)
    assert checkpoints(interrupted)
    run_trial(h, cache, settings(interrupted, may_replace=True), lambda metrics: None)
    assert "lr 0.02 there, 0.03 here; the training starts anew" in capsys.readouterr().out
    assert len(curve(interrupted)) == 3 and curve(interrupted)[0]["lr"] == 0.03


# -- signals and the end of the parent, met by the thread that waits for them, whatever the training is doing ----------

# The training is a single call into C that lasts a minute or more: a handler of Python's own would wait for its end.
TRAINING = """
import hashlib, time
from trial.interrupts import Interrupts, Progress
progress = Progress()
final = {{"epochs_run": 3, "best_epoch": 2, "default": 0.5, "interrupted": 1}}
def close(final):
    print("reported", final["default"], flush=True)
    time.sleep({pause})
Interrupts(progress, close if {under_nni} else None).watch()
{setup}
print("begun", flush=True)
hashlib.pbkdf2_hmac("sha256", b"", b"", 200_000_000)
"""
REACHED = "progress.end_early = lambda reason: final"


def training(setup: str = REACHED, under_nni: bool = True, pause: float = 0.1) -> subprocess.Popen:
    code = TRAINING.format(setup=setup, under_nni=under_nni, pause=pause)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes)
    assert process.stdout.readline().startswith("begun")
    return process


def end(process: subprocess.Popen, number: int) -> tuple[int, str, str]:
    process.send_signal(number)
    out, err = process.communicate(timeout=5)  # NNI's patience
    assert err.count("\n") == 1 and "Traceback" not in err
    return process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_under_nni_the_result_so_far_is_reported_and_the_exit_code_is_0(number):
    code, out, err = end(training(), number)
    assert (code, out) == (0, "reported 0.5\n")
    assert err.startswith(f"stopped: {signal.Signals(number).name} after epoch 3: the result is that of epoch 2")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_without_an_epoch_there_is_a_line_and_the_signals_exit_code(number):
    code, out, err = end(training(setup="pass"), number)
    assert (code, out) == (128 + number, "") and "before the first epoch ended: no result" in err


def test_alone_the_exit_code_is_the_signals():
    code, out, err = end(training(under_nni=False), signal.SIGINT)
    assert (code, out) == (130, "") and "the result is that of epoch 2" in err


def test_a_second_signal_ends_at_once():
    process = training(pause=60)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "reported 0.5\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 128 + signal.SIGTERM
    process.communicate()


def test_a_result_is_never_reported_twice():
    process = training(setup=REACHED + "; progress.reported = True")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=5) == ("", "") and process.returncode == 0


def test_a_write_that_hangs_does_not_outlast_nnis_patience():
    code, out, err = end(training(setup=REACHED + "; progress.lock.acquire()"), signal.SIGINT)
    assert (code, out) == (130, "") and "while files were being written" in err


def test_a_trial_ends_when_its_manager_has_gone():
    code = TRAINING.format(setup=REACHED, under_nni=True, pause=0)
    parent = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]]).wait()"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    manager = subprocess.Popen([sys.executable, "-c", parent, code], cwd=ROOT, **pipes)
    assert manager.stdout.readline().startswith("begun")
    manager.kill()
    out, err = manager.communicate(timeout=10)  # they close when the trial, too, has ended
    assert (out, err) == ("", "error: NNI's manager has ended\n")
