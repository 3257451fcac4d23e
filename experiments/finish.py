"""From the start of watching to the last line: say how each experiment ended, and leave nothing running unwatched."""

from __future__ import annotations

import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from analysis.reading.logs import last_lines
from experiments.diagnose import Limits
from experiments.evidence import note_outcome
from experiments.manager import Manager, attach, kill, running_ids, stop
from experiments.nnictl import without_headings
from experiments.processes import end_orphans
from experiments.watch import Outcome, watch

TAIL_LINES = 12  # of the log that shows why


ENDS = frozenset(("DONE", "ERROR", "DEAD", "HUNG", "EXHAUSTED", "STUCK", "FAILING", "STALLED", "TIMEOUT"))


@dataclass(frozen=True)
class Watching:
    """How experiments are watched and left."""

    keep_ui: bool = False
    limits: Limits = field(default_factory=Limits)
    ends: frozenset[str] = (
        frozenset()
    )  # verdicts that may end a manager that launch did not start: a person asked for it


def finish(managers: list[Manager], watching: Watching) -> int:
    """Watch to the end. Returns the exit code: 0 where every experiment is DONE with a best trial."""
    for manager in managers:
        print(f"{manager.name} ({manager.id}): {manager.url}", file=sys.stderr, flush=True)
    ends: list[Future] = []
    with ThreadPoolExecutor() as pool:  # a stop waits some seconds for NNI; the others are watched meanwhile

        def on_end(manager: Manager, outcome: Outcome) -> None:
            if not outcome.is_good:
                note_outcome(manager.folder, outcome)
                _say_why(manager, outcome)
            ends.append(pool.submit(_put_away, manager, outcome, watching))

        outcomes = watch(managers, watching.limits, on_end)
    for end in ends:
        end.result()
    for manager, outcome in zip(managers, outcomes):
        print(outcome.line(manager), flush=True)
    return 0 if all(outcome.is_good for outcome in outcomes) else 1


def _say_why(manager: Manager, outcome: Outcome) -> None:
    print(f"{outcome.state}: {manager.name} ({manager.id}): {outcome.verdict.reason}", file=sys.stderr)
    if outcome.verdict.log:
        log, lines = tail(manager.folder, outcome.verdict.log)
        if lines:
            print(f"the end of {log}:", *(f"  | {line[:300]}" for line in lines), sep="\n", file=sys.stderr)
    print(f"explained: python -m experiments why {manager.id}", file=sys.stderr)


def tail(folder: Path, log: str) -> tuple[Path, list[str]]:
    """A log's last lines; the manager's own log where that one holds nothing but nnictl's heading."""
    for path in (folder / log, folder / "log" / "nnimanager.log"):
        lines = without_headings(last_lines(path))
        if lines:
            return path, lines[-TAIL_LINES:]
    return folder / log, []


def _put_away(manager: Manager, outcome: Outcome, watching: Watching) -> None:
    """NNI's manager stays after the last trial and holds its port; a dead experiment's would wait forever. A living one
    that somebody else started is only judged: from here the judgement may be wrong."""
    alive = manager.is_alive()
    if alive and watching.keep_ui and outcome.state == "DONE":
        print(f"{manager.name}: {manager.url} stays until: nnictl stop {manager.id}", file=sys.stderr)
        return
    if alive and not manager.is_ours and outcome.state not in watching.ends:
        back = "" if outcome.state == "DONE" else f"; return to it with: python -m experiments watch {manager.id}"
        print(
            f"{manager.name}: left as it is, since launch did not start it; end it with: nnictl stop {manager.id}{back}",
            file=sys.stderr,
        )
        return
    if alive:
        kill(manager) if outcome.state == "HUNG" else stop(manager)
    if ended := end_orphans(manager.id, manager.folder):
        print(f"{manager.name}: ended what its manager had left: {ended}", file=sys.stderr)
    again = f"; go on with: python -m experiments resume {manager.id}" if outcome.state != "DONE" else ""
    print(f"{manager.name}: stopped; view its page again with: nnictl view {manager.id}{again}", file=sys.stderr)


def say_interrupted(waiting: list[str]) -> None:
    """What goes on without a watcher, and what was not started, each with the command that goes on with it."""
    if sys.stderr.isatty():
        print(file=sys.stderr)  # after the terminal's own ^C
    if names := [attach(experiment_id).name for experiment_id in running_ids()]:
        print(
            f"stopped watching; still running: {', '.join(names)}. Return with: python -m experiments watch",
            file=sys.stderr,
        )
    else:
        print("stopped; no experiment is running", file=sys.stderr)
    if waiting:
        print(f"not started yet: {' '.join(waiting)}; start with: python -m experiments launch", file=sys.stderr)
