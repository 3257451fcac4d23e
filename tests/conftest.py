"""What the tests share: a tiny cache, and a home of their own for NNI's experiments."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A run in the background of a script inherits that Ctrl-C is ignored, and what it starts would too: tests press it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_cache(tmp_path_factory) -> Path:
    """The generated sample in tiny: 40 px, six training images a class and two of each other split."""
    from data.prepare import Settings, prepare
    from data.sample import write_sample

    folder = tmp_path_factory.mktemp("tiny")
    counts = {"training": (6,) * 11, "validation": (2,) * 11, "evaluation": (2,) * 11}
    write_sample(folder / "photos", image_px=48, counts=counts)
    prepare(folder / "photos", folder / "cache", Settings(image_px=40))
    return folder / "cache"


@pytest.fixture(scope="session")
def nni_env(tmp_path_factory) -> Iterator[dict[str, str]]:
    """An environment in which NNI keeps its experiments in a folder of this test run; all are stopped at the end."""
    home = tmp_path_factory.mktemp("home")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "HOME": str(home), "PATH": path, "PYTHONUNBUFFERED": "1"}
    yield env
    subprocess.run(["nnictl", "stop", "--all"], env=env, capture_output=True, timeout=120, check=False)


def run_module(*words: str, env: dict[str, str] | None = None, timeout: float = 120) -> subprocess.CompletedProcess:
    """`python -m WORDS` in the repository's root."""
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout, check=False
    )


def interrupted_at(moment: str, *words: str, env: dict[str, str]) -> tuple[int, list[str]]:
    """`python -m WORDS`, ended as a terminal's Ctrl-C does when it says `moment`. Its exit code and its lines on stderr."""
    command = [sys.executable, "-m", *words]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)
    said = []
    with process:
        for line in process.stderr:
            said.append(line)
            if moment in line:
                os.killpg(process.pid, signal.SIGINT)  # the whole group
    return process.returncode, said
