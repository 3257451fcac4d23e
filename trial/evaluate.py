"""Scores: counted over a whole split and divided once (accuracy is never a mean of batch means); and --evaluate FILE."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data import padded, printable
from data.cache import Split, open_cache
from trial.batches import MicroBatch, evaluation_batch, sent, store_px
from trial.device import Compute, choose_compute
from trial.model import match_classes, read_trained

# Images. On a GPU enough for its kernels to last longer than their launches; halved where memory is short. There every
# batch is filled up to this size: cuDNN searches for its fastest algorithm anew for each shape.
EVALUATION_BATCH = {"cpu": 32, "cuda": 256}

_TITLES = {"evaluation": "Test set", "validation": "Validation set"}


@dataclass(frozen=True)
class Score:
    """What a model does on one split. Accuracies are fractions 0..1 of `n` images."""

    n: int
    loss: float  # mean cross-entropy per image
    top1: float
    top3: float
    macro: float  # mean over the classes that have images of the fraction right
    per_class: list[tuple[int, int]]  # (right, all) per class, in class order

    def table(self, classes: tuple[str, ...]) -> dict[str, Any]:
        """The score for result.json."""
        per_class = [
            {"id": class_id, "class": name, "correct": right, "total": total}
            for class_id, (name, (right, total)) in enumerate(zip(classes, self.per_class))
        ]
        return {"top1": self.top1, "top3": self.top3, "macro": self.macro, "n": self.n, "per_class": per_class}

    def report(self, classes: tuple[str, ...], title: str = "Test set") -> str:
        """The score in the form of the lab report's tables, with class names."""
        n, right, right3 = self.n, round(self.top1 * self.n), round(self.top3 * self.n)
        lines = [
            f"{title}: Top1 Accuracy: {right}/{n} ({right / n:.0%}), Top3 Accuracy: {right3}/{n} ({right3 / n:.0%})"
        ]
        for class_id, (name, (hits, total)) in enumerate(zip(classes, self.per_class)):
            share = f"{hits / total:.0%}" if total else "-"
            lines.append(f"class {class_id:<2} {padded(printable(name), 18)}: {hits}/{total} {share}")
        return "\n".join(lines)


class Counter:
    """Adds up batches on the device; reads nothing back until `score` is called."""

    def __init__(self, classes: int, device: torch.device) -> None:
        self.loss = torch.zeros((), device=device)
        self.top3 = torch.zeros((), dtype=torch.int64, device=device)
        self.right = torch.zeros(classes, dtype=torch.int64, device=device)
        self.total = torch.zeros(classes, dtype=torch.int64, device=device)

    def add(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        """logits: (B, C); labels: (B,) int64; loss: the batch's mean, ()."""
        hit = logits.argmax(1) == labels
        self.loss += loss.float() * len(labels)
        self.right.index_add_(0, labels, hit.long())  # not bincount: that would wait for the GPU
        self.total.index_add_(0, labels, torch.ones_like(labels))
        best3 = logits.topk(min(3, logits.shape[1]), dim=1).indices
        self.top3 += (best3 == labels[:, None]).any(1).sum()

    def score(self) -> Score:
        """Divide once."""
        counts = torch.cat((self.right, self.total, self.top3[None])).double()  # exact; one wait for the GPU, not four
        *counts, loss = torch.cat((counts, self.loss.double()[None])).tolist()
        *counts, top3 = map(int, counts)
        right, totals = counts[: len(self.right)], counts[len(self.right) :]
        n = sum(totals)
        fractions = [r / s for r, s in zip(right, totals) if s]
        return Score(
            n=n,
            loss=loss / n,
            top1=sum(right) / n,
            top3=top3 / n,
            macro=sum(fractions) / len(fractions),
            per_class=list(zip(right, totals)),
        )


def evaluate(
    model: nn.Module, split: Split, image_px: int, compute: Compute, micro_batch: MicroBatch | None = None
) -> Score:
    """The score of a whole split, deterministic."""
    counter = None
    for logits, labels in scored_batches(model, split, image_px, compute, micro_batch):
        counter = counter or Counter(logits.shape[1], compute.device)
        counter.add(logits, labels, F.cross_entropy(logits, labels))
    return counter.score()


@torch.inference_mode()
def scored_batches(
    model: nn.Module, split: Split, image_px: int, compute: Compute, micro_batch: MicroBatch | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits (B, C) float32 and labels (B,) of the whole split, in its order."""
    model.eval()
    split = Split(split.images, sent(torch.from_numpy(split.labels), compute.device))
    micro_batch = micro_batch or MicroBatch(EVALUATION_BATCH[compute.device.type])
    start = 0
    while start < len(split.labels):
        score = partial(score_batch, model, split, image_px, compute, start)
        logits, labels = micro_batch.run(score, undo=lambda: None)
        yield logits, labels
        start += len(labels)


def score_batch(
    model: nn.Module, split: Split, image_px: int, compute: Compute, start: int, size: int
) -> tuple[Tensor, Tensor]:
    """Logits (B, C) float32 and labels (B,) of at most `size` images from `start` on. split: its labels on the device."""
    rows = slice(start, min(start + size, len(split.labels)))
    fill_to = size if compute.device.type == "cuda" else 0
    images, labels = evaluation_batch(split.images, split.labels, rows, image_px, fill_to)
    with compute.autocast():
        return model(images)[: len(labels)].float(), labels


# -- calibration ---------------------------------------------------------------------------------------------------------

_BINS = 15
_SHARPEST, _SOFTEST = 1 / 20, 20.0  # temperatures: a network that is always right has none that is best


@dataclass(frozen=True)
class Calibration:
    """The temperature that probabilities are softened with, and how far confidence was from accuracy on the same images."""

    temperature: float
    n: int  # images
    ece_before: float  # expected calibration error, a fraction
    ece_after: float
    split: str = "validation"


def calibrate(logits: Tensor, labels: Tensor) -> Calibration:
    """The temperature T with which softmax(z / T) has the least cross-entropy: (N, C), (N,) int64, on the CPU.

    Guo et al., On Calibration of Modern Neural Networks, 2017 (arXiv:1706.04599), equation 9. The cross-entropy is convex in
    1/T, so that its slope has one zero: mean(sum_j p_j z_j - z_y).
    """
    logits = logits.double()
    right = logits.gather(1, labels[:, None])[:, 0]

    def slope(sharpness: float) -> float:
        return float(((logits * sharpness).softmax(1) * logits).sum(1).sub(right).mean())

    low, high = 1 / _SOFTEST, 1 / _SHARPEST
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    temperature = 2 / (low + high)
    errors = [calibration_error((logits / by).softmax(1), labels) for by in (1.0, temperature)]
    return Calibration(temperature, len(labels), *errors)


def calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """Expected calibration error, a fraction: |accuracy - confidence| of 15 equal bins of confidence, weighted by their
    images (Guo et al. 2017, equation 3). (N, C), (N,) int64."""
    confidence, predicted = probabilities.max(1)
    bins = (confidence * _BINS).ceil().long().clamp(1, _BINS) - 1
    gaps = torch.zeros(_BINS, dtype=torch.double)
    gaps.index_add_(0, bins, (predicted == labels).double() - confidence.double())
    return float(gaps.abs().sum() / len(labels))


# -- python -m trial --evaluate ------------------------------------------------------------------------------------------


def evaluate_file(
    weights: Path, cache_folder: Path, split: str, device: str = "auto", precision: str = "auto", threads: int = 0
) -> Score:
    """Score a best.pt on the "evaluation" or "validation" split and print it as a trial does; no files are written.

    Raises TrialError or DataError for what does not fit together.
    """
    trained = read_trained(weights)
    h = trained.hyperparameters
    cache = open_cache(cache_folder, h.image_px)
    advice = "Name the cache it was trained on with --cache"
    outputs = match_classes(trained.classes, cache, str(weights), advice)
    compute = choose_compute(device, precision, threads)
    model = compute.place(trained.build(outputs))
    images = cache.split(split, store_px(h.image_px))
    score = evaluate(model, images, h.image_px, compute)
    print(f"{weights}: {h.arch} at {h.image_px} px on {compute.name}; {split} split of {cache.directory}, "
          f"{score.n} images")  # fmt: skip
    print(score.report(cache.classes, _TITLES[split]))
    return score
