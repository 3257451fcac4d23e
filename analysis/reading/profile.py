"""An experiment's profile as NNI stores it, held to its types before anything relies on them.

NNI checks them when an experiment is created (`nni/experiment/config/`), so a wrong one means a damaged file.
"""

from __future__ import annotations

import math
from typing import Any

from . import startup
from .locate import AnalysisError
from .rows import is_time

_FIELDS = {
    "experimentName": str,
    "searchSpace": dict,
    "trialCommand": str,
    "trialCodeDirectory": str,
    "trialConcurrency": int,
    "maxTrialNumber": int,
    "tuner": dict,
    "advisor": dict,
}
_TUNER = {"name": str, "className": str, "classArgs": dict}
_WORDS = {str: "a text", int: "a whole number", dict: "an object", list: "a list", float: "a number"}


def check_profile(profile: dict[str, Any]) -> None:
    """`profile`: the row of ExperimentProfile, its `params` decoded. Raises AnalysisError naming the field; a field that
    is absent or null is left to the reader."""
    name, params = profile.get("id"), profile["params"]
    if not isinstance(name, str) or not name:
        raise AnalysisError(f"the experiment's profile has the id {_short(name)}, expected a text: it is damaged")
    if not isinstance(params, dict):
        _check(name, "", {"params": params}, {"params": dict})
        raise AnalysisError(f"experiment {name}: the profile in its database is empty: it is damaged")
    if profile["startTime"] is not None and not is_time(profile["startTime"]):
        raise AnalysisError(f"experiment {name}: it started at {_short(profile['startTime'])}, which is no time in ms")
    _check(name, "", params, _FIELDS)
    for key in ("tuner", "advisor"):
        tuner = params.get(key) or {}
        _check(name, f"{key}.", tuner, _TUNER)
        _check_arguments(name, f"{key}.classArgs.", tuner)


def _check_arguments(name: str, place: str, tuner: dict[str, Any]) -> None:
    """Those that `startup` counts by; another tuner's may be anything."""
    kind = startup.key_of(str(tuner.get("name") or tuner.get("className") or ""))
    arguments = tuner.get("classArgs") or {}
    if kind in startup.SEEDED:
        _check(name, place, arguments, {"first": list, "initial": float, "initial_seed": float})
    if kind in startup.TPES:
        _check(name, place, arguments, {"tpe_args": dict})
        _check(name, f"{place}tpe_args.", arguments.get("tpe_args") or {}, {"n_startup_jobs": float})
    if kind in startup.EVOLUTIONS:
        _check(name, place, arguments, {"population_size": float})


def _check(name: str, place: str, found: dict[str, Any], types: dict[str, type]) -> None:
    for key, kind in types.items():
        value = found.get(key)
        accepted = (int, float) if kind is float else kind
        odd = isinstance(value, bool) or not isinstance(value, accepted)
        if value is not None and (odd or (isinstance(value, float) and not math.isfinite(value))):
            raise AnalysisError(
                f"experiment {name}: the profile in its database has {place}{key} = {_short(value)}, expected "
                f"{_WORDS[kind]}: it is damaged, or not NNI 3.0's"
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
