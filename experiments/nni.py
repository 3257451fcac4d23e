"""The one place that talks to NNI: its command line, its managers and their REST interface, its registry, its processes."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from analysis.reading.locate import ACTIVE, is_running, registry
from experiments.config import Experiment
from experiments.findings import ExperimentError
from experiments.repairs import AS_NNICTL, THIS_FILE, are_off, with_repairs

FIRST_PORT = int(os.environ.get("FOOD11_FIRST_PORT", 8080))  # 8080 is NNI's own default
START_ATTEMPTS = 3
# Worth another attempt: somebody took the port meanwhile; and without the repairs, which give a manager 60 s to answer,
# the 3 s that NNI gives it. nnictl has ended the manager before it says either.
PORT_TAKEN = "not idle|EADDRINUSE"
TOO_BUSY = f"{PORT_TAKEN}|refused|Timeout|reset"
OWNER = "launched"  # in the experiment's folder: NNI's start time of the session that this program started
NNICTL_S = 240  # a busy machine: to load NNI (50 s at load 15 on two cores), then twice repairs.start.START_S
TERM_S = 20  # for nnictl to end a manager that was starting
GRACE_S = 5.0  # between SIGTERM and SIGKILL; a trial writes its last checkpoint meanwhile
_CODE = (
    f"import runpy; runpy.run_path({str(THIS_FILE)!r}, run_name={AS_NNICTL!r}); "
    "runpy.run_module('nni.tools.nnictl.nnictl', run_name='__main__', alter_sys=True)"
)
NNICTL = (sys.executable, "-W", "ignore", "-c", _CODE)  # pkg_resources warns; repaired whether or not a bare nnictl is
# No proxy between this machine and itself, whatever the environment says.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def trial_environment() -> dict[str, str]:
    """The environment in which NNI and its trials run: `python` means the interpreter that runs this."""
    folder = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": os.pathsep.join([folder, os.environ.get("PATH", "")])}


def is_free(port: int) -> bool:
    """Whether a server could listen there now, on all addresses as NNI does."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def find_port(first: int = FIRST_PORT) -> int:
    """The first free port from `first` on. Raises ExperimentError after a hundred taken ones."""
    for port in range(first, first + 100):
        if is_free(port):
            return port
    raise ExperimentError(f"no free port from {first} to {first + 99}; stop old experiments with: nnictl stop --all")


def count_gpus() -> int:
    """GPUs as NNI counts them: through NVML, 0 where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:
        return 0


def nnictl(*words: str) -> subprocess.CompletedProcess:
    """Run nnictl of this interpreter's environment, away from the terminal's Ctrl-C, which asks it to end: repaired, it
    then ends the manager that it has started.
    """
    command = [*NNICTL, *words]
    process = subprocess.Popen(
        command,
        env=with_repairs(trial_environment()),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=os.name == "posix",
    )
    interrupted, timed_out = False, False
    deadline = time.monotonic() + NNICTL_S
    while True:
        try:
            output, _ = process.communicate(timeout=max(0.0, deadline - time.monotonic()))
            break
        except KeyboardInterrupt:
            if not interrupted and words[0] in ("create", "resume") and not are_off():
                process.terminate()
            interrupted = True
        except subprocess.TimeoutExpired:
            process.kill() if timed_out else process.terminate()
            timed_out, deadline = True, time.monotonic() + TERM_S
    if interrupted:
        raise KeyboardInterrupt
    if timed_out:
        return subprocess.CompletedProcess(command, 1, f"nnictl {words[0]} did not end in {NNICTL_S} s")
    return subprocess.CompletedProcess(command, process.returncode, output)


def _reason(output: str) -> str:
    """The last line of nnictl's output with a reason, without colours and its advice for who called it by hand."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in output.splitlines()]
    reasons = [line for line in lines if line and not line.startswith(("Traceback", "File", "During", "^"))]
    return reasons[-1].removeprefix("error: ").split("; once fixed:")[0] if reasons else "nnictl gave no reason"


@dataclass(frozen=True)
class Manager:
    """A running experiment."""

    id: str
    name: str
    port: int
    folder: Path
    prefix: str = ""  # of nnictl's --url_prefix

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}" + (f"/{self.prefix}" if self.prefix else "")

    @property
    def is_ours(self) -> bool:
        """Whether launch, study or resume started the session that runs now; only those may be ended unasked."""
        try:
            return (self.folder / OWNER).read_text("utf-8") == str(_start_time(self.id))
        except (OSError, ValueError):
            return False

    def get(self, path: str) -> Any:
        """GET below NNI's REST base, for example "check-status". Raises urllib.error.HTTPError for an answer that is an
        error, another OSError where nobody answers in time, ValueError for an answer that is not JSON."""
        try:
            with _opener.open(f"{self.url}/api/v1/nni/{path}", timeout=10) as answer:
                return json.load(answer)
        except http.client.HTTPException as error:  # cut short, or not HTTP at all
            raise OSError(str(error)) from error

    def set_max_trials(self, trials: int) -> None:
        """As `nnictl update trialnum`; an experiment that is DONE continues. Raises OSError where nobody answers."""
        profile = self.get("experiment")
        profile["params"]["maxTrialNumber"] = trials
        request = urllib.request.Request(
            f"{self.url}/api/v1/nni/experiment?update_type=MAX_TRIAL_NUM",
            json.dumps(profile).encode(),
            {"Content-Type": "application/json"},
            method="PUT",
        )
        with _opener.open(request, timeout=10):
            pass

    def is_alive(self) -> bool:
        """Whether the manager's process is there: where NNI's registry has lost it, by the process list alone."""
        entry = registry().get(self.id)
        return is_running(entry) if entry else any(self._is_it(process) for process in psutil.process_iter(["cmdline"]))

    def _is_it(self, process: psutil.Process) -> bool:
        words = process.info["cmdline"] or []
        return self.id in words and any("nni_node" in word for word in words)


def start(experiment: Experiment) -> Manager:
    """Start an experiment on a free port, in a session of its own. Raises ExperimentError with NNI's reason."""
    return _start(experiment.name, "create", lambda port: _nnictl_create(experiment, port))


def restart(experiment_id: str, name: str, folder: Path) -> Manager:
    """Resume a stopped experiment, on a free port. Raises ExperimentError with NNI's reason."""
    # The folder is named because nnictl then asks neither its registry nor the number of a process that may be another.
    words = ("resume", experiment_id, "--experiment_dir", str(folder.parent))
    return _start(name, "resume", lambda port: nnictl(*words, "--port", str(port)))


def _start(name: str, verb: str, run: Callable[[int], subprocess.CompletedProcess]) -> Manager:
    port = FIRST_PORT
    for attempt in range(1, START_ATTEMPTS + 1):
        port = find_port(port)
        done = run(port)
        if done.returncode == 0:
            return _started(name, port)
        reason = _reason(done.stdout)
        if attempt == START_ATTEMPTS or not re.search(TOO_BUSY if are_off() else PORT_TAKEN, done.stdout):
            break
        print(f"{name}: NNI's manager did not start ({reason}); once more", file=sys.stderr)
        port += 1  # a manager that is still dying may hold the old one
        time.sleep(2)
    raise ExperimentError(f"{name}: nnictl {verb} failed: {reason}; look with: python -m experiments doctor")


def _nnictl_create(experiment: Experiment, port: int) -> subprocess.CompletedProcess:
    # JSON is YAML. NNI keeps its own copy in the database; this one is needed only while nnictl reads it.
    with tempfile.NamedTemporaryFile("w", suffix=".yml", encoding="utf-8") as file:
        json.dump(experiment.config, file)
        file.flush()
        return nnictl("create", "--config", file.name, "--port", str(port))


def _started(name: str, port: int) -> Manager:
    """What nnictl has just registered."""
    entry = next((entry for entry in registry().values() if entry.get("port") == port and is_running(entry)), None)
    if entry is None:
        raise ExperimentError(
            f"{name}: nnictl reported success, but NNI's manager on port {port} has ended; start again"
        )
    manager = replace(_manager(entry), name=name)
    with contextlib.suppress(OSError):  # on a full disk nobody may end it unasked
        (manager.folder / OWNER).write_text(str(_start_time(manager.id)), "utf-8")
    return manager


def _manager(entry: dict[str, Any]) -> Manager:
    """From NNI's registry, the one place that knows an experiment's prefix."""
    key = str(entry["id"])
    prefix = str(entry.get("prefixUrl") or "").strip("/")
    return Manager(key, entry.get("experimentName") or key, int(entry["port"]), Path(entry["logDir"]) / key, prefix)


def attach(experiment_id: str) -> Manager:
    """A manager that is already running, by its id. Raises ExperimentError where there is none."""
    entry = registry().get(experiment_id)
    if entry is None:
        raise ExperimentError(f"{experiment_id}: not in NNI's registry; python -m experiments watch lists what runs")
    if not is_running(entry):
        raise ExperimentError(
            f"{experiment_id}: not running (its manager has ended); read it with: python -m analysis, or view it with: "
            f"nnictl view {experiment_id}"
        )
    return _manager(entry)


def running_ids() -> list[str]:
    """Ids of all experiments whose manager is alive, oldest first; not those that only keep their page up."""
    alive = [e for e in registry().values() if is_running(e) and e.get("status") not in ("DONE", "VIEWED")]
    return [entry["id"] for entry in sorted(alive, key=lambda entry: entry.get("startTime") or 0)]


def _start_time(experiment_id: str) -> Any:
    return (registry().get(experiment_id) or {}).get("startTime")


def session_start(experiment_id: str) -> float | None:
    """When NNI last started or resumed it, seconds since 1970; None where its registry does not have it."""
    started = _start_time(experiment_id)
    return started / 1000 if isinstance(started, (int, float)) else None


def registered_status(experiment_id: str) -> str | None:
    """NNI's word in its registry, which the manager keeps; None for one that a living manager does not write."""
    status = (registry().get(experiment_id) or {}).get("status")
    return status if status in (*ACTIVE, "DONE", "ERROR") else None


def stop(manager: Manager) -> None:
    """Stop an experiment and its manager; kill the manager where it stays."""
    nnictl("stop", manager.id)
    deadline = time.monotonic() + 15
    while manager.is_alive():
        if time.monotonic() > deadline:
            print(f"{manager.name}: nnictl stop left its manager running; it is killed", file=sys.stderr)
            return kill(manager)
        time.sleep(0.5)


def kill(manager: Manager) -> None:
    """End a manager that does not answer. Its tuner and its trials remain: see `end_orphans`."""
    entry = registry().get(manager.id) or {}
    if is_running(entry):  # the process of that number is NNI's and names this experiment
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(int(entry["pid"]))
            process.kill()
            process.wait(10)
    _mark_stopped(manager.id)


def _mark_stopped(experiment_id: str) -> None:
    """In NNI's registry, which says RUNNING after a crash, until some nnictl command finds the number of the manager's
    process unused: never, where another program has been given it."""
    from nni.tools.nnictl.config_utils import Experiments

    Experiments().update_experiment(experiment_id, "status", "STOPPED")


def forget_dead() -> None:
    """Mark all experiments without a manager. After a restart their process numbers may be other programs', which a
    `nnictl stop --all` would end: NNI looks at the number alone."""
    for experiment_id, entry in registry().items():
        if entry.get("status") != "STOPPED" and not is_running(entry):
            _mark_stopped(experiment_id)


# Processes are known by what NNI wrote into their environment: every trial has NNI_EXP_ID and NNI_OUTPUT_DIR, the tuner
# NNI_LOG_DIRECTORY. They outlive a manager that was killed, and what a trial's shell command started outlives the shell.
# Nothing else is ever touched.


def trial_processes(experiment_id: str, folder: Path) -> list[psutil.Process]:
    """Processes of this experiment's trials, with those that they started."""
    inside = os.path.join(os.path.realpath(folder), "")
    return [
        process
        for process, environment in _own_processes()
        if environment.get("NNI_EXP_ID") == experiment_id
        and os.path.realpath(environment.get("NNI_OUTPUT_DIR", "/")).startswith(inside)
    ]


def tuner_processes(folder: Path) -> list[psutil.Process]:
    """Processes of this experiment's tuner: NNI calls them dispatcher."""
    logs = os.path.realpath(folder / "log")
    return [
        process
        for process, environment in _own_processes()
        if environment.get("SDK_PROCESS") == "dispatcher"
        and os.path.realpath(environment.get("NNI_LOG_DIRECTORY", "/")) == logs
    ]


def end_orphans(experiment_id: str, folder: Path) -> str:
    """End all processes of an experiment without a manager; in words what was ended, "" where nothing was."""
    orphans = {"trials": trial_processes(experiment_id, folder), "tuner": tuner_processes(folder)}
    _end([process for processes in orphans.values() for process in processes])
    return " and ".join(f"its {name} ({len(processes)} processes)" for name, processes in orphans.items() if processes)


def _end(processes: list[psutil.Process]) -> None:
    """Ask them to end, wait, kill what stays."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=GRACE_S)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=GRACE_S)


def _own_processes() -> Iterator[tuple[psutil.Process, dict[str, str]]]:
    """(process, environment) of this user's processes; not of this one and those that started it."""
    user = os.getuid()
    excluded = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid not in excluded and process.uids().real == user:
                yield process, process.environ()
