"""NNI's search space as Optuna's distributions.

    choice                          categorical; lists and dicts as JSON text
    choice of dicts with `_name`    `layer._name` categorical, and `layer.conv.k` for what belongs to that choice alone
    randint [low, high)             integers low to high - 1
    uniform, loguniform             floats, the latter in logarithms
    quniform                        floats in steps where low and high are multiples of q, else without steps
    qloguniform                     floats in logarithms: Optuna has no steps there
    normal, lognormal, with or      mu plus or minus 6 sigma: Optuna's distributions have bounds, and say nothing of
      without q                     where within them a value is likely

A distribution is widened to hold what trials really had: a person may add trials, and a space may be changed while the
experiment runs. What has no entry in the space (Batch, PBT) is described by its values. NNI's own space goes with the
study as the attribute `nni_search_space`. Source: `nni/common/hpo_utils/formatting.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution


def flat(space: Any, parameters: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Name and value of each parameter, nested ones too."""
    for key, value in parameters.items():
        branches = _branches(space, key)
        name = value.get("_name") if isinstance(value, dict) else None
        if isinstance(name, str) and name in branches:
            yield f"{prefix}{key}._name", name
            rest = {inner: item for inner, item in value.items() if inner != "_name"}
            yield from flat(branches[name], rest, f"{prefix}{key}.{name}.")
        else:
            yield f"{prefix}{key}", json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value


def distributions(space: Any, params: list[dict[str, Any]]) -> dict[str, BaseDistribution]:
    """One for each name that occurs in `params`, the flat parameters of all trials; holds every finite value."""
    values: dict[str, list[Any]] = {}
    for own in params:
        for name, value in own.items():
            if not isinstance(value, float) or math.isfinite(value):
                values.setdefault(name, []).append(value)
    entries = dict(_entries(space))
    return {name: _distribution(entries.get(name), found) for name, found in values.items()}


def _entries(space: Any, prefix: str = "") -> Iterator[tuple[str, tuple[str, list[Any]]]]:
    """Flat name, type and arguments of each entry of the space."""
    for key, entry in (space if isinstance(space, dict) else {}).items():
        if branches := _branches(space, key):
            yield f"{prefix}{key}._name", ("choice", list(branches))
            for name, branch in branches.items():
                yield from _entries(branch, f"{prefix}{key}.{name}.")
        elif isinstance(entry, dict) and isinstance(entry.get("_value"), list):
            yield f"{prefix}{key}", (str(entry.get("_type")), entry["_value"])


def _branches(space: Any, key: str) -> dict[str, dict[str, Any]]:
    """The alternatives of a nested choice by name; none where the entry is no such choice."""
    entry = space.get(key) if isinstance(space, dict) else None
    options = entry.get("_value") if isinstance(entry, dict) and entry.get("_type") == "choice" else None
    if not isinstance(options, list) or not all(
        isinstance(option, dict) and isinstance(option.get("_name"), str) for option in options
    ):
        return {}
    return {option["_name"]: {key: item for key, item in option.items() if key != "_name"} for option in options}


def _distribution(entry: tuple[str, list[Any]] | None, values: list[Any]) -> BaseDistribution:
    kind, arguments = entry or ("", [])
    if kind == "choice":
        options = [
            json.dumps(item, ensure_ascii=False) if isinstance(item, (list, dict)) else item for item in arguments
        ]
        return _categorical(options + values)
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return _categorical(values)
    whole = all(isinstance(value, int) for value in values)
    try:
        low, high, log, step = _range(kind, [float(argument) for argument in arguments])
    except (TypeError, ValueError, OverflowError):
        low, high, log, step = min(values), max(values), False, None
        kind = "randint" if whole else kind
    low, high = min(low, *values), max(high, *values)
    if kind == "randint" and whole:
        return IntDistribution(int(low), int(high))
    if step is not None:
        places = [(value - low) / step for value in values]
        if all(abs(place - round(place)) < 1e-8 for place in places):
            return FloatDistribution(low, high, step=step)
    return FloatDistribution(low, high, log=log and low > 0)


def _range(kind: str, arguments: list[float]) -> tuple[float, float, bool, float | None]:
    """Lowest, highest, logarithmic, step. Raises ValueError for a type or number of arguments not known here."""
    if kind == "randint":
        low, high = arguments
        return math.ceil(low), math.ceil(high) - 1, False, None
    if kind in ("normal", "lognormal", "qnormal", "qlognormal"):
        mu, sigma = arguments[:2]
        low, high = mu - 6 * sigma, mu + 6 * sigma
        return (math.exp(low), math.exp(high), True, None) if "log" in kind else (low, high, False, None)
    if kind not in ("uniform", "loguniform", "quniform", "qloguniform"):
        raise ValueError(kind)
    low, high = arguments[:2]
    step = arguments[2] if kind == "quniform" and _on_grid(*arguments) else None
    return low, high, "log" in kind, step


def _on_grid(low: float, high: float, q: float) -> bool:
    """Are both ends multiples of q, so that Optuna's steps, counted from low, are NNI's, counted from 0?"""
    exact_low, exact_high, exact_q = (Fraction(str(number)) for number in (low, high, q))
    return exact_q > 0 and exact_low % exact_q == 0 and exact_high % exact_q == 0


def _categorical(options: list[Any]) -> CategoricalDistribution:
    """Each option once, in order; 1, 1.0 and True are one option to Optuna."""
    return CategoricalDistribution(list(dict.fromkeys(options)))
