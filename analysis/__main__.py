"""Command line: `python -m analysis compare A B --out DIR`, `export A ...` and `confirm A ...`."""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
import textwrap
from pathlib import Path

from .locate import AnalysisError


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 1 with one line for a mistake that a person can put right."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except AnalysisError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analysis", allow_abbrev=False, description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    what = "experiment id, experiment folder, or nni.sqlite file"

    compare = commands.add_parser("compare", allow_abbrev=False, help="compare experiments: page, JSON, CSV")
    compare.add_argument("experiments", nargs="+", metavar="ID_OR_PATH", help=what + "; two or more")
    compare.add_argument(
        "--group",
        action="append",
        default=[],
        metavar="NAME=ID,ID",
        help="these experiments are repeats of one arm; may be repeated. Without it, more than two experiments are "
        "grouped by tuner and arguments, the seed aside",
    )
    compare.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for report.html and the rest")
    compare.set_defaults(run=run_compare)

    export = commands.add_parser("export", allow_abbrev=False, help="write the trials of one experiment to a file")
    export.add_argument("experiment", metavar="ID_OR_PATH", help=what)
    export.add_argument("--format", choices=("csv", "json", "parquet"), default="csv")
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="one row a trial")
    export.add_argument("--epochs", type=Path, metavar="FILE", help="second table, one row an epoch")
    export.set_defaults(run=run_export)

    confirm = commands.add_parser(
        "confirm", allow_abbrev=False, help="retrain the best configurations and the default with fresh seeds"
    )
    confirm.add_argument("experiments", nargs="+", metavar="ID_OR_PATH", help=what)
    confirm.add_argument(
        "--top", type=int, default=3, metavar="N", help="configurations of each experiment (default: 3)"
    )
    confirm.add_argument(
        "--seeds", type=int, default=5, metavar="N", help="trainings of each configuration (default: 5)"
    )
    confirm.add_argument("--out", type=Path, metavar="DIR", help="default: runs/confirm-IDS")
    confirm.add_argument("--no-launch", action="store_true", help="print the command that trains instead of running it")
    confirm.set_defaults(run=run_confirm)
    return parser


def run_compare(options: argparse.Namespace) -> int:
    """Prints the verdict and the table of the arms; writes the files."""
    from .arms import arm_rows
    from .compare import compare
    from .page_rows import PAIR_COLUMNS, pair_rows, repeat_rows
    from .reader import load_experiment
    from .report import write_comparison
    from .words import arm_names, is_percent

    if len(options.experiments) < 2:
        raise AnalysisError("compare needs two or more experiments, one was named; name the one to compare it with")
    experiments = [load_experiment(name) for name in options.experiments]
    summary = compare(*experiments, named=options.group)
    page = write_comparison(experiments, summary, options.out)
    print(f"verdict: {summary['comparison']['verdict']}")
    print(summary["comparison"]["statement"])
    for note in summary["comparison"]["notes"]:
        print(f"note: {note}")
    print()
    if len(experiments) == 2:
        print(_columns([("", arm_names(experiments)), *arm_rows(experiments)]))
    else:
        arms = [arm["name"] for arm in summary["arms"]]
        percent = is_percent(experiments)
        print(_columns([("", arms), *repeat_rows(summary, percent)]) + "\n")
        print(_columns([("", PAIR_COLUMNS), *pair_rows(summary, percent)]))
    print(f"\nreport: {page}")
    return 0


def run_export(options: argparse.Namespace) -> int:
    from .export import export
    from .reader import load_experiment

    for path, rows in export(load_experiment(options.experiment), options.format, options.out, options.epochs):
        print(f"{path}: {rows} rows")
    return 0


def run_confirm(options: argparse.Namespace) -> int:
    """Trains what is missing; when all is there, prints the verdict and the table and writes the files."""
    from .confirm import confirm
    from .confirm_page import COLUMNS, configuration_rows
    from .confirm_plan import Request

    request = Request(options.experiments, options.top, options.seeds, options.out, not options.no_launch)
    try:
        outcome = confirm(request)
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130
    if outcome.result is not None:
        print(f"verdict: {outcome.result['verdict']}\n{outcome.result['statement']}\n")
        print(_columns([("", COLUMNS), *configuration_rows(outcome.result)]))
        print(f"\nreport: {outcome.page}")
    return outcome.code


def _columns(rows: list[tuple[str, list[str]]]) -> str:
    """A table as wide as the terminal; long cells go on in the next line."""
    room, first = shutil.get_terminal_size((100, 24)).columns, 22
    width = max(20, (room - first) // len(rows[0][1]) - 2)
    lines = []
    for label, cells in rows:
        wrapped = [textwrap.wrap(label, first), *(textwrap.wrap(cell, width) for cell in cells)]
        for parts in itertools.zip_longest(*wrapped, fillvalue=""):
            padded = [part.ljust(size) for part, size in zip(parts, [first] + [width] * len(cells), strict=True)]
            lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
