"""SGD over the weights as they lie in memory.

A network that is channels last has gradients that are channels last, and torch 2.14's fused SGD copies each of them
before it reads it, on a CPU: half of an update's time. Worse, where the layouts of a weight and its gradient differ, it
adds the wrong elements without a word (docs/log.md). Views whose dimensions stand in the order of memory know neither.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SGD(torch.optim.SGD):
    """torch's, fused: one pass over the weights, to the same bits as unfused (but the last of those that fill no vector).

    It allocates nothing after the first step, and there before it changes anything, so that a step that ran out of memory
    can be repeated. Its state is in memory's order too: (512, 3, 3, 256) for a weight of (512, 256, 3, 3), channels last.
    """

    def __init__(self, model: nn.Module, lr: float, momentum: float, weight_decay: float) -> None:
        """model: on its device and in its layout, which it keeps."""
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
