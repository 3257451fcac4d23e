"""Numbers and names as a person reads them. Percent only here; everywhere else accuracies are fractions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

NONE = "–"


@dataclass(frozen=True)
class Unit:
    """How a kind of number is written: `factor` times the number, formatted as `digits`, then `suffix`; a difference of two
    ends in `difference`."""

    suffix: str = ""
    difference: str = ""
    factor: float = 1
    digits: str = ".1f"


ACCURACY = Unit(" %", " points", 100)  # a difference of two accuracies is in points, never in percent
SCORE = Unit(digits=".4g")
SECONDS = Unit(" s", " s")
EPOCHS = Unit("", " epochs")
LOSS = Unit(digits=".3f")
CORRELATION = Unit(digits=".2f")


def unit_of(percent: bool) -> Unit:
    """The unit of a score, which is an accuracy or any number."""
    return ACCURACY if percent else SCORE


def number_text(value: float | None, unit: Unit = ACCURACY) -> str:
    return NONE if value is None else _number(value, unit) + unit.suffix


def spread_text(spread: Mapping[str, Any], unit: Unit = ACCURACY) -> str:
    """Mean ± standard deviation (n) of `stats.paired.spread`."""
    if spread["mean"] is None:
        return NONE
    sd = "" if spread["sd"] is None else f" ± {_number(spread['sd'], unit)}"
    return f"{_number(spread['mean'], unit)}{sd}{unit.suffix} (n = {spread['n']})"


def mean_text(spread: Mapping[str, Any], unit: Unit = ACCURACY) -> str:
    """The same within a sentence: mean (SD, n)."""
    sd = "" if spread["sd"] is None else f"SD {_number(spread['sd'], unit)}, "
    return f"{number_text(spread['mean'], unit)} ({sd}n = {spread['n']})"


def signed_text(value: float | None, unit: Unit = ACCURACY) -> str:
    """A difference with its sign and unit."""
    return NONE if value is None else _signed(value, unit) + unit.difference


def range_text(interval: Sequence[float | None] | None, unit: Unit = ACCURACY) -> str:
    """The interval (low, high) of a difference, such as "−1.2 to +0.3 points"; a dash where there is none."""
    if interval is None or interval[0] is None or interval[1] is None:
        return NONE
    return f"{_signed(interval[0], unit)} to {_signed(interval[1], unit)}{unit.difference}"


def paired_text(row: Mapping[str, Any], p: float | None, unit: Unit = ACCURACY) -> str:
    """A paired difference (keys mean, low, high, n) with its interval, if any, its p value and n."""
    interval = "" if row["low"] is None else f"{range_text((row['low'], row['high']), unit)}; "
    return f"{signed_text(row['mean'], unit)} ({interval}p = {p_text(p)}, n = {row['n']})"


def p_text(p: float | None) -> str:
    return NONE if p is None else f"{p:.3g}"


def share_text(correct: int, total: int, digits: int = 1) -> str:
    return f"{correct} / {total} ({100 * correct / total:.{digits}f} %)"


def score_text(value: float | None, percent: bool) -> str:
    return number_text(value, unit_of(percent))


def interval_text(interval: Sequence[float] | None, percent: bool = True) -> str:
    """The interval of a score, not of a difference."""
    if interval is None:
        return NONE
    unit = unit_of(percent)
    return f"{_number(interval[0], unit)} to {_number(interval[1], unit)}{unit.suffix}"


def difference_text(value: float, percent: bool) -> str:
    """The size of a difference of two scores, without its sign."""
    unit = unit_of(percent)
    return _number(abs(value), unit) + unit.difference


def _number(value: float, unit: Unit) -> str:
    return f"{unit.factor * value:{unit.digits}}"


def _signed(value: float, unit: Unit) -> str:
    sign = "−" if value < 0 else "+" if value > 0 else ""
    return sign + _number(abs(value), unit)


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


def params_text(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value_text(value)}" for name, value in params.items()) or NONE


def listed(parts: Sequence[str]) -> str:
    """ "a, b and c"; "" of none."""
    return " and ".join(part for part in (", ".join(parts[:-1]), *parts[-1:]) if part)
