"""Watch running experiments to their end: look every two seconds, let diagnose.py judge, say why, leave nothing running."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import urllib.error
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from analysis.reading.locate import AnalysisError
from analysis.reading.logs import last_lines, tuner_death
from analysis.reading.reader import load_experiment
from analysis.reading.records import Experiment as Record
from analysis.reading.records import Trial
from experiments import logs
from experiments.config import is_local, requested_gpus
from experiments.diagnose import Limits, Snapshot, Verdict, judge
from experiments.nni import (
    Manager,
    attach,
    count_gpus,
    end_orphans,
    kill,
    registered_status,
    running_ids,
    session_start,
    stop,
    tuner_processes,
)

POLL_S = 2.0
TAIL_LINES = 12  # of the log that shows why
NOTES = (
    "watch.jsonl"  # in the experiment's folder: what the watching concluded; a stall, for one, leaves no other trace
)
ENDS = frozenset(("DONE", "ERROR", "DEAD", "HUNG", "EXHAUSTED", "STUCK", "FAILING", "STALLED", "TIMEOUT"))


@dataclass(frozen=True)
class WatchSettings:
    """How experiments are watched and left. ends: verdicts that may end a manager that launch did not start."""

    keep_ui: bool = False
    limits: Limits = field(default_factory=Limits)
    ends: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Outcome:
    """How an experiment ended, and when that was noticed."""

    verdict: Verdict
    record: Record | None
    noticed: float  # seconds since 1970

    @property
    def state(self) -> str:
        return self.verdict.state

    @property
    def best(self) -> float | None:
        return self.record.best.score if self.record and self.record.best else None

    @property
    def is_good(self) -> bool:
        return self.state == "DONE" and self.best is not None

    def line(self, manager: Manager) -> str:
        """The line that programs read."""
        value = "none" if self.best is None else f"{self.best:.4f}"
        return f"experiment {manager.name} {manager.id} {self.state} best {value}"


def watch_to_end(managers: list[Manager], settings: WatchSettings) -> int:
    """Returns the exit code: 0 where every experiment is DONE with a best trial."""
    for manager in managers:
        print(f"{manager.name} ({manager.id}): {manager.url}", file=sys.stderr, flush=True)
    ends: list[Future] = []
    with ThreadPoolExecutor() as pool:  # a stop waits some seconds for NNI; the others are watched meanwhile

        def on_end(manager: Manager, outcome: Outcome) -> None:
            if not outcome.is_good:
                _note(manager.folder, outcome)
                _print_reason(manager, outcome.verdict)
            ends.append(pool.submit(_clean_up, manager, outcome, settings))

        outcomes = _watch(managers, settings.limits, on_end)
    for end in ends:
        end.result()
    for manager, outcome in zip(managers, outcomes):
        print(outcome.line(manager), flush=True)
    return 0 if all(outcome.is_good for outcome in outcomes) else 1


def _watch(managers: Sequence[Manager], limits: Limits, on_end: Callable[[Manager, Outcome], None]) -> list[Outcome]:
    """KeyboardInterrupt passes through and leaves the experiments running."""
    watchers = [Watcher(manager, limits, line) for line, manager in enumerate(managers)]
    try:
        while not all(watcher.outcome for watcher in watchers):
            for watcher in watchers:
                if not watcher.outcome:
                    watcher.poll()
                    if watcher.outcome:
                        on_end(watcher.manager, watcher.outcome)
            time.sleep(POLL_S)
    finally:
        for watcher in watchers:
            watcher.close()
    return [watcher.outcome for watcher in watchers]


def verdict_now(manager: Manager) -> Verdict | None:
    """The judgement of a first look: what was not seen to happen is dated by the end of the last trial."""
    watcher = Watcher(manager, Limits(), 0)
    with contextlib.suppress(AnalysisError):
        ends = [trial.end / 1000 for trial in load_experiment(manager.folder).trials if trial.end]
        quiet_s = time.time() - max([watcher._since, *ends])
        watcher._seen |= {what: time.monotonic() - quiet_s for what in ("tuner", "trial")}
    return judge(watcher.look(), Limits())


def noted_outcome(folder: Path, since: float) -> Verdict | None:
    """What the watching last concluded in the session that began at `since` (seconds since 1970)."""
    try:
        noted = json.loads(last_lines(folder / NOTES)[-1])
        is_valid = noted["time"] >= since and noted["reason"] and isinstance(noted["state"], str)
        return Verdict(noted["state"], noted["reason"]) if is_valid else None
    except (IndexError, KeyError, TypeError, ValueError):
        return None


def print_interrupted(waiting: list[str]) -> None:
    """What runs on without a watcher, and what was not started, each with the command that continues it."""
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


class Watcher:
    """One experiment, polled. `outcome` is None while it runs."""

    def __init__(self, manager: Manager, limits: Limits, line: int) -> None:
        self.manager = manager
        self.outcome: Outcome | None = None
        self.record: Record | None = None
        self._limits = limits
        self._progress = _Progress(manager.name, line)
        started = session_start(manager.id)
        self._since = time.time() if started is None else started
        # When each was last there, by the monotonic clock: a suspended machine is no reason to end an experiment.
        self._seen = dict.fromkeys(("watching", "answer", "manager", "tuner", "trial"), time.monotonic())
        self._written = 0.0  # when the manager last wrote, seconds since 1970

    def poll(self) -> None:
        """Look once; sets `outcome` when the experiment has ended, in whatever way."""
        look = self.look()
        if self.record:
            self._progress.show(self.record)
        if verdict := judge(look, self._limits):
            self.close()
            self.outcome = Outcome(verdict, self.record, look.now)

    def close(self) -> None:
        """Leave the progress bar as it is; the experiment may run on."""
        self._progress.close()

    def look(self) -> Snapshot:
        folder = self.manager.folder
        answer = self._status()
        with contextlib.suppress(AnalysisError):  # the database appears a moment after the manager
            self.record = load_experiment(folder)
        running = [trial for trial in self.record.trials if trial.state == "RUNNING"] if self.record else []
        gone = not self.manager.is_alive()
        log = logs.session_lines(folder, self._since)
        is_preparing = logs.is_preparing(log) or logs.waits_for_machines(log)
        busy = answer.status is None or self.record is None or is_preparing or bool(running)
        gpus = requested_gpus(self.record.config) if self.record else 0
        there = count_gpus() if self.record is None or is_local(self.record.config) else logs.workers_gpus(log)
        return Snapshot(
            now=time.time(),
            since=self._since,
            watched_s=time.monotonic() - self._seen["watching"],
            status=answer.status,
            errors=answer.errors,
            silent_s=self._since_last("answer", self._has_written() or answer.is_one),
            gone_s=self._since_last("manager", not gone),
            tunerless_s=self._since_last("tuner", answer.status != "RUNNING" or bool(tuner_processes(folder))),
            tuner_death=tuner_death(folder, self._since),
            idle_s=self._since_last("trial", busy),
            queued=logs.is_queued(log),
            waits_for_gpu=0 < gpus <= there,
            stopped_by_hand=gone and logs.was_stopped_by_hand(log),
            cause=logs.why_manager_ended(folder, log) if gone else "",
            record=self.record,
            signs={trial.trial_id: last_sign(trial) for trial in running},
        )

    def _since_last(self, what: str, there: bool) -> float:
        if there:
            self._seen[what] = time.monotonic()
        return time.monotonic() - self._seen[what]

    def _status(self) -> _Answer:
        """NNI's own; an error of HTTP is an answer, too, and then the registry knows the status."""
        try:
            answer = self.manager.get("check-status")
            return _Answer(True, answer["status"], tuple(map(str, answer.get("errors") or [])))
        except (urllib.error.HTTPError, ValueError, TypeError, KeyError):
            return _Answer(True, registered_status(self.manager.id))
        except OSError:
            return _Answer(False, None)

    def _has_written(self) -> bool:
        """Whether the manager has written since the last look: one that does is not dead, whoever cannot reach it."""
        before = self._written
        for name in ("db/nni.sqlite", "log/nnimanager.log"):
            with contextlib.suppress(OSError):
                self._written = max(self._written, (self.manager.folder / name).stat().st_mtime)
        return self._written > before


class _Answer(NamedTuple):
    """What the manager's REST interface answered; is_one: whether anything did."""

    is_one: bool
    status: str | None
    errors: tuple[str, ...] = ()


class _Progress:
    """How far an experiment is: a bar in the given line of a terminal, a line per ended trial elsewhere."""

    def __init__(self, name: str, line: int) -> None:
        self._name, self._line = name, line
        self._ended = -1
        self._bar: tqdm | None = None

    def show(self, record: Record) -> None:
        if self._bar is None:
            self._bar = self._new_bar(record)
        ended = len(record.trials) - record.counts["running"]
        if ended == self._ended:
            self._bar.refresh()
            return
        self._ended = ended
        best = f"best {record.best.score:.4f}" if record.best else "no result yet"
        failed = record.counts["failed"] + record.counts["cancelled"]
        pruned = record.counts["pruned"]
        text = best + (f", {pruned} pruned" if pruned else "") + (f", {failed} failed" if failed else "")
        self._bar.n = ended
        self._bar.set_postfix_str(text)
        if self._bar.disable:
            clock = time.strftime("%H:%M:%S")
            print(f"{clock} {self._name}: {ended} of {record.max_trials} trials, {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _new_bar(self, record: Record) -> tqdm:
        style = "{desc}: {n_fmt}/{total_fmt} |{bar}| {elapsed}{postfix}"
        bar = tqdm(total=record.max_trials, desc=self._name, position=self._line, disable=None, bar_format=style)
        if record.started and not bar.disable:
            bar.start_t = record.started / 1000  # elapsed since the experiment's start, also after a return to it
        return bar


def last_sign(trial: Trial) -> float:
    """When a running trial last did something, seconds since 1970: its start, a result, or a written file."""
    times = [(trial.start or trial.proposed) / 1000, *(result.time / 1000 for result in trial.intermediates)]
    for path in (*trial.folder.glob("*"), *trial.folder.glob("*/*")) if trial.folder else ():
        with contextlib.suppress(OSError):  # a trial may replace its files meanwhile
            if not path.is_dir():
                times.append(path.stat().st_mtime)
    return max(times)


def _note(folder: Path, outcome: Outcome) -> None:
    line = {"time": outcome.noticed, "state": outcome.state, "reason": outcome.verdict.reason}
    with contextlib.suppress(OSError), (folder / NOTES).open("a", encoding="utf-8") as file:  # the disk may be full
        file.write(json.dumps(line) + "\n")


def _print_reason(manager: Manager, verdict: Verdict) -> None:
    print(f"{verdict.state}: {manager.name} ({manager.id}): {verdict.reason}", file=sys.stderr)
    # The manager's own log where the other one holds nothing but nnictl's heading.
    for path in (manager.folder / verdict.log, manager.folder / "log" / "nnimanager.log") if verdict.log else ():
        if lines := logs.without_headings(last_lines(path)):
            tail = (f"  | {line[:300]}" for line in lines[-TAIL_LINES:])
            print(f"the end of {path}:", *tail, sep="\n", file=sys.stderr)
            break
    print(f"explained: python -m experiments why {manager.id}", file=sys.stderr)


def _clean_up(manager: Manager, outcome: Outcome, settings: WatchSettings) -> None:
    """NNI's manager stays after the last trial and holds its port; a dead experiment's would wait forever. A living one
    that somebody else started is only judged: from here the judgement may be wrong."""
    alive = manager.is_alive()
    if alive and settings.keep_ui and outcome.state == "DONE":
        print(f"{manager.name}: {manager.url} stays until: nnictl stop {manager.id}", file=sys.stderr)
        return
    if alive and not manager.is_ours and outcome.state not in settings.ends:
        back = "" if outcome.state == "DONE" else f"; return to it with: python -m experiments watch {manager.id}"
        print(
            f"{manager.name}: left as it is, since launch did not start it; end it with: nnictl stop {manager.id}{back}",
            file=sys.stderr,
        )
        return
    if alive:
        kill(manager) if outcome.state == "HUNG" else stop(manager)
    if ended := end_orphans(manager.id, manager.folder):
        print(f"{manager.name}: stopped what its manager had left running: {ended}", file=sys.stderr)
    again = f"; continue with: python -m experiments resume {manager.id}" if outcome.state != "DONE" else ""
    print(f"{manager.name}: stopped; view its page again with: nnictl view {manager.id}{again}", file=sys.stderr)
