"""NNI's command line, run as a person would, and its word on why it failed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

from experiments.check import trial_environment
from experiments.repairs import AS_NNICTL, THIS_FILE, are_off, with_repairs

TIMEOUT_S = 240  # a busy machine: to load NNI (50 s at load 15 on two cores), then twice nni_start.START_S
TERM_S = 20  # for nnictl to end a manager that was starting
_CODE = (
    f"import runpy; runpy.run_path({str(THIS_FILE)!r}, run_name={AS_NNICTL!r}); "
    "runpy.run_module('nni.tools.nnictl.nnictl', run_name='__main__', alter_sys=True)"
)
NNICTL = (sys.executable, "-W", "ignore", "-c", _CODE)  # pkg_resources warns; repaired whether or not a bare nnictl is


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
    deadline = time.monotonic() + TIMEOUT_S
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
        return subprocess.CompletedProcess(command, 1, f"nnictl {words[0]} did not end in {TIMEOUT_S} s")
    return subprocess.CompletedProcess(command, process.returncode, output)


def without_headings(lines: list[str]) -> list[str]:
    """What the last manager itself wrote into one of its output files: nnictl begins each session there with a heading."""
    starts = [number for number, line in enumerate(lines) if re.match(r"Experiment \S+ start:", line)]
    return [line for line in lines[starts[-1] + 1 if starts else 0 :] if not re.match(r"-{20}", line)]


def reason_of(output: str) -> str:
    """The last line of nnictl's output that says something, without colours and its advice for who called it by hand."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in output.splitlines()]
    said = [line for line in lines if line and not line.startswith(("Traceback", "File", "During", "^"))]
    return said[-1].removeprefix("error: ").split("; once fixed:")[0] if said else "nnictl said nothing"
