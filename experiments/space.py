"""What NNI's tuners do not check about a search space, and die of without a message.

Schema: https://nni.readthedocs.io/en/stable/hpo/search_space.html (NNI 3.0). A finding names its entry, such as
"model.layers", and has the path to it. `fields` are the trial's as `python -m trial --describe` gives them, None for a trial
that is not this project's.
"""

from __future__ import annotations

import difflib
import math
from typing import Any

from experiments.findings import Finding, KeyPath

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
SPACE: KeyPath = ("searchSpace",)


def space_findings(space: Any, fields: dict[str, dict] | None, max_trials: int | None) -> list[Finding]:
    """Faults that would end or spoil the search; [] for a sound space."""
    if not isinstance(space, dict) or not space:
        return [_space_error("empty", "empty; NNI would run one trial with {} and then wait forever")]
    findings = []
    for name, spec in space.items():
        faults = _entry_findings((*SPACE, name), spec)
        if not faults and fields is not None:
            faults = _field_findings((*SPACE, name), spec, fields)
        findings += faults
    if not findings and max_trials and (size := discrete_size(space)) and size < max_trials:
        text = f"{size} different points for {max_trials} trials; NNI would try each once and never end. "
        findings.append(_space_error("too_small", f"{text}Set maxTrialNumber to {size} or widen the space"))
    return findings


def searched_values(space: Any, tuner: str = "") -> dict[str, list]:
    """{field: all options of a choice, or the bounds of a range}; faulty and nested entries are left to `space_findings`. Of a batch,
    all values of its sets."""
    if is_batch(tuner):
        return _batch_values(batch_sets(space) or [])
    sound = {name: spec for name, spec in space.items() if not _entry_findings((name,), spec)} if space else {}
    return {
        name: spec["_value"] if spec["_type"] == "choice" else spec["_value"][:2]
        for name, spec in sound.items()
        if not spec["_type"].endswith("normal") and not any(isinstance(value, dict) for value in spec["_value"])
    }


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


def is_batch(tuner: str) -> bool:
    """NNI's Batch tuner: its space is one choice whose options are whole sets of hyperparameters, handed out in order.

    NNI takes any case, and the class name too.
    """
    return tuner.lower().removesuffix("tuner") == "batch"


def batch_sets(space: Any) -> list[dict] | None:
    """The sets of a batch; None where the space is not one (nni/algorithms/hpo/batch_tuner.py, `_is_valid`)."""
    specs = list(space.values()) if isinstance(space, dict) else []
    if len(specs) != 1 or not isinstance(specs[0], dict) or specs[0].get("_type") != "choice":
        return None
    sets = specs[0].get("_value")
    whole = isinstance(sets, list) and sets and all(isinstance(entry, dict) and entry for entry in sets)
    return sets if whole else None


def _batch_values(sets: list[dict]) -> dict[str, list]:
    values: dict[str, list] = {}
    for name, value in (item for entry in sets for item in entry.items()):
        if value not in values.setdefault(name, []):
            values[name].append(value)
    return values


def batch_findings(space: Any, fields: dict[str, dict] | None, max_trials: int | None) -> list[Finding]:
    """As `space_findings`, for a batch."""
    sets = batch_sets(space)
    if sets is None:
        example = "{combine_params: {_type: choice, _value: [{lr: 0.01}]}}"
        return [_space_error("batch_form", f"Batch expects one choice of sets, {example}")]
    findings = []
    if max_trials and len(sets) < max_trials:
        text = f"{len(sets)} sets for {max_trials} trials; NNI would wait for more forever. "
        findings.append(_space_error("too_small", f"{text}Set maxTrialNumber to {len(sets)}"))
    for index, entry in enumerate(sets):
        for name, value in entry.items() if fields is not None else ():
            path = (*SPACE, *space, "_value", index, name)
            label = f"set {index + 1}: "
            findings += _known(path, fields, label) or _value_findings(path, value, fields[name], label)
    return findings


def _space_error(key: str, text: str) -> Finding:
    return Finding("error", f"space.{key}", f"search space: {text}", path=SPACE)


def _error(path: KeyPath, key: str, text: str, label: str = "") -> Finding:
    """About an entry or an option of it, which the text begins with."""
    names = [str(part) for part in path if isinstance(part, str) and part not in ("_type", "_value", *SPACE)]
    return Finding("error", f"space.{key}", f"{label}{'.'.join(names[-1:] if label else names)}: {text}", path=path)


def _entry_findings(path: KeyPath, spec: Any) -> list[Finding]:
    """Faults of one entry against NNI's schema."""
    if not isinstance(spec, dict) or "_type" not in spec or "_value" not in spec:
        return [_error(path, "entry_form", f"expected {{_type: ..., _value: [...]}}, found {spec!r}")]
    kind, value = spec["_type"], spec["_value"]
    if kind not in TYPES:
        text = f"unknown _type {kind!r} (TPE would silently take it for uniform); NNI knows {', '.join(TYPES)}"
        return [_error((*path, "_type"), "unknown_type", text)]
    if not isinstance(value, list):
        return [_error(path, "value_form", f"_value should be a list, found {value!r}")]
    if kind == "choice":
        return _choice_findings(path, value)
    if len(value) != TYPES[kind]:
        return [_error(path, "value_count", f"{kind} takes {TYPES[kind]} numbers, found {value!r}")]
    if wrong := [v for v in value if isinstance(v, bool) or not isinstance(v, (int, float)) or not math.isfinite(v)]:
        hint = "; YAML reads 1e-4 as text: write 0.0001 or 1.0e-4" if isinstance(wrong[0], str) else ""
        return [_error(path, "not_finite", f"{wrong[0]!r} in {kind} {value!r} is not a finite number{hint}")]
    return _range_findings(path, kind, value)


def _range_findings(path: KeyPath, kind: str, value: list[float]) -> list[Finding]:
    first, second = value[:2]
    findings = []
    if kind.endswith("normal"):
        if second <= 0:
            findings.append(_error(path, "sigma", f"{kind} needs a sigma above 0, found {second}"))
    elif first >= second:
        hint = f"write {[second, first, *value[2:]]}" if first > second else "the bounds must differ"
        text = f"{kind} {value} has its bounds reversed: the tuner would hang with status RUNNING; {hint}"
        findings.append(_error(path, "bounds_reversed", text))
    elif "log" in kind and first <= 0:
        findings.append(_error(path, "log_of_zero", f"{kind} needs bounds above 0, found {first}"))
    elif kind == "randint" and not all(float(v).is_integer() for v in value):
        findings.append(_error(path, "randint_fraction", f"randint takes whole numbers, found {value}"))
    if kind.startswith("q") and value[2] <= 0:
        findings.append(_error(path, "step", f"{kind} needs a step above 0, found {value[2]}"))
    return findings


def _choice_findings(path: KeyPath, options: list[Any]) -> list[Finding]:
    if not options:
        return [_error(path, "no_options", "choice has no options")]
    findings = []
    is_nested = any(isinstance(option, dict) for option in options)
    for index, option in enumerate(options):
        place = (*path, "_value", index)
        if not is_nested:
            if isinstance(option, str) and _is_number(option):
                text = f"the option {option!r} is text, not a number; write 0.0001 or 1.0e-4"
                findings.append(_error(place, "number_as_text", text))
        elif not isinstance(option, dict) or "_name" not in option:
            findings.append(_error(place, "no_name", f"an option of a nested choice needs a _name, found {option!r}"))
        else:
            for inner, spec in option.items():
                findings += _entry_findings((*place, inner), spec) if inner != "_name" else []
    return findings


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _known(path: KeyPath, fields: dict[str, dict], label: str = "") -> list[Finding]:
    if path[-1] in fields:
        return []
    return [_error(path, "unknown_field", f"the trial has no such field; it knows {', '.join(fields)}", label)]


def _field_findings(path: KeyPath, spec: dict, fields: dict[str, dict]) -> list[Finding]:
    """Faults of one sound entry against the trial's field of that name."""
    if unknown := _known(path, fields):
        return unknown
    field, kind, value = fields[path[-1]], spec["_type"], spec["_value"]
    if kind == "choice":
        return [f for i, option in enumerate(value) for f in _value_findings((*path, "_value", i), option, field)]
    if field["type"] == "str":
        return [_error(path, "number_for_text", f"{kind} gives numbers, the trial expects text; use choice")]
    is_whole = kind == "randint" or (kind == "quniform" and all(float(v).is_integer() for v in value))
    if field["type"] == "int" and not is_whole:
        text = f"{kind} gives fractions, the trial expects whole numbers; use choice, randint or quniform"
        return [_error(path, "fraction_for_whole", text)]
    if kind.endswith("normal"):
        return []  # unbounded: the trial refuses what is illegal, trial by trial
    bounds = (value[0], value[1] - 1) if kind == "randint" else value[:2]
    return [finding for bound in bounds for finding in _value_findings(path, bound, field)]


def _value_findings(path: KeyPath, value: Any, field: dict, label: str = "") -> list[Finding]:
    """Faults of one value against the trial's field."""
    kinds = {"int": int, "float": (int, float), "str": str}[field["type"]]
    if isinstance(value, float) and value.is_integer() and field["type"] == "int":
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, kinds):
        text = f"{value!r} is {type(value).__name__}, the trial expects {field['type']}"
        return [_error(path, "value_type", text, label)]
    if "choices" in field and value not in field["choices"]:
        names = field["choices"]
        near = names if len(names) <= 8 else difflib.get_close_matches(value, names, n=4, cutoff=0.4) or names
        return [_error(path, "value_unknown", f"{value!r}; the trial knows {', '.join(near)}", label)]
    if "low" in field and not field["low"] <= value <= field["high"]:
        text = f"{value!r} is outside what the trial accepts, {field['low']:g} to {field['high']:g}"
        return [_error(path, "value_out_of_range", text, label)]
    return []
