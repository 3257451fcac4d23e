"""A whole split scored: deterministically, in parts where memory is short."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from data.cache import Split
from trial.batches import evaluation_batch
from trial.device import Compute
from trial.images import sent
from trial.metrics import Counter, Score
from trial.micro_batch import AtOnce

# Images. On a GPU enough for its kernels to last longer than their launches; halved where memory is short. There every
# batch is filled up to this size: cuDNN searches its fastest way anew for each shape.
EVALUATED_AT_ONCE = {"cpu": 32, "cuda": 256}


@torch.inference_mode()
def evaluate(model: nn.Module, split: Split, image_px: int, compute: Compute, at_once: AtOnce | None = None) -> Score:
    """Score a whole split, deterministically."""
    model.eval()
    labels = sent(torch.from_numpy(split.labels), compute.device)
    at_once = at_once or AtOnce(EVALUATED_AT_ONCE[compute.device.type])
    counter, start = None, 0
    while start < len(labels):
        score = partial(score_batch, model, (split.images, labels), image_px, compute, start)
        logits, batch_labels = at_once.run(score, undo=lambda: None)
        counter = counter or Counter(logits.shape[1], compute.device)
        counter.add(logits, batch_labels, F.cross_entropy(logits, batch_labels))
        start += len(batch_labels)
    return counter.score()


def score_batch(model: nn.Module, data, image_px: int, compute: Compute, start: int, at_once: int):
    """Logits (B, C) float32 and labels (B,) of at most `at_once` images from `start` on."""
    rows = slice(start, min(start + at_once, len(data[1])))
    images, labels = evaluation_batch(*data, rows, image_px, at_once if compute.device.type == "cuda" else 0)
    with compute.autocast():
        return model(images)[: len(labels)].float(), labels
