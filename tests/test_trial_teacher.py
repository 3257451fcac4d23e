"""Learning from a teacher: the same images, no trace left in it, no trace of it at weight 0."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from fixtures_data import coloured_splits
from fixtures_trial import small_network
from test_trial_train import CPU

from data.cache import Split
from trial.device import choose_compute
from trial.hyperparameters import Hyperparameters
from trial.model import Teacher, build_model
from trial.state import TrainState, start_training
from trial.train import fit, train_epoch

H = Hyperparameters().merged({"weights": "none", "image_px": 32, "batch_size": 8, "lr": 0.01, "patience": 0})


def merged(**values) -> Hyperparameters:
    return H.merged({"distill_weight": 0.5, "epochs": 2, **values})


def resnet(classes: int, seed: int):
    return build_model("resnet18", "none", classes, seed)


def untrained_teacher() -> Teacher:
    return Teacher(small_network(3, 7).eval().requires_grad_(False), "0" * 64)


@pytest.fixture(scope="module")
def splits() -> tuple[Split, Split]:
    """Three classes of 36 px squares that differ in colour; 48 to train on, 30 to validate with."""
    return coloured_splits(36, (48, 30), noise=100, colour=150)


@pytest.fixture(scope="module")
def teacher_of_colours(splits) -> Teacher:
    """A teacher that knows the colours."""
    h = merged(distill_weight=0.0, epochs=8)
    model = small_network(3, 0)
    fitted = fit(start_training(model, h), *splits, h, CPU, lambda t: None)
    assert fitted.validation.top1 > 0.8
    model.zero_grad()
    return Teacher(model.eval().requires_grad_(False), "0" * 64)


def learn(splits, h: Hyperparameters, teacher: Teacher | None, compute=CPU, make=small_network) -> TrainState:
    t = start_training(make(3, h.seed), h, teacher)
    fit(t, *splits, h, compute, lambda t: None)
    return t


def same_weights(one: TrainState, other: TrainState) -> bool:
    weights, others = one.model.state_dict(), other.model.state_dict()
    return all(torch.equal(weights[name], others[name]) for name in others)


def test_without_weight_it_is_the_training_without_a_teacher_bit_for_bit(splits, teacher_of_colours):
    alone, control, distilled = (
        learn(splits, merged(distill_weight=weight), teacher)
        for weight, teacher in ((0.0, None), (0.0, teacher_of_colours), (0.5, teacher_of_colours))
    )
    assert control.history == alone.history and same_weights(control, alone)
    assert distilled.history[0].train_loss != alone.history[0].train_loss


@pytest.mark.parametrize("precision, make", [("fp32", resnet), ("bf16", small_network)])
def test_the_same_seed_gives_the_same_curve(splits, teacher_of_colours, precision, make):
    compute = choose_compute("cpu", precision, 1)
    teacher = teacher_of_colours
    h = merged(balance="sampler", epochs=2)
    one, again = (learn(splits, h, teacher, compute, make) for _ in range(2))
    assert one.history == again.history and same_weights(one, again)


def test_the_teacher_is_as_it_was_after_the_training(splits, teacher_of_colours):
    before = copy.deepcopy(teacher_of_colours.model.state_dict())
    learn(splits, merged(), teacher_of_colours)
    assert all(torch.equal(value, before[name]) for name, value in teacher_of_colours.model.state_dict().items())
    assert not any(module.training for module in teacher_of_colours.model.modules())
    assert all(not weight.requires_grad and weight.grad is None for weight in teacher_of_colours.model.parameters())


def test_all_that_a_student_knows_may_come_from_the_teacher(splits, teacher_of_colours):
    """Every label is the first class: from them there is nothing to learn, and with all weight on the teacher no harm."""
    train, val = splits
    mislabelled = (Split(train.images, np.zeros_like(train.labels)), val)
    distilled = learn(mislabelled, merged(distill_weight=1.0, epochs=8), teacher_of_colours)
    labelled = learn(mislabelled, merged(distill_weight=0.0, epochs=2), None)
    assert distilled.best_validation.top1 > 0.6
    assert labelled.best_validation.top1 == pytest.approx(1 / 3)
    assert distilled.history[-1].train_loss < distilled.history[0].train_loss


def record(model, monkeypatch) -> list[torch.Tensor]:
    seen, forward = [], model.forward
    monkeypatch.setattr(model, "forward", lambda images: (seen.append(images), forward(images))[1])
    return seen


@pytest.mark.parametrize("at_once", [8, 3])
def test_teacher_and_student_see_the_same_images_in_parts_too(splits, monkeypatch, at_once):
    h, teacher = merged(), untrained_teacher()
    t = start_training(small_network(3), h, teacher)
    t.train_micro_batch.images = at_once
    student_saw, teacher_saw = record(t.model, monkeypatch), record(teacher.model, monkeypatch)
    train_epoch(t, splits[0], torch.from_numpy(splits[0].labels), h, CPU)
    assert sum(len(images) for images in teacher_saw) == 48 and max(len(images) for images in teacher_saw) <= at_once
    assert all(torch.equal(one, other) for one, other in zip(student_saw, teacher_saw, strict=True))
    assert teacher_saw[0].is_contiguous(memory_format=torch.channels_last)


def test_a_teacher_that_runs_out_of_memory_is_evaluated_in_parts(splits, monkeypatch):
    h, labels, trainings = merged(), torch.from_numpy(splits[0].labels), []
    for is_short in (False, True):
        teacher = untrained_teacher()
        t = start_training(small_network(3), h, teacher)
        trainings.append(t)
        forward = teacher.model.forward

        def short_of_memory(images, forward=forward):
            if len(images) > 4:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return forward(images)

        if is_short:
            monkeypatch.setattr(teacher.model, "forward", short_of_memory)
        else:
            t.train_micro_batch.images = 4
        train_epoch(t, splits[0], labels, h, CPU)
    assert trainings[1].train_micro_batch.images == 4 and same_weights(*trainings)
