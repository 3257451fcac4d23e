"""What the tests share: a tiny cache, and a home of their own for NNI's experiments."""

from __future__ import annotations

import os
import shutil
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


# A driver without a card: torch asks it for its version first. STUB_DRIVER: 12020 is CUDA 12.2.
STUB_DRIVER = r"""
#include <stdlib.h>
#include <string.h>
int cuDriverGetVersion(int *version) { *version = atoi(getenv("STUB_DRIVER")); return 0; }
int cuInit(unsigned flags) { return 0; }
int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags, void *status) {
    *function = !strcmp(name, "cuDriverGetVersion") ? (void *)cuDriverGetVersion
              : !strcmp(name, "cuInit") ? (void *)cuInit
              : !strcmp(name, "cuGetProcAddress") ? (void *)cuGetProcAddress_v2 : 0;
    return *function ? 0 : 500; /* CUDA_ERROR_NOT_FOUND */
}
int cuGetProcAddress(const char *name, void **function, int version, unsigned long long flags) {
    return cuGetProcAddress_v2(name, function, version, flags, 0);
}
"""


@pytest.fixture(scope="session")
def old_driver(tmp_path_factory) -> dict[str, str]:
    """An environment with a driver for CUDA 12.2, which torch's wheel for CUDA 13 finds too old."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "stub.c").write_text(STUB_DRIVER)
    subprocess.run([compiler, "-shared", "-fPIC", "-w", "-o", folder / "libcuda.so.1", folder / "stub.c"], check=True)
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("LD_LIBRARY_PATH")]))
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    return {**environment, "LD_LIBRARY_PATH": path, "STUB_DRIVER": "12020"}


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
