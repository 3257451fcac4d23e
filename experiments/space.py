"""What NNI's tuners do not check about a search space, and die of in silence.

Schema: https://nni.readthedocs.io/en/stable/hpo/search_space.html (NNI 3.0).
"""

from __future__ import annotations

import math
from typing import Any

# Number of entries of `_value`; the normal ones take (mu, sigma), the others (low, high); q... take a step after them.
TYPES = {
    "choice": None,
    "randint": 2,
    "uniform": 2,
    "quniform": 3,
    "loguniform": 2,
    "qloguniform": 3,
    "normal": 2,
    "qnormal": 3,
    "lognormal": 2,
    "qlognormal": 3,
}


def space_problems(space: Any, fields: dict[str, dict] | None, max_trials: int | None) -> list[str]:
    """One line for each fault that would end or spoil the search; [] for a sound space.

    fields: the trial's fields as `python -m trial --describe` gives them, or None for a foreign trial.
    """
    if not isinstance(space, dict) or not space:
        return ["search space: empty; NNI would run one trial with {} and then wait forever"]
    problems = []
    for name, spec in space.items():
        found = entry_problems(name, spec)
        if not found and fields is not None:
            found = field_problems(name, spec, fields)
        problems += found
    if not problems and max_trials and (size := discrete_size(space)) and size < max_trials:
        problems.append(
            f"search space: {size} different points for {max_trials} trials; NNI would try each once and never end. "
            f"Set maxTrialNumber to {size} or widen the space"
        )
    return problems


def entry_problems(name: str, spec: Any) -> list[str]:
    """Faults of one entry against NNI's schema."""
    if not isinstance(spec, dict) or "_type" not in spec or "_value" not in spec:
        return [f"{name}: expected {{_type: ..., _value: [...]}}, found {spec!r}"]
    kind, value = spec["_type"], spec["_value"]
    if kind not in TYPES:
        return [
            f"{name}: unknown _type {kind!r} (TPE would silently take it for uniform); NNI knows {', '.join(TYPES)}"
        ]
    if not isinstance(value, list):
        return [f"{name}: _value should be a list, found {value!r}"]
    if kind == "choice":
        return _choice_problems(name, value)
    if len(value) != TYPES[kind]:
        return [f"{name}: {kind} takes {TYPES[kind]} numbers, found {value!r}"]
    if wrong := [v for v in value if isinstance(v, bool) or not isinstance(v, (int, float)) or not math.isfinite(v)]:
        hint = "; YAML reads 1e-4 as text: write 0.0001 or 1.0e-4" if isinstance(wrong[0], str) else ""
        return [f"{name}: {wrong[0]!r} in {kind} {value!r} is not a finite number{hint}"]
    return _range_problems(name, kind, value)


def _range_problems(name: str, kind: str, value: list[float]) -> list[str]:
    first, second = value[:2]
    if kind.endswith("normal"):
        problems = [] if second > 0 else [f"{name}: {kind} needs a sigma above 0, found {second}"]
    elif first >= second:
        turned = [second, first, *value[2:]]
        hint = f"write {turned}" if first > second else "the bounds must differ"
        problems = [f"{name}: {kind} {value} has its bounds reversed: the tuner would hang with status RUNNING; {hint}"]
    elif "log" in kind and first <= 0:
        problems = [f"{name}: {kind} needs bounds above 0, found {first}"]
    elif kind == "randint" and not all(float(v).is_integer() for v in value):
        problems = [f"{name}: randint takes whole numbers, found {value}"]
    else:
        problems = []
    if kind.startswith("q") and value[2] <= 0:
        problems.append(f"{name}: {kind} needs a step above 0, found {value[2]}")
    return problems


def _choice_problems(name: str, options: list[Any]) -> list[str]:
    if not options:
        return [f"{name}: choice has no options"]
    if not any(isinstance(option, dict) for option in options):
        texts = [option for option in options if isinstance(option, str) and _is_number(option)]
        return [f"{name}: the option {t!r} is text, not a number; write 0.0001 or 1.0e-4" for t in texts]
    problems = []
    for option in options:
        if not isinstance(option, dict) or "_name" not in option:
            problems.append(f"{name}: an option of a nested choice needs a _name, found {option!r}")
            continue
        for inner, spec in option.items():
            problems += entry_problems(f"{name}.{inner}", spec) if inner != "_name" else []
    return problems


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def field_problems(name: str, spec: dict, fields: dict[str, dict]) -> list[str]:
    """Faults of one sound entry against the trial's field of that name."""
    if name not in fields:
        return [f"{name}: the trial has no such field; it knows {', '.join(fields)}"]
    known, kind, value = fields[name], spec["_type"], spec["_value"]
    if kind == "choice":
        return [problem for option in value for problem in value_problems(name, option, known)]
    if known["type"] == "str":
        return [f"{name}: {kind} gives numbers, the trial expects text; use choice"]
    if known["type"] == "int" and not (
        kind == "randint" or (kind == "quniform" and all(float(v).is_integer() for v in value))
    ):
        return [f"{name}: {kind} gives fractions, the trial expects whole numbers; use choice, randint or quniform"]
    if kind.endswith("normal"):
        return []  # unbounded: the trial refuses what is illegal, trial by trial
    bounds = (value[0], value[1] - 1) if kind == "randint" else value[:2]
    return [problem for bound in bounds for problem in value_problems(name, bound, known)]


def value_problems(name: str, value: Any, known: dict) -> list[str]:
    """Faults of one value against the trial's field `known`."""
    kinds = {"int": int, "float": (int, float), "str": str}[known["type"]]
    if isinstance(value, float) and value.is_integer() and known["type"] == "int":
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, kinds):
        return [f"{name}: {value!r} is {type(value).__name__}, the trial expects {known['type']}"]
    if "choices" in known and value not in known["choices"]:
        return [f"{name}: {value!r}; the trial knows {', '.join(known['choices'])}"]
    if "low" in known and not known["low"] <= value <= known["high"]:
        return [f"{name}: {value!r} is outside what the trial accepts, {known['low']:g} to {known['high']:g}"]
    return []


def discrete_size(space: dict[str, dict]) -> int | None:
    """Number of different points of a space of choices and randints; None where it is not finite or nested."""
    size = 1
    for spec in space.values():
        kind, value = spec["_type"], spec["_value"]
        if kind == "choice" and not any(isinstance(option, dict) for option in value):
            size *= len(value)
        elif kind == "randint":
            size *= int(value[1]) - int(value[0])
        elif kind == "quniform":
            size *= math.floor((value[1] - value[0]) / value[2]) + 1
        else:
            return None
    return size
