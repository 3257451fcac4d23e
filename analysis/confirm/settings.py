"""What the trial of a search is, by its command line: its fields, its fixed flags, and the settings that stay."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..reading.locate import AnalysisError, registry
from ..reading.records import Experiment

OUR_TRIAL = ["python", "-m", "trial"]
_KEPT = ("trialCodeDirectory", "trialGpuNumber", "maxTrialDuration", "logLevel", "debug", "trainingService")


def flags_of(experiment: Experiment) -> dict[str, str]:
    """{flag: value} of the trial's command line, names with underscores. Raises AnalysisError for another trial."""
    command = str(experiment.config.get("trialCommand") or "")
    words = shlex.split(command)
    if words[:3] != OUR_TRIAL:
        raise AnalysisError(
            f"experiment {experiment.id} runs {command!r}: confirm retrains by seed, which only `{' '.join(OUR_TRIAL)}` "
            "is known to take; retrain other scripts by hand"
        )
    flags, rest = {}, iter(words[3:])
    for word in rest:
        name, equals, value = word.partition("=")
        if not name.startswith("--"):
            raise AnalysisError(f"experiment {experiment.id}: {word!r} in its trialCommand is not a flag of the trial")
        flags[name[2:].replace("-", "_")] = value if equals else next(rest, "")
    return flags


def common_flags(experiments: Sequence[Experiment]) -> dict[str, str]:
    """The flags that all trials share; the seed and the threads, which no training depends on, aside."""
    found = [flags_of(experiment) for experiment in experiments]
    told = [{name: flags[name] for name in flags if name not in ("seed", "threads")} for flags in found]
    for experiment, flags in zip(experiments, told):
        differing = sorted(name for name in {*flags, *told[0]} if flags.get(name) != told[0].get(name))
        if differing:
            name = differing[0]
            raise AnalysisError(
                f"{experiments[0].id} and {experiment.id} fixed {', '.join(differing)} differently "
                f"({name}: {told[0].get(name, 'default')} and {flags.get(name, 'default')}), so that their configurations "
                "are no rivals; confirm each by itself"
            )
    return {name: value for name, value in found[0].items() if name != "seed"}


def describe(experiment: Experiment, flags: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The trial's fields, as it tells them itself. Raises AnalysisError where it finds a fault, such as a missing cache."""
    folder = Path(str(experiment.config.get("trialCodeDirectory") or "."))
    if not (folder / "trial").is_dir():
        raise AnalysisError(
            f"experiment {experiment.id} ran the code in {folder}, which has no trial/ any more; put it back"
        )
    words = [sys.executable, "-m", "trial", *command_flags(flags), "--describe"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NNI_")}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    try:
        told = json.loads(done.stdout.strip().split("\n")[-1])
        fields, problems = told["fields"], told["problems"]
    except (ValueError, KeyError, TypeError):
        said = done.stderr.strip().split("\n")[-1] or f"exit code {done.returncode}"
        raise AnalysisError(f"{folder}: python -m trial --describe failed: {said}") from None
    if problems:
        raise AnalysisError(f"the trial of {experiment.id} cannot run again: {'; '.join(problems)}")
    unknown = sorted(set(experiment.config.get("searchSpace") or {}) - set(fields))
    if unknown:
        raise AnalysisError(
            f"experiment {experiment.id} searched {', '.join(unknown)}, which its trial no longer knows"
        )
    return fields


def settings_of(experiment: Experiment, flags: dict[str, str]) -> dict[str, Any]:
    """NNI's settings of a search that its confirmation shares; an assessor would cut trainings short and stays away."""
    settings = {name: experiment.config[name] for name in _KEPT if experiment.config.get(name) is not None}
    command = shlex.join([*OUR_TRIAL, *command_flags(flags)])
    settings["trialCommand"] = command
    if "trainingService" in settings:  # NNI repeats both there, and refuses a file in which they differ
        repeated = {"trialCommand": command, "trialCodeDirectory": settings["trialCodeDirectory"]}
        service = settings["trainingService"]
        settings["trainingService"] = service | {name: repeated[name] for name in repeated if name in service}
    if folder := registry().get(experiment.id, {}).get("logDir"):
        settings["experimentWorkingDirectory"] = folder
    return settings


def command_flags(flags: dict[str, str]) -> list[str]:
    return [part for name, value in flags.items() for part in (f"--{name.replace('_', '-')}", value)]
