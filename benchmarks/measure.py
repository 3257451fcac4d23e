"""How figures are measured here: alternating, in one run, as ratios, with n and spread.

On a shared machine single times drift by a factor of two within a minute. Two ways that take turns every few seconds
drift together, so each round's ratio is kept and the median of the rounds reported.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from trial.device import Compute


@dataclass(frozen=True)
class Figure:
    """One line of the table: the median of n rounds, and the lowest and highest round."""

    name: str
    value: float
    unit: str
    n: int
    spread: tuple[float, float]
    goal: str = ""  # such as ">= 0.97"; empty where the figure only explains another
    note: str = ""

    @property
    def meets_goal(self) -> bool | None:
        """None where there is no goal."""
        if not self.goal:
            return None
        sign, bound = self.goal.split()
        return self.value >= float(bound) if sign == ">=" else self.value <= float(bound)


@dataclass
class Report:
    """Figures as they are measured: printed at once, written at the end."""

    figures: list[Figure] = field(default_factory=list)

    def add(self, name: str, rounds: list[float], unit: str, goal: str = "", note: str = "") -> None:
        """rounds: one value a round."""
        figure = Figure(name, statistics.median(rounds), unit, len(rounds), (min(rounds), max(rounds)), goal, note)
        self.figures.append(figure)
        print(line(figure), flush=True)

    def write(self, path: Path, machine: dict[str, str]) -> None:
        """{name: {value, unit, n, spread, goal, note, machine}}; figures measured before and not now stay as they are."""
        try:
            written = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            written = {}
        figures = written if isinstance(written, dict) else {}
        for figure in self.figures:
            facts = {**asdict(figure), "machine": machine}
            figures[facts.pop("name")] = facts
        path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def line(figure: Figure) -> str:
    """name  value unit  (n = 5, 1.1 to 1.3)  goal >= 1: met"""
    low, high = (short(value) for value in figure.spread)
    text = f"{figure.name:<44} {short(figure.value):>8} {figure.unit:<9} (n = {figure.n}, {low} to {high})"
    if figure.goal:
        text += f"  goal {figure.goal}: {'met' if figure.meets_goal else 'NOT met'}"
    return text + (f"  {figure.note}" if figure.note else "")


def short(value: float) -> str:
    """Three digits that count."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def alternate(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Each way once a round, the order turned round every time; the values by name. One round before is not counted."""
    values: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        order = list(ways) if number % 2 else list(reversed(ways))
        for name in order:
            value = ways[name]()
            if number:
                values[name].append(value)
    return values


def wait_for(compute: Compute) -> None:
    """Until a GPU has done what it was given; a CPU has."""
    if compute.device.type == "cuda":
        torch.cuda.synchronize(compute.device)


def ratios(above: list[float], below: list[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]
