"""The files that a trial goes on from, and what becomes of them; knows nothing of what is in them.

checkpoint-odd.pt    after an odd epoch: all but the best weights; also the weights, where they are not the best
checkpoint-even.pt   after an even one
best-EPOCH.pt        the best weights, as best.pt will hold them, under the name that a checkpoint gives

Each checkpoint is written over the last but one: a file that is replaced is flushed to the disk by ext4, and a new one
has all its pages made anew (docs/log.md). Whenever the trial is killed or the machine stops, one of the two is whole. The
best weights are written before the checkpoint that names them, and removed when neither does. All are gone once the trial
has ended by itself.
"""

from __future__ import annotations

import os
from pathlib import Path

from trial.errors import TrialError

CHECKPOINTS = ("checkpoint-even.pt", "checkpoint-odd.pt")


def checkpoint_file(folder: Path, epoch: int) -> Path:
    return folder / CHECKPOINTS[epoch % 2]


def checkpoints(folder: Path) -> list[Path]:
    """Those that are there, whole or not, the newer first."""
    found = [folder / name for name in CHECKPOINTS if (folder / name).exists()]
    return sorted(found, key=lambda file: file.stat().st_mtime_ns, reverse=True)


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
    files = [folder / name for name in (*CHECKPOINTS, *also)]
    for file in (*files, *folder.glob("best-*.pt"), *folder.glob(".*.partial")):
        file.unlink(missing_ok=True)
