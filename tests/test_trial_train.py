"""Training itself, on a few small images: repeatable, stopped early, best weights kept, never a NaN reported."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from fixtures_data import coloured_splits
from fixtures_trial import small_network
from torch import nn
from torch.nn import functional as F

from data.cache import Split
from trial.batches import balancing_weights, plan_epoch
from trial.device import choose_compute
from trial.evaluate import Counter, evaluate
from trial.hyperparameters import Hyperparameters
from trial.model import build_model
from trial.result import final_metrics
from trial.state import SGD, memory_order, start_training
from trial.train import fit, train_epoch


@pytest.fixture(scope="module")
def splits():
    """Three classes of 18 px squares that differ in colour; 24 to train on, 15 to validate with."""
    return coloured_splits(18, (24, 15), noise=120, colour=100)


CPU = choose_compute("cpu", "fp32", 1)


def resnet(classes: int, seed: int):
    return build_model("resnet18", "none", classes, seed)


def train(splits, compute=CPU, make=small_network, **values):
    h = Hyperparameters().merged({"weights": "none", "image_px": 16, "batch_size": 8, "epochs": 3, **values})
    model = make(3, h.seed)
    seen = []
    fitted = fit(start_training(model, h), *splits, h, compute, lambda t: seen.append(t.history[-1]))
    assert seen == fitted.history
    return fitted, model


@pytest.mark.parametrize("precision, make", [("fp32", small_network), ("fp32", resnet), ("bf16", small_network)])
def test_the_same_seed_gives_the_same_curve_and_another_seed_another(splits, precision, make):
    compute = choose_compute("cpu", precision, 1)
    first, again, other = (train(splits, compute, make, lr=0.01, epochs=2, seed=seed)[0] for seed in (1, 1, 2))
    assert first.history == again.history
    assert [e.train_loss for e in first.history] != [e.train_loss for e in other.history]


def test_it_learns_and_keeps_the_best_epochs_weights(splits):
    fitted, model = train(splits, lr=0.001, batch_size=4, epochs=10, patience=0)
    accuracies = [epoch.val_accuracy for epoch in fitted.history]
    assert len(accuracies) == 10 and accuracies[0] < 0.5 < 0.9 < max(accuracies)
    assert fitted.best_epoch == accuracies.index(max(accuracies)) + 1  # the first of equals
    assert evaluate(model, splits[1], 16, CPU).top1 == max(accuracies)
    fitted, model = train(splits, lr=0.2, batch_size=4, epochs=6, patience=0)
    assert fitted.history[-1].val_accuracy < fitted.history[fitted.best_epoch - 1].val_accuracy
    assert evaluate(model, splits[1], 16, CPU).top1 == fitted.history[fitted.best_epoch - 1].val_accuracy


def test_patience_stops_and_the_stopped_run_is_a_prefix_of_the_full_one(splits):
    values = {"lr": 0.001, "epochs": 12}
    full, stopped = train(splits, patience=0, **values)[0], train(splits, patience=2, **values)[0]
    n = len(stopped.history)
    assert n < 12 and stopped.stopped_by == "patience" and full.stopped_by == "epochs"
    assert stopped.history == full.history[:n] and n - stopped.best_epoch == 2


def test_the_learning_rate_falls_by_steps(splits):
    fitted, _ = train(splits, lr=0.01, epochs=5, step_size=2, gamma=0.5, patience=0)
    assert [epoch.lr for epoch in fitted.history] == pytest.approx([0.01, 0.01, 0.005, 0.005, 0.0025])


def test_a_diverged_trial_ends_early_with_finite_numbers(splits):
    fitted, model = train(splits, make=resnet, lr=10.0, momentum=0.99, epochs=30, patience=0)
    assert fitted.stopped_by == "diverged" and len(fitted.history) < 30
    assert all(math.isfinite(v) for e in fitted.history for v in (e.train_loss, e.val_loss, e.val_accuracy))
    score = evaluate(model, splits[1], 16, CPU)
    if fitted.best_epoch:
        assert score.top1 == fitted.history[fitted.best_epoch - 1].val_accuracy
    final = final_metrics(fitted, score, score)
    assert final["diverged"] == 1 and all(math.isfinite(value) for value in final.values())


def test_weights_that_never_trained_well_are_those_before_the_training(splits):
    h = Hyperparameters().merged({"weights": "none", "image_px": 16, "batch_size": 8, "lr": 10.0})
    model = build_model(h.arch, h.weights, 3, h.seed)
    with torch.no_grad():
        model.fc.weight.fill_(float("inf"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fitted = fit(start_training(model, h), *splits, h, CPU, lambda t: pytest.fail("reported an epoch that diverged"))
    assert (fitted.history, fitted.best_epoch, fitted.stopped_by) == ([], 0, "diverged")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_accuracy_counts_over_the_whole_split():
    logits = torch.tensor([[3.0, 2, 1, 0], [3, 2, 1, 0], [0, 1, 2, 3], [0, 3, 2, 1], [3, 0, 1, 2]])
    labels = torch.tensor([0, 3, 3, 2, 0])
    counter = Counter(4, torch.device("cpu"))
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    for rows in (slice(0, 2), slice(2, 5)):  # batches of unequal size
        counter.add(logits[rows], labels[rows], losses[rows].mean())
    score = counter.score()
    assert score.per_class == [(2, 2), (0, 0), (0, 1), (1, 2)]
    assert (score.n, score.top1, score.top3) == (5, 3 / 5, 4 / 5)
    assert score.macro == pytest.approx((1 + 0 + 0.5) / 3)  # the class without images does not count
    assert score.loss == pytest.approx(losses.mean().item())


# -- classes of unequal size: what is drawn, and that a seed decides it ------------------------------------------------


LABELS = np.repeat(np.array([0, 1, 3]), (60, 30, 10))  # class 2 has no images


def drawn(seed: int, epochs: int = 30) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    weights = balancing_weights(LABELS)
    epochs = [list(plan_epoch(100, 16, generator, weights)) for _ in range(epochs)]
    assert all(sum(len(rows) for rows, _ in epoch) == 100 for epoch in epochs)
    return torch.cat([rows for epoch in epochs for rows, _ in epoch]).numpy()


def test_each_class_is_drawn_as_often_as_any_other_and_each_of_its_images():
    rows = drawn(0)
    shares = np.bincount(LABELS[rows], minlength=4) / len(rows)
    assert shares[2] == 0
    assert np.abs(shares[[0, 1, 3]] - 1 / 3).max() < 4 * (2 / 9 / len(rows)) ** 0.5  # four standard errors
    rare = np.bincount(rows)[90:]
    assert len(rare) == 10 and np.abs(rare - 100).max() < 40  # 3,000 draws: each of the ten about 100 times


def test_draws_are_with_replacement_and_decided_by_the_seed():
    one, again, other = (drawn(seed, epochs=1) for seed in (1, 1, 2))
    assert len(set(one)) < 100 and (one == again).all() and (one != other).any()


@pytest.fixture(scope="module")
def skewed():
    """Colours as in `splits`, 18 images of the first, 6 and 6 of the others."""
    rng = np.random.default_rng(0)

    def make(counts):
        labels = np.repeat(np.arange(3), counts)
        images = rng.integers(0, 120, (len(labels), 18, 18, 3), dtype=np.uint8)
        images[np.arange(len(labels)), :, :, labels] += 100
        return Split(images, labels)

    return make((18, 6, 6)), make((4, 4, 4))


@pytest.mark.parametrize("balance", ["sampler", "softmax"])
def test_the_same_seed_gives_the_same_curve_and_no_balance_another(skewed, balance):
    one, again, plain = (train(skewed, epochs=2, lr=0.01, balance=kind)[0] for kind in (balance, balance, "none"))
    assert one.history == again.history
    assert one.history[0].train_loss != plain.history[0].train_loss


def test_the_training_accuracy_is_of_the_images_drawn(skewed):
    h = Hyperparameters().merged({"weights": "none", "image_px": 16, "batch_size": 10, "lr": 0.001})
    seen = {}
    for balance in ("none", "sampler"):
        t = start_training(small_network(3), h)
        labels = torch.from_numpy(skewed[0].labels)
        scores = [train_epoch(t, skewed[0], labels, h.merged({"balance": balance}), CPU) for _ in range(6)]
        assert all(score.n == 30 for score in scores)
        seen[balance] = [sum(score.per_class[k][1] for score in scores) for k in range(3)]
    assert seen["none"] == [108, 36, 36]
    assert max(seen["sampler"]) < 90 and min(seen["sampler"]) > 30  # 60 each; almost five standard errors


def test_validation_is_scored_plainly_whatever_the_balance(skewed):
    """A rate of almost nothing leaves the weights: the validation loss is then the same for all three."""
    losses = [train(skewed, epochs=1, lr=1e-8, balance=kind)[0].history[0] for kind in ("none", "softmax")]
    assert losses[0].val_loss == pytest.approx(losses[1].val_loss, rel=1e-4)
    assert losses[0].train_loss != pytest.approx(losses[1].train_loss, rel=1e-3)


# -- our SGD is torch's own, whatever the layout of weights and gradients ----------------------------------------------


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
