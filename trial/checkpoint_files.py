"""The files that a trial goes on from, and what becomes of them; knows nothing of what is in them.

checkpoint.pt      all but the best weights; also the weights, where they are not the best
best-EPOCH.pt      the best weights, as best.pt will hold them, under the name that the checkpoint gives

The best weights are written before the checkpoint that names them, and the older ones removed after it: whenever the
trial is killed, the newest whole checkpoint finds its weights. Both are gone once the trial has ended by itself.
"""

from __future__ import annotations

import os
from pathlib import Path

from trial.errors import TrialError

CHECKPOINT = "checkpoint.pt"


def best_file(folder: Path, epoch: int) -> Path:
    return folder / f"best-{epoch}.pt"


def keep_best(folder: Path, epoch: int) -> None:
    """The trial has ended: best.pt is what its best weights are called from here on, and nothing is to be continued.

    May be repeated after it was cut short. Raises TrialError.
    """
    try:
        if best_file(folder, epoch).exists():
            os.replace(best_file(folder, epoch), folder / "best.pt")
        remove(folder)
    except OSError as error:
        raise TrialError(f"{folder / 'best.pt'}: cannot be written ({error}); make the folder writable") from error


def remove(folder: Path, also: tuple[str, ...] = ()) -> None:
    """Nothing is to be continued; also what was half written when a trial was killed, and the files named."""
    files = [folder / name for name in (CHECKPOINT, *also)]
    for file in (*files, *folder.glob("best-*.pt"), *folder.glob(".*.partial")):
        file.unlink(missing_ok=True)
