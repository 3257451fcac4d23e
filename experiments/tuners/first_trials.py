"""What both tuners share: the first trials that an experiment file asks for, and what NNI tells a resumed tuner.

Only NNI 3.0's own sampler and formats are used. NNI's dispatcher puts this folder on its import path, so the names of
these modules are ones that no installed package has.
"""

from __future__ import annotations

import math
import time
from typing import Any

import nni
import numpy as np
from nni.algorithms.hpo.random_tuner import RandomTuner
from nni.common.hpo_utils import format_parameters

Parameters = dict[str, Any]


def checked_arguments(seed: Any, first: Any, initial: Any, initial_seed: Any) -> tuple[int, list[Parameters]]:
    """The seed (drawn where it is None) and the list of known-good first trials. Raises ValueError in one line."""
    for name, value in (("seed", seed), ("initial", initial), ("initial_seed", initial_seed)):
        wrong = isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32
        if wrong and not (name == "seed" and value is None):
            raise ValueError(f"{name} should be a whole number from 0, found {value!r}")
    if not isinstance(first, (list, tuple)) or not all(isinstance(entry, dict) for entry in first):
        raise ValueError(f"first should be a list of trials such as [{{lr: 0.001}}], found {first!r}")
    return int(np.random.default_rng().integers(2**31)) if seed is None else seed, list(first)


def make_design(space: dict[str, Any], first: list[Parameters], initial: int, initial_seed: int) -> list[Parameters]:
    """`first`, then `initial` draws of NNI's own Random tuner of that seed: the same for every tuner that asks.

    Raises ValueError where `first` is no point of the space, or the space has fewer points than requested.
    """
    sampler = RandomTuner(seed=initial_seed)
    sampler.update_search_space(space)
    for entry in first:
        try:
            place(space, entry)
        except ValueError as error:
            raise ValueError(f"first: {error}") from None
        sampler.dedup.add_history(format_parameters(entry, sampler.space))
    try:
        return [*first, *(sampler.generate_parameters() for _ in range(initial))]
    except nni.NoMoreTrialError:
        raise ValueError(f"initial: {initial} trials, but the search space has fewer different points") from None


def place(space: dict[str, Any], parameters: Any) -> dict[str, Any]:
    """`parameters` in NNI's internal form, `{_index, _value}` for each choice, as `nni.utils.json2parameter` makes it.

    Raises ValueError, naming the entry, where they are no point of the space.
    """
    if not isinstance(parameters, dict):
        raise ValueError(f"expected a value for each of {', '.join(space)}, found {parameters!r}")
    if unknown := [name for name in parameters if name not in space]:
        raise ValueError(f"{unknown[0]} is not searched; the search space has {', '.join(space)}")
    if missing := [name for name in space if name not in parameters]:
        raise ValueError(f"no value for {', '.join(missing)}")
    return {name: _place_entry(name, spec, parameters[name]) for name, spec in space.items()}


def _place_entry(name: str, spec: dict[str, Any], value: Any) -> Any:
    kind, bounds = spec["_type"], spec["_value"]
    if kind == "choice":
        return _place_choice(name, bounds, value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name}: {value!r} is not a finite number")
    if kind.endswith("normal"):
        inside = value > 0 or "log" not in kind
    elif kind == "randint":
        inside = bounds[0] <= value < bounds[1] and float(value).is_integer()
    else:
        slack = 1e-9 * max(abs(bounds[0]), abs(bounds[1]))  # exp(log(high)) may lie a rounding above high
        inside = bounds[0] - slack <= value <= bounds[1] + slack
    if not inside:
        raise ValueError(f"{name}: {value!r} is outside the search space, {kind} {bounds}")
    return value


def _place_choice(name: str, options: list[Any], value: Any) -> dict[str, Any]:
    for index, option in enumerate(options):
        if isinstance(option, dict) and isinstance(value, dict) and value.get("_name") == option.get("_name"):
            inner = {key: spec for key, spec in option.items() if key != "_name"}
            placed = place(inner, {key: entry for key, entry in value.items() if key != "_name"})
            return {"_index": index, "_value": {"_name": option["_name"], **placed}}
        if not isinstance(option, dict) and option == value and isinstance(option, bool) == isinstance(value, bool):
            return {"_index": index, "_value": option}
    raise ValueError(f"{name}: {value!r} is outside the search space, choice {options}")


def reward_of(value: Any) -> float | None:
    """The number of a final result, or of its `default`; None where it is none or not finite."""
    if isinstance(value, dict):
        value = value.get("default")
    if not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number beyond any float
        return None


def in_flight(request: dict[str, Any]) -> list[Parameters]:
    """Parameters of the trials that NNI runs again after a crash.

    NNI's dispatcher keeps them (`Recoverable.recovered_trial_params`) and tells no tuner; the callback that it hands
    over with each request is a method of its own.
    """
    dispatcher = getattr(request.get("st_callback"), "__self__", None)
    return list(getattr(dispatcher, "recovered_trial_params", {}).values())


def wait_for_ends(request: dict[str, Any]) -> None:
    """Let the ends of trials through that NNI reported before it requested the next trial.

    Its dispatcher has a thread for each; without this, a failed trial would leave it to chance what the same seed
    proposes next.
    """
    dispatcher = getattr(request.get("st_callback"), "__self__", None)
    ends = getattr(dispatcher, "assessor_command_queue", None)
    if ends is None:
        return
    deadline = time.monotonic() + 1
    while not ends.empty() and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.02)  # the other thread may have taken the end and not yet the tuner's lock


def resume_position(design: list[Parameters], history: list[Parameters]) -> int:
    """Where a design continues: behind the last of its trials among `history`, those that have a result or run again.

    Trials of the design that failed are not among them; they come again only where none after them was tried.
    """
    rest, position = list(history), 0
    for index, entry in enumerate(design, start=1):
        if entry in rest:
            rest.remove(entry)
            position = index
    return position
