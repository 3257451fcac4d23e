"""Train, stop early, restore the best epoch's weights. Knows neither NNI nor files: it calls back once an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.cache import Split
from trial.batches import evaluation_batches, training_batches
from trial.device import Compute
from trial.hyperparameters import Hyperparameters
from trial.metrics import Counter, Score


@dataclass(frozen=True)
class EpochMetrics:
    """One epoch, counted from 1. Accuracies are fractions of whole splits; losses are means an image."""

    epoch: int
    lr: float  # that this epoch was trained with
    train_loss: float
    train_accuracy: float  # on the augmented images, while the weights were changing
    val_loss: float
    val_accuracy: float


@dataclass(frozen=True)
class Fitted:
    """How the training went. The model passed in holds the weights of `best_epoch`."""

    epochs: list[EpochMetrics]
    best_epoch: int  # 0: no epoch ended well, the weights are those of before the training
    stopped_by: str  # "epochs", "patience" or "diverged"


def fit(
    model: nn.Module,
    splits: tuple[Split, Split],
    hyperparameters: Hyperparameters,
    compute: Compute,
    on_epoch: Callable[[EpochMetrics], None],
) -> Fitted:
    """Fine-tune all weights with SGD and StepLR; the validation split decides when to stop and what to keep.

    splits: training and validation. on_epoch is called after each finished epoch, with finite numbers only.
    """
    train, val = splits
    h = hyperparameters
    optimizer = torch.optim.SGD(model.parameters(), h.lr, h.momentum, weight_decay=h.weight_decay)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, h.step_size, h.gamma)
    generator = torch.Generator().manual_seed(h.seed)
    train_labels = torch.from_numpy(train.labels).to(compute.device)
    best_weights, best_epoch, epochs = copy_weights(model), 0, []
    for epoch in range(1, h.epochs + 1):
        lr = optimizer.param_groups[0]["lr"]
        batches = training_batches(train.images, train_labels, h.batch_size, h.image_px, generator)
        trained = train_epoch(model, batches, optimizer, compute)
        validated = evaluate(model, val, h.image_px, compute)
        if not (math.isfinite(trained.loss) and math.isfinite(validated.loss)):
            model.load_state_dict(best_weights)
            return Fitted(epochs, best_epoch, "diverged")
        schedule.step()
        epochs.append(EpochMetrics(epoch, lr, trained.loss, trained.top1, validated.loss, validated.top1))
        on_epoch(epochs[-1])
        if best_epoch == 0 or validated.top1 > epochs[best_epoch - 1].val_accuracy:
            best_weights, best_epoch = copy_weights(model), epoch
        elif h.patience and epoch - best_epoch >= h.patience:
            break
    model.load_state_dict(best_weights)
    return Fitted(epochs, best_epoch, "epochs" if epoch == h.epochs else "patience")


def train_epoch(model: nn.Module, batches, optimizer: torch.optim.Optimizer, compute: Compute) -> Score:
    """One pass of optimiser steps. The score is of the augmented batches as they were trained on."""
    model.train()
    counter = None
    for images, labels in batches:  # (B, 3, S, S) float32, (B,) int64
        with compute.autocast():
            logits = model(images)  # (B, C)
            loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        counter = counter or Counter(logits.shape[1], compute.device)
        counter.add(logits.detach(), labels, loss.detach())
    return counter.score()


@torch.inference_mode()
def evaluate(model: nn.Module, split: Split, image_px: int, compute: Compute) -> Score:
    """Score a whole split, deterministically."""
    model.eval()
    labels = torch.from_numpy(split.labels).to(compute.device)
    counter = None
    for images, batch_labels in evaluation_batches(split.images, labels, image_px):
        with compute.autocast():
            logits = model(images).float()
        counter = counter or Counter(logits.shape[1], compute.device)
        counter.add(logits, batch_labels, F.cross_entropy(logits, batch_labels))
    return counter.score()


def copy_weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy that training does not change."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
