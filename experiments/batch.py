"""NNI's Batch tuner: its search space is one choice whose options are whole sets of hyperparameters, handed out in order."""

from __future__ import annotations

from typing import Any

from experiments.space import value_problems


def is_batch(tuner: str) -> bool:
    """NNI takes any case, and the class name too."""
    return tuner.lower().removesuffix("tuner") == "batch"


def batch_sets(space: Any) -> list[dict] | None:
    """The sets of a batch; None where the space is not one (nni/algorithms/hpo/batch_tuner.py, `_is_valid`)."""
    specs = list(space.values()) if isinstance(space, dict) else []
    if len(specs) != 1 or not isinstance(specs[0], dict) or specs[0].get("_type") != "choice":
        return None
    sets = specs[0].get("_value")
    whole = isinstance(sets, list) and sets and all(isinstance(entry, dict) and entry for entry in sets)
    return sets if whole else None


def batch_problems(space: Any, fields: dict[str, dict] | None, max_trials: int | None) -> list[str]:
    """As `space_problems`, for a batch."""
    sets = batch_sets(space)
    if sets is None:
        return [
            "search space: Batch expects one choice of sets, {combine_params: {_type: choice, _value: [{lr: 0.01}]}}"
        ]
    problems = []
    if max_trials and len(sets) < max_trials:
        problems.append(
            f"search space: {len(sets)} sets for {max_trials} trials; NNI would wait for more forever. Set maxTrialNumber "
            f"to {len(sets)}"
        )
    for index, entry in enumerate(sets, start=1):
        for name, value in entry.items() if fields is not None else ():
            if name not in fields:
                problems.append(f"set {index}: the trial has no field {name}; it knows {', '.join(fields)}")
            else:
                problems += [f"set {index}: {problem}" for problem in value_problems(name, value, fields[name])]
    return problems
