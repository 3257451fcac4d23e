"""python -m analysis show ID: one experiment on a terminal."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from ..page import series
from ..page.arms import arm_rows
from ..page.page_rows import failure_rows
from ..reading import startup
from ..reading.records import ENDED, Experiment
from ..reading.values import score
from ..render import formats as words
from ..render.terminal import clean, columns, grid, say
from ..stats.arms import notes_between
from .condition import condition

SHORT = 40  # trials that are shown without --all; of more, so many of the best and of the last
EACH = 10
MOST_REASONS = 10
HEADS = ["No.", "Id", "State", "Value", "Epochs", "Seconds", "Drawn by", "Hyperparameters"]


def print_experiment(experiment: Experiment, every_trial: bool) -> None:
    say(clean(f"{experiment.name or experiment.id} ({experiment.id})"))
    say(columns(_header(experiment)))
    say(f"\nBest so far: {_improvements(experiment)}")
    _print_trials(experiment, every_trial)
    failures = failure_rows([experiment])
    if failures:
        say("\nFailures, with the last line that each wrote")
        say(grid(["Trials", "Reason"], [[cells[0], reason] for reason, cells in failures[:MOST_REASONS]]))
        if len(failures) > MOST_REASONS:
            say(f"and {len(failures) - MOST_REASONS} more reasons")
    for note in _notes(experiment):
        say(f"note: {clean(note)}")


def _header(experiment: Experiment) -> list[tuple[str, list[str]]]:
    """A label and one cell a line; what `compare` tells of an arm, with this experiment's own circumstances."""
    state, remark = condition(experiment)
    facts = {label: cells[0] for label, cells in arm_rows([experiment])}
    limit = f" of {experiment.max_trials}" if experiment.max_trials else ""
    ended = sum(trial.state in ENDED for trial in experiment.trials)
    facts["State"] = f"{state}, {ended}{limit} trials ended" + (f": {remark}" if remark else "")
    facts["Tuner"] += f" {json.dumps(experiment.class_args, ensure_ascii=False)}, {experiment.optimise_mode}"
    why = startup.explain(experiment.tuner, experiment.class_args, experiment.max_trials).partition(": ")[2]
    facts["Chosen by the tuner"] += f": {why}"
    ends = [trial.end for trial in experiment.trials if trial.end is not None]
    dates = {
        "Search space": _space(experiment.config.get("searchSpace") or {}),
        "Command": str(experiment.config.get("trialCommand") or words.NONE),
        "Started": words.date_text(experiment.started),
        "Last trial ended": words.date_text(max(ends, default=None)),
        "Folder": str(experiment.folder),
    }
    return [(label, [text]) for label, text in (facts | dates).items() if text not in (words.NONE, "not reported")]


def _space(space: dict[str, Any]) -> str:
    """`lr loguniform 0.0001 to 0.1; batch_size choice 16, 32`; nested choices as JSON."""
    parts = []
    for name, spec in space.items():
        kind, value = (spec.get("_type"), spec.get("_value")) if isinstance(spec, dict) else (None, spec)
        if kind == "choice" and isinstance(value, list):
            text = ", ".join(json.dumps(one, ensure_ascii=False) for one in value)
        elif isinstance(value, list) and len(value) == 2:
            text = " to ".join(map(str, value))
        else:
            text = json.dumps(value, ensure_ascii=False)
        parts.append(f"{name} {kind or ''} {text}".replace("  ", " "))
    return "; ".join(parts) or words.NONE


def _improvements(experiment: Experiment) -> str:
    """Number and value of each trial that was better than all before; of many, the last ones."""
    _, bests = series.best_so_far(experiment)
    trials = experiment.trials[len(experiment.trials) - len(bests) :]
    steps = [(trial, best) for k, (trial, best) in enumerate(zip(trials, bests)) if k == 0 or best != bests[k - 1]]
    percent = words.is_percent([experiment])
    told = [
        f"{words.score_text(best, percent)} at no. {words.optional(trial.sequence)}" for trial, best in steps[-EACH:]
    ]
    return ("... " if len(steps) > EACH else "") + (", ".join(told) or "no trial has a result yet")


def _print_trials(experiment: Experiment, every_trial: bool) -> None:
    rows, n = series.table_rows(experiment), len(experiment.trials)
    images = {words.validation_n(trial) for trial in experiment.trials if trial.score is not None}
    told = (
        f"; value: validation accuracy of n = {images.pop()} images" if len(images) == 1 and None not in images else ""
    )
    if every_trial or n <= SHORT:
        say(f"\nAll {n} trials, in the order in which they were proposed (*: the best{told})")
        say(grid(HEADS, [_cells(experiment, row) for row in rows]))
        return
    sign = -1 if experiment.optimise_mode == "maximize" else 1
    ranked = sorted((row for row in rows if row["trial"].score is not None), key=lambda row: sign * row["trial"].score)
    for title, part in ((f"The best {EACH}", ranked[:EACH]), (f"The last {EACH}", rows[-EACH:])):
        say(f"\n{title} of {n} trials (*: the best{told})")
        say(grid(HEADS, [_cells(experiment, row) for row in part]))
    shown = {row["trial"].trial_id for row in [*ranked[:EACH], *rows[-EACH:]]}
    say(f"{n - len(shown)} of {n} trials are left out; --all shows them")


def _cells(experiment: Experiment, row: dict[str, Any]) -> list[str]:
    trial, percent, running = row["trial"], words.is_percent([experiment]), experiment.state == "RUNNING"
    value, state = words.score_text(trial.score, percent), trial.state.lower().replace("_", " ")
    if trial.state not in ENDED:
        state = state if running else "cut off"
        last = score(trial.intermediates[-1].value) if trial.intermediates else None
        value = value if last is None else f"{words.score_text(last, percent)} so far"
    drawn = "a person" if trial.customised else "start-up" if row["chosen_by"] == "random" else row["chosen_by"]
    seconds = words.NONE if trial.duration_s is None else f"{trial.duration_s:.1f}"
    epochs = str(len(trial.intermediates)) if trial.intermediates else words.NONE
    mark = "*" if row["is_best"] else ""
    number = words.optional(trial.sequence)
    parameters = words.params_text(trial.parameters)
    return [f"{number}{mark}", trial.trial_id, state, value, epochs, seconds, drawn, parameters]


def _notes(experiment: Experiment) -> list[str]:
    """What a reader should know or distrust; remarks on single trials are counted."""
    notes = notes_between([experiment]) + list(experiment.warnings)
    counted = Counter(text for trial in experiment.trials for text in trial.warnings)
    n = len(experiment.trials)
    notes += [f"{count} of {n} trials: {text}" for text, count in counted.most_common(MOST_REASONS)]
    if len(counted) > MOST_REASONS:
        notes.append(f"and {len(counted) - MOST_REASONS} more kinds of remarks on single trials; compare lists them")
    return notes
