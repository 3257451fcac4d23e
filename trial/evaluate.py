"""Scores: counted over a whole split and divided once (accuracy is never a mean of batch means); and --evaluate FILE."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data import padded, printable
from data.cache import Split, open_cache
from trial import TrialError
from trial.batches import MicroBatch, evaluation_batch, sent, store_px
from trial.device import Compute, choose_compute
from trial.hyperparameters import Hyperparameters
from trial.model import build_model, match_classes
from trial.weights import load_path, state_of

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


@torch.inference_mode()
def evaluate(
    model: nn.Module, split: Split, image_px: int, compute: Compute, micro_batch: MicroBatch | None = None
) -> Score:
    """The score of a whole split, deterministic."""
    model.eval()
    split = Split(split.images, sent(torch.from_numpy(split.labels), compute.device))
    micro_batch = micro_batch or MicroBatch(EVALUATION_BATCH[compute.device.type])
    counter, start = None, 0
    while start < len(split.labels):
        score = partial(score_batch, model, split, image_px, compute, start)
        logits, labels = micro_batch.run(score, undo=lambda: None)
        counter = counter or Counter(logits.shape[1], compute.device)
        counter.add(logits, labels, F.cross_entropy(logits, labels))
        start += len(labels)
    return counter.score()


def score_batch(
    model: nn.Module, split: Split, image_px: int, compute: Compute, start: int, size: int
) -> tuple[Tensor, Tensor]:
    """Logits (B, C) float32 and labels (B,) of at most `size` images from `start` on. split: its labels on the device."""
    rows = slice(start, min(start + size, len(split.labels)))
    fill_to = size if compute.device.type == "cuda" else 0
    images, labels = evaluation_batch(split.images, split.labels, rows, image_px, fill_to)
    with compute.autocast():
        return model(images)[: len(labels)].float(), labels


@dataclass(frozen=True)
class _BestWeights:
    """The content of a best.pt: state dict, class names by output, and what it was trained with."""

    state: dict[str, Tensor]
    classes: tuple[str, ...]
    hyperparameters: Hyperparameters


def evaluate_file(
    weights: Path, cache_folder: Path, split: str, device: str = "auto", precision: str = "auto", threads: int = 0
) -> Score:
    """Score a best.pt on the "evaluation" or "validation" split and print it as a trial does; no files are written.

    Raises TrialError or DataError for what does not fit together.
    """
    best = _read_best(weights)
    h = best.hyperparameters
    cache = open_cache(cache_folder, h.image_px)
    advice = "Name the cache it was trained on with --cache"
    outputs = match_classes(best.classes, cache, str(weights), advice)
    compute = choose_compute(device, precision, threads)
    model = build_model(h.arch, "none", len(outputs), h.seed)
    state = {name: value[outputs] if name.startswith("fc.") else value for name, value in best.state.items()}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise TrialError(
            f"{weights}: its weights do not fit {h.arch} ({reason}); expected a trial's best.pt"
        ) from error
    images = cache.split(split, store_px(h.image_px))
    score = evaluate(compute.place(model), images, h.image_px, compute)
    print(f"{weights}: {h.arch} at {h.image_px} px on {compute.name}; {split} split of {cache.directory}, "
          f"{score.n} images")  # fmt: skip
    print(score.report(cache.classes, _TITLES[split]))
    return score


def _read_best(path: Path) -> _BestWeights:
    """Raises TrialError for a file that no trial wrote."""
    if not path.is_file():
        raise TrialError(f"--evaluate {path}: no such file; expected the best.pt of a trial's folder")
    content = load_path(path, str(path))
    content = content if isinstance(content, dict) else {}
    classes = content.get("classes")
    has_names = isinstance(classes, list) and bool(classes) and all(isinstance(name, str) for name in classes)
    if not (has_names and isinstance(content.get("model"), dict) and "hyperparameters" in content):
        raise TrialError(
            f"{path}: not a trial's best.pt (expected model, classes and hyperparameters, found "
            f"{', '.join(map(str, list(content)[:4])) or 'something else'}); a bare state dict goes to --weights"
        )
    state = state_of(content, str(path)).values
    if any(name.startswith("fc.") and len(value) != len(classes) for name, value in state.items()):
        raise TrialError(f"{path}: its head has another number of outputs than its {len(classes)} class names")
    return _BestWeights(state, tuple(classes), Hyperparameters().merged(content["hyperparameters"]))
