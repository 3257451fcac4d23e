"""Tables that pages share: facts about experiments, one column each, and the trainings of a study or confirmation, one row each."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from ..reading import startup
from ..reading.logs import failure_reason, tuner_errors
from ..reading.records import Experiment, Trial, best_result, is_percent, validation_n
from ..render import formats
from ..render.document import Block, Heading, Row, Table, Text
from ..stats import early_stopping
from ..stats.best_of_n import optimism_of
from ..stats.compare import evaluation
from ..stats.two_sample import wilson

Rows = tuple[Row, ...]
MOST_REASONS = 50


def experiment_rows(experiments: list[Experiment]) -> Rows:
    """The facts of each experiment."""
    percent = is_percent(experiments)
    columns = [experiment_facts(experiment, percent) for experiment in experiments]
    return tuple(Row(label, tuple(column[label] for column in columns)) for label in columns[0])


def experiment_facts(experiment: Experiment, percent: bool) -> dict[str, str]:
    """{label: text}."""
    n, counts, chosen, best = len(experiment.trials), experiment.counts, experiment.chosen, experiment.best
    running = "running" if experiment.state == "RUNNING" else "unfinished"
    shown = ("succeeded", *(["pruned"] if counts["pruned"] else []), "failed", "cancelled")
    states = [f"{counts[state]} {state}" for state in shown]
    return {
        "Tuner": startup.label(experiment.tuner),
        "State": f"{experiment.state.lower()}, {n} trials",
        "Chosen by the tuner": formats.NONE if chosen is None else f"{sum(chosen)} of {n} trials",
        "Trials": f"{', '.join(states)}, {counts['running']} {running} (n = {n})",
        "Best trial": formats.NONE if best is None else f"{best.trial_id} (no. {best.sequence})",
        "Its hyperparameters": formats.NONE if best is None else formats.params_text(best.parameters),
        "Validation accuracy" if percent else "Best score": _validation(best, percent, n),
        "Selection bias, about": _optimism(experiment),
        "Evaluation accuracy of that trial": _evaluation(best),
        "Seconds per trial, median (range)": _durations(experiment),
        "Trial-seconds in all": formats.seconds_text(experiment.trial_seconds),
        "Wall clock": formats.seconds_text(experiment.wall_seconds),
    }


def _validation(best: Trial | None, percent: bool, n_trials: int) -> str:
    if best is None:
        return formats.NONE
    text, n = formats.score_text(best.score, percent), validation_n(best)
    if n is None:
        return f"{text} (best of {n_trials} trials)"
    return f"{text} (n = {n} images; best of {n_trials} trials)"


def _wilson(share: float | None, n: int) -> str:
    return formats.interval_text(wilson(share or 0.0, n))


def _optimism(experiment: Experiment) -> str:
    optimism = optimism_of(experiment)
    if optimism is None:
        return formats.NONE
    bias = formats.difference_text(optimism.bias, True)
    chosen = f"best of {optimism.n_accuracies} accuracies of {optimism.n_trials} trials"
    return f"{bias} ({chosen}, n = {optimism.n_images} images each)"


def _evaluation(best: Trial | None) -> str:
    accuracy = None if best is None else evaluation(best)
    if not accuracy:
        return "not reported"
    n, text = accuracy["n"], formats.score_text(accuracy["top1"], True)
    if not n or not 0 <= accuracy["top1"] <= 1:
        return text
    top3 = "" if accuracy["top3"] is None else f"; top-3 {formats.score_text(accuracy['top3'], True)}"
    return f"{text} (95 % {_wilson(accuracy['top1'], n)}, n = {n} images{top3})"


def _durations(experiment: Experiment) -> str:
    durations = [trial.duration_s for trial in experiment.trials if trial.duration_s is not None]
    if not durations:
        return formats.NONE
    low, middle, high = (formats.seconds_text(f(durations)) for f in (min, statistics.median, max))
    return f"{middle} ({low} to {high}, n = {len(durations)})"


def class_rows(experiments: list[Experiment]) -> Rows:
    """Class, and correct / total of each experiment's best trial on the evaluation split, from its result.json;
    no rows where none has that file (other trial scripts, or an experiment whose folder is elsewhere)."""
    columns = [_classes(experiment.best) for experiment in experiments]
    names = dict.fromkeys(name for column in columns for name in column)
    return tuple(Row(name, tuple(column.get(name, formats.NONE) for column in columns)) for name in names)


def _classes(best: Trial | None) -> dict[str, str]:
    try:
        rows = best_result(best)["evaluation"]["per_class"]
        return {str(row["class"]): formats.share_text(row["correct"], row["total"]) for row in rows if row["total"]}
    except (KeyError, TypeError):
        return {}


def stopping_rows(experiments: list[Experiment], percent: bool) -> Rows:
    """What early stopping saved, then each patience; no rows where no trial says how long it might have run."""
    curves = [early_stopping.curves(experiment) for experiment in experiments]
    if not any(curves):
        return ()
    tables = [early_stopping.counterfactual(c, e.optimise_mode == "maximize") for c, e in zip(curves, experiments)]
    rows = [
        (lines[0].patience, tuple(_patience(line, len(c), percent) for line, c in zip(lines, curves)))
        for lines in zip(*tables)
    ]
    table = [Row("As it ran", tuple(map(_as_it_ran, curves)))]
    for cells, equal in itertools.groupby(rows, key=lambda row: row[1]):
        patiences = [patience for patience, _ in equal]
        last = f" to {patiences[-1]}" if len(patiences) > 1 else ""
        table.append(Row(f"Patience {patiences[0]}{last}", cells))
    return tuple(table)


def _as_it_ran(curves: list[early_stopping.Curve]) -> str:
    used, planned, early = early_stopping.saved(curves)
    return f"{used} of {planned} epochs; {early} of {len(curves)} trials stopped early" if curves else formats.NONE


def _patience(line: early_stopping.Patience, n: int, percent: bool) -> str:
    if line.epochs is None or line.lost is None or line.best_lost is None:
        return f"not known: {n - line.known} of {n} curves end too soon" if n else formats.NONE
    lost, best_lost = (_lost(value, line.error, percent) for value in (line.lost, line.best_lost))
    return f"{line.epochs} epochs; lost: {lost} per trial, {best_lost} at the best"


def _lost(value: float, error: float | None, percent: bool) -> str:
    """Of a loss that chance alone may be, only that it is below `error`."""
    if error is not None and 0 < value < error:
        return f"< {formats.difference_text(error, percent)}"
    return formats.difference_text(value, percent)


def failure_rows(experiments: list[Experiment]) -> Rows:
    """Each reason in the logs of trials that ended without success, with the number of trials, the most frequent first."""
    counts: dict[str, list[int]] = {}
    for index, experiment in enumerate(experiments):
        for trial in experiment.trials:
            if trial.has_failed:
                reason = f"{trial.status}: {failure_reason(trial)}"
                counts.setdefault(reason, [0] * len(experiments))[index] += 1
    ordered = sorted(counts.items(), key=lambda item: -sum(item[1]))[:MOST_REASONS]
    return tuple(
        Row(reason, tuple(f"{n} of {len(e.trials)} trials" for n, e in zip(numbers, experiments)))
        for reason, numbers in ordered
    )


def provenance_rows(experiments: list[Experiment]) -> Rows:
    """Where each number comes from."""
    columns = [_provenance(experiment) for experiment in experiments]
    return tuple(Row(label, tuple(column[label] for column in columns)) for label in columns[0])


def _provenance(experiment: Experiment) -> dict[str, str]:
    best, config, tuner = experiment.best, experiment.config, startup.label(experiment.tuner)
    settings = {} if best is None else {k: v for k, v in best.effective.items() if k not in best.parameters}
    provenance = made_with(best_result(best))
    return {
        "Experiment": experiment.id,
        "Name": experiment.name or formats.NONE,
        "Started": formats.date_text(experiment.started),
        "Tuner and arguments": f"{tuner} {json.dumps(experiment.class_args, ensure_ascii=False)}",
        "Search space": json.dumps(config.get("searchSpace"), ensure_ascii=False),
        "Trial command": str(config.get("trialCommand", formats.NONE)),
        "Settings of the best trial": formats.params_text(settings),
        "Machine of the best trial": provenance["Machine"],
        "Versions of the best trial": provenance["Versions"],
        "Commit of its code": provenance["Commit of the code"],
        "Digest of its photos": provenance["Digest of the photos"],
        "Trials at a time": str(config.get("trialConcurrency", formats.NONE)),
        "Folder": str(experiment.folder),
        "NNI installed here": _nni_version(),
    }


def made_with(result: Mapping[str, Any]) -> dict[str, str]:
    """Label and text of what a training's result.json records of its making; a dash where it has nothing."""
    versions = result.get("versions")
    return {
        "Machine": formats.optional(result.get("compute")),
        "Versions": formats.params_text(versions) if isinstance(versions, dict) else formats.NONE,
        "Commit of the code": formats.optional(result.get("revision")),
        "Digest of the photos": formats.optional(result.get("source_digest"))[:16],
    }


def _nni_version() -> str:
    """From the package's metadata, without importing it; NNI does not record its version in the database."""
    try:
        return metadata.version("nni")
    except metadata.PackageNotFoundError:
        return "none"


def warnings_of(experiment: Experiment) -> list[str]:
    """All that a reader should distrust, worst first: tuner, experiment, then trial by trial."""
    warnings = tuner_errors(experiment) + list(experiment.warnings)
    for trial in experiment.trials:
        texts: list[Any] = list(trial.warnings)
        if trial.has_failed:
            texts.insert(0, f"{trial.state}: {failure_reason(trial)}")
        warnings += [f"trial {trial.trial_id} (no. {trial.sequence}): {text}" for text in texts]
    return warnings


def section(title: str, block: Block | None, caption: str = "") -> list[Block]:
    """A heading, a table or figure, and the small print below it; without a block, the caption says why."""
    return [Heading(title), *([block] if block else []), *([Text(caption, caption=True)] if caption else [])]


def rows_table(columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], corner: str = "") -> Table:
    """A table of rows that are (label, cells)."""
    return Table(tuple(columns), tuple(Row(label, tuple(cells)) for label, cells in rows), corner)


def trainings_table(name: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """One record per training, of rows with the keys `name`, seed, state, val_accuracy and evaluation_top1 (fractions),
    duration_s, experiment, trial, reason, and epochs_run where there are any; what is missing is None."""
    has_epochs = any("epochs_run" in row for row in rows)
    records = []
    for row in rows:
        accuracies = [formats.number_text(row[key]) for key in ("val_accuracy", "evaluation_top1")]
        epochs = [formats.optional(row["epochs_run"])] if has_epochs else []
        cells = [
            row[name],
            str(row["seed"]),
            row["state"],
            *accuracies,
            *epochs,
            formats.seconds_text(row["duration_s"]),
        ]
        mark = "" if row["state"] == "succeeded" else "lost"
        records.append(Row("", (*cells, row["experiment"], formats.optional(row["trial"]), row["reason"]), mark))
    columns = [
        name.capitalize(),
        "Seed",
        "State",
        "Validation",
        "Evaluation",
        *(["Epochs"] if has_epochs else []),
        "Time",
    ]
    return Table((*columns, "Experiment", "Trial", "Reason"), tuple(records))


def provenance_table(facts: Mapping[str, str], result: Mapping[str, Any]) -> Table:
    """`facts` of the page, then what a training's result.json records about machine, versions, code and photos."""
    return rows_table(["Value"], [(label, [text]) for label, text in {**facts, **made_with(result)}.items()])
