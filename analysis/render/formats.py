"""Numbers and names as a person reads them. Percent only here; everywhere else accuracies are fractions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

NONE = "–"
UNBOUNDED = (-math.inf, math.inf)
FEWEST_FREEDOM = 3
"""Degrees of freedom from which on the interval of a mean is shown: those of 4 pairs, or of fewer with a residual pooled over
several arms. With one degree the t interval of two pairs that are a point apart is 13 points wide and may be 1,200."""


@dataclass(frozen=True)
class Unit:
    """How a kind of number is written: `factor` times the number, formatted as `digits`, then `suffix`; a difference of two
    ends in `difference`. `values` and `differences` are the lowest and highest that are possible: no interval is shown beyond
    them."""

    suffix: str = ""
    difference: str = ""
    factor: float = 1
    digits: str = ".1f"
    values: tuple[float, float] = UNBOUNDED
    differences: tuple[float, float] = UNBOUNDED


ACCURACY = Unit(" %", " points", 100, values=(0, 1), differences=(-1, 1))  # a difference is in points, never in percent
SCORE = Unit(digits=".4g")
SECONDS = Unit(" s", " s", values=(0, math.inf))
EPOCHS = Unit("", " epochs", values=(0, math.inf))
LOSS = Unit(digits=".3f", values=(0, math.inf))
CORRELATION = Unit(digits=".2f")


def clipped(interval: Sequence[float], possible: tuple[float, float]) -> tuple[float, float]:
    """The part of the interval that is possible, such as `ACCURACY.differences`."""
    low, high = (min(max(end, possible[0]), possible[1]) for end in interval)
    return low, high


def bounds_mean(row: Mapping[str, Any]) -> bool:
    """Whether the interval of a mean (keys low, high, n and, unless it is n - 1, df) says anything: see `FEWEST_FREEDOM`."""
    return row["low"] is not None and row.get("df", row["n"] - 1) >= FEWEST_FREEDOM


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
    """The possible part of the interval (low, high) of a difference, such as "−1.2 to +0.3 points"; a dash where there is none."""
    if interval is None or interval[0] is None or interval[1] is None:
        return NONE
    low, high = clipped(interval, unit.differences)
    return f"{_signed(low, unit)} to {_signed(high, unit)}{unit.difference}"


def paired_text(row: Mapping[str, Any], p: float | None, unit: Unit = ACCURACY) -> str:
    """A paired difference (keys mean, low, high, n, df, by_seed) with its interval, p value and n. So few pairs that their
    interval says nothing (`bounds_mean`), and equal ones, are shown themselves, without interval and p."""
    mean, n = signed_text(row["mean"], unit), row["n"]
    if bounds_mean(row):
        return f"{mean} ({range_text((row['low'], row['high']), unit)}; p = {p_text(p)}, n = {n})"
    if n == 1:
        return f"{mean} (n = 1 pair, which bounds no mean)"
    if row["low"] is None:
        tested = f", p = {p_text(p)}" if p is not None and p < 0.05 else ""
        return f"{mean} in each of {n} pairs{tested}"
    return f"{mean} ({pairs_text(row, unit)}: {'two' if n == 2 else 'three'} pairs bound no mean)"


def pairs_text(row: Mapping[str, Any], unit: Unit = ACCURACY) -> str:
    """The differences themselves (key by_seed), such as "−1.2, 0.0 and +0.3 points"."""
    return listed([_signed(value, unit) for value in row["by_seed"].values()]) + unit.difference


def p_text(p: float | None) -> str:
    return NONE if p is None else f"{p:.3g}"


def share_text(correct: int, total: int, digits: int = 1) -> str:
    return f"{correct} / {total} ({100 * correct / total:.{digits}f} %)"


def score_text(value: float | None, percent: bool) -> str:
    return number_text(value, unit_of(percent))


def interval_text(interval: Sequence[float] | None, percent: bool = True) -> str:
    """The possible part of the interval of a score, not of a difference."""
    if interval is None:
        return NONE
    unit = unit_of(percent)
    low, high = clipped(interval, unit.values)
    return f"{_number(low, unit)} to {_number(high, unit)}{unit.suffix}"


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
