"""python -m experiments launch | study | watch | resume | why | check | doctor"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from analysis.render.terminal import show_any_name
from experiments.errors import ExperimentError
from experiments.studies import STUDIES


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m experiments", description="NNI experiments, checked and watched.")
    commands = parser.add_subparsers(dest="command", required=True)
    launch = commands.add_parser("launch", help="check, start and watch", allow_abbrev=False)
    check = commands.add_parser("check", help="what can be known before a night is lost", allow_abbrev=False)
    study = commands.add_parser("study", help="parts of the report: a grid times seeds each", allow_abbrev=False)
    _add_study(study)
    for command in (launch, check):
        command.add_argument("files", nargs="+", type=Path, metavar="FILE", help="such as experiments/tpe.yml")
        command.add_argument("--max-trials", type=_positive, metavar="N", help="instead of the file's maxTrialNumber")
    for command in (launch, check, study):
        command.add_argument("--cache", metavar="DIR", help="made by python -m data prepare; default: data/cache")
        command.add_argument(
            "--set", action="append", default=[], metavar="FIELD=VALUE", help="a field or setting of the trial"
        )
        command.add_argument("--demo", action="store_true", help="the demo's scale: generated sample, small images")
    launch.add_argument("--parallel", action="store_true", help="all files at once instead of one after another")
    watch = commands.add_parser("watch", help="return to running experiments", allow_abbrev=False)
    watch.add_argument("ids", nargs="*", metavar="ID", help="default: all that run")
    resume = commands.add_parser("resume", help="go on after a stop, a crash or a restart", allow_abbrev=False)
    resume.add_argument("id", metavar="ID")
    resume.add_argument("--max-trials", type=_positive, metavar="N", help="go on to N trials instead")
    for command in (watch, resume):
        command.add_argument(
            "--end", action="store_true", help="end what goes wrong or is done also where launch did not start it"
        )
    doctor = commands.add_parser("doctor", help="the machine before the first run", allow_abbrev=False)
    doctor.add_argument("--no-trial", action="store_true", help="without the one real trial through NNI")
    why = commands.add_parser("why", help="explain a failure", allow_abbrev=False)
    why.add_argument("id", metavar="ID")
    why.add_argument("trial", nargs="?", metavar="TRIAL", help="its id or number; default: the whole experiment")
    for command in (launch, study, watch, resume):
        _add_watching(command)
    return parser.parse_args(arguments)


def _add_study(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "names", nargs="+", choices=STUDIES, metavar="NAME", help=f"{' | '.join(STUDIES)}; one or more"
    )
    command.add_argument("--seeds", type=_seeds, default=5, metavar="K", help="trainings an arm (default: 5)")
    command.add_argument(
        "--weights",
        metavar="FILE",
        help="state dict in place of ImageNet's weights; of distill, for the students alone",
    )
    command.add_argument(
        "--teacher-weights",
        metavar="FILE",
        help="state dict that distill's teachers start from, in place of ImageNet's",
    )
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="the study's folder, of several DIR/NAME; default: runs/studies/NAME"
    )


def _seeds(text: str) -> int:
    value = int(text)
    if not 2 <= value <= 20:
        raise argparse.ArgumentTypeError(f"{text} seeds; expected 2 to 20 (one has no spread)")
    return value


def _add_watching(command: argparse.ArgumentParser) -> None:
    command.add_argument("--keep-ui", action="store_true", help="leave NNI's web page up after the last trial")
    command.add_argument(
        "--stop-after-failures",
        type=_count,
        metavar="N",
        help="end after N equal failures in a row (default: 3; 0: never); given, also what launch did not start",
    )
    command.add_argument(
        "--stall-minutes",
        type=float,
        metavar="M",
        help="end when a trial shows no sign of life for M minutes, and for five of its epochs (default: 30; 0: never); "
        "given, also what launch did not start",
    )


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number of failures")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of trials")
    return value


def main(arguments: list[str] | None = None) -> int:
    show_any_name()
    args = parse(arguments)
    try:
        return _run(args)
    except ModuleNotFoundError as error:
        print(f"error: {error} in this Python; activate the environment: . .venv/bin/activate", file=sys.stderr)
        return 1
    except ExperimentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted before anything was started", file=sys.stderr)
        return 130


def _run(args: argparse.Namespace) -> int:
    """NNI is imported only in here: --help answers at once."""
    from experiments.doctor import doctor
    from experiments.launch import Options, launch, run_check, watch_running
    from experiments.resume import resume
    from experiments.why import why

    if args.command == "check":
        return 0 if run_check(args.files, _overrides(args)) else 1
    if args.command == "doctor":
        return doctor(with_trial=not args.no_trial)
    if args.command == "why":
        print(why(args.id, args.trial))
        return 0
    watching = _watching(args)
    if args.command == "resume":
        return resume(args.id, args.max_trials, watching)
    if args.command == "watch":
        return watch_running(args.ids, watching)
    if args.command == "study":
        from experiments.study import Asked, studies

        fields = _overrides(args).fields
        names = list(dict.fromkeys(args.names))
        folders = [args.out / name if args.out and len(names) > 1 else args.out for name in names]
        weights = (args.weights, args.teacher_weights)
        asked = [Asked(n, args.seeds, fields, *weights, args.demo, f) for n, f in zip(names, folders)]
        return studies(asked, watching)
    return launch(args.files, _overrides(args), Options(args.parallel, watching))


def _watching(args: argparse.Namespace):
    """What is asked for on the command line may also end what launch did not start."""
    from experiments.diagnose import Limits
    from experiments.finish import ENDS, Watching

    given = {
        "stop_after_failures": ("FAILING", args.stop_after_failures),
        "stall_minutes": ("STALLED", args.stall_minutes),
    }
    limits = {name: value for name, (_, value) in given.items() if value is not None}
    asked = frozenset(state for state, value in given.values() if value is not None)
    return Watching(args.keep_ui, Limits(**limits), ENDS if getattr(args, "end", False) else asked)


def _overrides(args: argparse.Namespace):
    from experiments.config import Overrides, parse_set

    fields = parse_set(args.set) | ({"cache": args.cache} if args.cache else {})
    return Overrides(fields, getattr(args, "max_trials", None), args.demo)


if __name__ == "__main__":
    sys.exit(main())
