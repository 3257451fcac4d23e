"""python -m benchmarks.table: what benchmarks/latest.json holds, written into docs/performance.md in place of its tables."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks.measure import Figure, short
from benchmarks.setting import ROOT

LATEST = ROOT / "benchmarks" / "latest.json"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- figures: python -m benchmarks.table -->", "<!-- end of figures -->"
GRIDS = {
    "efficiency (goal 0.97); a step beside its model": ("pipeline efficiency", "a step beside its model"),
    "the model alone in training": ("the model alone",),
}
CELL = re.compile(rf"(?:{'|'.join(name for names in GRIDS.values() for name in names)}), (\d+) px, batch (\d+)")


def main() -> int:
    try:
        figures = read(LATEST)
        page = PAGE.read_text("utf-8")
        PAGE.write_text(replaced(page, markdown(figures)), "utf-8")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{PAGE}: {len(figures)} figures")
    return 0


def read(path: Path) -> list[tuple[Figure, dict[str, str]]]:
    """Figures with their machine. Raises ValueError where the file is not one of ours."""
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return [(_figure(name, dict(facts)), facts["machine"]) for name, facts in content.items()]
    except FileNotFoundError:
        raise ValueError(f"{path}: not there; measure first: make bench") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not what the benchmarks write ({error}); measure again: make bench") from error


def _figure(name: str, facts: dict[str, Any]) -> Figure:
    del facts["machine"]
    return Figure(name, **{**facts, "spread": tuple(facts["spread"])})


def replaced(page: str, tables: str) -> str:
    """The page with these tables between its marks. Raises ValueError where it has none."""
    if not re.search(f"{BEGIN}.*{END}", page, re.DOTALL):
        raise ValueError(f"{PAGE}: expected the marks {BEGIN} and {END}; take the page from the repository")
    return re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n{tables}\n{END}", page, flags=re.DOTALL)


def markdown(figures: list[tuple[Figure, dict[str, str]]]) -> str:
    """The machines, what was measured by size and batch as tables of these, and all other figures in the order measured."""
    machines = list(dict.fromkeys(_machine(machine) for _, machine in figures))
    known = {figure.name: figure for figure, _ in figures}
    rest = [figure for figure in known.values() if not CELL.fullmatch(figure.name)]
    lines = [f"Measured on {'; and on '.join(machines)}. Median (range); n counts rounds, seeds or experiments.", ""]
    for title, names in GRIDS.items():
        lines += _grid(known, title, names)
    lines += ["| figure | median (range) | goal | |", "|---|---|---|---|"]
    lines += [f"| {figure.name} | {_value(figure)} | {_goal(figure)} | {figure.note} |" for figure in rest]
    return "\n".join(lines)


def _machine(machine: dict[str, str]) -> str:
    """Without the load, which differs from part to part."""
    return ", ".join(value if key == "device" else f"{key} {value}" for key, value in machine.items() if key != "load")


def _grid(known: dict[str, Figure], title: str, names: tuple[str, ...]) -> list[str]:
    cells = [
        tuple(map(int, found.groups())) for name in known if name.startswith(names) and (found := CELL.fullmatch(name))
    ]
    if not cells:
        return []
    sizes, batches = (sorted(set(values)) for values in zip(*cells))
    heads = " | ".join(f"batch {batch}" for batch in batches)
    lines = [f"| {title} | {heads} |", f"|{'---|' * (len(batches) + 1)}"]
    for size in sizes:
        cell = " | ".join(_cell(known, names, size, batch) for batch in batches)
        lines.append(f"| {size} px | {cell} |")
    return [*lines, ""]


def _cell(known: dict[str, Figure], names: tuple[str, ...], size: int, batch: int) -> str:
    figures = [known.get(f"{name}, {size} px, batch {batch}") for name in names]
    told = [f"{'**' if figure.meets_goal is False else ''}{_value(figure)}" for figure in figures if figure]
    return "; ".join(f"{text}{' missed**' if text.startswith('**') else ''}" for text in told) or "-"


def _value(figure: Figure) -> str:
    low, high = (short(value) for value in figure.spread)
    text = f"{short(figure.value)} {figure.unit}".strip()
    return f"{text}{f' ({low} to {high})' if figure.n > 1 else ''}, n = {figure.n}"


def _goal(figure: Figure) -> str:
    if not figure.goal:
        return ""
    sign, bound = figure.goal.split()
    word = "at least" if sign == ">=" else "at most"
    return f"{word} {bound}: {'met' if figure.meets_goal else '**missed**'}"


if __name__ == "__main__":
    sys.exit(main())
