"""python -m trial: what NNI runs, and the only file that knows NNI. Without NNI the same training runs alone.

NNI 3.0's rules for a trial script, kept here: the hyperparameters are fetched once, before anything that can fail (otherwise
the next trial would receive them); one final report, last and small; then a pause, because NNI 3.0 handles the end of a trial
in another thread than its result, and its tuner fails where the end comes first (this project's repairs keep the order); exit
code 0 after it.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data import DataError, show_any_name
from data.cache import open_cache
from trial import TrialError
from trial.checkpoint import refuse_others
from trial.files import lock_folder, write_hyperparameters
from trial.hyperparameters import Hyperparameters, describe_fields
from trial.interrupts import Interrupts, Progress, result_so_far
from trial.result import finished_result, report_again

ROOT = Path(__file__).resolve().parent.parent
_PAUSE_S = 1.0  # after the final result, for plain NNI
_REPAIRED = "FOOD11_NNI_REPAIRED"  # set by experiments/repairs/manager_js/preload.js for its trials
_ORPHAN_S = 60.0  # a trial whose manager was killed ends within a second; a slow disk or a busy machine may need more


def main(arguments: list[str] | None = None) -> int:
    show_any_name()
    under_nni = "NNI_TRIAL_JOB_ID" in os.environ
    progress = Progress()
    Interrupts(progress, _close if under_nni else None).watch()
    try:
        received = _receive() if under_nni else None
        args, flags = parse(arguments)
        if args.command == "predict":
            return _predict(args)
        if args.command == "export":
            _export(args)
            return 0
        if args.describe or args.gpu or args.evaluate:
            _run_without_training(flags, args)
            return 0
        final = run(received, flags, args, progress)
        if under_nni:
            with progress.lock:
                _close(final)
                progress.reported = True
    except (TrialError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return _end_badly(progress, under_nni)
    return 0


def _run_without_training(flags: dict, args: argparse.Namespace) -> None:
    """--describe, --gpu and --evaluate: nothing is trained. torch is imported only now: mistakes in flags show at once."""
    if args.describe:
        from trial.run import describe

        print(json.dumps(describe(flags, args.searched, args.cache, args.device, args.precision)))
    elif args.gpu:
        from trial.gpu import describe_gpus

        print(json.dumps(describe_gpus(args.device)))
    else:
        from trial.evaluate import evaluate_file

        evaluate_file(args.evaluate, args.cache, args.split, args.device, args.precision, args.threads)


def _predict(args: argparse.Namespace) -> int:
    """Returns the exit code: 1 where a photo was skipped."""
    from trial.predict import open_predictor, predict_paths

    predictor = open_predictor(args.weights_file, args.device, args.precision, args.threads)
    skipped = predict_paths(predictor, args.paths, args.format)
    if skipped:
        print(f"error: {skipped} file(s) skipped; the others were predicted", file=sys.stderr)
    return 1 if skipped else 0


def _export(args: argparse.Namespace) -> None:
    from trial.export import Form, export_file

    export_file(args.weights_file, args.format, Form(args.normalise, args.softmax), args.file, args.cache)


def _receive() -> dict:
    """The hyperparameters that NNI chose. Raises TrialError where its manager does not answer."""
    import nni  # replaces sys.stdout: from here on print goes to the trial's log

    show_any_name()
    with _nnis_manager():
        received = nni.get_next_parameter()
    if not isinstance(received, dict):
        raise TrialError(f"NNI should have sent hyperparameters by name, found {received!r}; see its nnimanager.log")
    return received


def _report(metrics: dict) -> None:
    """Report an epoch to NNI. Raises TrialError where its manager does not answer."""
    import nni

    with _nnis_manager():
        nni.report_intermediate_result(metrics)


def _close(final: dict) -> None:
    """The one final result, and plain NNI's pause after it. Raises TrialError where its manager does not answer."""
    import nni

    with _nnis_manager():
        nni.report_final_result(final)
    if _REPAIRED not in os.environ:
        time.sleep(_PAUSE_S)


@contextmanager
def _nnis_manager() -> Iterator[None]:
    """Raises TrialError where it does not answer."""
    try:
        yield
    except OSError as error:  # requests' exceptions are among them
        raise TrialError(
            f"NNI's manager does not answer ({type(error).__name__}); an interrupted trial continues after its last epoch "
            "with nnictl resume"
        ) from error


def _end_badly(progress: Progress, under_nni: bool) -> int:
    """Where an epoch has ended NNI gets its result all the same, and exit code 0: NNI's Evolution tuner fails at a trial
    that fails after its final result. Returns the exit code."""
    if not under_nni or progress.end_early is None:
        return 1
    with progress.lock:
        try:
            final = progress.end_early("error")
            _close(final)
        except TrialError:
            return 1  # the manager has ended, which is why, or cannot be reached either
        progress.reported = True
    print(result_so_far(final, progress.folder), file=sys.stderr)
    return 0


def parse(arguments: list[str] | None) -> tuple[argparse.Namespace, dict]:
    """Settings, and the hyperparameters that were given as flags."""
    words = sys.argv[1:] if arguments is None else arguments
    parser = _parser(bool({"predict", "export", "-h", "--help"} & set(words)))
    args = parser.parse_args(arguments)
    flags = {name: getattr(args, name) for name in describe_fields() if hasattr(args, name)}
    if args.split and not args.evaluate:
        parser.error("--split belongs to --evaluate")
    if args.evaluate and (flags or args.output):
        names = [*flags, *(["output"] if args.output else [])]
        parser.error(f"with --evaluate the weights file decides; remove {', '.join(names)}")
    if args.command and (flags or args.output or args.evaluate):
        parser.error(f"{args.command} takes only what is behind it: the weights file decides all else")
    args.split = args.split or "evaluation"
    return args, flags


def _parser(with_commands: bool) -> argparse.ArgumentParser:
    """Without commands, the value of a flag that does not exist is not taken for one."""
    parser = argparse.ArgumentParser(
        "python -m trial", description="Fine-tune a network on the cache.", allow_abbrev=False
    )
    add = parser.add_argument
    add("--cache", type=Path, default=ROOT / "data" / "cache", help="made by python -m data prepare")
    add("--output", type=Path, help="default: NNI's trial folder, or runs/TIME when alone")
    _add_compute(parser)
    add("--describe", action="store_true", help="print what this trial knows and lacks as JSON, and leave")
    text = "print whether torch can use a GPU here, and why not, as JSON, and leave"
    add("--gpu", action="store_true", help=text)
    text = "with --describe: {field: [values]} that a search space may choose, so that files among them are checked"
    add("--searched", type=json.loads, default={}, metavar="JSON", help=text)
    text = "score a trial's best.pt on the cache and leave; trains nothing"
    add("--evaluate", type=Path, metavar="FILE", help=text)
    text = "which --evaluate scores (default: evaluation)"
    add("--split", choices=("evaluation", "validation"), help=text)
    for name, spec in describe_fields().items():
        kind = {"int": int, "float": float, "str": str}[spec["type"]]
        text = f"{spec['help']} (default: {spec['default']})"
        add(f"--{name.replace('_', '-')}", type=kind, default=argparse.SUPPRESS, help=text)
    parser.set_defaults(command=None)
    if with_commands:
        commands = parser.add_subparsers(dest="command", metavar="COMMAND")
        _add_predict(commands)
        _add_export(commands)
    return parser


def _add_compute(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    add = parser.add_argument
    add("--device", **{"default": "auto", **defaults}, help="auto, cpu, cuda or cuda:N")
    add("--precision", **{"default": "auto", **defaults}, choices=("auto", "fp32", "tf32", "bf16", "fp16"))
    add("--threads", type=int, **{"default": 0, **defaults}, help="CPU threads; 0: all")


def _add_export(commands: argparse._SubParsersAction) -> None:
    text = "a trained network as a file for other programs, with its model card"
    add = commands.add_parser("export", help=text, allow_abbrev=False).add_argument
    add("weights_file", type=Path, metavar="WEIGHTS", help=_WEIGHTS)
    add("--format", choices=("onnx", "torchscript", "safetensors"), required=True)
    add(
        "--output",
        dest="file",
        type=Path,
        metavar="FILE",
        help="default: model.onnx, .ts.pt or .safetensors beside WEIGHTS",
    )
    add("--normalise", action="store_true", help="the file takes RGB of 0..255 and normalises it itself")
    add("--softmax", action="store_true", help="the file gives calibrated probabilities in place of logits")
    text = "whose validation images the file is compared with torch on; without it on random ones"
    add("--cache", type=Path, default=argparse.SUPPRESS, metavar="DIR", help=text)


_WEIGHTS = "a trial's best.pt; python -m analysis best ID names it"


def _add_predict(commands: argparse._SubParsersAction) -> None:
    predict = commands.add_parser("predict", help="the classes of photos that were never prepared", allow_abbrev=False)
    predict.add_argument("weights_file", type=Path, metavar="WEIGHTS", help=_WEIGHTS)
    text = "photos, folders, archives; - for a list of them on standard input"
    predict.add_argument("paths", nargs="+", metavar="PATH", help=text)
    text = "table, CSV, or a line of JSON per photo"
    predict.add_argument("--format", choices=("table", "csv", "json"), default="table", help=text)
    _add_compute(predict, default=argparse.SUPPRESS)  # what stands before the command counts too


def run(received: dict | None, flags: dict, args: argparse.Namespace, progress: Progress) -> dict:
    """Train with the defaults, the flags over them, NNI's choice over both. Returns the final metrics.

    received: None where the trial runs alone.
    """
    h = Hyperparameters().merged(flags).merged(received or {})
    if both := sorted(set(flags) & set(received or {})):
        raise TrialError(f"{', '.join(both)}: searched by the experiment and fixed by a flag; remove one of the two")
    folder = args.output or Path(os.environ.get("NNI_OUTPUT_DIR") or ROOT / "runs" / time.strftime("%Y%m%d-%H%M%S"))
    under_nni = received is not None
    lock_folder(folder, wait_s=_ORPHAN_S if under_nni else 0)
    progress.folder = folder
    finished = finished_result(folder, h if under_nni else None)
    if not under_nni:
        if finished:
            raise TrialError(f"{folder}: holds a finished training; choose another --output or delete the folder")
        refuse_others(folder, h)
    write_hyperparameters(folder, received or {}, h)
    print("hyperparameters", json.dumps(asdict(h)))
    report = _report if under_nni else lambda metrics: None  # alone, the log and the files are all there is
    if finished:
        return report_again(folder, finished, report)
    cache = open_cache(args.cache, h.image_px)
    from trial.run import Settings, run_trial  # torch is imported only now: mistakes show at once

    _collect_again()
    settings = Settings(folder, args.device, args.precision, args.threads, may_replace=under_nni)
    final = run_trial(h, cache, settings, report, progress)
    print(f"results: {folder}")
    return final


def _collect_again() -> None:
    """After the imports; the objects that they made stay, and are not examined again."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


if __name__ == "__main__":
    gc.disable()  # to look for cycles among all that is being imported takes a sixth of the imports' time
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # Python's own end takes a second with torch, and a time limit in it would undo the result
