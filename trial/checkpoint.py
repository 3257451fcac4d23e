"""A training's state after its last epoch, so that an interrupted trial continues and does not start again.

checkpoint-odd.pt    after an odd epoch: all but the best weights; also the weights, where they are not the best
checkpoint-even.pt   after an even one
best-EPOCH.pt        the best weights, as best.pt will hold them, under the name that a checkpoint gives

Each checkpoint is written over the last but one: a file that is replaced is flushed to the disk by ext4, and a new one
has all its pages made anew (docs/log.md). Whenever the trial is killed or the machine stops, one of the two is whole. The
best weights are written before the checkpoint that names them, and removed when neither does. All are gone once the trial
has ended by itself.

torch is imported only where a checkpoint is read or written: signals and mistakes in flags are handled without it.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.cache import Cache
from trial import TrialError
from trial.files import write_over, write_weights
from trial.hyperparameters import Hyperparameters

if TYPE_CHECKING:
    from trial.device import Compute
    from trial.state import TrainState

FORMAT = 4  # raised when a training's state or its meaning changes: older checkpoints are then not continued
_CHECKPOINTS = ("checkpoint-even.pt", "checkpoint-odd.pt")


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, whole or not, the newer first."""
    files = [folder / name for name in _CHECKPOINTS if (folder / name).exists()]
    return sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True)


def best_file(folder: Path, epoch: int) -> Path:
    return folder / f"best-{epoch}.pt"


def keep_best(folder: Path, epoch: int) -> None:
    """The trial has ended: its best weights become best.pt, and nothing is left to be continued.

    May be repeated after it was cut short. Raises TrialError.
    """
    try:
        if best_file(folder, epoch).exists():
            os.replace(best_file(folder, epoch), folder / "best.pt")
        remove(folder)
    except OSError as error:
        raise TrialError(f"{folder / 'best.pt'}: cannot be written ({error}); make the folder writable") from error


def remove(folder: Path, also: tuple[str, ...] = ()) -> None:
    """Remove the checkpoints, what was half written when a trial was killed, and the files named."""
    files = [folder / name for name in (*_CHECKPOINTS, *also)]
    for file in (*files, *folder.glob("best-*.pt"), *folder.glob(".*.partial")):
        file.unlink(missing_ok=True)


def refuse_others(folder: Path, h: Hyperparameters) -> None:
    """Raises TrialError where the folder holds an interrupted training with other hyperparameters than these."""
    try:
        before = json.loads((folder / "hyperparameters.json").read_text("utf-8"))["effective"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    # A teacher may be elsewhere by now: the checkpoint knows the file itself.
    names = [name for name, value in asdict(h).items() if before.get(name) != value and name != "teacher"]
    if names and checkpoints(folder):
        values = ", ".join(f"{name} = {before.get(name)}" for name in names)
        raise TrialError(
            f"{folder}: holds an interrupted training with {values}; give the same again to continue it, or choose another "
            "--output"
        )


class CheckpointError(Exception):
    """Why no checkpoint can be continued, in one line."""


class OtherTrainingError(CheckpointError):
    """The checkpoint is whole, but of a training with other settings."""


@dataclass(frozen=True)
class Resumed:
    """What a checkpoint holds besides the state."""

    lines: list[dict[str, Any]]  # of epochs.jsonl
    seconds: float  # of training so far
    attempts: list[dict[str, Any]]


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one training: its folder, and what has to be the same for it to continue."""

    folder: Path
    h: Hyperparameters
    cache: Cache
    compute: Compute
    teacher_digest: str | None = None

    def save(self, content: dict[str, Any], reached: Resumed) -> None:
        """After an epoch. content: a TrainState's `state_dict`, its tensors in host memory.

        Raises TrialError where the folder cannot be written; the checkpoint before is then still whole.
        """
        import torch

        content = {"format": FORMAT, "of": self.identity(), **content}
        best_weights = content.pop("best_weights")
        best_files = [best_file(self.folder, content[epoch]) for epoch in ("best_epoch", "best_before")]
        if best_weights is not None:
            write_weights(best_files[0], best_weights, self.cache.classes, self.h)
        facts = {"seconds": reached.seconds, "attempts": reached.attempts}
        buffer = io.BytesIO()  # torch's own writing to a file ends in a C++ error where the disk is full
        torch.save({**content, "lines": reached.lines, "facts": facts}, buffer)
        write_over(self.folder / _CHECKPOINTS[len(reached.lines) % 2], buffer.getbuffer())
        for old in self.folder.glob("best-*.pt"):
            if old not in best_files:
                old.unlink()

    def load(self, state: TrainState) -> Resumed:
        """Put `state` where the newest whole checkpoint was. The folder has one checkpoint or two.

        Raises CheckpointError where none can be continued, whatever a damaged file does; `state` is then of no use.
        """
        errors = []
        for file in checkpoints(self.folder):
            try:
                resumed = self._load(file, state)
            except CheckpointError as error:
                errors.append(error)
            else:
                print("".join(f"{error}; the one before it is whole\n" for error in errors), end="")
                return resumed
        raise errors[0]

    def _load(self, file: Path, state: TrainState) -> Resumed:
        try:
            content = _read(file)
            if content["format"] != FORMAT:
                raise CheckpointError(
                    f"{file.name} has format {content['format']}, this version continues format {FORMAT}"
                )
            if content["of"] != (identity := self.identity()):
                raise OtherTrainingError(
                    f"the checkpoint is of another training: {_difference(content['of'], identity)}"
                )
            best_weights = _read(best_file(self.folder, content["best_epoch"]))["model"]
            state.load_state_dict(content, best_weights, content["lines"])
            return Resumed(content["lines"], **content["facts"])
        except CheckpointError:
            raise
        except Exception as error:  # a damaged file raises many types: pickle's, zip's, torch's errors
            reason = (str(error).strip().splitlines() or [""])[0]
            raise CheckpointError(f"{file.name} cannot be read ({type(error).__name__}: {reason[:80]})") from error

    def identity(self) -> dict[str, Any]:
        """What has to be the same for a training to continue as if it had never stopped. A teacher may be elsewhere by then."""
        return {
            **asdict(self.h),
            "teacher": self.teacher_digest and f"sha256 {self.teacher_digest[:12]}",
            "photos": self.cache.photos,
            "cache_px": self.cache.manifest["image_px"],
            "images": str(self.cache.manifest["counts"]),
            "device": self.compute.device.type,
            "precision": self.compute.precision,
        }


def _read(file: Path) -> Any:
    """Raises anything. The checksums that torch.save puts into its zip file are not compared by torch.load."""
    import torch

    with zipfile.ZipFile(file) as archive:
        if damaged := archive.testzip():
            raise ValueError(f"{file.name} is damaged in {damaged}")
    return torch.load(file, map_location="cpu", weights_only=True)


def _difference(record: dict[str, Any], expected: dict[str, Any]) -> str:
    names = [name for name in expected if record.get(name) != expected[name]]
    return ", ".join(f"{name} {record.get(name)!r} there, {expected[name]!r} here" for name in names[:3])
