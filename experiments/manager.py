"""NNI's manager processes: start one, ask it, stop it. Always through nnictl and its REST interface."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from analysis.reading.locate import ACTIVE, is_running, registry
from experiments.config import Experiment
from experiments.errors import ExperimentError
from experiments.nnictl import nnictl, reason_of
from experiments.ports import FIRST, find_port
from experiments.repairs import are_off

START_ATTEMPTS = 3
# Worth another attempt: somebody took the port meanwhile; and without the repairs, which give a manager 60 s to answer,
# the 3 s that NNI gives it. nnictl has ended the manager before it says either.
PORT_TAKEN = "not idle|EADDRINUSE"
TOO_BUSY = f"{PORT_TAKEN}|refused|Timeout|reset"
OWNER = "launched"  # in the experiment's folder: NNI's start time of the session that this program started
# No proxy between this machine and itself, whatever the environment says.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


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
        """Whether launch, study or resume started the session that runs now; only those may be ended without a word."""
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
        """As `nnictl update trialnum`; an experiment that is DONE goes on. Raises OSError where nobody answers."""
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


def resume(experiment_id: str, name: str, folder: Path) -> Manager:
    """Go on with a stopped experiment, on a free port. Raises ExperimentError with NNI's reason."""
    # The folder is named because nnictl then asks neither its registry nor the number of a process that may be another.
    words = ("resume", experiment_id, "--experiment_dir", str(folder.parent))
    return _start(name, "resume", lambda port: nnictl(*words, "--port", str(port)))


def _start(name: str, verb: str, run: Callable[[int], subprocess.CompletedProcess]) -> Manager:
    port = FIRST
    for attempt in range(1, START_ATTEMPTS + 1):
        port = find_port(port)
        done = run(port)
        if done.returncode == 0:
            return _started(name, port)
        reason = reason_of(done.stdout)
        if attempt < START_ATTEMPTS and re.search(TOO_BUSY if are_off() else PORT_TAKEN, done.stdout):
            print(f"{name}: NNI's manager did not start ({reason}); once more", file=sys.stderr)
            port += 1  # a manager that is still dying may hold the old one
            time.sleep(2)
            continue
        break
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
    manager = replace(_of(entry), name=name)
    with contextlib.suppress(OSError):  # on a full disk nobody may end it unasked
        (manager.folder / OWNER).write_text(str(_start_time(manager.id)), "utf-8")
    return manager


def _of(entry: dict[str, Any]) -> Manager:
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
    return _of(entry)


def _start_time(experiment_id: str) -> Any:
    return (registry().get(experiment_id) or {}).get("startTime")


def session_start(experiment_id: str) -> float | None:
    """When NNI last started or resumed it, seconds since 1970; None where its registry does not tell."""
    started = _start_time(experiment_id)
    return started / 1000 if isinstance(started, (int, float)) else None


def registered_status(experiment_id: str) -> str | None:
    """NNI's word in its registry, which the manager keeps; None for one that a living manager does not write."""
    status = (registry().get(experiment_id) or {}).get("status")
    return status if status in (*ACTIVE, "DONE", "ERROR") else None


def running_ids() -> list[str]:
    """Ids of all experiments whose manager is alive, oldest first; not those that only keep their page up."""
    alive = [e for e in registry().values() if is_running(e) and e.get("status") not in ("DONE", "VIEWED")]
    return [entry["id"] for entry in sorted(alive, key=lambda entry: entry.get("startTime") or 0)]


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
    """End a manager that does not listen. Its tuner and its trials remain: see processes.end_orphans."""
    entry = registry().get(manager.id) or {}
    if is_running(entry):  # the process of that number is NNI's and names this experiment
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(int(entry["pid"]))
            process.kill()
            process.wait(10)
    mark_stopped(manager.id)


def mark_stopped(experiment_id: str) -> None:
    """In NNI's registry, which says RUNNING after a crash, until some nnictl command finds the number of the manager's
    process unused: never, where another program has been given it."""
    from nni.tools.nnictl.config_utils import Experiments

    Experiments().update_experiment(experiment_id, "status", "STOPPED")


def forget_dead() -> None:
    """Mark all experiments without a manager. After a restart their process numbers may be other programs', which a
    `nnictl stop --all` would end: NNI looks at the number alone."""
    for experiment_id, entry in registry().items():
        if entry.get("status") != "STOPPED" and not is_running(entry):
            mark_stopped(experiment_id)
