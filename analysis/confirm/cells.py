"""What a confirmation retrains: the top configurations of each search and the default, each with the same fresh seeds.

A cell is one configuration under one seed, and one trial of the confirming experiment.
"""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Sequence
from typing import Any

from ..reading.locate import AnalysisError
from ..reading.records import Experiment, Trial, validation_n
from ..reading.replication import Configuration, key_of, typed
from ..stats.best_of_n import optimism_of

DEFAULT = "default"


def choose_configurations(
    experiments: Sequence[Experiment], top: int, fields: dict[str, dict[str, Any]]
) -> tuple[list[Configuration], list[str]]:
    """The distinct configurations among the `top` of each search by validation accuracy, then the default; and notes.

    Trials without a result are never among them. `fields`: the trial's own, {name: {type, default, ...}}.
    """
    names = list(dict.fromkeys(name for e in experiments for name in (e.config.get("searchSpace") or {})))
    names = [name for name in names if name != "seed"]
    default = {name: fields[name]["default"] for name in names}
    promises: dict[str, list[dict[str, Any]]] = {}
    notes: list[str] = []
    for experiment in experiments:
        ranked = _ranked(experiment, default, fields)
        if len(ranked) < top:
            notes.append(f"--top {top}: {experiment.id} has only {len(ranked)} different configurations with a result")
        for rank, (key, trial) in enumerate(list(ranked.items())[:top], start=1):
            promise = {"experiment": experiment.id, "trial": trial.trial_id, "rank": rank, "val_accuracy": trial.score}
            promises.setdefault(key, []).append(promise)
    default_key = key_of(typed(default, fields))
    if default_key in promises:
        notes.append("the default is itself among the top configurations: it is trained once")
    chosen = [key for key in promises if key != default_key]
    if not chosen:
        raise AnalysisError("nothing to confirm: no search has a configuration with a result other than the default")
    shared = [key for key in chosen if len(promises[key]) > 1]
    if shared:
        notes.append(f"{len(shared)} of the configurations were found by several searches: each is trained once")
    found = [_configuration(key, promises[key], len(experiments) > 1) for key in chosen]
    return [*found, Configuration(DEFAULT, json.loads(default_key), tuple(promises.get(default_key, ())))], notes


def _configuration(key: str, promises: list[dict[str, Any]], several: bool) -> Configuration:
    """Its name: the rank in the search that found it first, with that search's id where there are several."""
    first = promises[0]
    name = f"{first['experiment']} rank {first['rank']}" if several else f"rank {first['rank']}"
    return Configuration(name, json.loads(key), tuple(promises))


def _ranked(experiment: Experiment, default: dict[str, Any], fields: dict[str, dict[str, Any]]) -> dict[str, Trial]:
    """Configuration (as `key_of`) to its best trial, best first, the earlier among equals; only trials with a result."""
    scored = [trial for trial in experiment.trials if trial.score is not None]
    found: dict[str, Trial] = {}
    for trial in sorted(scored, key=lambda trial: -trial.score):
        searched = {name: trial.parameters[name] for name in default if name in trial.parameters}
        found.setdefault(key_of(typed({**default, **searched}, fields)), trial)
    return found


def fresh_seeds(experiments: Sequence[Experiment], count: int, fixed: Sequence[int]) -> list[int]:
    """The smallest seeds above 0 that no trial used; `fixed`, one an experiment, is that of its trials that do not say."""
    used = {trial.effective.get("seed", seed) for e, seed in zip(experiments, fixed) for trial in e.trials}
    return list(itertools.islice((seed for seed in itertools.count(1) if seed not in used), count))


def search_facts(experiment: Experiment) -> dict[str, Any]:
    """What is kept of a search, for the page: its size, and the optimism that was to be expected of its best."""
    expected = optimism_of(experiment)
    images = [n for trial in experiment.trials if (n := validation_n(trial)) is not None]
    durations = [trial.duration_s for trial in experiment.trials if trial.score is not None and trial.duration_s]
    return {
        "id": experiment.id,
        "name": experiment.name,
        "trials": len(experiment.trials),
        "with_result": sum(trial.score is not None for trial in experiment.trials),
        "validation_n": images[0] if images else None,
        "expected_optimism": None if expected is None else expected.bias,
        "median_trial_s": statistics.median(durations) if durations else None,
    }
