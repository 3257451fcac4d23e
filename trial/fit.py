"""Train, stop early, restore the best epoch's weights. Knows neither NNI nor files: it calls back once an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from data.cache import Split
from trial.batches import balancing_weights, batches_per_epoch, plan_epoch, training_batch
from trial.device import Compute
from trial.hyperparameters import Hyperparameters
from trial.images import read_ahead, sent
from trial.loss import Objective, choose_objective
from trial.metrics import Counter, Score
from trial.micro_batch import AtOnce, Buffers, is_out_of_memory, least_images, split_planned
from trial.scoring import EVALUATED_AT_ONCE, evaluate, score_batch
from trial.sgd import make_sgd
from trial.teacher import Teacher

RESERVE = 1 / 16  # of a GPU's memory, left to what nobody counts: fragments, libraries, another program


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
    optimizer: torch.optim.SGD
    scaler: torch.amp.GradScaler  # of the loss, in float16; else it changes nothing
    schedule: torch.optim.lr_scheduler.StepLR
    generator: torch.Generator  # of the order, the crops and the flips: nothing else is random
    best_weights: dict[str, Tensor]
    train_at_once: AtOnce
    evaluate_at_once: AtOnce
    teacher: Teacher | None = None  # never changed
    epochs: list[EpochMetrics] = field(default_factory=list)
    best_epoch: int = 0
    best_validation: Score | None = None


def start_training(
    model: nn.Module, h: Hyperparameters, teacher: Teacher | None = None, precision: str = "fp32"
) -> Training:
    """A training before its first epoch: SGD on all weights, StepLR. The model is on its device."""
    optimizer = make_sgd(model, h.lr, h.momentum, h.weight_decay)
    kind = next(model.parameters()).device.type
    return Training(
        model,
        optimizer,
        torch.amp.GradScaler(kind, enabled=precision == "fp16"),
        torch.optim.lr_scheduler.StepLR(optimizer, h.step_size, h.gamma),
        torch.Generator().manual_seed(h.seed),
        copy_weights(model),
        AtOnce(max(h.batch_size, 3), least_images(h.image_px)),  # pairs may end with a batch of three
        AtOnce(EVALUATED_AT_ONCE[kind]),
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
    labels = sent(torch.from_numpy(train.labels), compute.device)
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
    make_batch = partial(training_batch, split.images, labels, image_px=h.image_px)
    with read_ahead(split.images, plan) as plan, batches_counted_at_the_end(t.model) as counted:
        for planned in plan:
            buffers.keep()
            step = partial(train_step, t, make_batch, objective, planned, compute)
            for logits, part_labels, loss in t.train_at_once.run(step, undo=buffers.restore):
                counter = counter or Counter(logits.shape[1], compute.device)
                counter.add(logits, part_labels, loss)
                counted.append(len(part_labels))
    return counter.score()


@contextmanager
def batches_counted_at_the_end(model: nn.Module) -> Iterator[list[int]]:
    """Batch normalisation counts its batches, a launch per layer and step, which its momentum never reads: a twelfth of a
    step's launches on a GPU. Here they are added at the end: one for each item of the list."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    counters = [layer.num_batches_tracked for layer in layers]
    counted: list[int] = []
    for layer in layers:
        layer.num_batches_tracked = None
    try:
        yield counted
    finally:
        for layer, batches in zip(layers, counters, strict=True):
            layer.num_batches_tracked = batches.add_(len(counted))


def train_step(t: Training, make_batch, objective: Objective, planned, compute: Compute, at_once: int) -> list:
    """One optimiser step on a whole batch, at most `at_once` images at a time: [(logits, labels, mean loss)] a part."""
    parts = add_gradients(t, make_batch, objective, planned, compute, at_once)
    t.scaler.step(t.optimizer)
    t.scaler.update()
    return parts


def add_gradients(t: Training, make_batch, objective: Objective, planned, compute: Compute, at_once: int) -> list:
    """The gradients of a whole batch, in place of those before. Returns as `train_step` does."""
    done = []
    for part in split_planned(planned, at_once, t.train_at_once.least):
        images, labels = make_batch(part)  # (B, 3, S, S) float32, (B,) int64
        with compute.autocast():
            logits = t.model(images)  # (B, C)
            loss = objective(images, logits.float(), labels)
        if not done:  # not earlier: the new gradients then take the old ones' place, still in the processor's caches
            t.optimizer.zero_grad()
        share = len(labels) / len(planned[0])
        t.scaler.scale(loss if share == 1 else loss * share).backward()
        done.append((logits.detach(), labels, loss.detach()))
    return done


def memory_beside_a_step(t: Training, splits: tuple[Split, Split], h: Hyperparameters, compute: Compute) -> int:
    """Bytes of the GPU that are free beside a training step and a batch of validation; 0 where these do not fit themselves.

    Both are tried out: what they took stays with torch, for the real ones. splits: as in `fit`. Nothing of `t` is changed.
    """
    buffers = Buffers(t.model)
    buffers.keep()
    try:
        _try_out(t, splits, h, compute)
        free, total = torch.cuda.mem_get_info()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return 0
    finally:
        t.optimizer.zero_grad()
        buffers.restore()
    return max(0, free - int(total * RESERVE))


def _try_out(t: Training, splits: tuple[Split, Split], h: Hyperparameters, compute: Compute) -> None:
    """The gradients of the largest batch of an epoch, and a batch of validation."""
    train, val = splits
    labels, val_labels = (sent(torch.from_numpy(split.labels), compute.device) for split in splits)
    largest = math.ceil(len(labels) / batches_per_epoch(len(labels), h.batch_size))
    planned = (torch.arange(largest), torch.zeros(5, largest))
    make_batch = partial(training_batch, train.images, labels, image_px=h.image_px)
    objective = choose_objective(h, t.teacher, labels)
    t.model.train()
    for _ in range(2):  # all but the first have the gradients of the one before beside them
        add_gradients(t, make_batch, objective, planned, compute, t.train_at_once.images)
    t.model.eval()
    with torch.inference_mode():
        score_batch(t.model, (val.images, val_labels), h.image_px, compute, 0, t.evaluate_at_once.images)


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
