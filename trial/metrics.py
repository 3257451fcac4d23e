"""Counts over a whole split, then one division: accuracy is never a mean of batch means."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Score:
    """What a model does on one split. Accuracies are fractions 0..1 of `n` images."""

    n: int
    loss: float  # mean cross-entropy an image
    top1: float
    top3: float
    macro: float  # mean over the classes that have images of the fraction right
    per_class: list[tuple[int, int]]  # (right, all) a class, in class order


class Counter:
    """Adds up batches on the device; reads nothing back until `score` is called."""

    def __init__(self, classes: int, device: torch.device) -> None:
        self.loss = torch.zeros((), device=device)
        self.top3 = torch.zeros((), dtype=torch.int64, device=device)
        self.right = torch.zeros(classes, dtype=torch.int64, device=device)
        self.seen = torch.zeros(classes, dtype=torch.int64, device=device)

    def add(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        """logits: (B, C); labels: (B,) int64; loss: the batch's mean, ()."""
        hit = logits.argmax(1) == labels
        self.loss += loss.float() * len(labels)
        self.right.index_add_(0, labels, hit.long())  # not bincount: that would wait for the GPU
        self.seen.index_add_(0, labels, torch.ones_like(labels))
        best3 = logits.topk(min(3, logits.shape[1]), dim=1).indices
        self.top3 += (best3 == labels[:, None]).any(1).sum()

    def score(self) -> Score:
        """Divide once."""
        counts = torch.cat((self.right, self.seen, self.top3[None])).double()  # exact; one wait for the GPU, not four
        *counts, loss = torch.cat((counts, self.loss.double()[None])).tolist()
        *counts, top3 = map(int, counts)
        right, seen = counts[: len(self.right)], counts[len(self.right) :]
        n = sum(seen)
        fractions = [r / s for r, s in zip(right, seen) if s]
        return Score(
            n=n,
            loss=loss / n,
            top1=sum(right) / n,
            top3=top3 / n,
            macro=sum(fractions) / len(fractions),
            per_class=list(zip(right, seen)),
        )
