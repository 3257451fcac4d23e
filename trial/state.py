"""What a training carries from epoch to epoch, and the optimizer that is part of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from trial.batches import MicroBatch, smallest_micro_batch
from trial.evaluate import EVALUATION_BATCH, Score
from trial.hyperparameters import Hyperparameters
from trial.model import Teacher
from trial.networks import has_random_layers


@dataclass(frozen=True)
class EpochMetrics:
    """One epoch, counted from 1. Accuracies are fractions of whole splits; losses are means per image.

    The training figures are of the augmented images as they were drawn, while the weights were changing: with the
    sampler, of classes in equal shares. The training loss is what was minimised, the teacher's part included.
    """

    epoch: int
    lr: float  # that this epoch was trained with
    train_loss: float
    train_accuracy: float
    val_loss: float  # plain cross-entropy
    val_accuracy: float
    val_macro: float  # mean of the classes' accuracies


@dataclass
class TrainState:
    """All that an epoch changes: with these, a training continues from where it was."""

    model: nn.Module
    optimizer: torch.optim.SGD
    scaler: torch.amp.GradScaler  # of the loss, in float16; otherwise it changes nothing
    schedule: torch.optim.lr_scheduler.StepLR
    generator: torch.Generator  # of the order, the crops and the flips; they decide what a network with dropout drops
    best_weights: dict[str, Tensor]
    train_micro_batch: MicroBatch
    evaluation_micro_batch: MicroBatch
    teacher: Teacher | None = None  # never changed
    has_random_layers: bool = False  # never changed
    history: list[EpochMetrics] = field(default_factory=list)
    best_epoch: int = 0
    best_validation: Score | None = None

    def add(self, epoch: EpochMetrics, validation: Score) -> None:
        """Append an epoch; where its validation accuracy is the best so far, keep its weights."""
        self.history.append(epoch)
        if best_epoch(self.history) == epoch.epoch:
            self.best_epoch, self.best_validation = epoch.epoch, validation
            self._keep_weights(self.model.state_dict())

    def _keep_weights(self, weights: dict[str, Tensor]) -> None:
        """In the memory of those before, so that none has to be allocated."""
        for name, value in weights.items():
            self.best_weights[name].copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs after an epoch. Its tensors are the training's own, which changes them."""
        is_best = self.best_epoch == len(self.history)
        return {
            "best_weights": self.best_weights if is_best else None,  # otherwise an earlier epoch's file has them
            "model": None if is_best else self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "skipped_steps": getattr(self.optimizer, "skipped", None),
            "scaler": self.scaler.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
            "best_epoch": self.best_epoch,
            "best_before": best_epoch(self.history[:-1]),  # of the checkpoint before, which still exists
            "best_validation": asdict(self.best_validation),
            "at_once": (self.train_micro_batch.images, self.evaluation_micro_batch.images),
        }

    def load_state_dict(self, content: dict[str, Any], best_weights: dict[str, Tensor], lines: list[dict]) -> None:
        """content: what `state_dict` returned; lines: the epochs, as epochs.jsonl has them."""
        history = [EpochMetrics(**{name: line[name] for name in EpochMetrics.__annotations__}) for line in lines]
        self.model.load_state_dict(content["model"] or best_weights)
        self.optimizer.load_state_dict(content["optimizer"])
        if content["skipped_steps"] is not None:
            self.optimizer.skipped.copy_(content["skipped_steps"])
        self.scaler.load_state_dict(content["scaler"])
        self.schedule.load_state_dict(content["schedule"])
        self.generator.set_state(content["generator"])
        self._keep_weights(best_weights)
        self.best_epoch, self.best_validation = content["best_epoch"], Score(**content["best_validation"])
        self.train_micro_batch.images, self.evaluation_micro_batch.images = content["at_once"]
        self.history[:] = history


def start_training(
    model: nn.Module, h: Hyperparameters, teacher: Teacher | None = None, precision: str = "fp32"
) -> TrainState:
    """A training before its first epoch: SGD on all weights, StepLR. The model keeps its device and layout."""
    kind = next(model.parameters()).device.type
    optimizer = (GpuSGD if kind == "cuda" else SGD)(model, h.lr, h.momentum, h.weight_decay)
    return TrainState(
        model=model,
        optimizer=optimizer,
        scaler=torch.amp.GradScaler(kind, enabled=precision == "fp16"),
        schedule=torch.optim.lr_scheduler.StepLR(optimizer, h.step_size, h.gamma),
        generator=torch.Generator().manual_seed(h.seed),
        best_weights={name: value.detach().clone() for name, value in model.state_dict().items()},
        train_micro_batch=MicroBatch(
            max(h.batch_size, 3), smallest_micro_batch(h.arch, h.image_px)
        ),  # pairs: one may be of three
        evaluation_micro_batch=MicroBatch(EVALUATION_BATCH[kind]),
        teacher=teacher,
        has_random_layers=has_random_layers(model),
    )


def best_epoch(history: list[EpochMetrics]) -> int:
    """The epoch of the highest validation accuracy, the first of equals; 0 where there is none."""
    return max((epoch.epoch for epoch in history), key=lambda number: history[number - 1].val_accuracy, default=0)


# -- the optimizer -------------------------------------------------------------------------------------------------------
# A network that is channels last has gradients that are channels last, and torch 2.14's fused SGD copies each of them before
# it reads it, on a CPU: half of an update's time. Worse, where the layouts of a weight and its gradient differ, it adds the
# wrong elements silently (docs/log.md). Views whose dimensions are in the order of memory avoid both.


class GpuSGD(torch.optim.SGD):
    """torch's, fused. With float16 the kernel itself divides by the loss scale, and leaves the weights as they are where a
    gradient is not finite: the host does not wait to learn of it."""

    def __init__(self, model: nn.Module, lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(model.parameters(), lr, momentum, weight_decay=weight_decay, fused=True)
        self.skipped = torch.zeros((), device=next(model.parameters()).device)  # steps; read once, at the end
        if momentum:  # by default the first step makes it; where that is skipped, torch 2.14 leaves it uninitialised
            self.state.update({weight: {"momentum_buffer": torch.zeros_like(weight)} for weight in model.parameters()})

    def step(self) -> None:
        if getattr(self, "found_inf", None) is not None:  # set by GradScaler.step for as long as this lasts
            self.skipped += self.found_inf
        super().step()


class SGD(torch.optim.SGD):
    """torch's, fused: one pass over the weights, to the same bits as unfused (but the last of those that fill no vector).

    It allocates nothing after the first step, and there before it changes anything, so that a step that ran out of memory
    can be repeated. Its state is in memory's order too: (512, 3, 3, 256) for a weight of (512, 256, 3, 3), channels last.
    """

    def __init__(self, model: nn.Module, lr: float, momentum: float, weight_decay: float) -> None:
        self._weights = list(model.parameters())
        self._orders = [memory_order(weight) for weight in self._weights]
        views = [weight.detach().permute(order) for weight, order in zip(self._weights, self._orders, strict=True)]
        super().__init__(views, lr, momentum, weight_decay=weight_decay, fused=True)

    def step(self) -> None:
        for view, weight, order in zip(self.param_groups[0]["params"], self._weights, self._orders, strict=True):
            view.grad = None if weight.grad is None else weight.grad.permute(order).contiguous()
        super().step()

    def zero_grad(self) -> None:
        """Drop the gradients."""
        super().zero_grad()
        for weight in self._weights:
            weight.grad = None


def memory_order(weight: Tensor) -> tuple[int, ...]:
    """The dimensions from the outermost in memory to the innermost: (0, 2, 3, 1) of (N, C, H, W) in channels last."""
    return tuple(sorted(range(weight.dim()), key=weight.stride, reverse=True))
