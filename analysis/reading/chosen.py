"""Which trials a tuner chose, and which it drew at random or was given.

Read from NNI 3.0's own code, `nni/algorithms/hpo/tpe_tuner.py` (`suggest_parameter`) and
`evolution_tuner.py` (`_generate_individual`, `trial_end`), and from `experiments/tuners`. "Chosen" means: the tuner
used earlier results to propose this trial.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import startup
from .values import score


def chosen(tuner: str, class_args: dict[str, Any] | None, trials: Sequence[Any]) -> list[bool] | None:
    """For each trial, in the order in which they were proposed: did the tuner choose it?

    `trials` are records with `proposed` and `end` (ms, `end` None while running), `result_time` (ms of the
    first final result, or None), `final` (that result), `state`, `customised`, `session` (0, one more after each
    `nnictl resume`) and `last_session` (of a trial that was run again after a crash). Returns None for a tuner not known here.
    A trial that a person added is never chosen, and NNI hides its result from the tuner until a resume.
    """
    first, key = startup.startup_trials(tuner, class_args), startup.key_of(tuner)
    if first is None:
        return None
    if key in startup.TPES:
        tpe_args = (class_args or {}).get("tpe_args") or {}
        asked = startup.design(tuner, class_args).size if key in startup.SEEDED else None
        return _chosen_by_tpe(
            trials,
            int(tpe_args.get("n_startup_jobs", 20)),
            tpe_args.get("constant_liar_type", "best") is not None,
            asked,
        )
    if key in startup.EVOLUTIONS:
        return _chosen_by_evolution(trials, int(first), key in startup.SEEDED)
    return [first == 0 and not trial.customised for trial in trials]


def _chosen_by_tpe(trials: Sequence[Any], n_startup: int, liar: bool, asked: int | None) -> list[bool]:
    """TPE models a parameter once it has `n_startup` records: earlier results, and with the constant
    liar also every trial still running. A trial that ended without a result is forgotten.

    A resume replays the results of trials that had succeeded. Trials that were cut off run again, but the
    new tuner is only told their final results (`msg_dispatcher.py`, `is_created_in_previous_exp`).
    `asked` is the size of the seeded tuner's design, which goes on after a resume; None for NNI's own TPE.
    """
    seeded, flags, design_places = asked is not None, [], {}
    records, session, running, place = 0, 0, [], 0
    for index, trial in enumerate(trials):
        if trial.session != session:
            session = trial.session
            records = sum(_replayed(earlier, session, seeded) for earlier in trials[:index])
            running = [earlier for earlier in trials[:index] if earlier.last_session == session]
            place = _resume_place(design_places, trials, session)
        still = []
        for earlier in running:
            if _has_result(earlier, seeded) and earlier.result_time <= trial.proposed:
                records += 1
            elif earlier.end is None or earlier.end > trial.proposed:
                still.append(earlier)
        running = still
        lies = sum(earlier.session == session for earlier in running) if liar else 0
        designed = place < (asked or 0)
        flags.append(records + lies >= n_startup and not designed and not trial.customised)
        if not trial.customised:
            running.append(trial)
            if designed:
                design_places[index] = place
                place += 1
    return flags


def _resume_place(places: dict[int, int], trials: Sequence[Any], session: int) -> int:
    """Behind the last trial of the design that has a result or runs again; `places` are those handed out so far."""
    tried = [
        place
        for index, place in places.items()
        if _replayed(trials[index], session, False) or trials[index].last_session >= session
    ]
    return max(tried, default=-1) + 1


def _has_result(trial: Any, seeded: bool) -> bool:
    """NNI's own tuners take any number; the seeded ones a finite number alone."""
    return trial.result_time is not None and (not seeded or score(trial.final) is not None)


def _replayed(earlier: Any, session: int, seeded: bool) -> bool:
    return earlier.last_session < session and earlier.state == "SUCCEEDED" and _has_result(earlier, seeded)


def _chosen_by_evolution(trials: Sequence[Any], population_size: int, seeded: bool) -> list[bool]:
    """Evolution hands out un-scored individuals first, and each that is lost is replaced by a random one (`trial_end`).

    NNI's own starts a resumed experiment with a new population (`import_data` is empty); the seeded one rebuilds it.
    Assumes of the seeded one that no more trials than `population_size` are out at once.
    """
    flags: list[bool] = []
    unscored, session, lost = population_size, 0, []
    for index, trial in enumerate(trials):
        if trial.session != session:
            session = trial.session
            unscored, lost = _rebuilt(trials[:index], session, population_size) if seeded else (population_size, [])
        unscored += sum(end <= trial.proposed for end in lost)
        lost = [end for end in lost if end > trial.proposed]
        flags.append(unscored == 0 and not trial.customised)
        if trial.customised:
            continue
        unscored = max(0, unscored - 1)
        if trial.end is not None and _loses_its_place(trial, seeded):
            lost.append(trial.end)
    return flags


def _rebuilt(before: Sequence[Any], session: int, population_size: int) -> tuple[int, list[int]]:
    """The seeded population after a resume: each result and each trial that runs again holds a place. How many places are
    un-scored, and when (ms) a trial that runs again loses its own."""
    held = sum(_replayed(trial, session, True) or trial.last_session >= session for trial in before)
    again = [trial for trial in before if trial.last_session == session and trial.result_time is not None]
    return max(0, population_size - held), [trial.result_time for trial in again if not _has_result(trial, True)]


def _loses_its_place(trial: Any, seeded: bool) -> bool:
    """NNI's own tuner goes by how a trial ended, the seeded one by whether it left a finite result."""
    return not _has_result(trial, True) if seeded else trial.state not in ("SUCCEEDED", "RUNNING", "WAITING")
