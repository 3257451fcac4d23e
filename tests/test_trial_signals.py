"""Signals and the end of the parent, met by the thread that waits for them, whatever the training is at."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from conftest import ROOT

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
    assert process.wait(timeout=2) == 128 + signal.SIGTERM
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
