"""result.json: what a trial came to, with all that is needed to read it alone."""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torchvision

from data.cache import Cache
from trial import outputs
from trial.epoch_log import metrics_of_epoch
from trial.fit import Fitted, Training
from trial.hyperparameters import Hyperparameters
from trial.metrics import Score


def final_metrics(
    fitted: Fitted, validation_n: int, untrained: Score | None, evaluation: Score | None
) -> dict[str, float]:
    """The best epoch's metrics and what the evaluation split says of the same weights.

    untrained: the validation score of the weights before training, where no epoch ended well. evaluation: None where
    the trial was interrupted and there was no time for it; the evaluation_ keys are then absent.
    """
    if fitted.best_epoch:
        metrics = metrics_of_epoch(asdict(fitted.epochs[fitted.best_epoch - 1]))
    else:
        metrics = {"default": untrained.top1, "val_loss": untrained.loss, "epoch": 0}
    if evaluation:
        metrics |= {
            "evaluation_top1": evaluation.top1,
            "evaluation_top3": evaluation.top3,
            "evaluation_macro": evaluation.macro,
            "evaluation_n": evaluation.n,
        }
    return {
        **metrics,
        "validation_n": validation_n,
        "epochs_run": len(fitted.epochs),
        "best_epoch": fitted.best_epoch,
        "diverged": int(fitted.stopped_by == "diverged"),
        "interrupted": int(evaluation is None),
    }


def write_result(
    folder: Path,
    settled: tuple[Hyperparameters, Cache],
    outcome: tuple[Fitted, Score | None, dict[str, float]],
    t: Training,
    attempts: list[dict[str, Any]],
) -> None:
    """outcome: how the training went, the evaluation or None, the final metrics. attempts: [{after_epoch, revision,
    compute}], one unless the trial was interrupted and went on. Raises TrialError."""
    (h, cache), (fitted, evaluation, final) = settled, outcome
    result = {
        "hyperparameters": asdict(h),
        "classes": list(cache.classes),
        "validation": {"accuracy": final["default"], "n": final["validation_n"]},
        "evaluation": evaluation_table(evaluation, cache.classes),
        "epochs_run": len(fitted.epochs),
        "best_epoch": fitted.best_epoch,
        "stopped_by": fitted.stopped_by,
        "micro_batch": micro_batch_note(t, h),
        "duration_s": final["duration_s"],
        "cache": str(cache.directory),
        "source_digest": cache.manifest["source_digest"],
        "compute": attempts[-1]["compute"],
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
        "revision": attempts[-1]["revision"],
        "attempts": attempts,
        "command": sys.argv,
        "final": final,
    }
    outputs.write_json(folder / "result.json", result)


def evaluation_table(evaluation: Score | None, classes: tuple[str, ...]) -> dict[str, Any] | None:
    if evaluation is None:
        return None
    return {
        "top1": evaluation.top1,
        "top3": evaluation.top3,
        "macro": evaluation.macro,
        "n": evaluation.n,
        "per_class": outputs.per_class_table(classes, evaluation.per_class),
    }


def micro_batch_note(t: Training, h: Hyperparameters) -> dict[str, Any] | None:
    """None where memory sufficed for whole batches."""
    if t.train_at_once.images >= h.batch_size:
        return None
    return {
        "images": t.train_at_once.images,
        "batch_size": h.batch_size,
        "note": "memory did not suffice for a batch at once: gradients were added up over its parts, batch "
        "normalisation saw a part at a time",
    }
