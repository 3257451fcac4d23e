"""Numbers and names as a person reads them. Percent only here; everywhere else accuracies are fractions."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from ..reading.records import arm_names, is_percent, validation_n  # noqa: F401

NONE = "–"


def score_text(value: float | None, percent: bool) -> str:
    if value is None:
        return NONE
    return f"{100 * value:.1f} %" if percent else f"{value:.4g}"


def spread_text(found: dict[str, Any], factor: float = 1, unit: str = "") -> str:
    """Mean ± standard deviation (n), of what `paired.spread` tells; each number times `factor`, with a unit such as " %"."""
    if found["mean"] is None:
        return NONE
    sd = "" if found["sd"] is None else f" ± {factor * found['sd']:.1f}"
    return f"{factor * found['mean']:.1f}{sd}{unit} (n = {found['n']})"


def interval_text(interval: tuple[float, float] | None, percent: bool = True) -> str:
    if interval is None:
        return NONE
    low, high = interval
    return f"{100 * low:.1f} to {100 * high:.1f} %" if percent else f"{low:.4g} to {high:.4g}"


def difference_text(value: float, percent: bool, signed: bool = False) -> str:
    """A difference of two accuracies is in points, never in percent."""
    sign = "−" if value < 0 and signed else "+" if value > 0 and signed else ""
    return f"{sign}{abs(100 * value):.1f} points" if percent else f"{sign}{abs(value):.4g}"


def optional(value: Any) -> str:
    return NONE if value is None else str(value)


def seconds_text(seconds: float | None) -> str:
    if seconds is None:
        return NONE
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def date_text(ms: int | None) -> str:
    if ms is None:
        return NONE
    return datetime.fromtimestamp(ms / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def value_text(value: Any) -> str:
    """A hyperparameter: five significant digits are enough to read, the exact number is in the tables."""
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, dict):
        return "{" + params_text(value) + "}"
    return str(value)


def params_text(params: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value_text(value)}" for name, value in params.items()) or NONE
