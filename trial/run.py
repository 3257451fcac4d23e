"""One whole trial, without NNI: from hyperparameters and settings to a folder of results and the final metrics."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torchvision

from data.cache import Cache
from trial import outputs
from trial.batches import store_px
from trial.device import Compute, choose_compute
from trial.fit import EpochMetrics, Fitted, evaluate, fit
from trial.hyperparameters import Hyperparameters
from trial.metrics import Score
from trial.model import build_model
from trial.revision import code_revision


@dataclass(frozen=True)
class Settings:
    """Where and how a trial runs; none of it is meant to change what it learns."""

    output: Path
    device: str = "auto"
    precision: str = "auto"
    threads: int = 0


def run_trial(
    h: Hyperparameters, cache: Cache, settings: Settings, report: Callable[[dict[str, float]], None]
) -> dict[str, float]:
    """Train, keep the best epoch, score it on the evaluation split once, and write everything down.

    report: called once an epoch with {"default": validation accuracy, ...}. Returns the final metrics, whose
    "default" is the validation accuracy of the weights kept. Raises TrialError.
    """
    started = time.monotonic()
    compute = choose_compute(settings.device, settings.precision, settings.threads)
    model = compute.place(build_model(h.arch, h.weights, len(cache.classes), h.seed))
    train, val = (cache.split(name, store_px(h.image_px)) for name in ("training", "validation"))
    print(f"{h.arch} ({h.weights}) on {compute.name}: {len(train.labels)} training images at {h.image_px} px, "
          f"{len(val.labels)} validation, {len(cache.classes)} classes")  # fmt: skip
    log = outputs.EpochLog(settings.output)

    def on_epoch(m: EpochMetrics) -> None:
        seconds = time.monotonic() - started
        print(
            f"epoch {m.epoch:>3}/{h.epochs}  lr {m.lr:.6f}  training loss {m.train_loss:.4f} acc {m.train_accuracy:.4f}"
            f"  validation loss {m.val_loss:.4f} acc {m.val_accuracy:.4f}  {seconds:.1f} s"
        )
        log.add(asdict(m), seconds)
        report(metrics_of_epoch(m))

    fitted = fit(model, (train, val), h, compute, on_epoch)
    log.close()
    validation = evaluate(model, val, h.image_px, compute) if fitted.best_epoch == 0 else None
    evaluation = evaluate(model, cache.split("evaluation", store_px(h.image_px)), h.image_px, compute)
    final = final_metrics(fitted, len(val.labels), validation, evaluation)
    final["duration_s"] = round(time.monotonic() - started, 3)
    _write(settings.output, model, cache, h, (fitted, evaluation, final, compute))
    print(outputs.report_lines(evaluation, cache.classes))
    print(f"best epoch {fitted.best_epoch} of {len(fitted.epochs)}, stopped by {fitted.stopped_by}: validation "
          f"accuracy {final['default']:.4f} (n = {len(val.labels)})")  # fmt: skip
    return final


def metrics_of_epoch(m: EpochMetrics) -> dict[str, float]:
    """An epoch as NNI gets it; `default` is what tuners and assessors read."""
    return {
        "default": m.val_accuracy,
        "train_loss": m.train_loss,
        "train_accuracy": m.train_accuracy,
        "val_loss": m.val_loss,
        "lr": m.lr,
        "epoch": m.epoch,
    }


def final_metrics(fitted: Fitted, validation_n: int, untrained: Score | None, evaluation: Score) -> dict[str, float]:
    """The best epoch's metrics and what the evaluation split says of the same weights.

    untrained: the validation score of the weights before training, where no epoch ended well.
    """
    if fitted.best_epoch:
        metrics = metrics_of_epoch(fitted.epochs[fitted.best_epoch - 1])
    else:
        metrics = {"default": untrained.top1, "val_loss": untrained.loss, "epoch": 0}
    return {
        **metrics,
        "evaluation_top1": evaluation.top1,
        "evaluation_top3": evaluation.top3,
        "evaluation_macro": evaluation.macro,
        "evaluation_n": evaluation.n,
        "validation_n": validation_n,
        "epochs_run": len(fitted.epochs),
        "best_epoch": fitted.best_epoch,
        "diverged": int(fitted.stopped_by == "diverged"),
    }


def _write(folder: Path, model, cache: Cache, h: Hyperparameters, outcome: tuple[Fitted, Score, dict, Compute]) -> None:
    fitted, evaluation, final, compute = outcome
    outputs.write_weights(folder / "best.pt", model.state_dict(), cache.classes, h)
    result = {
        "hyperparameters": asdict(h),
        "classes": list(cache.classes),
        "validation": {"accuracy": final["default"], "n": final["validation_n"]},
        "evaluation": {
            "top1": evaluation.top1,
            "top3": evaluation.top3,
            "macro": evaluation.macro,
            "n": evaluation.n,
            "per_class": outputs.per_class_table(cache.classes, evaluation.per_class),
        },
        "epochs_run": len(fitted.epochs),
        "best_epoch": fitted.best_epoch,
        "stopped_by": fitted.stopped_by,
        "duration_s": final["duration_s"],
        "cache": str(cache.directory),
        "source_digest": cache.manifest["source_digest"],
        "compute": compute.name,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
        "revision": code_revision(),
        "command": sys.argv,
    }
    outputs.write_json(folder / "result.json", result)
