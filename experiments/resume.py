"""Go on with an experiment whose manager has ended: after Ctrl-C, a restart of the machine, or a kill of anything.

NNI runs trials without an end on record again, under the same id and with the same hyperparameters, and gives the
results of finished ones back to the tuner. Plain NNI numbers trials from 1 again after a stop with nothing in flight, and
forgets a cut-off trial when it is killed again too soon: manager_js/records.js mends both.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from nni.experiment.config.utils import parse_time

from analysis.reading import database
from analysis.reading.locate import AnalysisError, home, is_running, known_ids, registry, source
from analysis.reading.reader import load_experiment
from analysis.reading.records import Experiment as Record
from experiments.check import describe_trial, trial_environment
from experiments.config import Experiment, is_local
from experiments.errors import ExperimentError
from experiments.file_check import command_problems
from experiments.finish import Watching, finish, say_interrupted
from experiments.manager import Manager, attach, forget_dead
from experiments.manager import resume as start_again
from experiments.processes import end_orphans


def resume(experiment_id: str, max_trials: int | None, watching: Watching) -> int:
    """Returns the exit code, as launch does. max_trials: go on to so many. Raises ExperimentError."""
    entry = registry().get(experiment_id)
    if entry is None:
        known = ", ".join(known_ids()[-12:]) or "none"
        raise ExperimentError(f"{experiment_id}: not in NNI's registry; experiments here: {known}")
    record = _read(experiment_id)
    if max_trials is not None and max_trials <= len(record.trials):
        raise ExperimentError(
            f"{experiment_id}: --max-trials {max_trials}, but it has {len(record.trials)} trials already; name a higher number"
        )
    try:
        manager = _living(record, max_trials) if is_running(entry) else _start(record, max_trials)
        return finish([manager], watching)
    except KeyboardInterrupt:
        say_interrupted([])
        return 130


def _read(experiment_id: str) -> Record:
    try:
        return load_experiment(experiment_id)
    except AnalysisError as error:
        folder = Path(registry()[experiment_id].get("logDir") or home()) / experiment_id
        moved = "" if folder.is_dir() else f"if its folder was moved: ln -s NEW_FOLDER {folder}; else "
        raise ExperimentError(
            f"{experiment_id}: cannot go on ({error}); {moved}start it anew: python -m experiments launch"
        ) from error


def _living(record: Record, max_trials: int | None) -> Manager:
    """Its manager runs: only a higher number of trials is left to be done."""
    if registry()[record.id].get("status") == "VIEWED":
        raise ExperimentError(f"{record.id}: is being viewed; end that first: nnictl stop {record.id}")
    if max_trials is None:
        if record.state == "DONE":
            raise ExperimentError(_done(record))
        raise ExperimentError(f"{record.id}: is running; return to it with: python -m experiments watch {record.id}")
    manager = attach(record.id)
    _raise(manager, max_trials)
    return manager


def _start(record: Record, max_trials: int | None) -> Manager:
    if record.state == "DONE" and max_trials is None:
        raise ExperimentError(_done(record))
    _refuse_used_up(record)
    _refuse_moved(record)
    if ended := end_orphans(record.id, record.folder):
        print(f"{record.name}: ended what was left over: {ended}", file=sys.stderr)
    forget_dead()
    trials = record.counts
    print(
        f"{record.name}: {len(record.trials) - trials['running']} of {record.max_trials} trials have ended; "
        f"{trials['running']} were cut off and run again",
        file=sys.stderr,
    )
    manager = start_again(record.id, record.name, record.folder)
    if max_trials is not None:
        _raise(manager, max_trials)
    return manager


def _done(record: Record) -> str:
    return (
        f"{record.id}: all {record.max_trials} trials have ended; add more with: "
        f"python -m experiments resume {record.id} --max-trials {2 * record.max_trials}"
    )


def _refuse_used_up(record: Record) -> None:
    """NNI counts the time over all sessions, and calls an experiment DONE at once when none is left."""
    limit = record.config.get("maxExperimentDuration")
    used_s = database.read(source(record.id).database).profile["execDuration"] or 0
    if limit and used_s > parse_time(limit):
        raise ExperimentError(
            f"{record.id}: its maxExperimentDuration ({limit}) is used up ({used_s} s); give it more: nnictl resume "
            f"{record.id}; nnictl update duration {record.id} --value HOURSh; python -m experiments watch {record.id}"
        )


def _refuse_moved(record: Record) -> None:
    """NNI's record holds absolute paths: of a project that was moved, each trial would fail, one after another."""
    config = record.config
    tuners = [config[key] for key in ("tuner", "assessor") if config.get(key)]
    code = Path(config.get("trialCodeDirectory") or ".")
    own = [("its tuner's codeDirectory", tuner["codeDirectory"]) for tuner in tuners if tuner.get("codeDirectory")]
    for what, folder in [("its trialCodeDirectory", code), *own]:
        if not Path(folder).is_dir():
            raise ExperimentError(_moved(record.id, what, Path(folder)))
    working = Path(config.get("experimentWorkingDirectory") or record.folder.parent)
    if os.path.realpath(working) != os.path.realpath(record.folder.parent):
        raise ExperimentError(_moved(record.id, "its experimentWorkingDirectory", working, record.folder.parent))
    if is_local(config) and (problems := _trial_problems(Experiment(record.folder, config), code)):
        raise ExperimentError(
            f"{record.id}: its trials cannot run any more (trialCommand: {config['trialCommand']}): {'; '.join(problems)}; "
            "once that is fixed, resume it; or start it anew: python -m experiments launch FILE"
        )


def _trial_problems(experiment: Experiment, code: Path) -> list[str]:
    if experiment.is_ours:
        return describe_trial(experiment)["problems"]
    limited = bool(experiment.config.get("maxTrialDuration"))
    return command_problems(experiment.config["trialCommand"], code, trial_environment()["PATH"], limited)


def _moved(experiment_id: str, what: str, old: Path, new: Path | None = None) -> str:
    return (
        f"{experiment_id}: {what} {old} is not there{f' but {new}' if new else ''} (moved or removed?); move it back, or let "
        f"the old name lead to it: ln -s {new or 'NEW_FOLDER'} {old}; or start anew: python -m experiments launch FILE"
    )


def _raise(manager: Manager, max_trials: int) -> None:
    """Set the number, and wait until NNI has left DONE, lest the watching end at once."""
    manager.set_max_trials(max_trials)
    deadline = time.monotonic() + 15
    while manager.get("check-status").get("status") == "DONE" and time.monotonic() < deadline:
        time.sleep(0.5)
