"""Watch running experiments to their end: look every two seconds, let diagnose.py judge."""

from __future__ import annotations

import contextlib
import re
import time
import urllib.error
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.reading.locate import AnalysisError
from analysis.reading.logs import tuner_death
from analysis.reading.reader import load_experiment
from analysis.reading.records import Experiment as Record
from analysis.reading.records import Trial
from experiments import manager_log, processes
from experiments.check import count_gpus
from experiments.config import asked_gpus
from experiments.diagnose import Limits, Snapshot, Verdict, judge
from experiments.manager import Manager, registered_status, session_start
from experiments.progress import Progress

POLL_S = 2.0


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


class Watcher:
    """One experiment, polled. `outcome` is None while it runs."""

    def __init__(self, manager: Manager, limits: Limits, line: int) -> None:
        self.manager = manager
        self.outcome: Outcome | None = None
        self.record: Record | None = None
        self._limits = limits
        self._progress = Progress(manager.name, line)
        started = session_start(manager.id)
        self._since = time.time() if started is None else started
        # When each was last there, by the monotonic clock: a suspended machine is no reason to end an experiment.
        self._seen = dict.fromkeys(("watching", "answer", "manager", "tuner", "trial"), time.monotonic())
        self._written = 0.0  # when the manager last wrote, seconds since 1970

    def poll(self) -> None:
        """Look once; sets `outcome` when the experiment has ended, in whatever way."""
        look = self._look()
        if self.record:
            self._progress.show(self.record)
        if verdict := judge(look, self._limits):
            self.close()
            self.outcome = Outcome(verdict, self.record, look.now)

    def close(self) -> None:
        """Leave the progress bar as it is; the experiment goes on."""
        self._progress.close()

    def _look(self) -> Snapshot:
        folder = self.manager.folder
        status, errors, answered = self._status()
        with contextlib.suppress(AnalysisError):  # the database appears a moment after the manager
            self.record = load_experiment(folder)
        running = [trial for trial in self.record.trials if trial.state == "RUNNING"] if self.record else []
        gone = not self.manager.is_alive()
        log = manager_log.since(folder, self._since)
        preparing = manager_log.is_preparing(log)
        gpus = asked_gpus(self.record.config) if self.record else 0
        return Snapshot(
            now=time.time(),
            since=self._since,
            watched_s=time.monotonic() - self._seen["watching"],
            status=status,
            errors=tuple(map(str, errors)),
            silent_s=self._since_last("answer", self._has_written() or answered),
            gone_s=self._since_last("manager", not gone),
            tunerless_s=self._since_last("tuner", status != "RUNNING" or bool(processes.tuners(folder))),
            tuner_death=tuner_death(folder, self._since),
            idle_s=self._since_last("trial", status is None or self.record is None or preparing or bool(running)),
            queued=_is_queued(log),
            waits_for_gpu=gpus > 0 and gpus <= count_gpus(),
            stopped_by_hand=gone and manager_log.told_to_stop(log),
            cause=manager_log.why_it_ended(folder, log) if gone else "",
            record=self.record,
            signs={trial.trial_id: last_sign(trial) for trial in running},
        )

    def _since_last(self, what: str, there: bool) -> float:
        if there:
            self._seen[what] = time.monotonic()
        return time.monotonic() - self._seen[what]

    def _status(self) -> tuple[str | None, list, bool]:
        """NNI's status and errors, and whether anything answered: an error of HTTP is an answer, too, and then the
        registry knows the status."""
        try:
            answer = self.manager.get("check-status")
            return answer["status"], answer.get("errors") or [], True
        except (urllib.error.HTTPError, ValueError, TypeError, KeyError):
            return registered_status(self.manager.id), [], True
        except OSError:
            return None, [], False

    def _has_written(self) -> bool:
        """Whether the manager has written since the last look: one that does is not dead, whoever cannot reach it."""
        before = self._written
        for name in ("db/nni.sqlite", "log/nnimanager.log"):
            with contextlib.suppress(OSError):
                self._written = max(self._written, (self.manager.folder / name).stat().st_mtime)
        return self._written > before


def _is_queued(log: list[str]) -> bool:
    """Whether the manager's last word about the start of a trial is that it has not happened."""
    said = [
        line
        for line in log
        if re.search(r"submitTrialJob: form|(Created|Failed to create) trial|Trial \d+ waits:", line)
    ]
    return bool(said) and "Created trial" not in said[-1]


def last_sign(trial: Trial) -> float:
    """When a running trial was last seen to do something, seconds since 1970: its start, a result, or a written file."""
    times = [(trial.start or trial.proposed) / 1000, *(result.time / 1000 for result in trial.intermediates)]
    for path in _files(trial.folder) if trial.folder else ():
        with contextlib.suppress(OSError):  # a trial may replace its files meanwhile
            times.append(path.stat().st_mtime)
    return max(times)


def _files(folder: Path) -> list[Path]:
    return [path for path in (*folder.glob("*"), *folder.glob("*/*")) if not path.is_dir()]


def verdict_now(manager: Manager) -> Verdict | None:
    """The judgement of a first look: what was not seen to happen is dated by the end of the last trial."""
    watcher = Watcher(manager, Limits(), 0)
    with contextlib.suppress(AnalysisError):
        ends = [trial.end / 1000 for trial in load_experiment(manager.folder).trials if trial.end]
        quiet_s = time.time() - max([watcher._since, *ends])
        watcher._seen |= {what: time.monotonic() - quiet_s for what in ("tuner", "trial")}
    return judge(watcher._look(), Limits())


def watch(managers: Sequence[Manager], limits: Limits, on_end: Callable[[Manager, Outcome], None]) -> list[Outcome]:
    """Watch until all have ended, and tell of each when it has. KeyboardInterrupt passes through and leaves the
    experiments running."""
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
