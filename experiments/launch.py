"""Check, start and watch a set of experiments, one after another or at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from experiments.check import SHARE_GPUS, check, gpu_of_trial
from experiments.config import Overrides, asked_gpus, read_experiment
from experiments.errors import ExperimentError
from experiments.finish import Watching, finish, say_interrupted
from experiments.lines import place
from experiments.manager import attach, forget_dead, running_ids, start


@dataclass(frozen=True)
class Options:
    """How a launch runs."""

    parallel: bool = False
    watching: Watching = field(default_factory=Watching)


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
            print(f"{finding.level}: {place(file, finding.text)}: {finding.text}", file=sys.stderr)
        good = good and not any(finding.level == "error" for finding in findings)
    return good


def launch(files: Sequence[Path], overrides: Overrides, options: Options) -> int:
    """Returns the exit code: 0 where every experiment is DONE with a best trial."""
    if options.parallel:
        overrides = _share_devices(overrides, files)
    if not run_check(files, overrides):
        print("nothing was started", file=sys.stderr)
        return 1
    forget_dead()
    experiments = [read_experiment(file, overrides) for file in files]
    groups = [experiments] if options.parallel else [[experiment] for experiment in experiments]
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
            code = max(code, finish(managers, options.watching))
    except KeyboardInterrupt:
        say_interrupted(waiting)
        return 130
    return code


def watch_running(ids: Sequence[str], watching: Watching) -> int:
    """Return to experiments that are running: those named, or all."""
    forget_dead()
    managers = [attach(experiment_id) for experiment_id in (ids or running_ids())]
    if not managers:
        raise ExperimentError(
            "no experiment is running; start one with: python -m experiments launch experiments/tpe.yml"
        )
    try:
        return finish(managers, watching)
    except KeyboardInterrupt:
        say_interrupted([])
        return 130


def _share_devices(overrides: Overrides, files: Sequence[Path]) -> Overrides:
    """Trials that compute at once on a CPU get equal shares of its cores: more threads than cores cost many times that.
    On several GPUs NNI shares them out only where it is asked to. What `check` refuses is left to it."""
    try:
        experiments = [read_experiment(file, overrides) for file in files]
    except ExperimentError:
        return overrides
    gpus = [gpu_of_trial(experiment) if experiment.is_ours else {} for experiment in experiments]
    alone = [
        gpu
        for gpu, e in zip(gpus, experiments, strict=True)
        if len(gpu.get("names", [])) > 1 and not asked_gpus(e.config)
    ]
    if sum((gpu["device"] or "").startswith("cuda") for gpu in alone) > 1:
        print(
            f"warning: experiments at once on a machine with {len(alone[0]['names'])} GPUs, and no trialGpuNumber: all compute on "
            f"one; write {SHARE_GPUS}",
            file=sys.stderr,
        )
    if "threads" in overrides.fields or any(gpu.get("device") != "cpu" for gpu in gpus):
        return overrides
    threads = max(1, (os.cpu_count() or 1) // len(files))
    return replace(overrides, fields={**overrides.fields, "threads": str(threads)})
