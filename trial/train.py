"""Train, stop early, restore the best epoch's weights. Knows neither NNI nor files: it calls back once per epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from data.cache import Split
from trial.batches import (
    Buffers,
    PlannedBatch,
    balancing_weights,
    batches_per_epoch,
    is_out_of_memory,
    plan_epoch,
    read_ahead,
    sent,
    split_planned,
    training_batch,
)
from trial.device import Compute
from trial.evaluate import Counter, Score, evaluate, score_batch
from trial.hyperparameters import Hyperparameters
from trial.loss import Objective, choose_objective
from trial.state import EpochMetrics, TrainState

_RESERVE = 1 / 16  # of a GPU's memory, left for what is not counted: fragments, libraries, another program


@dataclass(frozen=True)
class FitResult:
    """How the training went. The model holds the weights of `best_epoch`."""

    history: list[EpochMetrics]
    best_epoch: int  # 0: no epoch ended with finite numbers, the weights are those of before the training
    stopped_by: str  # "epochs", "patience", "diverged" or a signal's name
    validation: Score | None  # of `best_epoch`; None where that is 0


def fit(
    state: TrainState,
    train: Split,
    val: Split,
    h: Hyperparameters,
    compute: Compute,
    on_epoch: Callable[[TrainState], None],
) -> FitResult:
    """Train from where `state` is; the validation split decides when to stop and what to keep.

    on_epoch is called after each finished epoch, with finite numbers only.
    """
    labels = sent(torch.from_numpy(train.labels), compute.device)
    while not (stopped_by := _why_stopped(state, h)):
        lr = state.optimizer.param_groups[0]["lr"]
        training = train_epoch(state, train, labels, h, compute)
        validation = evaluate(state.model, val, h.image_px, compute, state.evaluation_micro_batch)
        if not (math.isfinite(training.loss) and math.isfinite(validation.loss)):
            stopped_by = "diverged"
            break
        state.schedule.step()
        metrics = EpochMetrics(
            epoch=len(state.history) + 1,
            lr=lr,
            train_loss=training.loss,
            train_accuracy=training.top1,
            val_loss=validation.loss,
            val_accuracy=validation.top1,
            val_macro=validation.macro,
        )
        state.add(metrics, validation)
        on_epoch(state)
    state.model.load_state_dict(state.best_weights)
    return FitResult(state.history, state.best_epoch, stopped_by, state.best_validation)


def _why_stopped(state: TrainState, h: Hyperparameters) -> str:
    """What ends the training, "patience" or "epochs"; empty while it continues."""
    epochs = len(state.history)
    if h.patience and 0 < epochs < h.epochs and epochs - state.best_epoch >= h.patience:
        return "patience"
    return "epochs" if epochs >= h.epochs else ""


def train_epoch(state: TrainState, split: Split, labels: Tensor, h: Hyperparameters, compute: Compute) -> Score:
    """One pass of optimizer steps. The score is of the augmented batches as they were trained on."""
    state.model.train()
    counter, buffers = None, Buffers(state.model)
    objective = choose_objective(h, state.teacher, labels)
    weights = balancing_weights(split.labels) if h.balance == "sampler" else None
    plan = plan_epoch(len(split.images), h.batch_size, state.generator, weights)
    make_batch = partial(training_batch, split.images, labels, image_px=h.image_px)
    with read_ahead(split.images, plan) as plan, _batch_norm_counted_at_the_end(state.model) as counted:
        for planned in plan:
            buffers.keep()
            step = partial(train_step, state, make_batch, objective, planned, compute)
            for logits, part_labels, loss in state.train_micro_batch.run(step, undo=buffers.restore):
                counter = counter or Counter(logits.shape[1], compute.device)
                counter.add(logits, part_labels, loss)
                counted.append(len(part_labels))
    return counter.score()


@contextmanager
def _batch_norm_counted_at_the_end(model: nn.Module) -> Iterator[list[int]]:
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


def train_step(
    state: TrainState, make_batch: Callable, objective: Objective, planned: PlannedBatch, compute: Compute, size: int
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """One optimizer step on a whole batch, at most `size` images at once: (logits, labels, mean loss) per part."""
    if (
        state.has_random_layers
    ):  # so that a step that is repeated, or comes after a checkpoint, drops what it would have
        torch.manual_seed(int(planned.draw[0, 0] * 2**24))
    parts = _add_gradients(state, make_batch, objective, planned, compute, size)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    return parts


def _add_gradients(
    state: TrainState, make_batch: Callable, objective: Objective, planned: PlannedBatch, compute: Compute, size: int
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """The gradients of a whole batch, in place of those before. Returns as `train_step` does."""
    done = []
    for part in split_planned(planned, size, state.train_micro_batch.smallest):
        images, labels = make_batch(part)  # (B, 3, S, S) float32, (B,) int64
        with compute.autocast():
            logits = state.model(images)  # (B, C)
            loss = objective(images, logits.float(), labels)
        if not done:  # not earlier: the new gradients then take the old ones' place, still in the processor's caches
            state.optimizer.zero_grad()
        share = len(labels) / len(planned[0])
        state.scaler.scale(loss if share == 1 else loss * share).backward()
        done.append((logits.detach(), labels, loss.detach()))
    return done


def memory_beside_a_step(state: TrainState, train: Split, val: Split, h: Hyperparameters, compute: Compute) -> int:
    """Bytes of the GPU that are free beside a training step and a batch of validation; 0 where these do not fit themselves.

    Both are tried out: the memory that they took stays with torch, for the real ones. `state` is not changed.
    """
    buffers = Buffers(state.model)
    buffers.keep()
    try:
        _try_out(state, train, val, h, compute)
        free, total = torch.cuda.mem_get_info()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return 0
    finally:
        state.optimizer.zero_grad()
        buffers.restore()
    return max(0, free - int(total * _RESERVE))


def _try_out(state: TrainState, train: Split, val: Split, h: Hyperparameters, compute: Compute) -> None:
    """The gradients of the largest batch of an epoch, and a batch of validation."""
    labels, val_labels = (sent(torch.from_numpy(split.labels), compute.device) for split in (train, val))
    largest = math.ceil(len(labels) / batches_per_epoch(len(labels), h.batch_size))
    planned = PlannedBatch(torch.arange(largest), torch.zeros(5, largest))
    make_batch = partial(training_batch, train.images, labels, image_px=h.image_px)
    objective = choose_objective(h, state.teacher, labels)
    state.model.train()
    for _ in range(2):  # all but the first have the gradients of the one before beside them
        _add_gradients(state, make_batch, objective, planned, compute, state.train_micro_batch.images)
    state.model.eval()
    with torch.inference_mode():
        val = Split(val.images, val_labels)
        score_batch(state.model, val, h.image_px, compute, 0, state.evaluation_micro_batch.images)
