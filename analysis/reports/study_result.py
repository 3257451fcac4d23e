"""The numbers of a study: from its trainings to the content of study.json, the accuracy per class among them."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..reading.records import Experiment, Trial, best_result, made_of
from ..reading.replication import TEACHER, Cell, Part, StudyPlan, cells_of
from ..reading.values import score
from ..render.formats import ACCURACY, EPOCHS, LOSS, SECONDS, Unit
from ..stats.blocked import (
    LEVEL,
    Contrast,
    contrasts,
    detectable,
    equivalence_of,
    is_shown_with_failures,
    lost_pairs,
    pooled_sd,
)
from ..stats.equivalence import MARGIN
from ..stats.paired import by_seed, paired, smallest_flip_p, spread
from .lab_numbers import lab_gains, lab_numbers, same_classes
from .study_classes import by_class, rare_gain_most

TOP1, MACRO, TRAINING = "evaluation_top1", "evaluation_macro", "train_accuracy"


@dataclass(frozen=True)
class Measure:
    """A number of one training."""

    key: str
    title: str
    unit: Unit = ACCURACY


MEASURES = (
    Measure("validation", "Validation, best epoch"),
    Measure("evaluation_top1", "Evaluation, top-1"),
    Measure("evaluation_top3", "Evaluation, top-3"),
    Measure("evaluation_macro", "Evaluation, macro"),
    Measure("train_accuracy", "Training, same epoch"),
    Measure("epochs_run", "Epochs run", EPOCHS),
    Measure("epoch_95", "Epoch of 95 % of the last accuracy", EPOCHS),
    Measure("duration_s", "Seconds", SECONDS),
)
LOSSES = (
    Measure("val_loss", "Validation loss, best epoch", LOSS),
    Measure("train_loss", "Training loss, same epoch", LOSS),
)
BY_KEY = {measure.key: measure for measure in MEASURES}


@dataclass(frozen=True)
class StudyArm:
    """One value of the study's field; the cells are in the order of the seeds."""

    name: str
    value: Any
    cells: tuple[Cell, ...]

    @property
    def complete(self) -> list[Cell]:
        """Those that the numbers are of."""
        return [cell for cell in self.cells if cell.counts]

    @property
    def failed(self) -> set[int]:
        """Seeds whose training ended without a result."""
        return {cell.seed for cell in self.cells if cell.state == "failed"}

    def values(self, key: str) -> dict[int, float]:
        """{seed: value} of the trainings that have this measure."""
        values = {cell.seed: measurement(cell.trial, key) for cell in self.complete}
        return {seed: value for seed, value in values.items() if value is not None}


def arms_of(part: Part, experiments: Sequence[Experiment]) -> list[StudyArm]:
    """The arms of one part of a study's plan, the reference first."""
    cells, count = cells_of(part, experiments), len(part.values)  # seed by seed
    return [
        StudyArm(_arm_name(part, value), value, tuple(cells[index::count])) for index, value in enumerate(part.values)
    ]


def _arm_name(part: Part, value: Any) -> str:
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


def measurement(trial: Trial, key: str) -> float | None:
    """A finite number, or None where the trial has none."""
    if key == "epoch_95":
        return epoch_95(trial)
    final = trial.final if isinstance(trial.final, dict) else {}
    value = final.get("default" if key == "validation" else key)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number and math.isfinite(value) else None


def curve(trial: Trial, key: str = "default") -> list[float]:
    """A metric after each epoch, from the first; up to the first that is missing."""
    results = (intermediate.value for intermediate in trial.intermediates)
    values = (score(result.get(key) if isinstance(result, dict) else result) for result in results)
    return list(itertools.takewhile(lambda value: value is not None, values))


def epoch_95(trial: Trial) -> int | None:
    """The first epoch, from 1, whose validation accuracy is at least 95 % of that of the last epoch."""
    values = curve(trial)
    return next((epoch for epoch, value in enumerate(values, 1) if value >= 0.95 * values[-1]), None)


def study_result(
    plan: StudyPlan, arms: Sequence[StudyArm], teacher: StudyArm | None, margin: float = MARGIN
) -> dict[str, Any]:
    """The content of study.json but for the statement. Accuracies are fractions, times seconds, epochs counted from 1; what
    cannot be estimated is None.

    `arms` has the reference first; `teacher` is an arm of its own, with no difference: it is another network. `judged` are
    the measures that the statement rests on, `few` what `_fewest_pairs` returns for them. Differences of accuracy are held
    against `margin` too, a fraction.
    """
    all_arms = [*arms, *([teacher] if teacher else [])]
    results = (best_result(cell.trial) for arm in all_arms for cell in arm.complete)
    provenance = made_of(next(filter(None, results), {}))
    classes, lab = by_class(plan.study, arms), lab_numbers(plan.study)
    in_lab = bool(classes) and same_classes(lab, classes[0]["rows"])
    return {
        "study": plan.study,
        "field": plan.main.field,
        "reference": arms[0].name,
        "seeds": plan.main.seeds,
        "fields": plan.main.fields,
        "experiments": list(
            dict.fromkeys(cell.experiment for arm in all_arms for cell in arm.cells if cell.experiment)
        ),
        "arms": [arm_facts(arm) for arm in all_arms],
        **_compared(plan, arms, margin),
        "curves": [band(arm, metric) for metric in ("default", "train_accuracy") for arm in all_arms],
        "prefixes": prefixes(arms[0], arms[1:]) if plan.study == "early_stopping" else [],
        "classes": classes,
        "never_decays": _never_decays(plan, arms, provenance),
        "teacher": _teacher_facts(arms, teacher) if plan.study == "distill" else None,
        "reported": lab,
        "reported_rank": rare_gain_most(lab_gains(lab, arms[0].value, arms[1].value)) if in_lab else None,
        "images": images_text(provenance),
        "trainings": [_training(arm, cell) for arm in all_arms for cell in arm.cells],
        "provenance": provenance,
    }


def _compared(plan: StudyPlan, arms: Sequence[StudyArm], margin: float) -> dict[str, Any]:
    """The differences, the measures that are judged, and what their trainings allow to say."""
    judged = _judged_measures(plan.study, arms)
    compared = [key for key in BY_KEY if (plan.study, key) != ("balance", TRAINING)]  # a sampler draws other images
    values = {key: [arm.values(key) for arm in arms] for key in compared}
    rows = differences(values, [arm.name for arm in arms], judged, margin)
    own = [row for row in rows if row["measure"] in judged]
    _count_failures(own, arms)
    return {
        "judged": judged,
        "differences": rows,
        "few": _fewest_pairs(own),
        "margin": margin,
        "detectable": detectable_of(values[TOP1], len(plan.main.seeds), len(judged)),
    }


def _never_decays(plan: StudyPlan, arms: Sequence[StudyArm], provenance: dict[str, Any]) -> list[str]:
    """Arms of another step_size whose first decay would come after the last epoch."""
    epochs = (provenance["hyperparameters"] or {}).get("epochs")
    if plan.main.field != "step_size" or epochs is None:
        return []
    return [arm.name for arm in arms if arm.value >= epochs]


def images_text(provenance: dict[str, Any]) -> str:
    """Numbers of images of the splits, in words; `provenance` is that of `made_of`, or empty."""
    kind, counts = "generated drawings" if provenance.get("generated") else "images", provenance.get("images") or []
    splits = zip(counts, ("training", "validation", "evaluation"))
    text = ", ".join(f"{n} {split}" for n, split in splits if n is not None)
    return f"{text} {kind}" if text else f"an unknown number of {kind}"


def _training(arm: StudyArm, cell: Cell) -> dict[str, Any]:
    cut_short = cell.state == "succeeded" and cell.interrupted
    return {
        "arm": arm.name,
        "seed": cell.seed,
        "state": cell.state,
        "experiment": cell.experiment,
        "trial": cell.trial.trial_id if cell.trial else None,
        "reason": "cut short, and left out of all numbers" if cut_short else cell.failure,
    }


def arm_facts(arm: StudyArm) -> dict[str, Any]:
    """Each measure with n, mean, standard deviation (None for one) and the 95 % t interval of the mean. `diverged` of the `n`
    trainings did so: they are in all numbers."""
    tables = [best_result(cell.trial).get("evaluation") for cell in arm.complete]
    return {
        "name": arm.name,
        "value": arm.value,
        "planned": len(arm.cells),
        "n": len(arm.complete),
        "diverged": sum(cell.diverged for cell in arm.complete),
        **{measure.key: spread(arm.values(measure.key)) for measure in (*MEASURES, *LOSSES)},
        "evaluation_n": next((table["n"] for table in tables if isinstance(table, dict) and "n" in table), None),
    }


def _judged_measures(study: str, arms: Sequence[StudyArm]) -> list[str]:
    """The measures that the statement rests on: top-1 of the evaluation split; for balance, which is about the rare classes,
    the macro accuracy too, unless both are the same because that split has as many images of each class."""
    if study != "balance":
        return [TOP1]
    pairs = [(arm.values(TOP1), arm.values(MACRO)) for arm in arms]
    same = all(
        top1.keys() == macro.keys() and all(math.isclose(top1[seed], macro[seed], abs_tol=1e-9) for seed in top1)
        for top1, macro in pairs
    )
    return [TOP1] if same else [TOP1, MACRO]


Values = Sequence[dict[int, float]]  # {seed: number} of each arm, the reference first


def differences(
    values: dict[str, Values], names: Sequence[str], judged: Sequence[str], margin: float
) -> list[dict[str, Any]]:
    """Of every arm less the first, the seeds as blocks, one entry per measure and arm; `values` by measure. The intervals and
    p values of a measure hold together (Dunnett); the judged measures share the 5 % level."""
    rows = []
    for key, (reference, *others) in values.items():
        families = len(judged) if key in judged else 1
        for name, own, contrast in zip(names[1:], others, contrasts(reference, others, families)):
            if contrast is not None:
                about = {"measure": key, "arm": name, "reference": names[0], "by_seed": by_seed(own, reference)}
                rows.append(about | _row(contrast, BY_KEY[key].unit, margin, len(others) * families))
    return rows


def _row(contrast: Contrast, unit: Unit, margin: float, comparisons: int) -> dict[str, Any]:
    """`claims`: a difference is shown; `equivalence`: of accuracies alone, whether it is shown to be within the margin."""
    row = contrast._asdict() | {"claims": contrast.claims, "equivalence": None}
    if unit is not ACCURACY:
        return row
    small = equivalence_of(row, margin, comparisons)
    ends = {key: None if row[key] is None else max(-1.0, min(1.0, row[key])) for key in ("low", "high")}
    return row | ends | {"equivalence": None if small is None else small._asdict()}


def _count_failures(rows: Sequence[dict[str, Any]], arms: Sequence[StudyArm]) -> None:
    """Adds `with_failures`: the same difference with each failed training counted as a loss of its arm; None where none
    failed. A difference that is not shown with these counted is not claimed."""
    by_name, (reference, *_) = {arm.name: arm for arm in arms}, arms
    for row in rows:
        arm, own = by_name[row["arm"]], by_name[row["arm"]].values(row["measure"])
        seeds = sorted(({*own} | arm.failed) & ({*reference.values(row["measure"])} | reference.failed))
        lost = lost_pairs(own, reference.values(row["measure"]), seeds)
        counted = paired(lost, len(rows)) if lost else None
        row["with_failures"] = None if counted is None else counted._asdict()
        row["claims"] = row["claims"] and is_shown_with_failures(row["mean"], counted)


def detectable_of(values: Values, seeds: int, families: int) -> dict[str, Any]:
    """What the plan can show in 80 % of such studies: `in_sd`, in standard deviations of a training, known before anything is
    trained; `difference`, with the standard deviation that the trainings then had. None where it cannot be said."""
    in_sd, sd = detectable(seeds, len(values) - 1, families), pooled_sd(values)
    return {"in_sd": in_sd, "sd": sd, "difference": None if None in (in_sd, sd) else in_sd * sd}


def is_shown(row: dict[str, Any]) -> bool:
    """Whether a difference is; of an older study.json, whether the interval excludes zero."""
    if "claims" in row:
        return row["claims"]
    return row["p_adjusted"] < LEVEL if row["low"] is None else not row["low"] <= 0 <= row["high"]


def _fewest_pairs(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """{n, p}: the fewest pairs behind these rows and the smallest p that the exact sign-flip test reaches with so many; None
    where that is enough for the rows' level."""
    fewest = min((row for row in rows if row["n"] > 1), key=lambda row: row["n"], default=None)
    if fewest is None or smallest_flip_p(fewest["n"]) < 1 - fewest["level"]:
        return None
    return {"n": fewest["n"], "p": smallest_flip_p(fewest["n"])}


def band(arm: StudyArm, key: str = "default") -> dict[str, Any]:
    """Mean, lowest and highest over the seeds after each epoch, as far as all of them were trained."""
    curves = [values for cell in arm.complete if (values := curve(cell.trial, key))]
    columns = list(zip(*curves))
    return {
        "arm": arm.name,
        "metric": key,
        "n": len(curves),
        "epoch": list(range(1, len(columns) + 1)),
        "mean": [statistics.fmean(column) for column in columns],
        "low": [min(column) for column in columns],
        "high": [max(column) for column in columns],
    }


def prefixes(full: StudyArm, stopped: Sequence[StudyArm]) -> list[dict[str, Any]]:
    """For each stopped arm, whether its trainings equal the first epochs of the full ones of the same seed.

    Compared are all metrics of every epoch that both have. On a CPU they should be equal to the last bit;
    `largest_difference` is of validation accuracy. `saved_epochs` is {seed: epochs that stopping cut off}; in `same_weights`
    of the `pairs` both are equal so far and kept the weights of the same epoch."""
    others = {cell.seed: cell.trial for cell in full.complete}
    entries = []
    for arm in stopped:
        own = {cell.seed: cell.trial for cell in arm.complete if cell.seed in others}
        pairs = [(trial, others[seed]) for seed, trial in own.items()]
        equal = [_is_prefix(trial.intermediates, other.intermediates) for trial, other in pairs]
        apart = [abs(a - b) for trial, other in pairs for a, b in zip(curve(trial), curve(other))]
        shorter_by = [len(other.intermediates) - len(trial.intermediates) for trial, other in pairs]
        entries.append(
            {
                "arm": arm.name,
                "pairs": len(pairs),
                "equal": sum(equal),
                "largest_difference": max(apart, default=None),
                "saved_epochs": dict(zip(map(str, own), shorter_by)),
                "same_weights": sum(is_equal and _same_epoch(*pair) for is_equal, pair in zip(equal, pairs)),
            }
        )
    return entries


def _is_prefix(own: Sequence[Any], other: Sequence[Any]) -> bool:
    if not own or len(own) > len(other):
        return False
    return all(a.value == b.value for a, b in zip(own, other))


def _same_epoch(own: Trial, other: Trial) -> bool:
    """Whether both kept the weights of the same epoch."""
    epoch = measurement(own, "best_epoch")
    return epoch is not None and epoch == measurement(other, "best_epoch")


def _teacher_facts(students: Sequence[StudyArm], own_teachers: StudyArm | None) -> dict[str, Any] | None:
    """What the students' result.json record of their teacher; None where they had none.

    `of` is the number of the study's `planned` teachers that it was chosen from, both None where the file was given by a
    person; `files` that of different files; accuracies are fractions, None where unknown. `same_photos` False: it was
    trained on other photos."""
    results = (best_result(cell.trial).get("teacher") for arm in students for cell in arm.complete)
    records = [record for record in results if isinstance(record, dict)]
    ended: list[Cell] = []
    if own_teachers:  # none with weights: the files were removed since
        ended = [cell for cell in own_teachers.cells if cell.weights] or own_teachers.complete
    best = max(ended, key=lambda cell: cell.trial.score, default=None)
    if not records and best is None:
        return None
    facts = records[0] if records else {"arch": own_teachers.value, "same_photos": True}
    accuracies = {"validation": _top1(facts, "validation"), TOP1: _top1(facts, "evaluation")}
    if best is not None and None in accuracies.values():
        accuracies = {key: measurement(best.trial, key) for key in accuracies}
    return {
        "of": len(ended) if own_teachers else None,
        "planned": len(own_teachers.cells) if own_teachers else None,
        "files": len({record.get("sha256") for record in records}) or 1,
        **accuracies,
        **{key: facts.get(key) for key in ("arch", "sha256", "image_px", "same_photos")},
    }


def _top1(facts: dict[str, Any], split: str) -> float | None:
    result = facts.get(split)
    return result.get("top1") if isinstance(result, dict) else None
