"""What each study asks, and its numbers as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..confirm.statement import p_text
from ..render import formats as words
from ..render.formats import NONE, difference_text, score_text
from .arms import MEASURES, Measure

TITLES = {
    "early_stopping": "Early stopping: what does it save, and what does it cost?",
    "pretrained": "Pretrained weights against training from scratch",
    "learning_rate": "Learning rate",
    "step_size": "Epochs between two decays of the learning rate",
    "distill": "Distillation: a ResNet50 teaches a ResNet18",
    "balance": "Classes of unequal size: sampling and balanced softmax",
}
BY_KEY = {measure.key: measure for measure in MEASURES}


def listed(parts: Sequence[str]) -> str:
    """ "a, b and c"; nothing of none."""
    return " and ".join(part for part in (", ".join(parts[:-1]), *parts[-1:]) if part)


def number_text(value: float | None, measure: Measure) -> str:
    if value is None:
        return NONE
    if measure.kind == "fraction":
        return score_text(value, True)
    return f"{value:.1f}" + (" s" if measure.kind == "seconds" else "")


def spread_text(found: dict[str, Any], measure: Measure) -> str:
    """Mean ± standard deviation (n), in the measure's unit."""
    units = {"fraction": words.ACCURACY, "seconds": words.SECONDS}
    return words.spread_text(found, units.get(measure.kind, words.EPOCHS))


def signed_text(value: float, measure: Measure) -> str:
    """A difference with its sign and unit."""
    if measure.kind == "fraction":
        return difference_text(value, True, signed=True)
    sign = "−" if value < 0 else "+" if value > 0 else ""
    return f"{sign}{abs(value):.1f} {'s' if measure.kind == 'seconds' else 'epochs'}"


def range_text(row: dict[str, Any], measure: Measure) -> str:
    """The interval as "−1.2 to +0.3 points"; a dash where there is none."""
    if row["low"] is None:
        return NONE
    low = signed_text(row["low"], measure).rsplit(" ", 1)[0]
    return f"{low} to {signed_text(row['high'], measure)}"


def difference_words(row: dict[str, Any], measure: Measure) -> str:
    """Mean, interval, p and n of one paired difference."""
    interval = "" if row["low"] is None else f"{range_text(row, measure)}; "
    return f"{signed_text(row['mean'], measure)} ({interval}p = {p_text(row['p_adjusted'])}, n = {row['n']})"
