"""The machine before the first run: one line each, ok, warning or fault, with the next command."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from analysis.reading.locate import home, is_running, registry
from experiments import machine
from experiments.machine import Line
from experiments.processes import trials, tuners
from experiments.repairs import are_off, missing_in_nnictl, missing_repairs

MACHINE = (
    machine.python,
    machine.packages,
    machine.nnictl,
    machine.ports,
    machine.localhost,
    machine.gpu,
    machine.torch_gpu,
    machine.disk,
    machine.memory,
)


def doctor(with_trial: bool) -> int:
    """Print a line for each check as it is made. Returns the exit code: 1 where there is a fault."""
    faults = 0
    for check in (*MACHINE, repairs, home_folder, known_experiments, left_over):
        faults += _print(check())
    if with_trial:
        from experiments.smoke import run_smoke

        print("trial: one through NNI, under a minute ...", file=sys.stderr, flush=True)
        good, text = run_smoke()
        faults += _print(Line("ok" if good else "fault", "trial", text))
    return 1 if faults else 0


def _print(line: Line) -> int:
    print(f"{line.level:<8}{line.what}: {line.text}", flush=True)
    return line.level == "fault"


def repairs() -> Line:
    """Whether NNI's manager would start repaired (manager_js/): by launch, and by a bare nnictl."""
    if missing := missing_repairs():
        return Line("warning" if are_off() else "fault", "repairs", "; ".join(missing))
    if missing := missing_in_nnictl():
        return Line("warning", "repairs", "; ".join(missing))
    return Line("ok", "repairs", "active, for launch and for nnictl")


def home_folder() -> Line:
    """NNI's folder takes a file, and no file in it comes from the future: NNI's records are told apart by time."""
    try:
        home().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home()) as file:
            file.write(b"x")
    except OSError as error:
        return Line("fault", "home", f"{home()} cannot be written ({error.strerror}); mend its owner, or set HOME")
    newest = max((path.stat().st_mtime for path in home().glob("*/db/nni.sqlite")), default=0.0)
    if newest > time.time() + 3600:
        return Line("fault", "home", f"an experiment in {home()} is from the future; set the clock (timedatectl)")
    return Line("ok", "home", f"{home()} can be written")


def known_experiments() -> Line:
    """NNI takes an unreadable registry for an empty one, and forgets all experiments."""
    file = home() / ".experiment"
    try:
        known = json.loads(file.read_text("utf-8")) if file.exists() else {}
        if not isinstance(known, dict):
            raise ValueError
    except (OSError, ValueError):
        return Line("fault", "registry", f"{file} is not readable JSON; put it aside: mv {file} {file}.broken")
    return Line("ok", "registry", f"{len(known)} experiments")


def left_over() -> Line:
    """Managers that nobody needs, and what managers left that have ended."""
    texts = []
    for key, entry in registry().items():
        folder = Path(str(entry.get("logDir") or home())) / key
        if is_running(entry):
            if entry.get("status") in ("DONE", "ERROR", "VIEWED"):
                texts.append(f"{key} is {entry['status']} and holds port {entry.get('port')}: nnictl stop {key}")
        elif trials(key, folder) or tuners(folder):
            texts.append(f"{key} left processes behind: python -m experiments resume {key}")
    return Line("warning", "left over", "; ".join(texts)) if texts else Line("ok", "left over", "nothing")
