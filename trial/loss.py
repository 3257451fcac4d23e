"""What training minimises: cross-entropy, balanced or not, and the divergence from a teacher. Validation is always plain.

    (1 - w) CE + w T^2 KL        w: distill_weight, T: temperature

The divergence compares the plain logits of teacher and student, whatever `balance` does to the cross-entropy: a teacher
trained with the same balance then pulls where the labels pull; another one pulls towards its own class frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from trial import TrialError
from trial.hyperparameters import Hyperparameters


def distillation_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student), both softened by T, the mean per image: (B, C), (B, C) -> ().

    Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015 (arXiv:1503.02531): the softmax at T is
    equation (1); its gradient is (student - teacher) / T, equation (2), and falls as 1/T^2 where T is high, equation (4):
    hence the T^2 (section 2), which keeps the teacher's share what it is while T is tuned. The paper's cross-entropy with
    soft targets differs by the teacher's entropy, which has no gradient.
    """
    student_log_probs = F.log_softmax(student_logits.float() / temperature, dim=1)
    teacher_log_probs = F.log_softmax(teacher_logits.float() / temperature, dim=1)
    return F.kl_div(student_log_probs, teacher_log_probs, reduction="batchmean", log_target=True) * temperature**2


def balanced_cross_entropy(logits: Tensor, labels: Tensor, log_counts: Tensor) -> Tensor:
    """-log(n_y exp(z_y) / sum_j n_j exp(z_j)), the mean per image: (B, C), (B,) int64, (C,) or less -> ().

    n_j is the number of training images of class j: Ren et al., Balanced Meta-Softmax for Long-Tailed Visual
    Recognition, 2020 (arXiv:2007.10740), Theorem 1. The logits then stand for classes of equal size, and are used as
    they are outside of training.
    """
    absent = logits.shape[1] - len(log_counts)  # classes behind the last that has images
    return F.cross_entropy(logits + F.pad(log_counts, (0, absent), value=-math.inf), labels)


def log_class_counts(labels: Tensor) -> Tensor:
    """(N,) int64 -> (K,) float32, K the last class with images; -inf where one has none: it takes no share of the sum."""
    return torch.bincount(labels).float().log()


@dataclass(frozen=True)
class Objective:
    """The loss of a batch. teacher: images (B, 3, S, S) to logits (B, C), without gradients; None: there is none."""

    distill_weight: float = 0.0
    temperature: float = 1.0
    teacher: Callable[[Tensor], Tensor] | None = None
    log_counts: Tensor | None = None  # balanced softmax

    def __call__(self, images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """The student's logits (B, C) float32 of these very images -> (), the mean per image."""
        if self.log_counts is None:
            loss = F.cross_entropy(logits, labels)
        else:
            loss = balanced_cross_entropy(logits, labels, self.log_counts)
        if self.teacher is None:
            return loss
        divergence = distillation_loss(logits, self.teacher(images), self.temperature)
        return (1 - self.distill_weight) * loss + self.distill_weight * divergence


def choose_objective(h: Hyperparameters, teacher: Callable | None, labels: Tensor) -> Objective:
    """labels: of the training split, (N,) int64 on the device. A teacher of weight 0 is not evaluated. Raises TrialError."""
    require_teacher(h, teacher)
    log_counts = log_class_counts(labels) if h.balance == "softmax" else None
    return Objective(h.distill_weight, h.temperature, teacher if h.distill_weight else None, log_counts)


def require_teacher(h: Hyperparameters, teacher: object) -> None:
    """Raises TrialError where a teacher has a weight and none is named."""
    if h.distill_weight and not teacher:
        raise TrialError(
            f"distill_weight = {h.distill_weight} without a teacher; name one (teacher=FILE), or give it no weight (distill_weight=0)"
        )
