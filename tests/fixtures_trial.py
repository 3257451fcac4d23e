"""A small network where the test is not of the ResNet; and `python -m trial` without the seconds of its imports."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import PATIENCE_S, ROOT
from torch import nn

_FORKS = multiprocessing.get_context("forkserver")  # one process that has imported torch; each command is a fork of it
_FORKS.set_forkserver_preload(["trial.run"])


def small_network(classes: int = 11, seed: int = 0) -> nn.Module:
    """Logits (B, classes) from (B, 3, S, S), S of 16 and more; with batch normalisation."""
    torch.manual_seed(seed)
    body = [nn.Conv2d(3, 8, 5, stride=4), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(32, classes))


def small_in_place(arch: str, weights: str, classes: int, seed: int, *_: Any) -> nn.Module:
    """In place of trial.model.build_model."""
    return small_network(classes, seed)


def paced(arch: str, weights: str, classes: int, seed: int, *_: Any) -> nn.Module:
    """The same, 30 ms a step: there is time to interrupt an epoch."""
    model = small_network(classes, seed)
    model.register_forward_pre_hook(lambda *__: time.sleep(0.03))
    return model


class Fork:
    """A process that has imported the trial already. Its output is read when it has ended.

    file_limit: the most bytes that a file of it may have.
    """

    def __init__(self, target: Callable[..., int | None], *arguments: Any, file_limit: int | None = None) -> None:
        folder = tempfile.mkdtemp()
        self._outputs = [Path(folder, name) for name in ("stdout", "stderr")]
        self._process = _FORKS.Process(target=_run, args=(target, arguments, self._outputs, file_limit))
        self._process.start()

    @property
    def is_running(self) -> bool:
        return self._process.is_alive()

    def send(self, number: int) -> None:
        os.kill(self._process.pid, number)

    def wait(self, timeout_s: float = PATIENCE_S) -> subprocess.CompletedProcess:
        """What became of it. Raises TimeoutExpired."""
        self._process.join(timeout_s)
        if self.is_running:
            self._process.kill()
            raise subprocess.TimeoutExpired("fork", timeout_s)
        texts = [file.read_text("utf-8") if file.exists() else "" for file in self._outputs]
        shutil.rmtree(self._outputs[0].parent)
        return subprocess.CompletedProcess("fork", self._process.exitcode, *texts)


def _run(target: Callable[..., int | None], arguments: tuple, outputs: list[Path], file_limit: int | None) -> None:
    for file, descriptor in zip(outputs, (1, 2), strict=True):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8") for number in (1, 2))
    if file_limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    try:
        code = target(*arguments)
    except SystemExit as end:  # argparse's
        code = end.code
    except BaseException:  # noqa: BLE001 as Python ends
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


Network = Callable[[str, str, int, int], nn.Module]  # as trial.model.build_model


def trial_command(*words: str, network: Network | None = None, file_limit: int | None = None) -> Fork:
    """`python -m trial WORDS`, started; for what the imports change nothing in. network: in place of the ResNet."""
    return Fork(_trial, words, network, None, file_limit=file_limit)


def run_trial_command(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    return Fork(_trial, words, None, env).wait()


def describe_in_forks(patch: pytest.MonkeyPatch) -> None:
    """What experiments.check asks this project's trial, it asks a fork; but a process where other libraries are to be loaded."""
    libraries = os.environ.get("LD_LIBRARY_PATH")

    def run(command: list[str], cwd: str, env: dict[str, str], timeout: float, **options: Any):
        if command[1:3] == ["-m", "trial"] and Path(cwd) == ROOT and env.get("LD_LIBRARY_PATH") == libraries:
            return Fork(_trial, command[3:], None, env).wait(timeout)
        return subprocess.run(command, cwd=cwd, env=env, timeout=timeout, **options)

    patch.setattr("experiments.check.subprocess", SimpleNamespace(run=run, TimeoutExpired=subprocess.TimeoutExpired))


def run_code(code: str) -> subprocess.CompletedProcess:
    return Fork(_execute, code).wait()


def _trial(words: Sequence[str], network: Network | None, env: dict[str, str] | None) -> int:
    from trial import run
    from trial.__main__ import main

    run.build_model = network or run.build_model
    if env:
        os.environ.clear()
        os.environ.update(env)
    return main(list(words))


def _execute(code: str) -> None:
    exec(code, {"__name__": "__main__"})
