"""Command line: what NNI experiments did, and what can be concluded. `python -m analysis COMMAND --help` has the details."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .reading.locate import AnalysisError
from .render.terminal import clean, render, safe_json, show_any_name

EXPERIMENT = {"metavar": "ID_OR_PATH", "help": "experiment id, experiment folder, or nni.sqlite file"}


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 1 with one line for a mistake that the user can correct."""
    show_any_name()
    words = sys.argv[1:] if arguments is None else arguments
    try:
        if words[:1] == ["confirm"]:  # a command of analysis until November 2026
            command = shlex.join(["python", "-m", "experiments", *words])
            raise AnalysisError(f"confirm starts trainings and is a command of experiments: {command}")
        options = _parser().parse_args(words)
        options.run(options)
        sys.stdout.flush()
        return 0
    except AnalysisError as error:
        print(f"error: {clean(str(error))}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # as by `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analysis", allow_abbrev=False, description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None], description: str) -> Any:
        added = commands.add_parser(name, allow_abbrev=False, help=description)
        added.set_defaults(run=run)
        return added.add_argument

    _add_reports(command)
    _add_experiment(command)
    return parser


def _add_reports(command: Callable[..., Any]) -> None:
    add = command("compare", run_compare, "compare experiments: page, JSON, CSV")
    add("experiments", nargs="+", **EXPERIMENT | {"help": f"{EXPERIMENT['help']}; two or more"})
    group = (
        "these experiments are repeats of one arm; may be repeated. Without it, more than two experiments are grouped by "
        "tuner and arguments, the seed aside"
    )
    add("--group", action="append", default=[], metavar="NAME=ID,ID", help=group)
    add("--out", type=Path, required=True, metavar="DIR", help="folder for report.html, summary.json and trials.csv")
    margin = "difference that does not matter, in points of accuracy (default: 1) or in units of another score"
    add("--margin", type=float, metavar="POINTS", help=margin)
    handicap = "compare arms with unequal budgets all the same; the page states the handicap"
    add("--handicap", action="store_true", help=handicap)
    shown = "show the evaluation accuracy of every trial, not of each experiment's best alone; summary.json records it"
    add("--show-evaluation", action="store_true", help=shown)

    add = command("study", run_study, "the page of a study that python -m experiments ran")
    add("name", metavar="NAME", help="such as early_stopping; python -m experiments study --help lists them")
    add("--out", type=Path, metavar="DIR", help="the study's folder; default: runs/studies/NAME")
    margin = "difference of accuracy that is negligible, in points (default: 1)"
    add("--margin", type=float, default=1.0, metavar="POINTS", help=margin)

    add = command("report", run_report, "the lab report's four parts on one page, its numbers beside ours")
    studies = Path("runs/studies")
    add("--studies", type=Path, default=studies, metavar="DIR", help=f"folder of the studies; default: {studies}")
    pair = (
        "what compare wrote about TPE and Evolution; default: demo beside the studies' folder, else the recorded pair"
    )
    add("--pair", type=Path, metavar="DIR", help=pair)
    page = Path("docs/report.md")
    add("--out", type=Path, default=page, metavar="FILE", help=f"default: {page}")
    keep = "copy each study.json there, without this machine's folders, and write the page from the copies"
    add("--keep", type=Path, metavar="DIR", help=keep)


def _add_experiment(command: Callable[..., Any]) -> None:
    add = command("list", run_list, "all experiments on this machine, newest first")
    home = "folder of experiments, or a home that has one (default: your own)"
    add("--home", type=Path, metavar="DIR", help=home)
    add("--format", choices=("text", "json"), default="text")

    add = command("show", run_show, "one experiment: state, trials, failures, notes")
    add("experiment", **EXPERIMENT)
    add("--all", action="store_true", help="every trial, not only the best and the last of many")

    add = command("best", run_best, "the best trial, its weights, how to train it again")
    add("experiment", **EXPERIMENT)
    add("--format", choices=("text", "json"), default="text")
    text = "print only the command that predicts these photos, folders or archives with it; add | sh to run it"
    add("--predict", nargs="+", type=Path, metavar="PATH", help=text)

    add = command("export", run_export, "write the trials of one experiment to a file")
    add("experiment", **EXPERIMENT)
    add("--format", choices=("csv", "json", "parquet", "optuna"), default="csv")
    add("--out", type=Path, required=True, metavar="FILE", help="one row per trial")
    add("--epochs", type=Path, metavar="FILE", help="second table, one row per epoch")

    add = command("record", run_record, "a small copy of an experiment, to hand to others")
    add("experiment", **EXPERIMENT)
    add("--out", type=Path, required=True, metavar="DIR", help="new folder")


def run_compare(options: argparse.Namespace) -> None:
    from .reading.reader import load_experiment
    from .reports.comparison import earlier_summary, short_comparison, write_comparison
    from .stats.compare import Choices, compare

    experiments = [load_experiment(name) for name in options.experiments]
    earlier = earlier_summary(options.out)
    choices = Choices(options.group, options.margin, options.handicap, options.show_evaluation, earlier)
    summary = compare(*experiments, choices=choices)
    page = write_comparison(experiments, summary, options.out)
    print(f"{render(short_comparison(experiments, summary))}\n\nreport: {page}")


def run_study(options: argparse.Namespace) -> None:
    from .reports.study import print_study

    print_study(options.name, options.out, options.margin / 100)


def run_report(options: argparse.Namespace) -> None:
    from .reports.lab_report import lab_report

    missing = lab_report(options.studies, options.pair, options.out, options.keep)
    if missing:
        print(f"without a result, as the page says: {', '.join(missing)}", file=sys.stderr)
    print(f"report: {options.out}")


def run_list(options: argparse.Namespace) -> None:
    from .reports.experiment import list_document, overview

    print(safe_json(overview(options.home)) if options.format == "json" else render(list_document(options.home)))


def run_show(options: argparse.Namespace) -> None:
    from .reading.reader import load_experiment
    from .reports.experiment import experiment_document

    print(render(experiment_document(load_experiment(options.experiment), options.all)))


def run_best(options: argparse.Namespace) -> None:
    from .reading.reader import load_experiment
    from .reports.experiment import best_document, best_facts, predict_command

    experiment = load_experiment(options.experiment)
    best = best_facts(experiment)
    if options.predict:
        print(predict_command(best, options.predict))
        return
    print(safe_json(best) if options.format == "json" else render(best_document(experiment, best)))


def run_export(options: argparse.Namespace) -> None:
    from .export.tables import export
    from .reading.reader import load_experiment

    for path, rows in export(load_experiment(options.experiment), options.format, options.out, options.epochs):
        print(f"{path}: {rows} rows")


def run_record(options: argparse.Namespace) -> None:
    from .export.recording import record

    experiment, size = record(options.experiment, options.out)
    print(f"{options.out}: experiment {experiment.id}, {len(experiment.trials)} trials, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    sys.exit(main())
