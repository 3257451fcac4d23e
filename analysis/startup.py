"""How many of an experiment's trials the tuner chose, and how many it drew at random.

Read from NNI 3.0's own code, `nni/algorithms/hpo/tpe_tuner.py` (`suggest_parameter`) and
`evolution_tuner.py` (`_generate_individual`, `trial_end`). "Chosen" means: the tuner used earlier results
to propose this trial. Standard library only, so that a check before a launch costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

ALL = math.inf
"""Start-up of a tuner that never learns: every trial is a random draw."""

_LABELS = {
    "tpe": "TPE",
    "evolution": "Evolution",
    "random": "Random",
    "gridsearch": "GridSearch",
    "batch": "Batch",
}


def label(tuner: str) -> str:
    """NNI's own spelling of a built-in tuner's name; any other name comes back as it is."""
    return _LABELS.get(_key(tuner), tuner)


def startup_trials(tuner: str, class_args: dict[str, Any] | None) -> int | float | None:
    """Number of first trials that the tuner draws at random.

    `tuner` is NNI's name (any case), `class_args` the tuner arguments of the experiment file.
    Returns `ALL` (math.inf) for Random, 0 for GridSearch and Batch (no draw is random, and none learns),
    None for a tuner whose start-up is not known here.
    """
    args = class_args or {}
    key = _key(tuner)
    if key == "tpe":
        return int((args.get("tpe_args") or {}).get("n_startup_jobs", 20))
    if key == "evolution":
        return int(args.get("population_size", 32))
    return {"random": ALL, "gridsearch": 0, "batch": 0}.get(key)


def explain(tuner: str, class_args: dict[str, Any] | None, max_trials: int | None) -> str:
    """One line for a person: how many of `max_trials` the tuner will choose, and why.

    `max_trials` is None where the experiment has no limit. Assumes that no trial fails: each failure puts
    one more random trial before the tuner's first own choice.
    """
    name, first = label(tuner), startup_trials(tuner, class_args)
    total = "all" if max_trials is None else str(max_trials)
    if first is None:
        return f"it is not known how many of {total} trials the tuner chooses: {name} is not a tuner known here"
    if first == 0:
        return f"{total} of {total} trials are set by the tuner: {name} walks a list and learns from no result"
    if first == ALL:
        return f"0 of {total} trials are chosen by the tuner: {name} never learns"
    if max_trials is None:
        return f"every trial after the first {first} is chosen by the tuner: {name} draws those at random"
    if first >= max_trials:
        return f"0 of {total} trials are chosen by the tuner: {name} draws at random until trial {first + 1}"
    left = max_trials - first
    return f"{left} of {total} trials are chosen by the tuner: {name} draws the first {first} at random"


def chosen(tuner: str, class_args: dict[str, Any] | None, trials: Sequence[Any]) -> list[bool] | None:
    """For each trial, in the order in which they were proposed: did the tuner choose it?

    `trials` are records with `proposed` and `end` (ms, `end` None while running), `result_time` (ms of the
    first final result, or None), `state`, `customised`, `session` (0, one more after each `nnictl resume`)
    and `last_session` (of a trial that was run again after a crash). Returns None for a tuner not known here.
    A trial that a person added is never chosen, and NNI hides its result from the tuner until a resume.
    """
    first, key = startup_trials(tuner, class_args), _key(tuner)
    if first is None:
        return None
    if key == "tpe":
        liar = ((class_args or {}).get("tpe_args") or {}).get("constant_liar_type", "best") is not None
        return _chosen_by_tpe(trials, first, liar)
    if key == "evolution":
        return _chosen_by_evolution(trials, int(first))
    return [first == 0 and not trial.customised for trial in trials]


def _key(tuner: str) -> str:
    """NNI accepts any case, and for some tuners the class name too (`BatchTuner`)."""
    key = tuner.lower()
    return key.removesuffix("tuner")


def _chosen_by_tpe(trials: Sequence[Any], n_startup: int, liar: bool) -> list[bool]:
    """TPE models a parameter once it has `n_startup` records: earlier results, and with the constant
    liar also every trial still running. A trial that ended without a result is forgotten.

    A resume replays the results of trials that had succeeded. Trials that were cut off run again, but the
    new tuner is only told their final results (`msg_dispatcher.py`, `is_created_in_previous_exp`).
    """
    flags: list[bool] = []
    records, session, running = 0, 0, []
    for index, trial in enumerate(trials):
        if trial.session != session:
            session = trial.session
            records = sum(_replayed(earlier, session) for earlier in trials[:index])
            running = [earlier for earlier in trials[:index] if earlier.last_session == session]
        still = []
        for earlier in running:
            if earlier.result_time is not None and earlier.result_time <= trial.proposed:
                records += 1
            elif earlier.end is None or earlier.end > trial.proposed:
                still.append(earlier)
        running = still
        lies = sum(earlier.session == session for earlier in running) if liar else 0
        flags.append(records + lies >= n_startup and not trial.customised)
        if not trial.customised:
            running.append(trial)
    return flags


def _replayed(earlier: Any, session: int) -> bool:
    return earlier.last_session < session and earlier.state == "SUCCEEDED" and earlier.result_time is not None


def _chosen_by_evolution(trials: Sequence[Any], population_size: int) -> list[bool]:
    """Evolution hands out un-scored individuals first; a failed trial adds a fresh random one
    (`trial_end`), and a resumed experiment starts with a new population (`import_data` is empty)."""
    flags: list[bool] = []
    unscored, session, failures = population_size, 0, []
    for trial in trials:
        if trial.session != session:
            unscored, session, failures = population_size, trial.session, []
        unscored += sum(end <= trial.proposed for end in failures)
        failures = [end for end in failures if end > trial.proposed]
        flags.append(unscored == 0 and not trial.customised)
        if trial.customised:
            continue
        unscored = max(0, unscored - 1)
        if trial.state not in ("SUCCEEDED", "RUNNING", "WAITING") and trial.end is not None:
            failures.append(trial.end)
    return flags
