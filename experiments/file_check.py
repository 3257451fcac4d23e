"""What an experiment file asks of NNI 3.0 that fails without a word, or does something else than it says.

Each was measured: docs/faults.md. The search space has space.py, the tuner, the GPUs and the limits have check.py.
"""

from __future__ import annotations

import logging
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

# Tuners of NNI 3.0 that cannot work with the libraries of today, whatever their arguments.
BROKEN_TUNERS = {
    "hyperband": "dies at the first result (it compares a text with a number)",
    "bohb": "needs ConfigSpace, and dies at the first result as Hyperband does",
    "gp": "dies after its random start, in scipy",
    "metis": "dies after its random start, in scipy",
}
_COMPOUND = {";", "&&", "||", "|", "&", "(", ")", "|&", ";;"}


def file_problems(config: dict[str, Any], raw: dict[str, Any]) -> list[tuple[str, str]]:
    """(level, text) for each; a text begins with the key that it is about. `raw` is the file, `config` NNI's reading."""
    keys = {_plain(key) for key in raw}
    service = config.get("trainingService") or {}
    tuner = str((config.get("tuner") or {}).get("name") or "").lower()
    found = []
    if {"searchspace", "searchspacefile"} <= keys:
        found.append(("error", "searchSpace: given beside searchSpaceFile, and NNI silently takes the file; drop one"))
    if config.get("logLevel") == "fatal":
        found.append(("error", "logLevel: NNI's manager does not know fatal and ends at its start; write error"))
    if isinstance(service, dict) and service.get("reuseMode"):
        found.append(("error", "reuseMode: broken in NNI 3.0 (singletons.has); take it out"))
    if tuner in BROKEN_TUNERS:
        found.append(("error", f"tuner: NNI 3.0's {tuner} {BROKEN_TUNERS[tuner]}; take TPE, Evolution or Random"))
    if 0 in (config.get("trialGpuNumber"), isinstance(service, dict) and service.get("trialGpuNumber")):
        found.append(("warning", "trialGpuNumber: 0 hides all GPUs from the trials; leave the key away to use them"))
    if config.get("sharedStorage"):
        found.append(("warning", "sharedStorage: NNI 3.0 reads it for no local or remote machine"))
    return found + _assessor_problems(config.get("assessor") or {})


def _assessor_problems(assessor: dict[str, Any]) -> list[tuple[str, str]]:
    """Made as NNI makes it: a wrong name or argument otherwise ends the tuner's process, with status ERROR."""
    if not assessor:
        return []
    told = (
        "warning",
        "assessor: NNI records the trials that it stops as USER_CANCELED without a result; they count to maxTrialNumber",
    )
    if not assessor.get("name"):
        return [told]
    mode = (assessor.get("classArgs") or {}).get("optimize_mode", "maximize")
    if mode not in ("maximize", "minimize"):  # NNI's only logs a line, and stops the wrong trials
        return [("error", f"assessor: optimize_mode {mode!r}: expected maximize or minimize")]
    logging.getLogger("nni").setLevel(logging.ERROR)
    from nni.tools.package_utils.tuner_factory import create_builtin_class_instance

    try:
        create_builtin_class_instance(assessor["name"], assessor.get("classArgs") or {}, "assessors")
    except Exception as error:  # noqa: BLE001  each assessor refuses in its own way
        reason = str(error).split("\n")[0] or type(error).__name__
        return [("error", f"assessor: {assessor['name']}: NNI cannot use it with these classArgs: {reason}")]
    return [told]


def command_problems(command: str, folder: Path, path: str, limited: bool) -> list[str]:
    """Faults of a trialCommand that bash would meet in `folder` with that PATH. limited: maxTrialDuration is set."""
    try:
        words = list(shlex.shlex(command, posix=True, punctuation_chars=True))
        plain = shlex.split(command)
    except ValueError as error:
        return [f"trialCommand: {command!r} is no shell command ({error})"]
    if not words:
        return ["trialCommand: empty; NNI would retry it without end"]
    if _COMPOUND & set(words) or "\n" in command.strip():
        if limited and "exec" not in words:
            return [
                f"trialCommand: {command!r} is a compound command; at maxTrialDuration NNI ends only its shell, and the "
                "training goes on unseen. Write one simple command, or exec before the last"
            ]
        return []
    while plain and re.match(r"\w+=", plain[0]):
        plain = plain[1:]
    if plain[:1] == ["exec"]:
        plain = plain[1:]
    if not plain or not shutil.which(plain[0] if "/" not in plain[0] else str(folder / plain[0]), path=path):
        return [f"trialCommand: {plain[0] if plain else command!r} is not a command here; every trial would fail"]
    script = next((word for word in plain[1:] if not word.startswith("-")), "")
    if re.match(r"python[\d.]*$", Path(plain[0]).name) and script.endswith(".py") and not (folder / script).is_file():
        return [f"trialCommand: there is no {script} in {folder}; every trial would fail"]
    return []


def _plain(key: Any) -> str:
    """NNI's own comparison of keys: case and underscores do not count."""
    return str(key).lower().replace("_", "")
