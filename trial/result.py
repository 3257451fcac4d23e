"""The result of a trial: its final metrics for NNI, and result.json with all that is needed to read it alone."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.cache import Cache
from trial.checkpoint import keep_best
from trial.files import write_json
from trial.hyperparameters import Hyperparameters

if TYPE_CHECKING:  # a trial whose result is only reported again does without torch
    from trial.evaluate import Calibration, Score
    from trial.state import TrainState
    from trial.train import FitResult

ROOT = Path(__file__).resolve().parent.parent


def metrics_of_epoch(line: dict[str, Any]) -> dict[str, float]:
    """An epoch as NNI gets it, from an EpochMetrics as a dict or a line of epochs.jsonl; `default` is what tuners and
    assessors read."""
    names = ("train_loss", "train_accuracy", "val_loss", "val_macro", "lr", "epoch")
    return {"default": line["val_accuracy"], **{name: line[name] for name in names}}


def final_metrics(fit: FitResult, validation: Score, evaluation: Score | None) -> dict[str, float]:
    """The best epoch's metrics and the evaluation split's scores of the same weights.

    validation: of the weights kept, those before training where no epoch ended well. evaluation: None where the trial
    was interrupted and there was no time for it; the evaluation_ keys are then absent.
    """
    if fit.best_epoch:
        metrics = metrics_of_epoch(asdict(fit.history[fit.best_epoch - 1]))
    else:
        metrics = {"default": validation.top1, "val_loss": validation.loss, "val_macro": validation.macro, "epoch": 0}
    if evaluation:
        metrics |= {
            "evaluation_top1": evaluation.top1,
            "evaluation_top3": evaluation.top3,
            "evaluation_macro": evaluation.macro,
            "evaluation_n": evaluation.n,
        }
    return {
        **metrics,
        "validation_n": validation.n,
        "epochs_run": len(fit.history),
        "best_epoch": fit.best_epoch,
        "diverged": int(fit.stopped_by == "diverged"),
        "interrupted": int(evaluation is None),
    }


@dataclass(frozen=True)
class TrialResult:
    """The result of a trial. `state`: of the training; result.json names its teacher, micro-batches and loss scaling."""

    h: Hyperparameters
    cache: Cache
    fit: FitResult
    validation: Score  # of the weights kept
    evaluation: Score | None  # None where the trial was interrupted
    calibration: Calibration | None  # None where the trial was interrupted, or where no epoch ended well
    duration_s: float
    attempts: list[
        dict[str, Any]
    ]  # [{after_epoch, revision, compute}], one unless the trial was interrupted and resumed
    state: TrainState

    def final(self) -> dict[str, float]:
        """What NNI gets last."""
        return {**final_metrics(self.fit, self.validation, self.evaluation), "duration_s": round(self.duration_s, 3)}

    def write(self, folder: Path) -> None:
        """Write result.json. Raises TrialError."""
        write_json(folder / "result.json", self.to_json())

    def to_json(self) -> dict[str, Any]:
        """result.json's content."""
        import torch
        import torchvision

        classes, manifest, final = self.cache.classes, self.cache.manifest, self.final()
        return {
            "hyperparameters": asdict(self.h),
            "classes": list(classes),
            "training": self._training(),
            "validation": {"accuracy": self.validation.top1, **self.validation.table(classes)},
            "evaluation": self.evaluation and self.evaluation.table(classes),
            "calibration": self.calibration and asdict(self.calibration),
            "teacher": self.state.teacher and self.state.teacher.facts,
            "epochs_run": len(self.fit.history),
            "best_epoch": self.fit.best_epoch,
            "stopped_by": self.fit.stopped_by,
            "micro_batch": micro_batch_note(self.state, self.h),
            "loss_scaling": loss_scaling_note(self.state),
            "duration_s": final["duration_s"],
            "cache": str(self.cache.directory),
            "source_digest": self.cache.photos,
            "photos_digest": manifest.get("photos_digest"),  # None of a cache made by an earlier version
            "cache_px": manifest["image_px"],
            "generated": manifest.get("generated"),  # drawings instead of photos
            "photos_in_two_splits": manifest.get("photos_in_two_splits"),  # None where there are none
            "compute": self.attempts[-1]["compute"],
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "torchvision": torchvision.__version__,
            },
            "revision": self.attempts[-1]["revision"],
            "attempts": self.attempts,
            "command": sys.argv,
            "final": final,
        }

    def _training(self) -> dict[str, Any]:
        """The best epoch's figures, of its images as they were drawn; accuracy and loss None where no epoch ended well."""
        best = self.fit.history[self.fit.best_epoch - 1] if self.fit.best_epoch else None
        counts = self.cache.manifest["counts"]["training"]
        frequency = "each class as often as any other" if self.h.balance == "sampler" else "each once"
        names = enumerate(zip(self.cache.classes, counts))
        return {
            "accuracy": best and best.train_accuracy,
            "loss": best and best.train_loss,
            "n": sum(counts),
            "per_class": [{"id": class_id, "class": name, "total": n} for class_id, (name, n) in names],
            "note": f"the best epoch's own augmented images, {frequency}, while the weights were changing; the loss is what was "
            "minimised",
        }


def micro_batch_note(state: TrainState, h: Hyperparameters) -> dict[str, Any] | None:
    """None where memory sufficed for whole batches."""
    images = state.train_micro_batch.images
    if images >= h.batch_size:
        return None
    return {
        "images": images,
        "batch_size": h.batch_size,
        "note": "memory did not suffice for a batch at once: gradients were added up over its parts, batch "
        "normalisation saw a part at a time",
    }


def loss_scaling_note(state: TrainState) -> dict[str, Any] | None:
    """None except for float16."""
    if not state.scaler.is_enabled():
        return None
    return {
        "skipped_steps": int(state.optimizer.skipped),
        "scale": state.scaler.get_scale(),
        "note": "a step whose gradients are not finite is skipped and the loss scale halved; a few at the start are normal",
    }


# -- a training that has ended before ------------------------------------------------------------------------------------
# After a crash of its manager NNI starts each trial without a recorded end again, with the same id, hyperparameters and
# folder; the earlier process may have finished without NNI having received its result.


def finished_result(folder: Path, h: Hyperparameters | None) -> dict[str, Any] | None:
    """The result.json of a training that has ended by itself, or None; with `h`, of one with these hyperparameters."""
    try:
        result = json.loads((folder / "result.json").read_text("utf-8"))
        if not result["final"]["interrupted"] and (h is None or result["hyperparameters"] == asdict(h)):
            return result
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none there, or not one of this version's: the training itself will find out
    return None


def report_again(folder: Path, finished: dict[str, Any], report: Callable[[dict], None]) -> dict[str, Any]:
    """Report all epochs of a training that ended before NNI received its result. Returns its final metrics."""
    print("this training has ended before: its results are reported again")
    for line in (folder / "epochs.jsonl").read_text("utf-8").splitlines():
        report(metrics_of_epoch(json.loads(line)))
    keep_best(folder, finished["best_epoch"])
    return finished["final"]


def code_revision(root: Path = ROOT) -> str:
    """The commit's 40 hex digits, "+changes" behind them where a tracked file differs; "unknown" without git.

    A copy of the project unpacked inside somebody else's repository is "unknown" too: that commit is not ours. On a remote
    machine, where the code has come without its history, NNI's manager has named it (experiments/repairs/manager_js/ssh.js).
    """
    if revision := os.environ.get("FOOD11_REVISION"):
        return revision
    try:
        top, commit = _git(root, "rev-parse", "--show-toplevel", "HEAD").splitlines()
        if Path(top).resolve() != root.resolve():
            return "unknown"
        return commit + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, ValueError, subprocess.SubprocessError):
        return "unknown"


def _git(root: Path, *words: str) -> str:
    """Without taking git's lock: trials may run side by side, and while a person commits."""
    command = ["git", "--no-optional-locks", "-C", str(root), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()
