"""Machines for NNI's remote service: SSH servers on this machine's loopback, each with a home and a host key of its own.

No root is needed. Tests that use them are skipped where there is no sshd (Debian: openssh-server).
"""

from __future__ import annotations

import contextlib
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


class Machine:
    """One SSH server on a loopback address. `home` is the home of who logs in."""

    def __init__(self, folder: Path, number: int, key: Path, **settings: str) -> None:
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
            "SetEnv": f"HOME={self.home}",
            "Subsystem": "sftp internal-sftp",
            **settings,
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
        log = (self.folder / "sshd.log").open("ab")
        self._server = subprocess.Popen([SSHD, "-D", "-e", "-f", self.folder / "sshd_config"], stderr=log)
        deadline = time.monotonic() + 10
        while f"port {self.port}" not in (self.folder / "sshd.log").read_text():
            assert time.monotonic() < deadline and self._server.poll() is None, (self.folder / "sshd.log").read_text()
            time.sleep(0.05)

    def power_off(self) -> None:
        """Everything that runs there ends at once: the server, its sessions, keepers and trials."""
        if self._server is None:
            return
        ours = f"HOME={self.home}"
        self._server.kill()
        self._server.wait()
        self._server = None
        (self.folder / "sshd.log").unlink()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                is_session = "sshd" in process.name() and any(
                    one.laddr.port == self.port for one in process.net_connections("tcp")
                )
                if is_session or process.environ().get("HOME") == ours.removeprefix("HOME="):
                    process.kill()

    def drop_connections(self) -> None:
        """The sessions end, as after a reset; the server and what runs on the machine stay."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                is_server = self._server is not None and process.pid == self._server.pid
                if not is_server and "sshd" in process.name() and self._has_our_port(process):
                    process.send_signal(signal.SIGKILL)

    def _has_our_port(self, process: psutil.Process) -> bool:
        return any(one.laddr.port == self.port for one in process.net_connections("tcp"))

    def known_hosts(self) -> str:
        kind, key, *_ = (self.folder / "host_key.pub").read_text().split()
        return f"[{self.host}]:{self.port} {kind} {key}\n"

    def entry(self, **changes: Any) -> dict[str, Any]:
        """The machine in trainingService.machineList."""
        import getpass

        entry = {"host": self.host, "port": self.port, "user": getpass.getuser(), "sshKeyFile": str(self.key)}
        return {**entry, "pythonPath": str(Path(sys.executable).parent), **changes}

    def trials(self, experiment_id: str) -> Path:
        (folder,) = (self.home / "nni-experiments" / experiment_id / "environments").iterdir()
        return folder / "trials"

    def keepers(self) -> list[psutil.Process]:
        """NNI's trial keepers that run there."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if "trial_keeper" in " ".join(process.cmdline()) and process.environ().get("HOME") == str(self.home):
                    found.append(process)
        return found


@contextlib.contextmanager
def machines(folder: Path, manager_home: Path, count: int = 2, **settings: str):
    """`count` machines that have been booted and whose host keys are in the manager's known_hosts."""
    folder.mkdir(parents=True, exist_ok=True)
    key = folder / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    ours = [Machine(folder / f"machine{number}", number, key, **settings) for number in range(1, count + 1)]
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
    """An experiment whose trials run on machines."""

    @property
    def trials(self) -> Path:
        """Where all trials of one machine are copied to; most tests look at `copied`."""
        return self.folder / "environments"

    def copied(self) -> dict[str, Path]:
        """Trial id -> its folder here."""
        return {folder.name: folder for folder in self.folder.glob("environments/*/trials/*")}

    def received(self) -> dict[str, dict]:
        return {name: json.loads((folder / "parameters.json").read_text()) for name, folder in self.copied().items()}

    def finals(self) -> dict[str, list[float]]:
        """Trial id -> its final results, as the database has them."""
        finals: dict[str, list[float]] = {}
        for trial, data in self.query("SELECT trialJobId, data FROM MetricData WHERE type = 'FINAL'"):
            finals.setdefault(trial, []).append(json.loads(json.loads(data)))
        return finals


def eventually(is_so, seconds: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.2)
