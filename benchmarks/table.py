"""Figures: printed as they are measured, kept in benchmarks/latest.json, shown in docs/performance.md.

python -m benchmarks.table writes what the file holds into the page in place of its tables.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import sys
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.measure import ROOT
from trial.device import Compute

LATEST = ROOT / "benchmarks" / "latest.json"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- figures: python -m benchmarks.table -->", "<!-- end of figures -->"
# Figures of each image size and batch size: {title of their table: what their names begin with}
GRIDS = {
    "efficiency (goal 0.97); a step beside its model": ("pipeline efficiency", "a step beside its model"),
    "the model alone in training": ("the model alone",),
}
CELL = re.compile(rf"({'|'.join(name for names in GRIDS.values() for name in names)}), (\d+) px, batch (\d+)")


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

    def __str__(self) -> str:
        """name  value unit  (n = 5, 1.1 to 1.3)  goal >= 1: met  note"""
        low, high = map(short, self.spread)
        goal = f"  goal {self.goal}: {'met' if self.meets_goal else 'NOT met'}" if self.goal else ""
        note = f"  {self.note}" if self.note else ""
        return f"{self.name:<44} {short(self.value):>8} {self.unit:<9} (n = {self.n}, {low} to {high}){goal}{note}"


@dataclass
class Report:
    """Figures as they are measured: printed at once, written at the end."""

    figures: list[Figure] = field(default_factory=list)

    def add(self, name: str, rounds: list[float], unit: str, goal: str = "", note: str = "") -> None:
        """rounds: one value per round."""
        figure = Figure(name, statistics.median(rounds), unit, len(rounds), (min(rounds), max(rounds)), goal, note)
        self.figures.append(figure)
        print(figure, flush=True)

    def write(self, path: Path, about: dict[str, str]) -> None:
        """{name: {value, unit, n, spread, goal, note, machine}}; figures measured before and not now stay as they are."""
        try:
            earlier = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            earlier = {}
        figures = earlier if isinstance(earlier, dict) else {}
        for figure in self.figures:
            facts = {**asdict(figure), "machine": about}
            figures[facts.pop("name")] = facts
        path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def short(value: float) -> str:
    """Three significant digits."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machine(compute: Compute) -> dict[str, str]:
    return {
        "device": compute.name,
        "processor": processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: version(name) for name in ("torchvision", "nni", "numpy", "pillow")},
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown")
    except OSError:
        return platform.processor() or "unknown"


def main() -> int:
    try:
        figures, machines = read(LATEST)
        page = PAGE.read_text("utf-8")
        if not (marks := re.search(f"{BEGIN}.*{END}", page, re.DOTALL)):
            raise ValueError(f"{PAGE}: expected the marks {BEGIN} and {END}; take the page from the repository")
        tables = f"{BEGIN}\n{markdown(figures, machines)}\n{END}"
        PAGE.write_text(page[: marks.start()] + tables + page[marks.end() :], "utf-8")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{PAGE}: {len(figures)} figures")
    return 0


def read(path: Path) -> tuple[dict[str, Figure], list[str]]:
    """The figures by name, and their machines. Raises ValueError where the file is not one of ours."""
    figures, machines = {}, []
    try:
        for name, facts in json.loads(path.read_text("utf-8")).items():
            machines.append(_in_words(facts.pop("machine")))
            figures[name] = Figure(name, **{**facts, "spread": tuple(facts["spread"])})
    except FileNotFoundError:
        raise ValueError(f"{path}: not there; measure first: make bench") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not what the benchmarks write ({error}); measure again: make bench") from error
    return figures, list(dict.fromkeys(machines))


def _in_words(about: dict[str, str]) -> str:
    """Without the load, which differs from part to part."""
    return ", ".join(value if key == "device" else f"{key} {value}" for key, value in about.items() if key != "load")


def markdown(figures: dict[str, Figure], machines: list[str]) -> str:
    """The machines; tables by image size and batch; and all other figures in the order in which they were measured."""
    lines = [f"Measured on {'; and on '.join(machines)}. Median (range); n counts rounds, seeds or experiments.", ""]
    for title, names in GRIDS.items():
        lines += _grid(figures, title, names)
    lines += ["| figure | median (range) | goal | |", "|---|---|---|---|"]
    rest = [figure for name, figure in figures.items() if not CELL.fullmatch(name)]
    return "\n".join(lines + [f"| {f.name} | {_value(f)} | {_goal(f)} | {f.note} |" for f in rest])


def _grid(figures: dict[str, Figure], title: str, names: tuple[str, ...]) -> list[str]:
    """A row per image size, a column per batch size."""
    cells = [cell.groups() for name in figures if (cell := CELL.fullmatch(name)) and cell[1] in names]
    if not cells:
        return []
    sizes, batches = (sorted({int(cell[part]) for cell in cells}) for part in (1, 2))
    lines = [f"| {title} | {' | '.join(f'batch {batch}' for batch in batches)} |", "|---" * (len(batches) + 1) + "|"]
    for size in sizes:
        row = [[figures.get(f"{name}, {size} px, batch {batch}") for name in names] for batch in batches]
        texts = ["; ".join(_marked(figure) for figure in cell if figure) or "-" for cell in row]
        lines.append(f"| {size} px | {' | '.join(texts)} |")
    return [*lines, ""]


def _marked(figure: Figure) -> str:
    return f"**{_value(figure)} missed**" if figure.meets_goal is False else _value(figure)


def _value(figure: Figure) -> str:
    low, high = map(short, figure.spread)
    spread = f" ({low} to {high})" if figure.n > 1 else ""
    return f"{f'{short(figure.value)} {figure.unit}'.strip()}{spread}, n = {figure.n}"


def _goal(figure: Figure) -> str:
    if not figure.goal:
        return ""
    sign, bound = figure.goal.split()
    limit = "at least" if sign == ">=" else "at most"
    return f"{limit} {bound}: {'met' if figure.meets_goal else '**missed**'}"


if __name__ == "__main__":
    sys.exit(main())
