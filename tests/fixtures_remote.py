"""Machines for NNI's remote service: SSH servers on this machine's loopback, each with a home and a host key of its own.

No root is needed. Tests that use them are skipped where there is no sshd (Debian: openssh-server).
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import PATIENCE_S, new_port
from fixtures_nni import Run

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", ""))
needs_sshd = pytest.mark.skipif(SSHD is None, reason="there is no sshd (Debian: openssh-server)")


# A trial that speaks NNI's protocol itself, since importing nni takes seconds. Its arguments: epochs, and a file that must be
# there before the last one. It continues after the last epoch that it wrote down.
TRIAL = """
import json, os, sys, time, urllib.error, urllib.request
from pathlib import Path
epochs, go = int(sys.argv[1]), Path(sys.argv[2])
out, trial_id = Path(os.environ["NNI_OUTPUT_DIR"]), os.environ["NNI_TRIAL_JOB_ID"]

def call(command=None):
    data = None if command is None else json.dumps(command).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(os.environ["NNI_TRIAL_COMMAND_CHANNEL"], data, headers, method="PUT" if data else "GET")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()

def receive():
    while True:
        try:
            return json.loads(call())
        except urllib.error.HTTPError as error:
            if error.code != 408:
                raise

call({"type": "request_parameter"})
packed = json.loads(receive()["parameter"])
x = packed["parameters"]["x"]
(out / "parameters.json").write_text(json.dumps(packed["parameters"]))
names = {"home": "HOME", "gpus": "CUDA_VISIBLE_DEVICES", "node": "NODE_OPTIONS", "revision": "FOOD11_REVISION"}
(out / "env.json").write_text(json.dumps({short: os.environ.get(name) for short, name in names.items()}))
checkpoint = out / "epochs.json"
done = json.loads(checkpoint.read_text()) if checkpoint.exists() else []
attempt = done[-1][0] + 1 if done else 1

def report(kind, sequence, value):
    metric = {"parameter_id": packed["parameter_id"], "trial_job_id": trial_id, "type": kind, "sequence": sequence, "value": json.dumps(value)}
    call({"type": "metric", "metric": json.dumps(metric)})

for epoch in range(len(done) + 1, epochs + 1):
    time.sleep(0.2)
    while epoch == epochs and not go.exists():
        time.sleep(0.1)
    done.append((attempt, epoch))
    (out / "new.json").write_text(json.dumps(done))
    (out / "new.json").replace(checkpoint)
    report("PERIODICAL", epoch - 1, x)
(out / "tensorboard").mkdir(exist_ok=True)
(out / "tensorboard" / "events").write_text("events")
(out / "best.pt").write_bytes(bytes(100_000))
report("FINAL", 0, x)
"""


class Machine:
    """One SSH server on a loopback address. `home` is the home of who logs in, `variables` are more of their environment."""

    def __init__(self, folder: Path, number: int, key: Path, **variables: str) -> None:
        self.folder, self.home = folder, folder / "home"
        self.host, self.port, self.key = f"127.0.0.{number + 1}", new_port(), key
        self.home.mkdir(parents=True)
        self.new_host_key()
        lines = {
            "ListenAddress": f"{self.host}:{self.port}",
            "HostKey": folder / "host_key",
            "PidFile": "none",
            "AuthorizedKeysFile": f"{key}.pub",
            "PasswordAuthentication": "no",
            "UsePAM": "no",
            "StrictModes": "no",
            "SetEnv": " ".join(f"{name}={value}" for name, value in {"HOME": self.home, **variables}.items()),
            "Subsystem": "sftp internal-sftp",
        }
        (folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in lines.items()))
        self._server: subprocess.Popen | None = None

    def new_host_key(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self.folder / "host_key").unlink()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / "host_key"], check=True)

    def boot(self) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # sshd wants it there, where root starts it
        log = self.folder / "sshd.log"
        log.write_text("")
        self._server = subprocess.Popen([SSHD, "-D", "-f", self.folder / "sshd_config", "-E", log])
        eventually(lambda: f"port {self.port}" in log.read_text(), 10)

    def power_off(self) -> None:
        """Everything that runs there ends at once: the server, its sessions, keepers and trials."""
        if self._server is None:
            return
        self._server.kill()
        self._server.wait()
        self._server = None
        self.drop_connections()
        for process in self._processes():
            process.kill()

    def drop_connections(self) -> None:
        """The sessions end, as after a reset; the server and what runs on the machine stay."""
        for process in psutil.process_iter(["name"]):
            with contextlib.suppress(psutil.Error):
                is_server = self._server is not None and process.pid == self._server.pid
                if process.info["name"].startswith("sshd") and not is_server and self._has_our_port(process):
                    process.kill()

    def freeze(self) -> None:
        """The machine answers nothing any more, and its connections stay: as a pulled cable looks from here."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for process in psutil.process_iter(["name"]):
            with contextlib.suppress(psutil.Error):
                if process.info["name"].startswith("sshd") and self._has_our_port(process):
                    process.send_signal(number)
        for process in self._processes():
            process.send_signal(number)

    def _has_our_port(self, process: psutil.Process) -> bool:
        return any(one.laddr and one.laddr.port == self.port for one in process.net_connections("tcp"))

    def _processes(self) -> list[psutil.Process]:
        processes = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("HOME") == str(self.home):
                    processes.append(process)
        return processes

    def keepers(self) -> list[psutil.Process]:
        """NNI's trial keepers that run there."""
        return [
            process for process in self._processes() if any("trial_keeper" in word for word in process.cmdline()[:6])
        ]

    def known_hosts(self) -> str:
        kind, key, *_ = (self.folder / "host_key.pub").read_text().split()
        return f"[{self.host}]:{self.port} {kind} {key}\n"

    def entry(self, **changes: Any) -> dict[str, Any]:
        """The machine in trainingService.machineList."""
        entry = {"host": self.host, "port": self.port, "user": getpass.getuser(), "sshKeyFile": str(self.key)}
        return {**entry, "pythonPath": str(Path(sys.executable).parent), **changes}


@contextlib.contextmanager
def machines(folder: Path, manager_home: Path, count: int = 2, **variables: str):
    """`count` machines that have been booted and whose host keys are in the manager's known_hosts."""
    folder.mkdir(parents=True, exist_ok=True)
    key = folder / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    ours = [Machine(folder / f"machine{number}", number, key, **variables) for number in range(1, count + 1)]
    ssh = manager_home / ".ssh"
    ssh.mkdir(mode=0o700, exist_ok=True)
    (ssh / "known_hosts").write_text("".join(machine.known_hosts() for machine in ours))
    try:
        for machine in ours:
            machine.boot()
        yield ours
    finally:
        for machine in ours:
            machine.power_off()


class RemoteRun(Run):
    """An experiment whose trials run on machines. They end once `go` has been called."""

    def __init__(self, folder: Path, env: dict[str, str], ours: list[Machine], **config: Any) -> None:
        self._go = folder / "go"
        service = {"platform": "remote", "machineList": [machine.entry() for machine in ours]}
        command = f"python trial.py 3 {self._go}"
        defaults = {"trialConcurrency": 4, "maxTrialNumber": 8, "trialCommand": command, "trainingService": service}
        super().__init__(folder, env, {**defaults, **config}, trial=TRIAL)

    def go(self) -> None:
        self._go.touch()

    def await_log(self, text: str, times: int = 1) -> None:
        eventually(lambda: self.log("nnimanager").count(text) >= times)

    def finish(self) -> None:
        """Until all trials have ended, then nnictl stop."""
        self.go()
        self.wait(lambda: self.status == "DONE")
        self.call("stop", self.id)

    def manager(self) -> psutil.Process:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if (self.port, psutil.CONN_LISTEN) in [
                    (c.laddr.port, c.status) for c in process.net_connections("tcp")
                ]:
                    return process
        raise AssertionError("there is no manager")

    def trial_folders(self) -> dict[str, Path]:
        """Trial id -> its folder, copied from its machine."""
        return {folder.name: folder for folder in self.folder.glob("environments/*/trials/*")}

    def received(self) -> dict[str, dict]:
        return self.files("parameters.json")

    def files(self, name: str) -> dict[str, Any]:
        """Trial id -> what its JSON file of that name holds."""
        folders = self.trial_folders().items()
        return {trial: json.loads((folder / name).read_text()) for trial, folder in folders if (folder / name).exists()}

    def finals(self) -> dict[str, list[float]]:
        """Trial id -> its final results, as the database has them."""
        finals: dict[str, list[float]] = {}
        for trial, data in self.query("SELECT trialJobId, data FROM MetricData WHERE type = 'FINAL'"):
            finals.setdefault(trial, []).append(json.loads(json.loads(data)))
        return finals

    def assert_whole(self, count: int) -> None:
        """After the stop: each trial has succeeded with the parameters recorded for it and one result, and its files are here."""
        recorded = self.recorded()
        assert len(recorded) == count and self.received() == recorded
        assert self.finals() == {trial: [parameters["x"]] for trial, parameters in recorded.items()}
        assert {end for end, _ in self.ends().values()} == {"SUCCEEDED"}
        assert all((folder / "best.pt").stat().st_size == 100_000 for folder in self.trial_folders().values())


def eventually(is_so, seconds: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.2)
