"""Check and start experiments, return to running ones, and resume those whose manager has ended.

After Ctrl-C, a restart of the machine, or a kill of anything, NNI runs trials without an end on record again, under the same
id and with the same hyperparameters, and gives the results of finished ones back to the tuner. Plain NNI numbers trials from
1 again after a stop with nothing in flight, and forgets a cut-off trial when it is killed again too soon: the repairs
(repairs/manager_js/records.js) correct both.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nni.experiment.config.utils import parse_time

from analysis.reading import database
from analysis.reading.locate import AnalysisError, home, is_running, known_ids, registry, source
from analysis.reading.reader import load_experiment
from analysis.reading.records import Experiment as Record
from experiments.check import SHARE_GPUS, check, describe_trial, foreign_trial_findings, gpu_of_trial
from experiments.config import Experiment, Overrides, is_local, place, read_experiment, requested_gpus
from experiments.findings import ExperimentError, Finding, format_finding, has_error
from experiments.nni import Manager, attach, end_orphans, forget_dead, restart, running_ids, start
from experiments.watch import WatchSettings, print_interrupted, watch_to_end


def run_check(files: Sequence[Path], overrides: Overrides) -> bool:
    """Print the findings of all files; True where nothing stops a launch."""
    good = True
    for file in files:
        try:
            findings = check(read_experiment(file, overrides))
        except ExperimentError as error:
            findings = [Finding("error", "file.refused", str(error))]
        for finding in findings:
            where = "" if finding.key == "file.refused" else place(file, finding.path)
            print(format_finding(finding, where), file=sys.stderr)
        good = good and not has_error(findings)
    return good


def launch(files: Sequence[Path], overrides: Overrides, settings: WatchSettings, parallel: bool = False) -> int:
    """One after another or in parallel. Returns the exit code: 0 where every experiment is DONE with a best trial."""
    if parallel:
        overrides = share_devices(overrides, files)
    if not run_check(files, overrides):
        print("nothing was started", file=sys.stderr)
        return 1
    forget_dead()
    experiments = [read_experiment(file, overrides) for file in files]
    groups = [experiments] if parallel else [[experiment] for experiment in experiments]
    waiting = [str(file) for file in files]
    code = 0
    try:
        for group in groups:
            managers = []
            for experiment in group:
                try:
                    managers.append(start(experiment))
                except ExperimentError as error:
                    print(f"error: {error}", file=sys.stderr)
                    code = 1
                waiting.remove(str(experiment.file))
            code = max(code, watch_to_end(managers, settings))
    except KeyboardInterrupt:
        print_interrupted(waiting)
        return 130
    return code


def share_devices(overrides: Overrides, files: Sequence[Path]) -> Overrides:
    """Trials that compute at once on a CPU get equal shares of its cores: more threads than cores cost many times that.
    NNI shares several GPUs out only where a file requests them: warned of. What `check` refuses is left to it."""
    try:
        experiments = [read_experiment(file, overrides) for file in files]
    except ExperimentError:
        return overrides
    gpus = [gpu_of_trial(experiment) if experiment.is_ours else {} for experiment in experiments]
    several = [
        gpu
        for gpu, experiment in zip(gpus, experiments, strict=True)
        if len(gpu.get("names", [])) > 1 and not requested_gpus(experiment.config)
    ]
    if sum((gpu["device"] or "").startswith("cuda") for gpu in several) > 1:
        text = (
            f"experiments at once on a machine with {len(several[0]['names'])} GPUs, and no trialGpuNumber: all compute "
            f"on one; write {SHARE_GPUS}"
        )
        print(format_finding(Finding("warning", "gpu.not_shared", text)), file=sys.stderr)
    if "threads" in overrides.fields or any(gpu.get("device") != "cpu" for gpu in gpus):
        return overrides
    threads = max(1, (os.cpu_count() or 1) // len(files))
    return replace(overrides, fields={**overrides.fields, "threads": str(threads)})


def watch_running(ids: Sequence[str], settings: WatchSettings) -> int:
    """Return to experiments that are running: those named, or all. Returns the exit code."""
    forget_dead()
    managers = [attach(experiment_id) for experiment_id in (ids or running_ids())]
    if not managers:
        raise ExperimentError(
            "no experiment is running; start one with: python -m experiments launch experiments/tpe.yml"
        )
    return _watch(managers, settings)


def _watch(managers: list[Manager], settings: WatchSettings) -> int:
    try:
        return watch_to_end(managers, settings)
    except KeyboardInterrupt:
        print_interrupted([])
        return 130


def resume(experiment_id: str, max_trials: int | None, settings: WatchSettings) -> int:
    """Returns the exit code, as launch does. max_trials: continue to so many. Raises ExperimentError."""
    entry = registry().get(experiment_id)
    if entry is None:
        ids = ", ".join(known_ids()[-12:]) or "none"
        raise ExperimentError(f"{experiment_id}: not in NNI's registry; experiments here: {ids}")
    record = _read(experiment_id)
    if max_trials is not None and max_trials <= len(record.trials):
        raise ExperimentError(
            f"{experiment_id}: --max-trials {max_trials}, but it has {len(record.trials)} trials already; name a higher number"
        )
    try:
        manager = _living(record, max_trials) if is_running(entry) else _restarted(record, max_trials)
    except KeyboardInterrupt:
        print_interrupted([])
        return 130
    return _watch([manager], settings)


def _read(experiment_id: str) -> Record:
    try:
        return load_experiment(experiment_id)
    except AnalysisError as error:
        folder = Path(registry()[experiment_id].get("logDir") or home()) / experiment_id
        moved = "" if folder.is_dir() else f"if its folder was moved: ln -s NEW_FOLDER {folder}; else "
        raise ExperimentError(
            f"{experiment_id}: cannot be resumed ({error}); {moved}start it anew: python -m experiments launch"
        ) from error


def _living(record: Record, max_trials: int | None) -> Manager:
    """Its manager runs: only a higher number of trials is left to be done."""
    if registry()[record.id].get("status") == "VIEWED":
        raise ExperimentError(f"{record.id}: is being viewed; end that first: nnictl stop {record.id}")
    if max_trials is None:
        _refuse_done(record)
        raise ExperimentError(f"{record.id}: is running; return to it with: python -m experiments watch {record.id}")
    manager = attach(record.id)
    _raise(manager, max_trials)
    return manager


def _restarted(record: Record, max_trials: int | None) -> Manager:
    if max_trials is None:
        _refuse_done(record)
    _refuse_used_up(record)
    _refuse_moved(record)
    if ended := end_orphans(record.id, record.folder):
        print(f"{record.name}: stopped what an earlier session had left running: {ended}", file=sys.stderr)
    forget_dead()
    cut_off = record.counts["running"]
    print(
        f"{record.name}: {len(record.trials) - cut_off} of {record.max_trials} trials have ended; "
        f"{cut_off} were cut off and run again",
        file=sys.stderr,
    )
    manager = restart(record.id, record.name, record.folder)
    if max_trials is not None:
        _raise(manager, max_trials)
    return manager


def _refuse_done(record: Record) -> None:
    if record.state == "DONE":
        raise ExperimentError(
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
    folders = {"its trialCodeDirectory": config.get("trialCodeDirectory") or "."}
    for key in ("tuner", "assessor"):
        if folder := (config.get(key) or {}).get("codeDirectory"):
            folders[f"its {key}'s codeDirectory"] = folder
    for what, folder in folders.items():
        if not Path(folder).is_dir():
            raise ExperimentError(_moved(record.id, what, Path(folder)))
    working = Path(config.get("experimentWorkingDirectory") or record.folder.parent)
    if os.path.realpath(working) != os.path.realpath(record.folder.parent):
        raise ExperimentError(_moved(record.id, "its experimentWorkingDirectory", working, record.folder.parent))
    if is_local(config) and (problems := _trial_problems(Experiment(record.folder, config))):
        raise ExperimentError(
            f"{record.id}: its trials cannot run any more (trialCommand: {config['trialCommand']}): {'; '.join(problems)}; "
            "once that is fixed, resume it; or start it anew: python -m experiments launch FILE"
        )


def _trial_problems(experiment: Experiment) -> list[str]:
    if experiment.is_ours:
        return describe_trial(experiment)["problems"]
    return [finding.text for finding in foreign_trial_findings(experiment)]


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
