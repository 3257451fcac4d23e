"""python -m experiments launch | study | confirm | watch | resume | why | check | fit | doctor"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from analysis.reading.locate import AnalysisError
from analysis.render.terminal import clean, show_any_name
from experiments.findings import ExperimentError
from experiments.studies import STUDIES

RECOMMENDED = Path(__file__).resolve().parent / "recommended.yml"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m experiments", description="Run, watch and explain NNI experiments.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text, allow_abbrev=False)

    launch = add("launch", "check experiment files, start them and watch them to their end")
    check = add("check", "check experiment files before anything runs")
    study = add("study", "train a grid of configurations, several seeds each")
    confirm = add(
        "confirm", "retrain the best configurations of searches and the default with fresh seeds, and judge them"
    )
    watch = add("watch", "watch running experiments again")
    resume = add("resume", "continue an experiment after a stop, a crash or a restart")
    why = add("why", "explain why an experiment or a trial failed, ended or is stuck")
    fit = add("fit", "measure how many trials this device should train at once")
    doctor = add("doctor", "check this machine before the first run")

    for command in (launch, check):
        text = "such as experiments/tpe.yml; without one: experiments/recommended.yml"
        command.add_argument("files", nargs="*", type=Path, metavar="FILE", help=text)
        command.add_argument("--max-trials", type=_positive, metavar="N", help="in place of the file's maxTrialNumber")
    for command in (launch, check, study, fit):
        _add_trial_flags(command)
    launch.add_argument("--parallel", action="store_true", help="run all files at once instead of one after another")
    _add_study_flags(study)
    _add_confirm_flags(confirm)
    watch.add_argument("ids", nargs="*", metavar="ID", help="default: all that are running")
    resume.add_argument("id", metavar="ID")
    resume.add_argument("--max-trials", type=_positive, metavar="N", help="continue to N trials in all")
    for command in (watch, resume):
        text = "stop what has failed or finished even if it was not started by launch"
        command.add_argument("--end", action="store_true", help=text)
    for command in (launch, study, watch, resume):
        _add_watch_flags(command)
    why.add_argument("id", metavar="ID")
    why.add_argument("trial", nargs="?", metavar="TRIAL", help="a trial's id or number; default: the whole experiment")
    _add_fit_flags(fit)
    _add_doctor_flags(doctor)
    return parser.parse_args(arguments)


def _add_doctor_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--no-trial", action="store_true", help="skip the one real trial through NNI")
    command.add_argument("--remote", type=Path, metavar="FILE", help="check the machines of that experiment file, too")


def _add_trial_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--cache", metavar="DIR", help="made by python -m data prepare; default: data/cache")
    text = "set a hyperparameter or setting of the trial; may be repeated"
    command.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help=text)
    command.add_argument("--demo", action="store_true", help="demo scale: generated sample, small images, few epochs")


def _add_fit_flags(command: argparse.ArgumentParser) -> None:
    text = "default: experiments/recommended.yml"
    command.add_argument("file", nargs="?", type=Path, metavar="FILE", help=text)
    text = "numbers of trials to try (default: 1 2 3 4)"
    command.add_argument("--at-once", nargs="+", type=_positive, default=[1, 2, 3, 4], metavar="N", help=text)
    text = "epochs that each trial trains (default: 3; the first one counts as its start)"
    command.add_argument("--epochs", type=_positive, default=3, metavar="N", help=text)
    command.add_argument(
        "--write", action="store_true", help="put the result into FILE; without it, nothing is written"
    )


def _add_study_flags(command: argparse.ArgumentParser) -> None:
    text = f"{' | '.join(STUDIES)}; one or more"
    command.add_argument("names", nargs="+", choices=STUDIES, metavar="NAME", help=text)
    command.add_argument("--seeds", type=_seeds, default=5, metavar="K", help="seeds per configuration (default: 5)")
    text = "state dict in place of ImageNet's weights; in distill, for the students alone"
    command.add_argument("--weights", metavar="FILE", help=text)
    text = "state dict that distill's teachers start from, in place of ImageNet's weights"
    command.add_argument("--teacher-weights", metavar="FILE", help=text)
    text = "the study's folder, or DIR/NAME of several; default: runs/studies/NAME"
    command.add_argument("--out", type=Path, metavar="DIR", help=text)


def _add_confirm_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("experiments", nargs="+", metavar="ID_OR_PATH", help="NNI experiments, the searches")
    text = "configurations per search (default: 3)"
    command.add_argument("--top", type=int, metavar="N", help=text)
    text = "fresh seeds that the best and the default are judged by (default: 8)"
    command.add_argument("--seeds", type=int, metavar="K", help=text)
    text = "seeds per configuration of the first stage, which chooses the best (default: 3; 0: one stage, all judged)"
    command.add_argument("--screen", type=int, metavar="K", help=text)
    text = "difference of accuracy that is negligible, in points (default: 1)"
    command.add_argument("--margin", type=_points, metavar="POINTS", help=text)
    command.add_argument("--out", type=Path, metavar="DIR", help="default: runs/confirm-IDS")
    text = "write the experiment and print the command that trains it, in place of training"
    command.add_argument("--no-launch", action="store_true", help=text)


def _add_watch_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--keep-ui", action="store_true", help="keep NNI's web page up after the last trial")
    text = "stop after N equal failures in a row (default: 3; 0: never); if given, even if not started by launch"
    command.add_argument("--stop-after-failures", type=_count, metavar="N", help=text)
    text = (
        "stop when a trial shows no sign of life for M minutes and for five of its epochs (default: 30; 0: never); "
        "if given, even if not started by launch"
    )
    command.add_argument("--stall-minutes", type=float, metavar="M", help=text)


def _whole(text: str, is_valid: Callable[[int], bool], expected: str) -> int:
    if not is_valid(value := int(text)):
        raise argparse.ArgumentTypeError(f"{text}: expected {expected}")
    return value


def _seeds(text: str) -> int:
    return _whole(text, lambda value: 2 <= value <= 20, "2 to 20 seeds (one has no spread)")


def _count(text: str) -> int:
    return _whole(text, lambda value: value >= 0, "a number of failures")


def _points(text: str) -> float:
    value = float(text) / 100
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected points of accuracy, above 0 and below 100")
    return value


def _positive(text: str) -> int:
    return _whole(text, lambda value: value >= 1, "a positive number")


def main(arguments: list[str] | None = None) -> int:
    show_any_name()
    args = parse(arguments)
    try:
        return _run(args)
    except ModuleNotFoundError as error:
        print(f"error: {error} in this Python; activate the environment: . .venv/bin/activate", file=sys.stderr)
        return 1
    except (ExperimentError, AnalysisError) as error:
        print(f"error: {clean(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted before anything was started", file=sys.stderr)
        return 130


def _run(args: argparse.Namespace) -> int:
    """NNI is imported only in here: --help answers at once."""
    if args.command == "doctor":
        from experiments.doctor import doctor

        return doctor(not args.no_trial, args.remote)
    if args.command == "why":
        from experiments.why import why

        print(why(args.id, args.trial))
        return 0
    if args.command == "study":
        return _study(args)
    if args.command == "confirm":
        from experiments.confirm import ConfirmRequest, confirm

        own = {name: getattr(args, name) for name in ("top", "seeds", "screen", "margin")}
        own = {name: value for name, value in own.items() if value is not None}
        return confirm(ConfirmRequest(args.experiments, args.out, not args.no_launch, **own))
    if args.command == "fit":
        from experiments.fit import FitRequest, fit

        files = _files([args.file] if args.file else [])
        return fit(FitRequest(files[0], _overrides(args), tuple(sorted(args.at_once)), args.epochs, args.write))
    from experiments.launch import launch, resume, run_check, watch_running

    if args.command == "check":
        return 0 if run_check(_files(args.files), _overrides(args)) else 1
    if args.command == "resume":
        return resume(args.id, args.max_trials, _watch_settings(args))
    if args.command == "watch":
        return watch_running(args.ids, _watch_settings(args))
    return launch(_files(args.files), _overrides(args), _watch_settings(args), args.parallel)


def _files(files: list[Path]) -> list[Path]:
    """Those of the command line, or the recommended one, which is then named."""
    if files:
        return files
    print(f"no file given: {os.path.relpath(RECOMMENDED)}", file=sys.stderr)
    return [Path(os.path.relpath(RECOMMENDED))]


def _study(args: argparse.Namespace) -> int:
    from experiments.studies import StudyRequest, run_studies

    fields = _overrides(args).fields
    names = list(dict.fromkeys(args.names))
    folders = [args.out / name if args.out and len(names) > 1 else args.out for name in names]
    weights = (args.weights, args.teacher_weights)
    requests = [StudyRequest(n, args.seeds, fields, *weights, args.demo, f) for n, f in zip(names, folders)]
    return run_studies(requests, _watch_settings(args))


def _watch_settings(args: argparse.Namespace):
    """What is set on the command line may also end what launch did not start."""
    from experiments.diagnose import Limits
    from experiments.watch import ENDS, WatchSettings

    values = {"stop_after_failures": args.stop_after_failures, "stall_minutes": args.stall_minutes}
    limits = {name: value for name, value in values.items() if value is not None}
    states = {"stop_after_failures": "FAILING", "stall_minutes": "STALLED"}
    ends = ENDS if getattr(args, "end", False) else frozenset(states[name] for name in limits)
    return WatchSettings(args.keep_ui, Limits(**limits), ends)


def _overrides(args: argparse.Namespace):
    from experiments.config import Overrides, parse_set

    fields = parse_set(args.set) | ({"cache": args.cache} if args.cache else {})
    return Overrides(fields, getattr(args, "max_trials", None), args.demo)


if __name__ == "__main__":
    sys.exit(main())
