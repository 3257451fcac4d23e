"""NNI's start of its manager, repaired: it gives it 3 s to answer, then prints its whole error output and a traceback.

Run by nnictl.py of this folder: standard library only.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

START_S = 60.0  # for the manager to answer, and again to accept the experiment
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy between this machine and itself


class NotStarted(BaseException):
    """One line. No Exception: NNI answers one with the whole error output of its manager."""


class StartError(RuntimeError):
    """The same, for who called NNI."""


def is_active() -> bool:
    """Whether a manager started now would be repaired."""
    return os.environ.get("FOOD11_NNI_REPAIRS") != "off" and "preload.js" in os.environ.get("NODE_OPTIONS", "")


def page(port: int, prefix: str | None) -> str:
    """The one address at which a repaired manager answers."""
    return f"http://127.0.0.1:{port}" + (f"/{prefix}" if prefix else "")


def _ask(port: int, prefix: str | None, path: str, data: object = None, timeout: float = 5.0) -> object:
    """Raises OSError where nobody answers or the answer is an error, ValueError where it is not JSON (still starting)."""
    body = None if data is None else json.dumps(data).encode()
    request = urllib.request.Request(
        f"{page(port, prefix)}/api/v1/nni{path}", body, {"Content-Type": "application/json"}
    )
    with _opener.open(request, timeout=timeout) as answer:
        text = answer.read()
    return json.loads(text) if text else None


class Start:
    """One manager from its process to its experiment."""

    def __init__(self, args, process) -> None:
        self.args, self.process, self.began = args, process, time.time()

    def wait(self) -> None:
        """Until it answers; while two start on one port, the other's answer is none."""
        deadline = time.monotonic() + START_S
        while self.process.poll() is None:
            with contextlib.suppress(OSError, ValueError):
                _ask(self.args.port, self.args.url_prefix, "/check-status")
                if self._has_port():
                    return
            if time.monotonic() > deadline:
                raise NotStarted(
                    f"NNI's manager has not answered within {START_S:.0f} s (a busy machine?) and was ended{self._reason()}"
                )
            time.sleep(0.2)
        raise NotStarted(self._end())

    def _has_port(self) -> bool:
        import psutil  # NNI needs it, too

        with contextlib.suppress(psutil.Error, AttributeError):
            sockets = psutil.Process(self.process.pid).net_connections("tcp")
            return any(one.status == psutil.CONN_LISTEN and one.laddr.port == self.args.port for one in sockets)
        return True  # this system does not say

    def post(self, data: object) -> None:
        """Give it the experiment."""
        try:
            _ask(self.args.port, self.args.url_prefix, "/experiment", data, START_S)
        except OSError as error:
            with contextlib.suppress(Exception):
                self.process.wait(1)  # it may be ending
            if self.process.poll() is not None:
                raise NotStarted(self._end()) from error
            reason = error.read().decode(errors="replace") if isinstance(error, urllib.error.HTTPError) else error
            raise NotStarted(
                f"NNI's manager did not accept the experiment and was ended: {one_line(reason)}"
            ) from error

    def end(self) -> None:
        """The manager and what it has started: they are one process group."""
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL) if hasattr(os, "killpg") else self.process.kill()
        self.process.wait()

    def _end(self) -> str:
        code = self.process.returncode
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
        return f"NNI's manager ended while it started ({how}){self._reason()}"

    def _reason(self) -> str:
        """What its error output or its log say, and where they are."""
        folder = Path(self.args.experiments_directory, self.args.experiment_id, "log")
        errors = re.split(r"Experiment \S+ start: .*\n-+\n", _text(folder / "nnictl_stderr.log"))[-1]
        logged = re.findall(r"\] (?:ERROR|CRITICAL) \([^)]*\) (.+)", _text(folder / "nnimanager.log", self.began))
        lines = [line.strip() for line in errors.splitlines() if line.strip() and not line.startswith("(node:")]
        named = [line for line in lines if re.match(r"\w*Error\b|The repairs of NNI|\S*node: ", line)]
        reason = (named or lines or logged[-1:] or [""])[0]
        return f": {one_line(reason)} (logs: {folder})" if reason else f", without a word (logs: {folder})"


def _text(path: Path, since: float = 0.0) -> str:
    """Of a log that was written since then (seconds since 1970)."""
    try:
        return path.read_text("utf-8", errors="replace") if path.stat().st_mtime >= since - 1 else ""
    except OSError:
        return ""


def one_line(text: object) -> str:
    """Without colours, 400 characters at most."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(text)).split())[:400]


@contextlib.contextmanager
def _signals_raise():
    """The end of a terminal or a kill ends this process only after it has ended the manager."""
    caught = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number and signal.getsignal(number) == signal.SIG_DFL:
                caught[number] = signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, signal.SIG_DFL)


class _Launcher:
    """What replaces functions of NNI's module nni.experiment.launcher."""

    def __init__(self, launcher) -> None:
        self._plain = SimpleNamespace(**vars(launcher))
        self._starts: dict[int, Start] = {}  # by port

    def spawn(self, args, run_mode):
        process = self._plain._start_rest_server(args, run_mode)
        self._starts[args.port] = Start(args, process)
        return process

    def check(self, port, retry=3, url_prefix=None) -> None:
        if is_active():
            self._starts[port].wait()
        else:
            self._plain._check_rest_server(port, retry, url_prefix)

    def post(self, port, api, data, prefix=None):
        return self._starts[port].post(data) if is_active() else self._plain.rest.post(port, api, data, prefix)

    def start_experiment(self, action, exp_id, config, port, *more, **named):
        if not is_active():
            return self._plain.start_experiment(action, exp_id, config, port, *more, **named)
        with _signals_raise():
            try:
                return self._plain.start_experiment(action, exp_id, config, port, *more, **named)
            except BaseException as error:
                if port in self._starts:
                    self._starts.pop(port).end()
                    self._plain.Experiments().update_experiment(exp_id, "status", "STOPPED")
                if isinstance(error, NotStarted):
                    raise StartError(str(error)) from None
                raise

    def name_the_page(self, record: logging.LogRecord) -> bool:
        """NNI lists all addresses of this machine, without the prefix."""
        port = re.search(r"^Web portal URLs: .*:(\d+)$", str(record.msg))
        if port and is_active() and int(port[1]) in self._starts:
            prefix = self._starts[int(port[1])].args.url_prefix
            record.msg = f"Web portal URLs: ${{CYAN}}{page(int(port[1]), prefix)}/"
        return True


def repair(launcher) -> None:
    """launcher: NNI's module nni.experiment.launcher."""
    ours = _Launcher(launcher)
    rest = SimpleNamespace(get=launcher.rest.get, post=ours.post)
    launcher._start_rest_server, launcher._check_rest_server, launcher.rest = ours.spawn, ours.check, rest
    launcher.start_experiment = ours.start_experiment
    logging.getLogger("nni.experiment").addFilter(ours.name_the_page)
