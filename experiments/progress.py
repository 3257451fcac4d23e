"""How far an experiment is: a bar on a terminal, a line a trial elsewhere."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

from analysis.reading.records import Experiment as Record


class Progress:
    """One experiment's bar, in the given line of the terminal; made when its first record is there."""

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
        text = best + (f", {failed} failed" if failed else "")
        self._bar.n = ended
        self._bar.set_postfix_str(text)
        if self._bar.disable:
            clock = time.strftime("%H:%M:%S")
            print(f"{clock} {self._name}: {ended} of {record.max_trials} trials, {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the bar as it is; the experiment may go on."""
        if self._bar is not None:
            self._bar.close()

    def _new_bar(self, record: Record) -> tqdm:
        style = "{desc}: {n_fmt}/{total_fmt} |{bar}| {elapsed}{postfix}"
        bar = tqdm(total=record.max_trials, desc=self._name, position=self._line, disable=None, bar_format=style)
        if record.started and not bar.disable:
            bar.start_t = record.started / 1000  # elapsed since the experiment's start, also after a return to it
        return bar
