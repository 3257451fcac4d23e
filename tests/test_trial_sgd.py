"""Our SGD is torch's own, in whatever layout weights and gradients lie."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trial.model import build_model
from trial.sgd import SGD, memory_order

LAYOUTS = (torch.contiguous_format, torch.channels_last)


def test_a_network_moves_to_the_bits_that_torchs_plain_loop_moves_it_to():
    ours = build_model("resnet18", "none", 5, 0).to(memory_format=torch.channels_last)
    theirs = copy.deepcopy(ours)
    pair = (
        (ours, SGD(ours, 0.01, 0.9, 0.001)),
        (theirs, torch.optim.SGD(theirs.parameters(), 0.01, 0.9, weight_decay=0.001, foreach=False)),
    )
    images = torch.rand(4, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        for model, optimizer in pair:
            optimizer.zero_grad()
            F.cross_entropy(model(images), torch.arange(4)).backward()
            optimizer.step()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        if a.numel() % 16 == 0:
            assert torch.equal(a, b), name
        else:  # the 5 elements of fc.bias fill no vector: of those the fused kernel may round the last bit otherwise
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
    assert all(
        weight.is_contiguous(memory_format=torch.channels_last) for weight in ours.parameters() if weight.dim() == 4
    )


@pytest.mark.parametrize("of_gradient", LAYOUTS)
@pytest.mark.parametrize("of_weight", LAYOUTS)
def test_a_gradient_in_another_layout_is_still_the_weights_own(of_weight, of_gradient):
    """torch's fused SGD adds the wrong elements where the two differ."""
    layer = nn.Conv2d(4, 8, 3, bias=False).to(memory_format=of_weight)
    before, gradient = layer.weight.detach().clone(), torch.randn(8, 4, 3, 3)
    optimizer = SGD(layer, 0.1, 0.0, 0.0)
    layer.weight.grad = gradient.to(memory_format=of_gradient)
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), before - 0.1 * gradient)
    assert layer.weight.is_contiguous(memory_format=of_weight)


def test_dropped_gradients_move_nothing():
    layer = nn.Linear(3, 2)
    optimizer = SGD(layer, 0.1, 0.9, 0.0)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.zero_grad()
    before = layer.weight.detach().clone()
    optimizer.step()
    assert layer.weight.grad is None and torch.equal(layer.weight, before)


def test_the_order_of_memory():
    weight = torch.empty(8, 4, 3, 5)
    assert memory_order(weight) == (0, 1, 2, 3)
    assert memory_order(weight.to(memory_format=torch.channels_last)) == (0, 2, 3, 1)
    assert weight.to(memory_format=torch.channels_last).permute(0, 2, 3, 1).is_contiguous()
