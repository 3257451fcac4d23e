"""Check, start and watch a set of experiments, one after another or at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.check import check, count_gpus
from experiments.config import Overrides, read_experiment
from experiments.errors import ExperimentError
from experiments.manager import Manager, attach, running_ids, start, stop
from experiments.watch import Outcome, watch


@dataclass(frozen=True)
class Options:
    """How a launch runs."""

    parallel: bool = False
    keep_ui: bool = False


def run_check(files: Sequence[Path], overrides: Overrides) -> bool:
    """Print the findings of all files; True where nothing stops a launch."""
    good = True
    for file in files:
        try:
            findings = check(read_experiment(file, overrides))
        except ExperimentError as error:
            print(f"error: {error}", file=sys.stderr)
            good = False
            continue
        for finding in findings:
            print(f"{finding.level}: {file}: {finding.text}", file=sys.stderr)
        good = good and not any(finding.level == "error" for finding in findings)
    return good


def launch(files: Sequence[Path], overrides: Overrides, options: Options) -> int:
    """Returns the exit code: 0 where every experiment is DONE with a best trial."""
    if options.parallel:
        overrides = _share_cores(overrides, len(files))
    if not run_check(files, overrides):
        print("nothing was started", file=sys.stderr)
        return 1
    experiments = [read_experiment(file, overrides) for file in files]
    groups = [experiments] if options.parallel else [[experiment] for experiment in experiments]
    waiting = [str(file) for file in files]
    code = 0
    try:
        for group in groups:
            managers = []
            for experiment in group:
                waiting.remove(str(experiment.file))
                try:
                    managers.append(start(experiment))
                    _say_started(managers[-1])
                except ExperimentError as error:
                    print(f"error: {error}", file=sys.stderr)
                    code = 1
            code = max(code, _finish(managers, options.keep_ui))
    except KeyboardInterrupt:
        _say_interrupted(waiting)
        return 130
    return code


def watch_running(ids: Sequence[str], keep_ui: bool) -> int:
    """Return to experiments that are running: those named, or all."""
    managers = [attach(experiment_id) for experiment_id in (ids or running_ids())]
    if not managers:
        raise ExperimentError(
            "no experiment is running; start one with: python -m experiments launch experiments/tpe.yml"
        )
    for manager in managers:
        _say_started(manager)
    try:
        return _finish(managers, keep_ui)
    except KeyboardInterrupt:
        _say_interrupted([])
        return 130


def _share_cores(overrides: Overrides, experiments: int) -> Overrides:
    """Trials that compute at once on a CPU get equal shares of its cores: more threads than cores cost many times that."""
    if "threads" in overrides.fields or count_gpus():
        return overrides
    threads = max(1, (os.cpu_count() or 1) // experiments)
    return replace(overrides, fields={**overrides.fields, "threads": str(threads)})


def _finish(managers: list[Manager], keep_ui: bool) -> int:
    outcomes = watch(managers)
    for manager, outcome in zip(managers, outcomes):
        if outcome.reason:
            print(f"{outcome.state}: {manager.name} ({manager.id}): {outcome.reason}", file=sys.stderr)
        _put_away(manager, outcome, keep_ui)
        print(outcome.line(manager), flush=True)
    return 0 if all(outcome.is_good for outcome in outcomes) else 1


def _put_away(manager: Manager, outcome: Outcome, keep_ui: bool) -> None:
    """NNI's manager stays after the last trial and holds its port; a dead experiment's would wait forever."""
    if keep_ui and outcome.state == "DONE":
        print(f"{manager.name}: {manager.url} stays until: nnictl stop {manager.id}", file=sys.stderr)
        return
    if manager.is_alive():
        stop(manager)
    print(f"{manager.name}: stopped; view its page again with: nnictl view {manager.id}", file=sys.stderr)


def _say_started(manager: Manager) -> None:
    print(f"{manager.name} ({manager.id}): {manager.url}", file=sys.stderr, flush=True)


def _say_interrupted(waiting: list[str]) -> None:
    """What goes on without a watcher, and what was not started, each with the command that goes on with it."""
    if sys.stderr.isatty():
        print(file=sys.stderr)  # after the terminal's own ^C
    if names := [attach(experiment_id).name for experiment_id in running_ids()]:
        print(
            f"stopped watching; still running: {', '.join(names)}. Return with: python -m experiments watch",
            file=sys.stderr,
        )
    else:
        print("stopped; no experiment is running", file=sys.stderr)
    if waiting:
        print(f"not started yet: {' '.join(waiting)}; start with: python -m experiments launch", file=sys.stderr)
