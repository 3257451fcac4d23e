"""What the tuners share: the first trials that an experiment file asks for, and what NNI tells a resumed tuner.

NNI 3.0's own sampler and formats are used, and SciPy's Sobol points. NNI's dispatcher puts this folder on its import path, so
the names of these modules are ones that no installed package has.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import nni
import numpy as np
from nni.algorithms.hpo.random_tuner import RandomTuner
from nni.common.hpo_utils import Deduplicator, deformat_parameters, format_parameters, format_search_space
from scipy.stats import norm, qmc

Parameters = dict[str, Any]
DESIGNS = ("random", "sobol")
_TAIL = 1e-4  # of a normal distribution's share, beyond each end of its axis


@dataclass(frozen=True)
class FirstTrials:
    """What an experiment file says about them: `first`, known-good trials; then `initial` more by `design`."""

    first: list[Parameters]
    initial: int
    seed: int
    design: str

    @property
    def size(self) -> int:
        return len(self.first) + self.initial


def checked_first_trials(first: Any, initial: Any, initial_seed: Any, design: Any) -> FirstTrials:
    """Raises ValueError in one line."""
    for name, value in (("initial", initial), ("initial_seed", initial_seed)):
        _check_whole(name, value)
    if not isinstance(first, (list, tuple)) or not all(isinstance(entry, dict) for entry in first):
        raise ValueError(f"first should be a list of trials such as [{{lr: 0.001}}], found {first!r}")
    if design not in DESIGNS:
        raise ValueError(f"initial_design should be {' or '.join(DESIGNS)}, found {design!r}")
    return FirstTrials(list(first), initial, initial_seed, design)


def checked_seed(seed: Any) -> int:
    """A seed sampled at random where it is None. Raises ValueError in one line."""
    if seed is None:
        return int(np.random.default_rng().integers(2**31))
    _check_whole("seed", seed)
    return seed


def _check_whole(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32:
        raise ValueError(f"{name} should be a whole number from 0, found {value!r}")


def make_design(space: dict[str, Any], plan: FirstTrials) -> list[Parameters]:
    """`plan.first`, then the initial trials: the same for every tuner that asks.

    "random": samples of NNI's own Random tuner of that seed. "sobol": the points of a scrambled Sobol sequence of that seed
    (Owen 1998), which are spread evenly over every axis and every pair of axes, where independent samples leave gaps.
    Raises ValueError where `first` is no point of the space, or the space has fewer points than requested.
    """
    for entry in plan.first:
        try:
            place(space, entry)
        except ValueError as error:
            raise ValueError(f"first: {error}") from None
    try:
        return [*plan.first, *(_sobol_trials if plan.design == "sobol" else _random_trials)(space, plan)]
    except nni.NoMoreTrialError:
        raise ValueError(f"initial: {plan.initial} trials, but the search space has fewer different points") from None


def _random_trials(space: dict[str, Any], plan: FirstTrials) -> list[Parameters]:
    sampler = RandomTuner(seed=plan.seed)
    sampler.update_search_space(space)
    for entry in plan.first:
        sampler.dedup.add_history(format_parameters(entry, sampler.space))
    return [sampler.generate_parameters() for _ in range(plan.initial)]


def _sobol_trials(space: dict[str, Any], plan: FirstTrials) -> Iterator[Parameters]:
    specs = format_search_space(space)
    sequence = qmc.Sobol(len(specs), scramble=True, seed=np.random.default_rng(plan.seed))
    points = sequence.random_base2(max(plan.initial - 1, 0).bit_length())[: plan.initial]
    without_repeats = Deduplicator(specs)
    for entry in plan.first:
        without_repeats.add_history(format_parameters(entry, specs))
    for point in points:
        formatted: dict[Any, Any] = {}
        for (key, spec), unit in zip(specs.items(), point, strict=True):
            if spec.is_activated_in(formatted):
                formatted[key] = from_unit(spec, unit)
        yield deformat_parameters(without_repeats(formatted), specs)


def from_unit(spec: Any, unit: float) -> int | float:
    """NNI's internal number (`nni.common.hpo_utils.ParameterSpec`) at `unit`, 0 to 1 on the scale of the entry's type."""
    if spec.categorical:
        return min(int(unit * spec.size), spec.size - 1)
    if spec.normal_distributed:
        return spec.mu + spec.sigma * float(norm.ppf(min(max(unit, _TAIL), 1 - _TAIL)))
    return spec.low + float(unit) * (spec.high - spec.low)


def to_unit(spec: Any, number: float) -> float:
    """The inverse of `from_unit`, of an entry that is no choice or randint."""
    if spec.normal_distributed:
        return float(norm.cdf((number - spec.mu) / spec.sigma))
    return min(max((number - spec.low) / (spec.high - spec.low), 0.0), 1.0) if spec.high > spec.low else 0.5


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
