"""The commands that train a trial of ours again and evaluate its weights, written for `python -m trial`."""

from __future__ import annotations

import shlex
from pathlib import Path

from ..reading.provenance import best_result
from ..reading.records import Experiment, Trial

_NOT_TRAINING = (
    "cache",
    "output",
    "device",
    "precision",
    "threads",
    "describe",
    "gpu",
    "searched",
    "evaluate",
    "split",
)
_KEPT = ("device", "precision", "threads")  # settings of the experiment's command; the hyperparameters replace the rest


def retrain_command(experiment: Experiment, trial: Trial) -> str | None:
    """`python -m trial` with every hyperparameter that the trial used, its cache, and the device, precision and threads of
    the experiment's command; quoted for a shell. Where the trial's own file is gone, the hyperparameters are those of the
    command and of the search, the rest is the trial's default. None for another trial script."""
    if not _is_ours(experiment):
        return None
    fixed = {name.replace("-", "_"): value for name, value in _given(experiment).items() if name not in _NOT_TRAINING}
    used = trial.effective or fixed | trial.parameters
    flags = []
    for name, value in used.items():
        if name in ("weights", "teacher"):
            value = _weights_source(str(value), experiment)
        flags += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(["python", "-m", "trial", *flags, *_cache_flag(experiment, trial), *_settings(experiment)])


def evaluate_command(experiment: Experiment, trial: Trial, weights: str | None) -> str | None:
    """The command that scores this best.pt on the evaluation split; None without one."""
    if weights is None or not _is_ours(experiment):
        return None
    return shlex.join(["python", "-m", "trial", "--evaluate", weights, *_cache_flag(experiment, trial)])


def _is_ours(experiment: Experiment) -> bool:
    command = _words(experiment)
    return ("-m", "trial") in zip(command, command[1:])


def _words(experiment: Experiment) -> list[str]:
    """The trial command as the shell splits it; none where its quotes are open."""
    try:
        return shlex.split(str(experiment.config.get("trialCommand") or ""))
    except ValueError:
        return []


def _given(experiment: Experiment) -> dict[str, str]:
    """Flags of the trial command, `--name value` and `--name=value`."""
    command, found = _words(experiment), {}
    for word, following in zip(command, [*command[1:], ""]):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            found[name] = value if equals else following
    return found


def _settings(experiment: Experiment) -> list[str]:
    given = _given(experiment)
    return [word for name in _KEPT if name in given for word in (f"--{name}", given[name])]


def _cache_flag(experiment: Experiment, trial: Trial) -> list[str]:
    """From the trial's result.json, or else the command; none: the trial's default."""
    told = best_result(trial).get("cache") or _given(experiment).get("cache")
    return ["--cache", _resolved(told, experiment)] if isinstance(told, str) else []


def _weights_source(value: str, experiment: Experiment) -> str:
    return value if value in ("imagenet", "none", "") else _resolved(value, experiment)


def _resolved(path: str, experiment: Experiment) -> str:
    """NNI runs a trial in the code directory, and what is relative there is not elsewhere."""
    return str(Path(experiment.config.get("trialCodeDirectory") or "", path))
