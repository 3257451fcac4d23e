"""Retrains the best configurations of searches and the default with fresh seeds, as an NNI experiment, and judges them.

The plan is fixed in the folder before the first training. Every call of the same command goes on from what NNI's databases
hold: it returns to an experiment that runs, launches the cells that are missing, or, when all have ended, reads them and
writes the result. Only then is any evaluation accuracy looked at.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..reading.locate import is_running, registry
from ..reading.replication import Cell, ConfirmationPlan, cells_of, known_ids, load_readable
from ..reports.confirmation import confirmation_result, write_confirmation
from . import files
from .plan import Request, plan_of, size_text

ROOT = Path(__file__).resolve().parents[2]
FORWARD_S = 5.0  # a terminal's Ctrl-C reaches the launcher too; where only this process got it, it is passed on


class Outcome(NamedTuple):
    """`result` is the content of confirm.json, None where trainings are still missing; `code` the exit code."""

    code: int
    result: dict[str, Any] | None
    page: Path | None


def confirm(request: Request) -> Outcome:
    """Goes as far as it can. Raises AnalysisError for what a person has to put right."""
    folder, plan = plan_of(request)
    for text in (size_text(plan), *(f"note: {note}" for note in plan.notes)):
        _say(text)
    cells = _cells(folder, plan)
    running = _running(folder, plan)
    code = 0
    if running and request.launch:
        code = _experiments(["watch", *running])
        cells = _cells(folder, plan)
    if code != 130 and not _running(folder, plan) and any(cell.state == "missing" for cell in cells):
        file = _write_missing(folder, plan, cells)
        if request.launch:
            code = _experiments(["launch", str(file)])
            cells = _cells(folder, plan)
    if any(cell.state == "missing" for cell in cells):
        return Outcome(_say_missing(request, folder, plan, cells, code), None, None)
    result = confirmation_result(plan, cells)
    return Outcome(0, result, write_confirmation(folder, result, cells, plan.settings))


def _cells(folder: Path, plan: ConfirmationPlan) -> list[Cell]:
    """An experiment that cannot be read (deleted, or NNI is just starting it) is told and trains nothing."""
    return cells_of(plan, load_readable(known_ids(plan, folder), lambda error: _say(f"note: {error}")))


def _running(folder: Path, plan: ConfirmationPlan) -> list[str]:
    """Ids of this plan's experiments whose manager is alive, also where it has only its page left; not one that a person
    looks at with `nnictl view`."""
    entries, known = registry(), known_ids(plan, folder)
    return [i for i in known if i in entries and entries[i].get("status") != "VIEWED" and is_running(entries[i])]


def _write_missing(folder: Path, plan: ConfirmationPlan, cells: Sequence[Cell]) -> Path:
    missing = [{**cell.configuration.parameters, "seed": cell.seed} for cell in cells if cell.state == "missing"]
    if len(missing) < len(cells):
        _say(f"{len(cells) - len(missing)} of {len(cells)} have ended before; the other {len(missing)} are trained now")
    return files.write_experiment(folder, plan, missing)


def _experiments(words: list[str]) -> int:
    """`python -m experiments WORDS`, always to its end; it takes Ctrl-C itself, leaves the experiment running, and ends."""
    process = subprocess.Popen([sys.executable, "-m", "experiments", *words], cwd=ROOT, stdout=sys.stderr)
    interrupted = False
    while True:
        try:
            return process.wait(FORWARD_S if interrupted else None)
        except KeyboardInterrupt:
            interrupted = True
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            interrupted = False


def _say_missing(request: Request, folder: Path, plan: ConfirmationPlan, cells: Sequence[Cell], code: int) -> int:
    """What is missing, and the command that goes on with it."""
    ended, running = sum(cell.state != "missing" for cell in cells), _running(folder, plan)
    again = f"python -m analysis confirm {' '.join(map(shlex.quote, request.ids))} --top {request.top} --seeds {request.seeds}"
    again += f" --out {shlex.quote(str(request.folder))}" if request.folder else ""
    if request.launch:
        where = f"experiment {running[0]} goes on" if running else "nothing is lost"
        _say(f"{ended} of {len(cells)} trainings have ended; {where}. Continue with the same command: {again}")
        return code or 1
    if running:
        print(f"python -m experiments watch {running[0]}")
    else:
        print(f"python -m experiments launch {shlex.quote(str(folder / files.EXPERIMENT))}")
    _say(f"{ended} of {len(cells)} trainings have ended; when they all have, read them with: {again}")
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
