"""Checks made before anything runs: would this experiment's file, trial, tuner, repairs and machine carry it to its end?"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from analysis.reading.startup import explain
from experiments.algorithms import assessor_findings, tuner_findings
from experiments.config import OUR_TRIAL, Experiment, existing, is_local, read_yaml, requested_gpus
from experiments.findings import Finding, KeyPath, by_severity, has_error
from experiments.nni import FIRST_PORT, count_gpus, is_free, trial_environment
from experiments.remote import remote_findings
from experiments.repairs import INSTALL, are_off, is_installed, missing_repairs
from experiments.space import SPACE, batch_findings, batch_sets, is_batch, searched_values, space_findings

TRIAL_MIB = 50  # disk that a finished trial of unknown network takes: as ours with ResNet18's weights and event files
SHARE_GPUS = (
    "trialGpuNumber: 1 and, below trainingService, useActiveGpu: false (true where other programs use them too)"
)
DESCRIBE_S = 900  # the trial may download ImageNet's weights, so that no trial has to
CHECKPOINTS = 4  # times that much more while a trial runs: two of weights and momentum


def check(experiment: Experiment) -> list[Finding]:
    """All findings of one experiment, errors first."""
    described = describe_trial(experiment) if experiment.is_ours else None
    max_trials = experiment.config.get("maxTrialNumber")
    find = batch_findings if is_batch(experiment.tuner[0]) else space_findings
    search = find(experiment.config.get("searchSpace"), (described or {}).get("fields"), max_trials)
    search = search or tuner_findings(experiment)
    if not has_error(search):
        search.append(Finding("note", "tuner.chosen", explain(*experiment.tuner, max_trials)))
    return by_severity(
        [
            *file_findings(experiment.config, read_yaml(experiment.file)),
            *repair_findings(),
            *_trial_findings(experiment, described),
            *search,
            *assessor_findings(experiment, described),
            *_gpu_findings(experiment.config, (described or {}).get("gpu") or {}),
            *remote_findings(experiment, _needed_mib(experiment, described)),
            *_limit_findings(experiment.config),
            *_machine_findings(experiment, described),
        ]
    )


def repair_findings() -> list[Finding]:
    """What keeps the repairs of NNI out: plain NNI is wanted, or NNI is another one, or only nnictl's are missing."""
    level = "warning" if are_off() else "error"
    if missing := missing_repairs():
        return [Finding(level, "repairs.missing", f"repairs: {text}") for text in missing]
    if is_installed():
        return []
    text = "repairs: a bare nnictl runs NNI without them (its hook in site-packages is missing or names another folder)"
    return [Finding("warning", "repairs.not_in_nnictl", text, INSTALL)]


def describe_trial(experiment: Experiment) -> dict:
    """Our trial's description of itself under this experiment's flags; {"problems": [...]} where it refuses them."""
    values = json.dumps(searched_values(experiment.config.get("searchSpace"), experiment.tuner[0]))
    return _run_trial(experiment, "--describe", "--searched", values)


def gpu_of_trial(experiment: Experiment) -> dict:
    """The GPU of our trial under this experiment's flags: {state, why, names, device, problem}."""
    return _run_trial(experiment, "--gpu")


def _run_trial(experiment: Experiment, *flags: str) -> dict:
    config = experiment.config
    hides_gpus = 0 in (config.get("trialGpuNumber"), (config.get("trainingService") or {}).get("trialGpuNumber"))
    return describe((*experiment.trial_words[1:], *flags), config["trialCodeDirectory"], hides_gpus)


@functools.cache  # experiments of one launch share their trial command: run once
def describe(words: tuple[str, ...], folder: str, hides_gpus: bool = False) -> dict:
    """The JSON that our trial, run in `folder`, answers with; {"problems": [reason]} where it does not."""
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
        reason = done.stderr.strip().split("\n")[-1].split("error: ", 1)[-1] or f"exit code {done.returncode}"
        return {"problems": [f"{reason} (its flags: python -m trial --help)"]}


def _trial_findings(experiment: Experiment, described: dict | None) -> list[Finding]:
    if described is None:
        return foreign_trial_findings(experiment) or [
            Finding(
                "note",
                "trial.foreign",
                f"trialCommand is not `{' '.join(OUR_TRIAL)}`: its fields and needs are not checked",
                path=("trialCommand",),
            )
        ]
    findings = [Finding("error", "trial.refuses", f"trial: {problem}") for problem in described["problems"]]
    findings += [Finding("note", "trial.note", f"trial: {note}") for note in described.get("notes", [])]
    if both := sorted(set(described.get("given", {})) & _searched_names(experiment)):
        text = f"{', '.join(both)}: searched by the search space and fixed by --set; remove one"
        findings.append(Finding("error", "trial.searched_and_fixed", text, path=(*SPACE, both[0])))
    return findings


def foreign_trial_findings(experiment: Experiment) -> list[Finding]:
    """Of the command of a trial that is not this project's."""
    config = experiment.config
    folder, is_limited = Path(config.get("trialCodeDirectory") or "."), bool(config.get("maxTrialDuration"))
    return command_findings(config["trialCommand"], folder, trial_environment()["PATH"], is_limited)


def _searched_names(experiment: Experiment) -> set[str]:
    space = experiment.config.get("searchSpace") or {}
    sets = batch_sets(space) if is_batch(experiment.tuner[0]) else None
    return set(space) if sets is None else {name for entry in sets for name in entry}


def _gpu_findings(config: dict, gpu: dict) -> list[Finding]:
    """Of this machine's GPUs. gpu: our trial's own answer, {} for another trial."""
    if not is_local(config):  # remote_findings looks at the workers'
        return []
    requested, device, concurrency = requested_gpus(config), gpu.get("device") or "", config["trialConcurrency"]
    names = gpu.get("names", [])
    if not requested:
        if concurrency < 2 or len(names) < 2 or not device.startswith("cuda"):
            return []
        text = (
            f"trialConcurrency: {concurrency} on a machine with {len(names)} GPUs, and no trialGpuNumber: every trial "
            f"computes on GPU {device.partition(':')[2] or 0}; write {SHARE_GPUS}"
        )
        return [Finding("warning", "gpu.not_shared", text, path=("trialConcurrency",))]
    there = count_gpus()
    if requested > there:
        key, text = "gpu.too_many_requested", f", but NNI sees {there} GPUs here; remove the key"
    elif requested == there and are_off():
        key = "gpu.all_requested"
        text = (
            f" of {there}: NNI 3.0 never schedules all GPUs and floods the machine with processes; remove the key "
            "(trials then use the GPU that they see), or leave the repairs on"
        )
    elif int(device.partition(":")[2] or 0) >= requested:
        key = "gpu.number_not_shown"
        text = f": NNI shows a trial only its own GPUs, from cuda:0 on; write device=cuda, not {device}"
    else:
        return []
    return [Finding("error", key, f"trialGpuNumber: {requested}{text}", path=("trialGpuNumber",))]


def _limit_findings(config: dict) -> list[Finding]:
    findings = [
        Finding("warning", "limit.not_set", f"{key} is not set: {risk}", path=(key,))
        for key, risk in {
            "maxTrialNumber": "the experiment ends only when it is stopped",
            "maxTrialDuration": "one hung trial holds the experiment forever",
            "maxExperimentDuration": "nothing limits the whole experiment",
        }.items()
        if not config.get(key)
    ]
    if config["trialConcurrency"] > 1 and are_off():
        text = (
            f"trialConcurrency: {config['trialConcurrency']}: NNI 3.0 gives trials that run at once each other's "
            "hyperparameters and records the wrong ones; leave the repairs on, or run several experiments (--parallel)"
        )
        findings.append(Finding("warning", "records.mixed", text, path=("trialConcurrency",)))
    return findings


def _needed_mib(experiment: Experiment, described: dict | None) -> int:
    """Disk that all its trials take."""
    trials = (experiment.config.get("maxTrialNumber") or 1) + CHECKPOINTS * experiment.config["trialConcurrency"]
    return ((described or {}).get("weights_mib") or TRIAL_MIB) * trials


def _machine_findings(experiment: Experiment, described: dict | None) -> list[Finding]:
    findings = [finding for finding in (nnictl_packages(), port()) if finding.level != "ok"]
    folder = Path(experiment.config["experimentWorkingDirectory"])
    free_mib = shutil.disk_usage(existing(folder)).free // 2**20
    needed_mib = _needed_mib(experiment, described)
    if free_mib < needed_mib:
        text = f"{folder}: {free_mib} MiB free, about {needed_mib} needed for the trials' weights"
        findings.append(Finding("error", "disk.too_small", text))
    return findings


def nnictl_packages() -> Finding:
    """setuptools 82 dropped pkg_resources, which nnictl imports and nni does not require."""
    version = importlib.metadata.version("setuptools")
    if importlib.util.find_spec("pkg_resources"):
        return Finding("ok", "nnictl", f"nnictl: pkg_resources of setuptools {version}")
    text = f"nnictl: needs pkg_resources, which setuptools {version} lacks"
    return Finding("error", "packages.setuptools", text, "python -m pip install 'setuptools<82'")


def port() -> Finding:
    if is_free(FIRST_PORT):
        return Finding("ok", "port", f"port: {FIRST_PORT} is free")
    text = f"port: {FIRST_PORT} is taken; launch picks another, nnictl create needs --port"
    return Finding("warning", "port.taken", text)


# -- the experiment file: what it asks of NNI 3.0 that fails without a message, or does something else than it says ---------
# Each was measured: docs/faults.md.

# Tuners of NNI 3.0 that cannot work with the libraries of today, whatever their arguments.
_BROKEN_TUNERS = {
    "hyperband": "dies at the first result (it compares a text with a number)",
    "bohb": "needs ConfigSpace, and dies at the first result as Hyperband does",
    "gp": "dies after its random start, in scipy",
    "metis": "dies after its random start, in scipy",
}
_COMPOUND = {";", "&&", "||", "|", "&", "(", ")", "|&", ";;"}


def file_findings(config: dict[str, Any], raw: dict[str, Any]) -> list[Finding]:
    """Of the keys apart from tuner arguments. `raw` is the file, `config` NNI's reading of it."""
    keys = {str(key).lower().replace("_", "") for key in raw}
    service = config.get("trainingService") or {}
    tuner = str((config.get("tuner") or {}).get("name") or "").lower()
    findings = []
    if {"searchspace", "searchspacefile"} <= keys:
        text = "given beside searchSpaceFile, and NNI silently takes the file; remove one"
        findings.append(_error("file.two_spaces", ("searchSpace",), text))
    if config.get("logLevel") == "fatal":
        text = "NNI's manager does not know fatal and ends at its start; write error"
        findings.append(_error("file.log_level", ("logLevel",), text))
    if isinstance(service, dict) and service.get("reuseMode"):
        text = "broken in NNI 3.0 (singletons.has); remove the key"
        findings.append(_error("file.reuse_mode", ("reuseMode",), text))
    if tuner in _BROKEN_TUNERS:
        text = f"NNI 3.0's {tuner} {_BROKEN_TUNERS[tuner]}; take TPE, Evolution or Random"
        findings.append(_error("tuner.broken", ("tuner", "name"), text))
    if 0 in (config.get("trialGpuNumber"), isinstance(service, dict) and service.get("trialGpuNumber")):
        text = "trialGpuNumber: 0 hides all GPUs from the trials; remove the key to use them"
        findings.append(Finding("warning", "gpu.hidden", text, path=("trialGpuNumber",)))
    gpu_users = service.get("machineList") or [service] if isinstance(service, dict) else []
    if any((user.get("maxTrialNumberPerGpu") or 1) > 1 and not user.get("useActiveGpu") for user in gpu_users):
        text = (
            "maxTrialNumberPerGpu: with useActiveGpu: false a trial keeps others off its GPU; write useActiveGpu: true"
        )
        findings.append(Finding("warning", "gpu.own_trials", text, path=("maxTrialNumberPerGpu",)))
    if config.get("sharedStorage"):
        text = "sharedStorage: NNI 3.0 reads it for no local or remote machine"
        findings.append(Finding("warning", "file.shared_storage", text, path=("sharedStorage",)))
    return findings


def _error(key: str, path: KeyPath, text: str) -> Finding:
    return Finding("error", key, f"{path[0]}: {text}", path=path)


def command_findings(command: str, folder: Path, search_path: str, limited: bool) -> list[Finding]:
    """Faults of a trialCommand that bash would meet in `folder` with that PATH. limited: maxTrialDuration is set."""
    try:
        words = list(shlex.shlex(command, posix=True, punctuation_chars=True))
        plain = shlex.split(command)
    except ValueError as error:
        return _command_error("quotes", f"{command!r} is no shell command ({error})")
    if not words:
        return _command_error("empty", "empty; NNI would retry it without end")
    if _COMPOUND & set(words) or "\n" in command.strip():
        text = (
            f"{command!r} is a compound command; at maxTrialDuration NNI ends only its shell, and the training continues "
            "unseen. Write one simple command, or exec before the last"
        )
        return _command_error("compound", text) if limited and "exec" not in words else []
    while plain and re.match(r"\w+=", plain[0]):
        plain = plain[1:]
    if plain[:1] == ["exec"]:
        plain = plain[1:]
    if not plain or not shutil.which(plain[0] if "/" not in plain[0] else str(folder / plain[0]), path=search_path):
        name = plain[0] if plain else command
        return _command_error("not_found", f"{name!r} is not a command here; every trial would fail")
    script = next((word for word in plain[1:] if not word.startswith("-")), "")
    if re.match(r"python[\d.]*$", Path(plain[0]).name) and script.endswith(".py") and not (folder / script).is_file():
        return _command_error("no_script", f"there is no {script} in {folder}; every trial would fail")
    return []


def _command_error(key: str, text: str) -> list[Finding]:
    return [_error(f"command.{key}", ("trialCommand",), text)]
