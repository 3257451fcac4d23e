"""Watch running experiments to their end: progress, deadlines, and the deaths that NNI itself does not show."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from nni.experiment.config.utils import parse_time
from tqdm import tqdm

from analysis.locate import AnalysisError
from analysis.logs import failure_reason, tuner_errors
from analysis.reader import load_experiment
from analysis.records import Experiment as Record
from experiments.manager import Manager

POLL_S = 2.0
IDLE_S = 20.0  # no trial runs or waits for so long, and the tuner's log shows an error: it is dead
SILENT_S = 90.0  # the same without an error in the log
GONE_S = 15.0  # the manager answers no more for so long
SPARE_S = 300.0  # for starting and ending, beyond the experiment's own limits
NO_LIMIT_S = 7 * 24 * 3600.0  # of an experiment that sets no duration itself


@dataclass(frozen=True)
class Outcome:
    """How an experiment ended. state: NNI's DONE, STOPPED or ERROR, or one that NNI has no word for:

    DEAD (its tuner died while NNI says RUNNING), LOST (the manager is gone), EXHAUSTED (the search space has no
    more points) or TIMEOUT (longer than its own limits allow). reason: one line, "" where all went well.
    """

    state: str
    reason: str
    record: Record | None

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

    def __init__(self, manager: Manager, line: int) -> None:
        self.manager = manager
        self.outcome: Outcome | None = None
        self.record: Record | None = None
        self._started = self._last_trial = self._last_answer = time.monotonic()
        self._ended = -1
        self._line = line
        self._bar: tqdm | None = None

    def poll(self) -> None:
        """Look once; sets `outcome` when the experiment has ended, in whatever way."""
        status, errors = self._status()
        with contextlib.suppress(AnalysisError):  # the database appears a moment after the manager
            self.record = load_experiment(self.manager.folder)
        if self.record:
            self._show(self.record)
        state, reason = self._judge(status, errors)
        if state:
            self.close()
            self.outcome = Outcome(state, reason or _all_failed(self.record), self.record)

    def close(self) -> None:
        """Leave the progress bar as it is; the experiment goes on."""
        if self._bar is not None:
            self._bar.close()

    def _status(self) -> tuple[str | None, list]:
        try:
            answer = self.manager.get("check-status")
        except (OSError, ValueError):
            return None, []
        self._last_answer = time.monotonic()
        return answer.get("status"), answer.get("errors") or []

    def _judge(self, status: str | None, errors: list) -> tuple[str | None, str]:
        now, record = time.monotonic(), self.record
        if status in ("DONE", "STOPPED"):
            return status, ""
        if status == "ERROR":
            return "ERROR", "; ".join(
                [*map(str, errors), *(tuner_errors(record) if record else [])]
            ) or "NNI gives no reason"
        if now - self._last_answer > GONE_S and not self.manager.is_alive():
            return "LOST", f"NNI's manager has ended; its log: {self.manager.folder / 'log' / 'nnimanager.log'}"
        if record is None or record.counts["running"]:
            self._last_trial = now
        idle = now - self._last_trial
        if status == "TUNER_NO_MORE_TRIAL" and idle > POLL_S:
            return "EXHAUSTED", "the tuner has no more points to try in this search space"
        if idle > IDLE_S and (found := tuner_errors(record)):
            return "DEAD", found[0]
        if idle > SILENT_S:
            return (
                "DEAD",
                f"no trial for {idle:.0f} s and none coming; see {self.manager.folder / 'log' / 'dispatcher.log'}",
            )
        if now - self._started > self._limit():
            return "TIMEOUT", "it runs longer than its own limits allow"
        return None, ""

    def _limit(self) -> float:
        config = self.record.config if self.record else {}
        experiment, trial = config.get("maxExperimentDuration"), config.get("maxTrialDuration")
        return parse_time(experiment) + parse_time(trial or 0) + SPARE_S if experiment else NO_LIMIT_S

    def _show(self, record: Record) -> None:
        """A bar on a terminal, a line a trial elsewhere."""
        if self._bar is None:
            self._bar = self._new_bar(record)
        ended = len(record.trials) - record.counts["running"]
        if ended == self._ended:
            self._bar.refresh()
            return
        self._ended, self._last_trial = ended, time.monotonic()
        best = f"best {record.best.score:.4f}" if record.best else "no result yet"
        failed = record.counts["failed"] + record.counts["cancelled"]
        text = best + (f", {failed} failed" if failed else "")
        self._bar.n = ended
        self._bar.set_postfix_str(text)
        if self._bar.disable:
            clock = time.strftime("%H:%M:%S")
            print(
                f"{clock} {self.manager.name}: {ended} of {record.max_trials} trials, {text}",
                file=sys.stderr,
                flush=True,
            )

    def _new_bar(self, record: Record) -> tqdm:
        style = "{desc}: {n_fmt}/{total_fmt} |{bar}| {elapsed}{postfix}"
        bar = tqdm(total=record.max_trials, desc=self.manager.name, position=self._line, disable=None, bar_format=style)
        if record.started and not bar.disable:
            bar.start_t = record.started / 1000  # elapsed since the experiment's start, also after a return to it
        return bar


def watch(managers: Sequence[Manager]) -> list[Outcome]:
    """Watch until all have ended. KeyboardInterrupt passes through and leaves the experiments running."""
    watchers = [Watcher(manager, line) for line, manager in enumerate(managers)]
    try:
        while not all(watcher.outcome for watcher in watchers):
            for watcher in watchers:
                if not watcher.outcome:
                    watcher.poll()
            time.sleep(POLL_S)
    finally:
        for watcher in watchers:
            watcher.close()
    return [watcher.outcome for watcher in watchers]


def _all_failed(record: Record | None) -> str:
    """NNI calls an experiment DONE whose every trial failed."""
    if record is None or record.best or not record.trials:
        return ""
    first = record.trials[0]
    return f"no trial has a result; the first one {first.state}: {failure_reason(first)}"
