"""Training itself, on a few small images: repeatable, stopped early, best weights kept, never a NaN reported."""

from __future__ import annotations

import math

import pytest
import torch
from fixtures_data import coloured_splits
from fixtures_trial import small_network

from trial.device import choose_compute
from trial.fit import fit, start_training
from trial.hyperparameters import Hyperparameters
from trial.metrics import Counter
from trial.model import build_model
from trial.result import final_metrics
from trial.scoring import evaluate


@pytest.fixture(scope="module")
def splits():
    """Three classes of 18 px squares that differ in colour; 24 to train on, 15 to validate with."""
    return coloured_splits(18, (24, 15), noise=120, colour=100)


CPU = choose_compute("cpu", "fp32", 1)


def train(splits, compute=CPU, make=None, **values):
    h = Hyperparameters().merged({"weights": "none", "image_px": 16, "batch_size": 8, "epochs": 3, **values})
    model = make(3, h.seed) if make else build_model(h.arch, h.weights, 3, h.seed)
    seen = []
    fitted = fit(start_training(model, h), splits, h, compute, lambda t: seen.append(t.epochs[-1]))
    assert seen == fitted.epochs
    return fitted, model


@pytest.mark.parametrize(
    "precision, make", [("fp32", None), ("bf16", small_network)]
)  # emulated, a ResNet takes a minute
def test_the_same_seed_gives_the_same_curve_and_another_seed_another(splits, precision, make):
    compute = choose_compute("cpu", precision, 1)
    first, again, other = (train(splits, compute, make, lr=0.01, epochs=2, seed=seed)[0] for seed in (1, 1, 2))
    assert first.epochs == again.epochs
    assert [e.train_loss for e in first.epochs] != [e.train_loss for e in other.epochs]


def test_it_learns_and_keeps_the_best_epochs_weights(splits):
    fitted, model = train(splits, lr=0.01, batch_size=4, epochs=10, patience=0)
    accuracies = [epoch.val_accuracy for epoch in fitted.epochs]
    assert len(accuracies) == 10 and max(accuracies) > 0.9
    assert fitted.best_epoch == accuracies.index(max(accuracies)) + 1  # the first of equals
    assert evaluate(model, splits[1], 16, CPU).top1 == max(accuracies)


def test_patience_stops_and_the_stopped_run_is_a_prefix_of_the_full_one(splits):
    values = {"lr": 0.02, "epochs": 12}
    full, stopped = train(splits, patience=0, **values)[0], train(splits, patience=2, **values)[0]
    n = len(stopped.epochs)
    assert n < 12 and stopped.stopped_by == "patience" and full.stopped_by == "epochs"
    assert stopped.epochs == full.epochs[:n] and n - stopped.best_epoch == 2


def test_the_learning_rate_falls_by_steps(splits):
    fitted, _ = train(splits, lr=0.01, epochs=5, step_size=2, gamma=0.5, patience=0)
    assert [epoch.lr for epoch in fitted.epochs] == pytest.approx([0.01, 0.01, 0.005, 0.005, 0.0025])


def test_a_diverged_trial_ends_early_with_finite_numbers(splits):
    fitted, model = train(splits, lr=10.0, momentum=0.99, epochs=30, patience=0)
    assert fitted.stopped_by == "diverged" and len(fitted.epochs) < 30
    assert all(math.isfinite(v) for e in fitted.epochs for v in (e.train_loss, e.val_loss, e.val_accuracy))
    score = evaluate(model, splits[1], 16, CPU)
    if fitted.best_epoch:
        assert score.top1 == fitted.epochs[fitted.best_epoch - 1].val_accuracy
    final = final_metrics(fitted, score, score)
    assert final["diverged"] == 1 and all(math.isfinite(value) for value in final.values())


def test_weights_that_never_trained_well_are_those_before_the_training(splits):
    h = Hyperparameters().merged({"weights": "none", "image_px": 16, "batch_size": 8, "lr": 10.0})
    model = build_model(h.arch, h.weights, 3, h.seed)
    with torch.no_grad():
        model.fc.weight.fill_(float("inf"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fitted = fit(start_training(model, h), splits, h, CPU, lambda t: pytest.fail("reported an epoch that diverged"))
    assert (fitted.epochs, fitted.best_epoch, fitted.stopped_by) == ([], 0, "diverged")
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
