"""What an experiment file asks of NNI 3.0 that fails without a message, or does something else than it says.

Each was measured: docs/faults.md. The search space has space.py, the trial, the GPUs and the limits have check.py.
"""

from __future__ import annotations

import logging
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

from experiments.config import ROOT, Experiment
from experiments.findings import Finding, KeyPath

OUR_TUNERS = ROOT / "experiments" / "tuners"
# Tuners of NNI 3.0 that cannot work with the libraries of today, whatever their arguments.
BROKEN_TUNERS = {
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
    if tuner in BROKEN_TUNERS:
        text = f"NNI 3.0's {tuner} {BROKEN_TUNERS[tuner]}; take TPE, Evolution or Random"
        findings.append(_error("tuner.broken", ("tuner", "name"), text))
    if 0 in (config.get("trialGpuNumber"), isinstance(service, dict) and service.get("trialGpuNumber")):
        text = "trialGpuNumber: 0 hides all GPUs from the trials; remove the key to use them"
        findings.append(Finding("warning", "gpu.hidden", text, path=("trialGpuNumber",)))
    if config.get("sharedStorage"):
        text = "sharedStorage: NNI 3.0 reads it for no local or remote machine"
        findings.append(Finding("warning", "file.shared_storage", text, path=("sharedStorage",)))
    return findings + _assessor_findings(config.get("assessor") or {})


def _error(key: str, path: KeyPath, text: str) -> Finding:
    return Finding("error", key, f"{path[0]}: {text}", path=path)


def _assessor_findings(assessor: dict[str, Any]) -> list[Finding]:
    """Made as NNI makes it: a wrong name or argument otherwise ends the tuner's process, with status ERROR."""
    if not assessor:
        return []
    path: KeyPath = ("assessor",)
    text = (
        "assessor: NNI records the trials that it stops as USER_CANCELED without a result; they count to maxTrialNumber"
    )
    counted = Finding("warning", "assessor.counts", text, path=path)
    if not assessor.get("name"):
        return [counted]
    arguments = assessor.get("classArgs") or {}
    mode = arguments.get("optimize_mode", "maximize")
    if mode not in ("maximize", "minimize"):  # NNI's only logs a line, and stops the wrong trials
        path = (*path, "classArgs", "optimize_mode")
        return [_error("assessor.arguments", path, f"optimize_mode {mode!r}: expected maximize or minimize")]
    logging.getLogger("nni").setLevel(logging.ERROR)
    from nni.tools.package_utils.tuner_factory import create_builtin_class_instance

    try:
        create_builtin_class_instance(assessor["name"], arguments, "assessors")
    except Exception as error:  # noqa: BLE001  each assessor refuses in its own way
        text = f"{assessor['name']}: NNI cannot use it with these classArgs: {_first_line(error)}"
        return [_error("assessor.arguments", _argument_path(path, arguments, str(error)), text)]
    return [counted]


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


def tuner_findings(experiment: Experiment) -> list[Finding]:
    """Faults of a tuner's arguments. NNI itself writes them to a log, after a start that looks well."""
    tuner = experiment.config.get("tuner") or {}
    is_ours = bool(tuner.get("className")) and Path(tuner["codeDirectory"]).resolve() == OUR_TUNERS
    if not tuner.get("name") and not is_ours:  # other people's code is not run here
        text = f"{experiment.tuner[0]}: a custom tuner, not tried out here"
        return [Finding("note", "tuner.custom", text, path=("tuner",))]
    return _number_findings(experiment) or _try_tuner(tuner, experiment.config["searchSpace"])


def _number_findings(experiment: Experiment) -> list[Finding]:
    """What no tuner can know: how many trials there will be, and how many at once."""
    name, args = experiment.tuner
    concurrency = experiment.config["trialConcurrency"]
    limit = experiment.config.get("maxTrialNumber")
    first, initial = args.get("first") or [], args.get("initial") or 0
    if limit and isinstance(first, list) and isinstance(initial, int) and len(first) + initial > limit:
        text = (
            f"tuner {name}: {len(first)} first and {initial} initial trials, but maxTrialNumber is {limit}; "
            f"set it to {len(first) + initial} or more, or lower initial"
        )
        return [Finding("error", "tuner.too_few_trials", text, path=("maxTrialNumber",))]
    size = args.get("population_size", 32)
    if "evolution" in name.lower() and isinstance(size, int) and size < concurrency:
        text = (
            f"tuner {name}: population_size {size} is below trialConcurrency {concurrency}: it would run out of "
            f"individuals; set population_size to {concurrency} or more"
        )
        return [Finding("error", "tuner.population", text, path=("tuner", "classArgs", "population_size"))]
    return []


def _try_tuner(tuner: dict[str, Any], space: dict[str, Any]) -> list[Finding]:
    """Make the tuner and let it propose and learn, as NNI's dispatcher does."""
    logging.getLogger("nni").setLevel(logging.CRITICAL)  # what stops a tuner it also raises
    from nni.tools.package_utils.tuner_factory import create_builtin_class_instance, create_customized_class_instance

    arguments = tuner.get("classArgs") or {}
    try:
        if tuner.get("name"):
            instance = create_builtin_class_instance(tuner["name"], arguments, "tuners")
        else:
            instance = create_customized_class_instance(tuner)
        instance.update_search_space(space)
        for number in range(3):  # with results: TPE of one start-up trial, for example, dies at its second
            for parameters in instance.generate_multiple_parameters([number], st_callback=lambda *_: None):
                instance.receive_trial_result(number, parameters, 0.5)
                instance.trial_end(number, True)
    except Exception as error:  # noqa: BLE001  each tuner refuses in its own way
        name = tuner.get("name") or tuner["className"]
        text = f"tuner {name}: NNI cannot use it with these classArgs: {_first_line(error)}"
        return [Finding("error", "tuner.arguments", text, path=_argument_path(("tuner",), arguments, str(error)))]
    return []


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0] or type(error).__name__


def _argument_path(path: KeyPath, arguments: dict[str, Any], message: str) -> KeyPath:
    """The path to the argument whose name or value an error quotes, as in "'maximise' is not a valid OptimizeMode"."""
    quoted = set(re.findall(r"'([^']*)'", message))
    name = next((name for name, value in arguments.items() if {name, str(value)} & quoted), None)
    return (*path, "classArgs", name) if name else path
