"""From the trainings of a study to the numbers of each arm."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ..reading.provenance import best_result
from ..reading.records import Trial
from ..reading.replication import TEACHER, Cell, Part, cells_of, load_readable, registered
from ..reading.values import score
from ..stats.paired import spread


class Measure(NamedTuple):
    """A number of one training. `kind`: "fraction", "epochs", "seconds" or "loss"."""

    key: str
    title: str
    kind: str


MEASURES = (
    Measure("validation", "Validation, best epoch", "fraction"),
    Measure("evaluation_top1", "Evaluation, top-1", "fraction"),
    Measure("evaluation_top3", "Evaluation, top-3", "fraction"),
    Measure("evaluation_macro", "Evaluation, macro", "fraction"),
    Measure("train_accuracy", "Training, same epoch", "fraction"),
    Measure("epochs_run", "Epochs run", "epochs"),
    Measure("epoch_95", "Epoch of 95 % of the last accuracy", "epochs"),
    Measure("duration_s", "Seconds", "seconds"),
)
LOSSES = (
    Measure("val_loss", "Validation loss, best epoch", "loss"),
    Measure("train_loss", "Training loss, same epoch", "loss"),
)
FINAL_KEYS = {"validation": "default"}


class Arm(NamedTuple):
    """One value of the study's field; the trainings are in the order of the seeds."""

    name: str
    value: Any
    trainings: tuple[Cell, ...]

    @property
    def good(self) -> list[Cell]:
        return [training for training in self.trainings if training.counts]


def arms_of(part: Part) -> list[Arm]:
    """The arms of one part, the reference first, by those of its experiments that can be read."""
    cells = cells_of(part, load_readable([entry["id"] for entry in registered(part)]))
    own = [tuple(cells[index :: len(part.values)]) for index in range(len(part.values))]  # the cells are seed by seed
    return [Arm(arm_name(part, value), value, trainings) for value, trainings in zip(part.values, own, strict=True)]


def arm_name(part: Part, value: Any) -> str:
    """As a person reads it."""
    if part.name == TEACHER:
        return f"teacher ({value})"
    if part.field == "patience":
        return "no early stopping" if value == 0 else f"patience {value}"
    if part.field == "weights":
        return "from scratch" if value == "none" else "pretrained"
    if part.field == "distill_weight":
        return "student alone" if value == 0 else f"distilled (weight {value:g})"
    if part.field == "balance":
        return {"none": "plain", "sampler": "class-weighted sampling", "softmax": "balanced softmax"}.get(value, value)
    return f"{part.field} {value:g}" if isinstance(value, (int, float)) else f"{part.field} {value}"


def curve(trial: Trial, key: str = "default") -> list[float]:
    """A metric after each epoch, from the first; up to the first that is missing."""
    values = []
    for intermediate in trial.intermediates:
        told = intermediate.value
        value = score(told.get(key) if isinstance(told, dict) else told)
        if value is None:
            break
        values.append(value)
    return values


def epoch_95(trial: Trial) -> int | None:
    """The first epoch, from 1, whose validation accuracy is at least 95 % of that of the last epoch."""
    values = curve(trial)
    return next((epoch for epoch, value in enumerate(values, 1) if value >= 0.95 * values[-1]), None)


def measured(trial: Trial, key: str) -> float | None:
    """A finite number, or None where the trial has none."""
    if key == "epoch_95":
        return epoch_95(trial)
    final = trial.final if isinstance(trial.final, dict) else {}
    value = final.get(FINAL_KEYS.get(key, key))
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if plain and math.isfinite(value) else None


def values_of(arm: Arm, key: str) -> dict[int, float]:
    """{seed: value} of the trainings that have one."""
    found = {training.seed: measured(training.trial, key) for training in arm.good}
    return {seed: value for seed, value in found.items() if value is not None}


def arm_facts(arm: Arm) -> dict[str, Any]:
    """Each measure with n, mean, standard deviation (None for one) and the 95 % t interval of the mean. `diverged` of the `n`
    trainings did so: they are in all numbers."""
    facts: dict[str, Any] = {"name": arm.name, "value": arm.value, "planned": len(arm.trainings), "n": len(arm.good)}
    facts["diverged"] = sum(training.diverged for training in arm.good)
    for measure in (*MEASURES, *LOSSES):
        facts[measure.key] = spread(values_of(arm, measure.key))
    images = [best_result(training.trial).get("evaluation") for training in arm.good]
    facts["evaluation_n"] = next((table["n"] for table in images if isinstance(table, dict) and "n" in table), None)
    return facts
