"""Train, stop early, restore the best epoch's weights. Knows neither NNI nor files: it calls back once an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from data.cache import Split
from trial.batches import balancing_weights, plan_epoch, training_batch
from trial.device import Compute
from trial.hyperparameters import Hyperparameters
from trial.loss import Objective, choose_objective
from trial.metrics import Counter, Score
from trial.micro_batch import AtOnce, Buffers, least_images, split_planned
from trial.prefetch import read_ahead
from trial.scoring import EVALUATED_AT_ONCE, evaluate
from trial.sgd import SGD
from trial.teacher import Teacher


@dataclass(frozen=True)
class EpochMetrics:
    """One epoch, counted from 1. Accuracies are fractions of whole splits; losses are means an image.

    The training figures are of the augmented images as they were drawn, while the weights were changing: with the
    sampler, of classes in equal shares. The training loss is what was minimised, the teacher's part in it.
    """

    epoch: int
    lr: float  # that this epoch was trained with
    train_loss: float
    train_accuracy: float
    val_loss: float  # plain cross-entropy
    val_accuracy: float
    val_macro: float  # mean of the classes' accuracies


@dataclass(frozen=True)
class Fitted:
    """How the training went. The model holds the weights of `best_epoch`."""

    epochs: list[EpochMetrics]
    best_epoch: int  # 0: no epoch ended well, the weights are those of before the training
    stopped_by: str  # "epochs", "patience" or "diverged"
    validation: Score | None  # of `best_epoch`; None where that is 0


@dataclass
class Training:
    """All that an epoch changes: with these, a training goes on from where it was."""

    model: nn.Module
    optimizer: SGD
    schedule: torch.optim.lr_scheduler.StepLR
    generator: torch.Generator  # of the order, the crops and the flips: nothing else is random
    best_weights: dict[str, Tensor]
    train_at_once: AtOnce
    evaluate_at_once: AtOnce
    teacher: Teacher | None = None  # never changed
    epochs: list[EpochMetrics] = field(default_factory=list)
    best_epoch: int = 0
    best_validation: Score | None = None


def start_training(model: nn.Module, h: Hyperparameters, teacher: Teacher | None = None) -> Training:
    """A training before its first epoch: SGD on all weights, StepLR."""
    optimizer = SGD(model, h.lr, h.momentum, h.weight_decay)
    return Training(
        model,
        optimizer,
        torch.optim.lr_scheduler.StepLR(optimizer, h.step_size, h.gamma),
        torch.Generator().manual_seed(h.seed),
        copy_weights(model),
        AtOnce(h.batch_size, least_images(h.image_px)),
        AtOnce(EVALUATED_AT_ONCE[next(model.parameters()).device.type]),
        teacher,
    )


def fit(
    t: Training,
    splits: tuple[Split, Split],
    h: Hyperparameters,
    compute: Compute,
    on_epoch: Callable[[Training], None],
) -> Fitted:
    """Train from where `t` is; the validation split decides when to stop and what to keep.

    splits: training and validation. on_epoch is called after each finished epoch, with finite numbers only.
    """
    train, val = splits
    labels = torch.from_numpy(train.labels).to(compute.device)
    while not (stopped_by := why_stopped(t, h)):
        lr = t.optimizer.param_groups[0]["lr"]
        trained = train_epoch(t, train, labels, h, compute)
        validated = evaluate(t.model, val, h.image_px, compute, t.evaluate_at_once)
        if not (math.isfinite(trained.loss) and math.isfinite(validated.loss)):
            stopped_by = "diverged"
            break
        t.schedule.step()
        epoch = len(t.epochs) + 1
        shown = (trained.loss, trained.top1, validated.loss, validated.top1, validated.macro)
        t.epochs.append(EpochMetrics(epoch, lr, *shown))
        if best_epoch(t.epochs) == epoch:
            t.best_epoch, t.best_validation = epoch, validated
            overwrite(t.best_weights, t.model.state_dict())
        on_epoch(t)
    t.model.load_state_dict(t.best_weights)
    return Fitted(t.epochs, t.best_epoch, stopped_by, t.best_validation)


def why_stopped(t: Training, h: Hyperparameters) -> str:
    """What ends the training, "patience" or "epochs"; empty while it goes on."""
    if h.patience and t.epochs and len(t.epochs) < h.epochs and len(t.epochs) - t.best_epoch >= h.patience:
        return "patience"
    return "epochs" if len(t.epochs) >= h.epochs else ""


def train_epoch(t: Training, split: Split, labels: Tensor, h: Hyperparameters, compute: Compute) -> Score:
    """One pass of optimiser steps. The score is of the augmented batches as they were trained on."""
    t.model.train()
    counter, buffers = None, Buffers(t.model)
    objective = choose_objective(h, t.teacher, labels)
    weights = balancing_weights(split.labels) if h.balance == "sampler" else None
    plan = plan_epoch(len(split.images), h.batch_size, t.generator, weights)
    with read_ahead(split.images, plan, compute.device) as (images, plan):
        make_batch = partial(training_batch, images, labels, image_px=h.image_px)
        for planned in plan:
            buffers.keep()
            step = partial(train_step, t, make_batch, objective, planned, compute)
            for logits, part_labels, loss in t.train_at_once.run(step, undo=buffers.restore):
                counter = counter or Counter(logits.shape[1], compute.device)
                counter.add(logits, part_labels, loss)
    return counter.score()


def train_step(t: Training, make_batch, objective: Objective, planned, compute: Compute, at_once: int) -> list:
    """One optimiser step on a whole batch, at most `at_once` images at a time: [(logits, labels, mean loss)] a part."""
    done = []
    for part in split_planned(planned, at_once, t.train_at_once.least):
        images, labels = make_batch(part)  # (B, 3, S, S) float32, (B,) int64
        with compute.autocast():
            logits = t.model(images)  # (B, C)
            loss = objective(images, logits.float(), labels)
        if not done:  # not earlier: the new gradients then take the old ones' place, still in the processor's caches
            t.optimizer.zero_grad()
        (loss * (len(labels) / len(planned[0]))).backward()
        done.append((logits.detach(), labels, loss.detach()))
    t.optimizer.step()
    return done


def best_epoch(epochs: list[EpochMetrics]) -> int:
    """Of the highest validation accuracy; of equals the first. 0 where there is none."""
    return max((epoch.epoch for epoch in epochs), key=lambda number: epochs[number - 1].val_accuracy, default=0)


def overwrite(kept: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    """Where `kept` lies: no memory is asked for."""
    for name, value in weights.items():
        kept[name].copy_(value)


def copy_weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy that training does not change."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
