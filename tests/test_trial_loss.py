"""What training minimises: against the papers' formulas, worked by hand and in plain numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from trial import TrialError
from trial.hyperparameters import Hyperparameters
from trial.loss import Objective, balanced_cross_entropy, choose_objective, distillation_loss, log_class_counts

IMAGES = torch.zeros(6, 3, 1, 1)
LABELS = torch.tensor([0, 1, 2, 3, 0, 1])


def logits(seed: int, n: int = 6, classes: int = 4) -> torch.Tensor:
    return 3 * torch.randn(n, classes, generator=torch.Generator().manual_seed(seed))


def softmax(z: np.ndarray) -> np.ndarray:
    powers = np.exp(z)
    return powers / powers.sum(axis=1, keepdims=True)


def test_two_classes_by_hand():
    """T = 2: the teacher says 3/4 and 1/4, the student 1/2 and 1/2; the label is the first class."""
    student, teacher = torch.zeros(1, 2), torch.tensor([[2 * math.log(3), 0.0]])
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)  # 0.1308
    assert distillation_loss(student, teacher, 2.0).item() == pytest.approx(4 * divergence, rel=1e-6)
    objective = Objective(0.25, 2.0, lambda images: teacher)
    loss = objective(IMAGES[:1], student, torch.tensor([0])).item()
    assert loss == pytest.approx(0.75 * math.log(2) + 0.25 * 4 * divergence, rel=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_the_formula_in_plain_numpy(temperature, weight):
    student, teacher = logits(1), logits(2)
    z, v = (values.double().numpy() for values in (student, teacher))
    q, p = softmax(z / temperature), softmax(v / temperature)
    divergence = (p * np.log(p / q)).sum(axis=1).mean()
    cross_entropy = -np.log(softmax(z)[np.arange(6), LABELS.numpy()]).mean()
    expected = (1 - weight) * cross_entropy + weight * temperature**2 * divergence
    loss = Objective(weight, temperature, lambda images: teacher)(IMAGES, student, LABELS)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def gradient(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Of one image's loss by its logits."""
    student = student.clone().requires_grad_()
    (distillation_loss(student, teacher, temperature) * len(student)).backward()
    return student.grad


def test_the_gradient_is_the_papers_and_hardly_depends_on_a_high_temperature():
    student, teacher = (values - values.mean(dim=1, keepdim=True) for values in (logits(1), logits(2)))
    for temperature in (1.0, 3.0):  # equation (2), times T^2
        expected = temperature * (F.softmax(student / temperature, 1) - F.softmax(teacher / temperature, 1))
        torch.testing.assert_close(gradient(student, teacher, temperature), expected)
    limit = (student - teacher) / 4  # equation (4), times T^2, for logits of mean 0 and N = 4 classes
    torch.testing.assert_close(gradient(student, teacher, 100.0), limit, rtol=0.1, atol=0.05)
    norms = [gradient(student, teacher, temperature).norm().item() for temperature in (20.0, 40.0, 80.0)]
    assert max(norms) < 1.1 * min(norms)


def test_a_student_that_says_the_same_has_nothing_to_learn():
    same = logits(1)
    assert distillation_loss(same, same + 5.0, 3.0).item() == pytest.approx(0, abs=1e-6)  # a shift says nothing
    assert gradient(same, same, 3.0).abs().max() < 1e-6


def test_all_weight_on_the_teacher_leaves_the_labels_without_a_say():
    def learn(labels):
        student = logits(1).requires_grad_()
        Objective(1.0, 4.0, lambda images: logits(2))(IMAGES, student, labels).backward()
        return student.grad

    assert torch.equal(learn(LABELS), learn(LABELS.flip(0)))


def test_balanced_softmax_by_hand_and_by_the_papers_formula():
    counts = torch.tensor([1.0, 3.0]).log()
    assert balanced_cross_entropy(torch.zeros(1, 2), torch.tensor([0]), counts).item() == pytest.approx(math.log(4))
    assert balanced_cross_entropy(torch.zeros(1, 2), torch.tensor([1]), counts).item() == pytest.approx(math.log(4 / 3))
    z, n = logits(3).double().numpy(), np.array([86, 20, 125, 13])
    shares = n * np.exp(z) / (n * np.exp(z)).sum(axis=1, keepdims=True)
    labels = torch.from_numpy(np.repeat(np.arange(4), n))
    loss = balanced_cross_entropy(logits(3), LABELS, log_class_counts(labels))
    assert loss.item() == pytest.approx(-np.log(shares[np.arange(6), LABELS.numpy()]).mean(), rel=1e-5)


def test_classes_of_equal_size_need_no_balance():
    loss = balanced_cross_entropy(logits(3), LABELS, log_class_counts(torch.arange(4).repeat(7)))
    assert loss.item() == pytest.approx(F.cross_entropy(logits(3), LABELS).item(), rel=1e-6)


def test_a_class_without_images_takes_no_part():
    """Class 1 and, behind the last that has images, class 3."""
    student = logits(3).requires_grad_()
    loss = balanced_cross_entropy(student, torch.tensor([0, 2, 0, 2, 0, 2]), log_class_counts(torch.tensor([0, 0, 2])))
    loss.backward()
    assert math.isfinite(loss.item()) and torch.isfinite(student.grad).all()
    assert (student.grad[:, [1, 3]] == 0).all() and (student.grad[:, [0, 2]] != 0).all()


def test_the_teacher_is_compared_with_the_plain_logits():
    h = Hyperparameters().merged({"balance": "softmax", "distill_weight": 0.4, "temperature": 2.0})
    objective = choose_objective(h, lambda images: logits(2), torch.tensor([0, 0, 0, 1, 2, 3]))
    balanced = balanced_cross_entropy(logits(1), LABELS, torch.tensor([3.0, 1, 1, 1]).log())
    expected = 0.6 * balanced + 0.4 * distillation_loss(logits(1), logits(2), 2.0)
    torch.testing.assert_close(objective(IMAGES, logits(1), LABELS), expected)


def test_a_weight_needs_a_teacher():
    h = Hyperparameters().merged({"distill_weight": 0.5})
    with pytest.raises(TrialError, match=r"distill_weight = 0.5 without a teacher; name one \(teacher=FILE\), or"):
        choose_objective(h, None, LABELS)
