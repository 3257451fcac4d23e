"""Command line: what NNI experiments did, and what can be said of them. `python -m analysis COMMAND --help` tells more."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from .reading.locate import AnalysisError
from .render.terminal import clean, render, safe_json, show_any_name


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 1 with one line for a mistake that a person can put right."""
    show_any_name()
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["confirm"]:  # until 2026-11 a command of analysis
        print(
            f"error: confirm starts trainings; use: {clean(shlex.join(['python', '-m', 'experiments', *words]))}",
            file=sys.stderr,
        )
        return 1
    options = _parser().parse_args(words)
    try:
        code = options.run(options)
        sys.stdout.flush()
        return code
    except AnalysisError as error:
        print(f"error: {clean(str(error))}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
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
    export.add_argument("--format", choices=("csv", "json", "parquet", "optuna"), default="csv")
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="one row a trial")
    export.add_argument("--epochs", type=Path, metavar="FILE", help="second table, one row an epoch")
    export.set_defaults(run=run_export)

    record = commands.add_parser("record", allow_abbrev=False, help="a small copy of an experiment, to hand to others")
    record.add_argument("experiment", metavar="ID_OR_PATH", help=what)
    record.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder")
    record.set_defaults(run=run_record)

    study = commands.add_parser("study", allow_abbrev=False, help="the page of a study that python -m experiments ran")
    study.add_argument(
        "name", metavar="NAME", help="such as early_stopping; python -m experiments study --help lists them"
    )
    study.add_argument("--out", type=Path, metavar="DIR", help="the study's folder; default: runs/studies/NAME")
    study.set_defaults(run=run_study)

    report = commands.add_parser(
        "report", allow_abbrev=False, help="the lab report's four parts on one page, its numbers beside ours"
    )
    report.add_argument(
        "--studies",
        type=Path,
        default=Path("runs/studies"),
        metavar="DIR",
        help="of the studies; default: runs/studies",
    )
    report.add_argument(
        "--pair",
        type=Path,
        metavar="DIR",
        help="what compare wrote about TPE and Evolution; default: demo beside the studies' folder, else the recorded pair",
    )
    report.add_argument(
        "--out", type=Path, default=Path("docs/report.md"), metavar="FILE", help="default: docs/report.md"
    )
    report.add_argument(
        "--keep",
        type=Path,
        metavar="DIR",
        help="copy each study.json there, without this machine's folders, and write the page from the copies",
    )
    report.set_defaults(run=run_report)

    listing = commands.add_parser("list", allow_abbrev=False, help="all experiments found here, newest first")
    listing.add_argument(
        "--home", type=Path, metavar="DIR", help="folder of experiments, or a home that has one (default: your own)"
    )
    listing.add_argument("--format", choices=("text", "json"), default="text")
    listing.set_defaults(run=run_list)

    show = commands.add_parser("show", allow_abbrev=False, help="one experiment: state, trials, failures, notes")
    show.add_argument("experiment", metavar="ID_OR_PATH", help=what)
    show.add_argument("--all", action="store_true", help="every trial, not only the best and the last of many")
    show.set_defaults(run=run_show)

    best = commands.add_parser("best", allow_abbrev=False, help="the best trial, its weights, how to train it again")
    best.add_argument("experiment", metavar="ID_OR_PATH", help=what)
    best.add_argument("--format", choices=("text", "json"), default="text")
    best.set_defaults(run=run_best)
    return parser


def run_compare(options: argparse.Namespace) -> int:
    from .reading.reader import load_experiment
    from .reports.comparison import short_comparison, write_comparison
    from .stats.compare import compare

    if len(options.experiments) < 2:
        raise AnalysisError("compare needs two or more experiments, one was named; name the one to compare it with")
    experiments = [load_experiment(name) for name in options.experiments]
    summary = compare(*experiments, named=options.group)
    page = write_comparison(experiments, summary, options.out)
    print(f"{render(short_comparison(experiments, summary))}\n\nreport: {page}")
    return 0


def run_export(options: argparse.Namespace) -> int:
    from .export.tables import export
    from .reading.reader import load_experiment

    for path, rows in export(load_experiment(options.experiment), options.format, options.out, options.epochs):
        print(f"{path}: {rows} rows")
    return 0


def run_record(options: argparse.Namespace) -> int:
    from .export.recording import record

    experiment, size = record(options.experiment, options.out)
    print(f"{options.out}: experiment {experiment.id}, {len(experiment.trials)} trials, {size / 1e6:.2f} MB")
    return 0


def run_study(options: argparse.Namespace) -> int:
    from .reports.study import print_study

    print_study(options.name, options.out)
    return 0


def run_report(options: argparse.Namespace) -> int:
    from .reports.lab_report import lab_report

    missing = lab_report(options.studies, options.pair, options.out, options.keep)
    if missing:
        print(f"no result yet, and said so on the page: {', '.join(missing)}", file=sys.stderr)
    print(f"report: {options.out}")
    return 0


def run_list(options: argparse.Namespace) -> int:
    from .reports.experiment import list_document, overview

    print(safe_json(overview(options.home)) if options.format == "json" else render(list_document(options.home)))
    return 0


def run_show(options: argparse.Namespace) -> int:
    from .reading.reader import load_experiment
    from .reports.experiment import experiment_document

    print(render(experiment_document(load_experiment(options.experiment), options.all)))
    return 0


def run_best(options: argparse.Namespace) -> int:
    from .reading.reader import load_experiment
    from .reports.best import best_document, best_facts

    experiment = load_experiment(options.experiment, finals_only=True)
    best = best_facts(experiment)
    print(safe_json(best) if options.format == "json" else render(best_document(experiment, best)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
