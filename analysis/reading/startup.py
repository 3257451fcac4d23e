"""What is known of tuners: how many first trials each samples at random, and which trials it chose from earlier results.

Read from NNI 3.0's own code, `nni/algorithms/hpo` (`suggest_parameter` of `tpe_tuner.py`; `_generate_individual` and
`trial_end` of `evolution_tuner.py`). The seeded tuners of `experiments/tuners` are known by their class names. Standard
library only, so that a check before a launch costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from .values import score

ALL = math.inf
"""Start-up of a tuner that never learns: every trial is sampled at random."""

_LABELS = {
    "tpe": "TPE",
    "evolution": "Evolution",
    "random": "Random",
    "gridsearch": "GridSearch",
    "batch": "Batch",
    "seeded_tpe.seededtpe": "TPE (seeded)",
    "seeded_evolution.seededevolution": "Evolution (seeded)",
    "optuna_search.optunasearch": "Optuna",
}
TPES, EVOLUTIONS = ("tpe", "seeded_tpe.seededtpe"), ("evolution", "seeded_evolution.seededevolution")
OPTUNA = "optuna_search.optunasearch"
SEEDED = (TPES[1], EVOLUTIONS[1], OPTUNA)


class Design(NamedTuple):
    """The first trials that an experiment file sets: those it gives, then a number with a seed of their own, sampled at random
    or taken from a Sobol sequence (experiments/tuners/first_trials.py)."""

    given: list[dict[str, Any]]
    random: int
    seed: int
    kind: str = "random"  # or "sobol"

    @property
    def size(self) -> int:
        return len(self.given) + self.random


def design(tuner: str, class_args: dict[str, Any] | None) -> Design:
    """Of size 0 for NNI's own tuners, which take no first trials."""
    if key_of(tuner) not in SEEDED:
        return Design([], 0, 0)
    defaults = {"initial": 5, "initial_design": "sobol"} if key_of(tuner) == OPTUNA else {}
    args = {**defaults, **(class_args or {})}
    sampled = int(args.get("initial") or 0)
    seed, kind = (
        (int(args.get("initial_seed") or 0), args.get("initial_design") or "random") if sampled else (0, "random")
    )
    return Design(list(args.get("first") or []), sampled, seed, kind)


def shared_trials(one: Design, other: Design) -> int:
    """Number of first trials that both have in one search space, whatever their tuners."""
    pairs = list(zip(one.given, other.given))
    equal = next((index for index, (a, b) in enumerate(pairs) if a != b), len(pairs))
    return equal + (min(one.random, other.random) if same_random_trials(one, other) else 0)


def same_random_trials(one: Design, other: Design) -> bool:
    return one.random > 0 and other.random > 0 and (one.seed, one.kind) == (other.seed, other.kind)


def label(tuner: str) -> str:
    """NNI's own spelling of a built-in tuner's name; any other name comes back as it is."""
    return _LABELS.get(key_of(tuner), tuner)


def startup_trials(tuner: str, class_args: dict[str, Any] | None) -> int | float | None:
    """Number of first trials that the tuner samples at random, those that the experiment file gives among them.

    `tuner` is NNI's name (any case), `class_args` the tuner arguments of the experiment file.
    Returns `ALL` (math.inf) for Random, 0 for GridSearch and Batch (they sample nothing and learn nothing),
    None for a tuner whose start-up is not known here.
    """
    args = class_args or {}
    key = key_of(tuner)
    if key in TPES:
        return max(int((args.get("tpe_args") or {}).get("n_startup_jobs", 20)), design(tuner, args).size)
    if key in EVOLUTIONS:
        return int(args.get("population_size", 32))
    if key == OPTUNA:
        return max(1, design(tuner, args).size)
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
    own = design(tuner, class_args)
    how = "takes {} from a Sobol sequence" if own.kind == "sobol" and own.size == first else "samples {} at random"
    except_given = f", except {len(own.given)} given" if own.given else ""
    if max_trials is None:
        return f"every trial after the first {first} is chosen by the tuner: {name} {how.format('those')}{except_given}"
    words = how.format(f"the first {first}")
    return f"{max(0, max_trials - first)} of {total} trials are chosen by the tuner: {name} {words}{except_given}"


def key_of(tuner: str) -> str:
    """NNI accepts any case, and for some tuners the class name too (`BatchTuner`)."""
    key = tuner.lower()
    return key.removesuffix("tuner")


def chosen(tuner: str, class_args: dict[str, Any] | None, trials: Sequence[Any]) -> list[bool] | None:
    """For each trial, in the order in which they were proposed: did the tuner choose it?

    `trials` are records with `proposed` and `end` (ms, `end` None while running), `result_time` (ms of the
    first final result, or None), `final` (that result), `state`, `customised`, `session` (0, one more after each
    `nnictl resume`) and `last_session` (of a trial that was run again after a crash). Returns None for a tuner not known here.
    A trial that a person added is never chosen, and NNI hides its result from the tuner until a resume.
    """
    first, key = startup_trials(tuner, class_args), key_of(tuner)
    if first is None:
        return None
    if key in TPES:
        tpe_args = (class_args or {}).get("tpe_args") or {}
        liar = tpe_args.get("constant_liar_type", "best") is not None
        size = design(tuner, class_args).size if key in SEEDED else None
        return _chosen_by_tpe(trials, int(tpe_args.get("n_startup_jobs", 20)), liar, size)
    if key in EVOLUTIONS:
        return _chosen_by_evolution(trials, int(first), key in SEEDED)
    if key == OPTUNA:  # its samplers propose as soon as one trial has a result
        return _chosen_by_tpe(trials, 1, liar=False, design_size=design(tuner, class_args).size)
    return [first == 0 and not trial.customised for trial in trials]


def _chosen_by_tpe(trials: Sequence[Any], n_startup: int, liar: bool, design_size: int | None) -> list[bool]:
    """TPE models a parameter once it has `n_startup` records: earlier results, and with the constant
    liar also every trial still running. A trial that ended without a result is forgotten.

    A resume replays the results of trials that had succeeded. Trials that were cut off run again, but the
    new tuner only receives their final results (`msg_dispatcher.py`, `is_created_in_previous_exp`).
    `design_size` is that of the seeded tuner's design, which continues after a resume; None for NNI's own TPE.
    """
    seeded, flags, design_places = design_size is not None, [], {}
    records, session, running, place = 0, 0, [], 0
    for index, trial in enumerate(trials):
        if trial.session != session:
            session = trial.session
            records = sum(_replayed(earlier, session, seeded) for earlier in trials[:index])
            running = [earlier for earlier in trials[:index] if earlier.last_session == session]
            place = _resume_place(design_places, trials, session)
        unfinished = []
        for earlier in running:
            if _has_result(earlier, seeded) and earlier.result_time <= trial.proposed:
                records += 1
            elif earlier.end is None or earlier.end > trial.proposed:
                unfinished.append(earlier)
        running = unfinished
        lies = sum(earlier.session == session for earlier in running) if liar else 0
        designed = place < (design_size or 0)
        flags.append(records + lies >= n_startup and not designed and not trial.customised)
        if not trial.customised:
            running.append(trial)
            if designed:
                design_places[index] = place
                place += 1
    return flags


def _resume_place(places: dict[int, int], trials: Sequence[Any], session: int) -> int:
    """Behind the last trial of the design that has a result or runs again; `places` are those handed out so far."""
    proposed = [
        place
        for index, place in places.items()
        if _replayed(trials[index], session, False) or trials[index].last_session >= session
    ]
    return max(proposed, default=-1) + 1


def _has_result(trial: Any, seeded: bool) -> bool:
    """NNI's own tuners take any number; the seeded ones a finite number alone."""
    return trial.result_time is not None and (not seeded or score(trial.final) is not None)


def _replayed(earlier: Any, session: int, seeded: bool) -> bool:
    has_ended_well = earlier.state in ("SUCCEEDED", "EARLY_STOPPED")
    return earlier.last_session < session and has_ended_well and _has_result(earlier, seeded)


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
    if seeded or trial.state == "EARLY_STOPPED":
        return not _has_result(trial, True)
    return trial.state not in ("SUCCEEDED", "RUNNING", "WAITING")
