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


def final_metrics(fitted: Fitted, validation: Score, evaluation: Score | None) -> dict[str, float]:
    """The best epoch's metrics and what the evaluation split says of the same weights.

    validation: of the weights kept, those before training where no epoch ended well. evaluation: None where the trial
    was interrupted and there was no time for it; the evaluation_ keys are then absent.
    """
    if fitted.best_epoch:
        metrics = metrics_of_epoch(asdict(fitted.epochs[fitted.best_epoch - 1]))
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
        "epochs_run": len(fitted.epochs),
        "best_epoch": fitted.best_epoch,
        "diverged": int(fitted.stopped_by == "diverged"),
        "interrupted": int(evaluation is None),
    }


def write_result(
    folder: Path,
    settled: tuple[Hyperparameters, Cache],
    outcome: tuple[Fitted, Score, Score | None, dict[str, float]],
    t: Training,
    attempts: list[dict[str, Any]],
) -> None:
    """outcome: how the training went, the scores of validation and evaluation (or None), the final metrics. attempts:
    [{after_epoch, revision, compute}], one unless the trial was interrupted and went on. Raises TrialError."""
    (h, cache), (fitted, validation, evaluation, final) = settled, outcome
    result = {
        "hyperparameters": asdict(h),
        "classes": list(cache.classes),
        "training": training_figures(fitted, h, cache),
        "validation": {"accuracy": validation.top1, **score_table(validation, cache.classes)},
        "evaluation": evaluation and score_table(evaluation, cache.classes),
        "teacher": t.teacher and t.teacher.facts,
        "epochs_run": len(fitted.epochs),
        "best_epoch": fitted.best_epoch,
        "stopped_by": fitted.stopped_by,
        "micro_batch": micro_batch_note(t, h),
        "loss_scaling": loss_scaling_note(t),
        "duration_s": final["duration_s"],
        "cache": str(cache.directory),
        "source_digest": cache.photos,
        "generated": cache.manifest.get("generated"),  # drawings and no photos
        "photos_in_two_splits": cache.manifest.get("photos_in_two_splits"),  # None where there are none
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


def training_figures(fitted: Fitted, h: Hyperparameters, cache: Cache) -> dict[str, Any]:
    """Of the best epoch, as its images were drawn; accuracy and loss None where no epoch ended well."""
    best = fitted.epochs[fitted.best_epoch - 1] if fitted.best_epoch else None
    counts = cache.manifest["counts"]["training"]
    drawn = "each class as often as any other" if h.balance == "sampler" else "each once"
    return {
        "accuracy": best and best.train_accuracy,
        "loss": best and best.train_loss,
        "n": sum(counts),
        "per_class": [{"id": i, "class": name, "total": n} for i, (name, n) in enumerate(zip(cache.classes, counts))],
        "note": f"the best epoch's own augmented images, {drawn}, while the weights were changing; the loss is what was "
        "minimised",
    }


def score_table(score: Score, classes: tuple[str, ...]) -> dict[str, Any]:
    return {
        "top1": score.top1,
        "top3": score.top3,
        "macro": score.macro,
        "n": score.n,
        "per_class": outputs.per_class_table(classes, score.per_class),
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


def loss_scaling_note(t: Training) -> dict[str, Any] | None:
    """None but for float16."""
    if not t.scaler.is_enabled():
        return None
    return {
        "skipped_steps": int(t.optimizer.skipped),
        "scale": t.scaler.get_scale(),
        "note": "a step whose gradients are not finite is skipped and the loss scale halved; a few at the start are normal",
    }
