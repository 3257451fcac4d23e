"""What the tests share: a tiny cache, and for each process that runs tests a home and ports of its own for NNI.

`make test` runs them in several processes (pytest-xdist). Plain NNI gives its manager 3 s and its tuner 10 s to answer, and mostly
waits: the files that start NNI (`nni` in their names) run one after the other in the first process, all others file by
file in the other processes, which take the time that NNI leaves (nice).
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from xdist.scheduler import LoadFileScheduling

ROOT = Path(__file__).resolve().parent.parent

PATIENCE_S = 300  # the most that a test waits for a command, or for NNI: nothing takes so long unless it is broken

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
FIRST_PORT = 20_000 + 500 * (WORKER % 24)  # all below those that Linux gives to outgoing connections
os.environ["FOOD11_FIRST_PORT"] = str(FIRST_PORT)  # for the commands that start NNI; before experiments is imported
_ports = itertools.count(FIRST_PORT + 200)
if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: threads of many processes would wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if WORKER:
        os.nice(10)  # about a tenth of the share of the process of NNI's tests

# A run in the background of a script inherits that Ctrl-C is ignored, and what it starts would too: tests press it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class NniBesideOthers(LoadFileScheduling):
    """The files that start NNI are one group, every other file is one of its own."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "nni" if "nni" in file.rpartition("/")[2] else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> NniBesideOthers:
    return NniBesideOthers(config, log)


def pytest_xdist_auto_num_workers() -> int:
    """Of `-n auto`: one more than cores, since a test of NNI mostly waits."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores + 1, 12)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """NNI's files first, so that the first process takes them; then those with slow tests, so that none is left for the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: ("nni" not in item.path.name, item.path not in slow))


def new_port() -> int:
    """A free port that no test of this run has been given: the tuner of a killed manager attaches to the next one on
    the same port for 10 s."""
    from experiments.nni import is_free

    return next(port for port in _ports if is_free(port))


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` fills once per test run, whichever process needs it first."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not (folder / "made").exists():
            folder.mkdir(exist_ok=True)
            make(folder)
            (folder / "made").touch()
    return folder


@pytest.fixture(scope="session")
def tiny_cache(tmp_path_factory) -> Path:
    """The generated sample in tiny: 40 px, per class six training images and two of each other split."""
    from data.prepare import Settings, prepare
    from data.sample import write_sample

    def make(folder: Path) -> None:
        counts = {"training": (6,) * 11, "validation": (2,) * 11, "evaluation": (2,) * 11}
        write_sample(folder / "photos", image_px=48, counts=counts)
        prepare(folder / "photos", folder / "cache", Settings(image_px=40))

    return made_once(tmp_path_factory, "tiny", make) / "cache"


@pytest.fixture
def trial_in_forks(monkeypatch) -> None:
    """`check` asks the trial in forks of one process that has imported torch: a start of each takes seconds."""
    from fixtures_trial import describe_in_forks

    describe_in_forks(monkeypatch)


@pytest.fixture(scope="session")
def nni_env(tmp_path_factory) -> Iterator[dict[str, str]]:
    """An environment in which NNI keeps its experiments in a folder of this process; all are stopped at the end."""
    home = tmp_path_factory.mktemp("home")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "HOME": str(home), "PATH": path, "PYTHONUNBUFFERED": "1"}
    yield env
    subprocess.run(["nnictl", "stop", "--all"], env=env, capture_output=True, timeout=PATIENCE_S, check=False)


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

    def make(folder: Path) -> None:
        (folder / "stub.c").write_text(STUB_DRIVER)
        command = [compiler, "-shared", "-fPIC", "-w", "-o", folder / "libcuda.so.1", folder / "stub.c"]
        subprocess.run(command, check=True)

    folder = made_once(tmp_path_factory, "driver", make)
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("LD_LIBRARY_PATH")]))
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    return {**environment, "LD_LIBRARY_PATH": path, "STUB_DRIVER": "12020"}


def run_module(
    *words: str, env: dict[str, str] | None = None, timeout: float = PATIENCE_S
) -> subprocess.CompletedProcess:
    """`python -m WORDS` in the repository's root."""
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout, check=False
    )


def interrupted_at(moment: str, *words: str, env: dict[str, str]) -> tuple[int, list[str]]:
    """`python -m WORDS`, ended as a terminal's Ctrl-C does when it says `moment`. Its exit code and its lines on stderr."""
    command = [sys.executable, "-m", *words]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)
    lines = []
    with process:
        for line in process.stderr:
            lines.append(line)
            if moment in line:
                os.killpg(process.pid, signal.SIGINT)  # the whole group
    return process.returncode, lines


@pytest.fixture
def nni(tmp_path, monkeypatch) -> Path:
    """NNI's folder of experiments, in a home of its own, which is also the working directory."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nni-experiments").mkdir()
    return tmp_path / "nni-experiments"


@pytest.fixture
def plan(nni):
    """Two tuned configurations, "rank 1" (lr 0.02) and "rank 2" (lr 0.01), and the default; seeds 1, 2, 3."""
    from fixtures_confirm import plan_of, search

    return plan_of(search(nni, "search01", (0.8, 0.01), (0.9, 0.02), (0.7, 0.03)))
