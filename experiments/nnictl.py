"""NNI's command line, run as a person would, and its word on why it failed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

from experiments.check import trial_environment
from experiments.repairs import with_repairs

TIMEOUT_S = 90
NNICTL = (sys.executable, "-W", "ignore", "-m", "nni.tools.nnictl.nnictl")  # pkg_resources warns


def nnictl(*words: str) -> subprocess.CompletedProcess:
    """Run nnictl of this interpreter's environment, away from the terminal's Ctrl-C, and always to its end:

    a start that is cut short would leave a manager that nobody knows of.
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
    interrupted = False
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            output, _ = process.communicate(timeout=max(0.0, deadline - time.monotonic()))
            break
        except KeyboardInterrupt:
            interrupted = True
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return subprocess.CompletedProcess(command, 1, f"nnictl {words[0]} did not end in {TIMEOUT_S} s")
    if interrupted:
        raise KeyboardInterrupt
    return subprocess.CompletedProcess(command, process.returncode, output)


def without_headings(lines: list[str]) -> list[str]:
    """nnictl puts a heading into each of a manager's output files; what is left the manager said itself."""
    return [line for line in lines if not re.match(r"-{20}|Experiment \w+ start:", line)]


def reason_of(output: str) -> str:
    """The last line of nnictl's output that says something, without colours."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in output.splitlines()]
    said = [line for line in lines if line and not line.startswith(("Traceback", "File", "During", "^"))]
    return said[-1] if said else "nnictl said nothing"
