"""What `compare` prints: the verdict and the table of the arms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..page.arms import arm_rows
from ..page.page_rows import PAIR_COLUMNS, pair_rows, repeat_rows
from ..page.report import write_comparison
from ..reading.records import Experiment
from ..render.formats import arm_names, is_percent
from ..render.terminal import clean, columns, say
from ..stats.compare import compare


def print_comparison(experiments: list[Experiment], named: Sequence[str], out: Path) -> None:
    """Writes the files into `out`; `named` are the texts of --group."""
    summary = compare(*experiments, named=named)
    page = write_comparison(experiments, summary, out)
    say(f"verdict: {summary['comparison']['verdict']}")
    say(clean(summary["comparison"]["statement"]))
    for note in summary["comparison"]["notes"]:
        say(f"note: {clean(note)}")
    say()
    if len(experiments) == 2:
        say(columns([("", arm_names(experiments)), *arm_rows(experiments)]))
    else:
        arms, percent = [arm["name"] for arm in summary["arms"]], is_percent(experiments)
        say(columns([("", arms), *repeat_rows(summary, percent)]) + "\n")
        say(columns([("", PAIR_COLUMNS), *pair_rows(summary, percent)]))
    say(f"\nreport: {page}")
