"""What a person reads about each experiment: the table of facts, accuracy by class, the warnings."""

from __future__ import annotations

import statistics

from ..reading import startup
from ..reading.logs import failure_reason, tuner_errors
from ..reading.provenance import best_result
from ..reading.records import Experiment, Trial
from ..render import formats as words
from ..stats.best_of_n import optimism_of
from ..stats.compare import evaluation
from ..stats.two_sample import wilson


def arm_rows(experiments: list[Experiment]) -> list[tuple[str, list[str]]]:
    """The table of the arms: a label, and a text for each arm."""
    percent = words.is_percent(experiments)
    columns = [_arm_column(experiment, percent) for experiment in experiments]
    return [(label, [column[label] for column in columns]) for label in columns[0]]


def _arm_column(experiment: Experiment, percent: bool) -> dict[str, str]:
    n, counts, chosen, best = len(experiment.trials), experiment.counts, experiment.chosen, experiment.best
    durations = [trial.duration_s for trial in experiment.trials if trial.duration_s is not None]
    spread = words.NONE
    if durations:
        low, middle, high = (words.seconds_text(f(durations)) for f in (min, statistics.median, max))
        spread = f"{middle} ({low} to {high}, n = {len(durations)})"
    states = ", ".join(f"{counts[state]} {state}" for state in ("succeeded", "failed", "cancelled"))
    running = "running" if experiment.state == "RUNNING" else "unfinished"
    states += f", {counts['running']} {running}"
    return {
        "Tuner": startup.label(experiment.tuner),
        "State": f"{experiment.state.lower()}, {n} trials",
        "Chosen by the tuner": words.NONE if chosen is None else f"{sum(chosen)} of {n} trials",
        "Trials": f"{states} (n = {n})",
        "Best trial": words.NONE if best is None else f"{best.trial_id} (no. {best.sequence})",
        "Its hyperparameters": words.NONE if best is None else words.params_text(best.parameters),
        "Validation accuracy" if percent else "Best score": _validation(best, percent, n),
        "Too good by that choice, about": _optimism(experiment),
        "Evaluation accuracy of that trial": _evaluation(best),
        "Seconds a trial, median (range)": spread,
        "Trial-seconds in all": words.seconds_text(experiment.trial_seconds),
        "Wall clock": words.seconds_text(experiment.wall_seconds),
    }


def _validation(best: Trial | None, percent: bool, n_trials: int) -> str:
    if best is None:
        return words.NONE
    text, n = words.score_text(best.score, percent), words.validation_n(best)
    if n is None:
        return f"{text} (best of {n_trials} trials)"
    interval = words.interval_text(wilson(best.score or 0.0, n))
    return f"{text} (95 % {interval}, n = {n} images; best of {n_trials} trials)"


def _optimism(experiment: Experiment) -> str:
    found = optimism_of(experiment)
    if found is None:
        return words.NONE
    bias, spread = (words.difference_text(value, True) for value in (found.bias, found.spread))
    return f"{bias} (n = {found.n_trials} trials of {found.n_images} images; they differ by {spread} beside the noise)"


def _evaluation(best: Trial | None) -> str:
    found = None if best is None else evaluation(best)
    if not found:
        return "not reported"
    n = found["n"]
    if not n or not 0 <= found["top1"] <= 1:
        return words.score_text(found["top1"], True)
    top3 = "" if found["top3"] is None else f"; top-3 {words.score_text(found['top3'], True)}"
    interval = words.interval_text(wilson(found["top1"], n))
    return f"{words.score_text(found['top1'], True)} (95 % {interval}, n = {n} images{top3})"


def per_class_rows(experiments: list[Experiment]) -> list[tuple[str, list[str]]]:
    """Class, and correct / total of each arm's best trial on the evaluation split, from its result.json;
    no rows where no arm has that file (other trial scripts, or an experiment whose folder is elsewhere)."""
    found = [_per_class(experiment.best) for experiment in experiments]
    names = dict.fromkeys(name for classes in found for name in classes)
    return [(name, [classes.get(name, words.NONE) for classes in found]) for name in names]


def _per_class(best: Trial | None) -> dict[str, str]:
    try:
        rows = [
            (str(row["class"]), row["correct"], row["total"]) for row in best_result(best)["evaluation"]["per_class"]
        ]
        return {name: f"{correct} / {n} ({words.score_text(correct / n, True)})" for name, correct, n in rows if n}
    except (KeyError, TypeError):
        return {}


def warnings_of(experiment: Experiment) -> list[str]:
    """All that a reader should distrust, worst first: tuner, experiment, then trial by trial."""
    found = tuner_errors(experiment) + list(experiment.warnings)
    for trial in experiment.trials:
        texts = list(trial.warnings)
        if trial.state not in ("SUCCEEDED", "RUNNING", "WAITING"):
            texts.insert(0, f"{trial.state}: {failure_reason(trial)}")
        found += [f"trial {trial.trial_id} (no. {trial.sequence}): {text}" for text in texts]
    return found
