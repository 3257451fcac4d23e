"""SGD: on a CPU over the weights as they lie in memory, on a GPU torch's own.

A network that is channels last has gradients that are channels last, and torch 2.14's fused SGD copies each of them
before it reads it, on a CPU: half of an update's time. Worse, where the layouts of a weight and its gradient differ, it
adds the wrong elements without a word (docs/log.md). Views whose dimensions stand in the order of memory know neither.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def make_sgd(model: nn.Module, lr: float, momentum: float, weight_decay: float) -> torch.optim.SGD:
    """model: on its device and in its layout, which it keeps."""
    is_on_gpu = next(model.parameters()).device.type == "cuda"
    return (GpuSGD if is_on_gpu else SGD)(model, lr, momentum, weight_decay)


class GpuSGD(torch.optim.SGD):
    """torch's, fused. With float16 the kernel itself divides by the loss scale, and leaves the weights as they are where a
    gradient is not finite: the host does not wait to know of it."""

    def __init__(self, model: nn.Module, lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(model.parameters(), lr, momentum, weight_decay=weight_decay, fused=True)
        self.skipped = torch.zeros((), device=next(model.parameters()).device)  # steps; read once, at the end
        if (
            momentum
        ):  # else made by the first step; where that is skipped, torch 2.14 leaves in it whatever was in memory
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
        """Drops the gradients."""
        super().zero_grad()
        for weight in self._weights:
            weight.grad = None


def memory_order(weight: Tensor) -> tuple[int, ...]:
    """Its dimensions from the outermost in memory to the innermost: (0, 2, 3, 1) of (N, C, H, W) in channels last."""
    return tuple(sorted(range(weight.dim()), key=weight.stride, reverse=True))
