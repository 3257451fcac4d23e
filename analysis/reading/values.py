"""Values out of NNI's database: plain JSON, never NNI's own loader, which executes what it reads.

NNI's `nni.load` imports and calls whatever a `__symbol__`, `__nni_type__` or `__nni_obj__` names. Here such
an object becomes a text that names its kind, so it can be shown and can do nothing.
"""

from __future__ import annotations

import json
import math
import re
from functools import lru_cache
from typing import Any

_HALF = re.compile("[\ud800-\udfff]")


class Unreadable(ValueError):
    """Text in the database that is not JSON."""


def read_metric(text: str) -> tuple[Any, tuple[str, ...]]:
    """Decodes MetricData.data, a JSON text inside JSON; returns the value and what is wrong with it, as ends of
    sentences. NaN and Infinity, which NNI writes bare, become Python floats."""
    try:
        value = _loads(text)
        if isinstance(value, str):
            value = _loads(value)
    except Unreadable as error:
        return None, (f"is {error}",)
    value, kinds = _disarmed(value, text)
    return value, tuple(f"carries a serialised object ({kind}): not read" for kind in kinds)


def read_event(text: str) -> tuple[Any, list[str]]:
    """Decodes TrialJobEvent.data, which is JSON once; returns the value and the kinds of serialised objects in it."""
    return _disarmed(_loads(text), text)


def score(value: Any) -> float | None:
    """The number of a final or intermediate result: itself or its `default`; None where it is not finite.

    NNI accepts both forms (`nni.utils.extract_scalar_reward`)."""
    if isinstance(value, dict):
        value = value.get("default")
    if isinstance(value, (int, float)) and math.isfinite(value):
        return float(value)
    return None


def flatten(value: Any, prefix: str) -> dict[str, Any]:
    """One flat row: `{prefix}_{key}`; nested dicts join their keys with dots, lists become JSON text,
    and a plain value is `{prefix}_default`. Nested choices of NNI keep their `_name` key:
    `{"layer": {"_name": "conv", "k": 3}}` is `params_layer._name` and `params_layer.k`."""
    if not isinstance(value, dict):
        return {f"{prefix}_default": _cell(value)}
    row: dict[str, Any] = {}
    for key, item in value.items():
        if not isinstance(item, (dict, list)):
            row[f"{prefix}_{key}"] = item
        elif isinstance(item, dict) and item:
            row.update({f"{prefix}_{key}.{inner}": cell for inner, cell in _dotted(item)})
        else:
            row[f"{prefix}_{key}"] = _cell(item)
    return row


def strict_json(value: Any, indent: int | None = None) -> str:
    """JSON that every parser reads: a hyperparameter that is NaN or infinite becomes null."""
    return json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _dotted(value: dict[str, Any]) -> list[tuple[str, Any]]:
    pairs = []
    for key, item in value.items():
        if isinstance(item, dict) and item:
            pairs += [(f"{key}.{inner}", cell) for inner, cell in _dotted(item)]
        else:
            pairs.append((str(key), _cell(item)))
    return pairs


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value


def _loads(text: str) -> Any:
    try:
        return load_json(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise Unreadable(f"not JSON ({error})") from None


def load_json(text: str) -> Any:
    """As json.loads, but half a character (a lone surrogate, which no file and no terminal takes) becomes "\ufffd", and a
    whole number of more than 18 digits a float, as it is in NNI's own JavaScript."""
    value = _decode(text)
    return _encodable(value) if "\\ud" in text or "\\uD" in text else value


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= 18 else float(digits)


_decode = json.JSONDecoder(parse_int=_whole).decode


def _encodable(value: Any) -> Any:
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    return _HALF.sub("\ufffd", value) if isinstance(value, str) else value


def _disarmed(value: Any, text: str) -> tuple[Any, list[str]]:
    if "__" not in text:  # the common case, without a walk over every value
        return _shared_keys(value), []
    kinds: list[str] = []
    return _replace(value, kinds), kinds


def _shared_keys(value: Any) -> Any:
    """The same few keys come with every epoch; one copy of each is enough for a million epochs."""
    return dict(zip(_first_of_equals(tuple(value)), value.values())) if isinstance(value, dict) else value


@lru_cache(maxsize=1024)
def _first_of_equals(keys: tuple[str, ...]) -> tuple[str, ...]:
    return keys


def _replace(value: Any, kinds: list[str]) -> Any:
    """json_tricks and NNI mark every serialised object by a key in double underscores."""
    if isinstance(value, list):
        return [_replace(item, kinds) for item in value]
    if not isinstance(value, dict):
        return value
    marks = [key for key in value if key.startswith("__") and key.endswith("__")]
    if marks:
        kinds.append(marks[0])
        return f"<serialised object {marks[0]}>"
    return {key: _replace(item, kinds) for key, item in value.items()}
