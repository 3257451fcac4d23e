"""SIGINT, SIGTERM and the end of NNI's manager end a trial within seconds, with what it has reached.

NNI 3.0 sends SIGINT at a trial's time limit and SIGKILL 5 s later. A step may take longer than that, and Python runs
signal handlers only between steps; so a thread of its own is woken by them. All that the end needs is on disk or in
`Progress` after each epoch: the thread reports it and leaves, whatever the training is doing.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trial import TrialError
from trial.checkpoint import best_file, checkpoints

_LOCK_WAIT_S = 3.0  # of NNI's 5


@dataclass
class Progress:
    """What a trial has reached so far. `lock` is held while it changes, and while results are written and reported."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    end_early: Callable[[str], dict[str, Any]] | None = None  # reason -> final metrics; None before the first epoch
    folder: Path | None = None
    reported: bool = False  # the final result: there must be no second one


@dataclass(frozen=True)
class Interrupts:
    """What to do at the first signal; a second one ends the process at once."""

    progress: Progress
    close: Callable[[dict[str, Any]], None] | None  # reports final metrics to NNI; None: the trial runs alone

    def watch(self) -> None:
        """From the main thread; returns at once."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: None)  # in C it writes the number to the pipe, from any thread
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(target=self._wait, args=(reading, os.getppid()), daemon=True).start()

    def _wait(self, reading: int, parent: int) -> None:
        while not select.select([reading], [], [], 1.0)[0]:
            if self.close and os.getppid() != parent:
                print(f"error: NNI's manager has ended{self._how_to_resume()}", file=sys.stderr, flush=True)
                os._exit(1)
        first = signal.Signals(os.read(reading, 1)[0])
        threading.Thread(target=self._leave, args=(first,), daemon=True).start()
        os._exit(128 + os.read(reading, 1)[0])

    def _leave(self, caught: signal.Signals) -> None:
        code = 1
        try:
            code = self._end(caught)
        except (TrialError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
        except BaseException:  # noqa: BLE001 whatever it is, the process has to end
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _end(self, caught: signal.Signals) -> int:
        """Returns the exit code: 0 only where NNI has a final result."""
        progress = self.progress
        if not progress.lock.acquire(timeout=_LOCK_WAIT_S):
            print(f"stopped: {caught.name} while files were being written{self._how_to_resume()}", file=sys.stderr)
            return 128 + caught
        if progress.reported:
            return 0
        if progress.end_early is None:
            print(f"stopped: {caught.name} before the first epoch ended: no result", file=sys.stderr)
            return 128 + caught
        final = progress.end_early(caught.name)
        if self.close:
            self.close(final)
        result = f"{caught.name} after epoch {final['epochs_run']}: {result_so_far(final, progress.folder)}"
        print(f"stopped: {result}{'' if self.close else self._how_to_resume()}", file=sys.stderr)
        return 0 if self.close else 128 + caught

    def _how_to_resume(self) -> str:
        if not (self.progress.folder and checkpoints(self.progress.folder)):
            return ""
        again = "nnictl resume" if self.close else f"the same command and --output {self.progress.folder}"
        return f"; it continues after its last epoch with {again}"


def result_so_far(final: dict[str, Any], folder: Path | None) -> str:
    """In words, for the log."""
    text = f"the result is that of epoch {final['best_epoch']}, validation accuracy {final['default']:.4f}"
    if final["interrupted"] and folder:
        text += f", not evaluated; python -m trial --evaluate {best_file(folder, final['best_epoch'])} does so"
    return text
