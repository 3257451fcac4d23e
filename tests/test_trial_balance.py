"""Classes of unequal size: what is drawn, what the split says of it, and that a seed decides it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_trial_fit import CPU, train

from data.cache import Split
from trial.batches import balancing_weights, plan_epoch
from trial.fit import start_training, train_epoch
from trial.hyperparameters import Hyperparameters
from trial.model import build_model

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
    """Colours as in test_trial_fit, 18 images of the first, 6 and 6 of the others."""
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
    assert one.epochs == again.epochs
    assert one.epochs[0].train_loss != plain.epochs[0].train_loss


def test_the_training_accuracy_is_of_the_images_drawn(skewed):
    h = Hyperparameters().merged({"weights": "none", "image_px": 16, "batch_size": 10, "lr": 0.001})
    seen = {}
    for balance in ("none", "sampler"):
        t = start_training(build_model("resnet18", "none", 3, 0), h)
        labels = torch.from_numpy(skewed[0].labels)
        scores = [train_epoch(t, skewed[0], labels, h.merged({"balance": balance}), CPU) for _ in range(6)]
        assert all(score.n == 30 for score in scores)
        seen[balance] = [sum(score.per_class[k][1] for score in scores) for k in range(3)]
    assert seen["none"] == [108, 36, 36]
    assert max(seen["sampler"]) < 90 and min(seen["sampler"]) > 30  # 60 each; almost five standard errors


def test_validation_is_scored_plainly_whatever_the_balance(skewed):
    """A rate of almost nothing leaves the weights: the validation loss is then the same for all three."""
    losses = [train(skewed, epochs=1, lr=1e-8, balance=kind)[0].epochs[0] for kind in ("none", "softmax")]
    assert losses[0].val_loss == pytest.approx(losses[1].val_loss, rel=1e-4)
    assert losses[0].train_loss != pytest.approx(losses[1].train_loss, rel=1e-3)
