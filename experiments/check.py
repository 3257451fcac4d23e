"""Everything that can be known before a night is lost."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.reading.startup import explain
from experiments.batch import batch_problems, batch_sets, is_batch
from experiments.config import OUR_TRIAL, Experiment, asked_gpus, read_yaml
from experiments.file_check import command_problems, file_problems
from experiments.machine import existing
from experiments.ports import is_free
from experiments.repairs import are_off, missing_in_nnictl, missing_repairs
from experiments.space import entry_problems, space_problems
from experiments.tuner_check import tuner_problems

# Disk that a finished trial takes, MiB: the best weights of its network and its event files, rounded up.
TRIAL_MIB = {"resnet18": 50, "resnet50": 100}
SHARE_GPUS = (
    "trialGpuNumber: 1 and, below trainingService, useActiveGpu: false (true where other programs use them too)"
)
DESCRIBE_S = 900  # the trial may download ImageNet's weights, so that no trial has to
CHECKPOINTS = 4  # times that much more while a trial runs: two of weights and momentum


@dataclass(frozen=True)
class Finding:
    """level: "error" (stops a launch), "warning" or "note"."""

    level: str
    text: str


def check(experiment: Experiment) -> list[Finding]:
    """All findings of one experiment, errors first."""
    described = describe_trial(experiment) if experiment.is_ours else None
    max_trials = experiment.config.get("maxTrialNumber")
    fields = described["fields"] if described and "fields" in described else None
    problems = batch_problems if is_batch(experiment.tuner[0]) else space_problems
    space = [Finding("error", text) for text in problems(experiment.config.get("searchSpace"), fields, max_trials)]
    tuner = [] if space else _tuner_findings(experiment)
    explained = not space and all(finding.level != "error" for finding in tuner)
    findings = [
        *(Finding(*found) for found in file_problems(experiment.config, read_yaml(experiment.file))),
        *_repair_findings(),
        *_trial_findings(experiment, described),
        *space,
        *tuner,
        *_gpu_findings(experiment.config, (described or {}).get("gpu") or {}),
        *_limit_findings(experiment.config),
        *_machine_findings(experiment, described),
        *([Finding("note", explain(*experiment.tuner, max_trials))] if explained else []),
    ]
    return sorted(findings, key=lambda finding: ("error", "warning", "note").index(finding.level))


def _repair_findings() -> list[Finding]:
    """What keeps the repairs of NNI (manager_js/) out: plain NNI is wanted, or NNI is another one, or only nnictl's."""
    level = "warning" if are_off() else "error"
    return [Finding(level, text) for text in missing_repairs()] or [
        Finding("warning", text) for text in missing_in_nnictl()
    ]


def trial_environment() -> dict[str, str]:
    """The environment in which NNI and its trials run: `python` means the interpreter that runs this."""
    folder = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": os.pathsep.join([folder, os.environ.get("PATH", "")])}


def describe_trial(experiment: Experiment) -> dict:
    """What our trial says of itself under this experiment's flags; {"problems": [...]} where it refuses them."""
    searched = json.dumps(searched_values(experiment.config.get("searchSpace")))
    return _ask_trial(experiment, "--describe", "--searched", searched)


def gpu_of_trial(experiment: Experiment) -> dict:
    """What our trial says of the GPU under this experiment's flags: {state, why, names, device, problem}."""
    return _ask_trial(experiment, "--gpu")


def _ask_trial(experiment: Experiment, *question: str) -> dict:
    config = experiment.config
    hides_gpus = 0 in (config.get("trialGpuNumber"), (config.get("trainingService") or {}).get("trialGpuNumber"))
    return _describe((*experiment.trial_words[1:], *question), config["trialCodeDirectory"], hides_gpus)


def searched_values(space: Any) -> dict[str, list]:
    """{field: all options of a choice, or the bounds of a range}; what is faulty or nested is left to `space_problems`."""
    entries = {name: spec for name, spec in space.items() if not entry_problems(name, spec)} if space else {}
    return {
        name: spec["_value"] if spec["_type"] == "choice" else spec["_value"][:2]
        for name, spec in entries.items()
        if not spec["_type"].endswith("normal") and not any(isinstance(value, dict) for value in spec["_value"])
    }


@functools.cache  # experiments of one launch share their trial command: asked once
def _describe(words: tuple[str, ...], folder: str, hides_gpus: bool) -> dict:
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if hides_gpus else {}
    environment = {name: value for name, value in os.environ.items() if name != "NNI_TRIAL_JOB_ID"} | hidden
    options = {"cwd": folder, "env": environment, "capture_output": True, "text": True, "timeout": DESCRIBE_S}
    try:
        done = subprocess.run([sys.executable, *words], **options, check=False)
        return json.loads(done.stdout.strip().split("\n")[-1])
    except subprocess.TimeoutExpired:
        slow = f"python -m trial --describe has not answered within {DESCRIBE_S / 60:.0f} minutes"
        return {"problems": [f"{slow}: a download or a disk hangs; put the weights there by hand (--set weights=FILE)"]}
    except json.JSONDecodeError:
        said = done.stderr.strip().split("\n")[-1].split("error: ", 1)[-1] or f"exit code {done.returncode}"
        return {"problems": [f"{said} (its flags: python -m trial --help)"]}


def _trial_findings(experiment: Experiment, described: dict | None) -> list[Finding]:
    if described is None:
        config = experiment.config
        folder, limited = Path(config["trialCodeDirectory"]), bool(config.get("maxTrialDuration"))
        if wrong := command_problems(config["trialCommand"], folder, trial_environment()["PATH"], limited):
            return [Finding("error", text) for text in wrong]
        return [Finding("note", f"trialCommand is not `{' '.join(OUR_TRIAL)}`: its fields and needs are not checked")]
    findings = [Finding("error", f"trial: {problem}") for problem in described["problems"]]
    findings += [Finding("note", f"trial: {note}") for note in described.get("notes", [])]
    both = sorted(set(described.get("given", {})) & _searched(experiment))
    if both:
        findings.append(
            Finding("error", f"{', '.join(both)}: searched by the search space and fixed by --set; drop one")
        )
    return findings


def _searched(experiment: Experiment) -> set[str]:
    space = experiment.config.get("searchSpace") or {}
    sets = batch_sets(space) if is_batch(experiment.tuner[0]) else None
    return set(space) if sets is None else {name for entry in sets for name in entry}


def _tuner_findings(experiment: Experiment) -> list[Finding]:
    problems = tuner_problems(experiment)
    if problems is None:
        return [Finding("note", f"{experiment.tuner[0]}: a custom tuner, not tried out here")]
    return [Finding("error", text) for text in problems]


def _gpu_findings(config: dict, gpu: dict) -> list[Finding]:
    """gpu: our trial's own answer, {} for another trial."""
    requested, device = asked_gpus(config), gpu.get("device") or ""
    several, concurrency = len(gpu.get("names", [])) > 1 and device.startswith("cuda"), config["trialConcurrency"]
    if not requested and several and concurrency > 1:
        text = (
            f"trialConcurrency: {concurrency} on a machine with {len(gpu['names'])} GPUs, and no trialGpuNumber: every trial "
            f"computes on GPU {device.partition(':')[2] or 0}; write {SHARE_GPUS}"
        )
        return [Finding("warning", text)]
    if not requested:
        return []
    there = count_gpus()
    if requested > there:
        text = f"trialGpuNumber: {requested}, but NNI sees {there} GPUs here; remove the key"
    elif requested == there and are_off():
        text = (
            f"trialGpuNumber: {requested} of {there}: NNI 3.0 never schedules all GPUs and floods the machine with "
            "processes; remove the key (trials then use the GPU that they see), or leave the repairs on"
        )
    elif int(device.partition(":")[2] or 0) >= requested:
        text = f"trialGpuNumber: {requested}: NNI shows a trial only its own GPUs, from cuda:0 on; write device=cuda, not {device}"
    else:
        return []
    return [Finding("error", text)]


def count_gpus() -> int:
    """GPUs as NNI counts them: through NVML, 0 where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:
        return 0


def _limit_findings(config: dict) -> list[Finding]:
    findings = [
        Finding("warning", f"{key} is not set: {risk}")
        for key, risk in {
            "maxTrialNumber": "the experiment ends only when it is stopped",
            "maxTrialDuration": "one hung trial holds the experiment forever",
            "maxExperimentDuration": "nothing limits the night",
        }.items()
        if not config.get(key)
    ]
    if config["trialConcurrency"] > 1 and are_off():
        findings.append(
            Finding(
                "warning",
                f"trialConcurrency: {config['trialConcurrency']}: NNI 3.0 gives trials that run at once each other's "
                "hyperparameters and records the wrong ones; leave the repairs on, or run several experiments (--parallel)",
            )
        )
    return findings


def _trial_mib(experiment: Experiment, described: dict | None) -> int:
    """Of the largest network that a trial may train; another program's trial counts as our smallest."""
    searched = searched_values(experiment.config.get("searchSpace")) if described else {}
    given = (described or {}).get("given", {})
    archs = searched.get("arch") or [given.get("arch")]
    return max(TRIAL_MIB.get(str(arch), min(TRIAL_MIB.values())) for arch in archs)


def _machine_findings(experiment: Experiment, described: dict | None) -> list[Finding]:
    findings = []
    version = importlib.metadata.version("setuptools")
    if int(version.split(".")[0]) >= 82:
        findings.append(
            Finding(
                "error", f"setuptools {version} has no pkg_resources, which nnictl needs: pip install 'setuptools<82'"
            )
        )
    folder = Path(experiment.config["experimentWorkingDirectory"])
    free_mib = shutil.disk_usage(existing(folder)).free // 2**20
    trials = (experiment.config.get("maxTrialNumber") or 1) + CHECKPOINTS * experiment.config["trialConcurrency"]
    needed = _trial_mib(experiment, described) * trials
    if free_mib < needed:
        findings.append(
            Finding("error", f"{folder}: {free_mib} MiB free, about {needed} needed for the trials' weights")
        )
    if not is_free(8080):
        findings.append(Finding("warning", "port 8080 is taken: launch picks another, nnictl create needs --port"))
    return findings
