"""The trial that validation chose, and the commands that train it again and evaluate it: python -m analysis best ID."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import Any

from ..reading.locate import AnalysisError
from ..reading.records import Experiment, Trial, best_result, validation_n
from ..reading.values import strict_json
from ..render import formats
from ..render.document import Block, Document, Heading, Row, Table, Text
from ..stats.best_of_n import optimism_of
from ..stats.compare import evaluation
from ..stats.two_sample import wilson

_KEPT = ("device", "precision", "threads")  # settings of the experiment's command; the hyperparameters replace the rest
_NOT_TRAINING = (*_KEPT, "cache", "output", "describe", "gpu", "searched", "evaluate", "split")


def best_facts(experiment: Experiment) -> dict[str, Any]:
    """What `--format json` prints. `score` is the validation score that chose the trial, `score_se` its binomial standard
    error; `evaluation` was not used for the choice; `weights` is None where there is no best.pt. Raises AnalysisError where no
    trial has a result."""
    best = experiment.best
    if best is None:
        counts = ", ".join(f"{n} {state}" for state, n in experiment.counts.items() if n) or "none yet"
        raise AnalysisError(
            f"no trial of {experiment.id} has ended with a result ({counts}); see: python -m analysis show {experiment.id}"
        )
    n, accuracy, weights = validation_n(best), evaluation(best), _weights_file(best)
    bias = optimism_of(experiment)
    return {
        "experiment": experiment.id,
        "state": experiment.state,
        "trials": len(experiment.trials),
        "trial_id": best.trial_id,
        "sequence": best.sequence,
        "parameters": best.parameters,
        "parameters_source": best.parameters_source,
        "parameters_mismatch": best.parameters_mismatch,
        "effective": best.effective,
        "score": best.score,
        "optimise_mode": experiment.optimise_mode,
        "validation_n": n,
        "score_se": _binomial_se(best.score, n),
        "optimism": None if bias is None else bias.bias,
        "evaluation": None
        if accuracy is None
        else accuracy | {"top1_se": _binomial_se(accuracy["top1"], accuracy["n"])},
        "folder": None if best.folder is None else str(best.folder.resolve()),
        "weights": weights,
        "command": str(experiment.config.get("trialCommand") or ""),
        "retrain": retrain_command(experiment, best),
        "evaluate": evaluate_command(experiment, best, weights),
    }


def _weights_file(trial: Trial) -> str | None:
    path = None if trial.folder is None else trial.folder / "best.pt"
    return str(path.resolve()) if path is not None and path.is_file() else None


def _binomial_se(share: float | None, n: int | None) -> float | None:
    """Standard error of a share of `n` images: sqrt(p (1 - p) / n)."""
    return math.sqrt(share * (1 - share) / n) if n and share is not None and 0 <= share <= 1 else None


def best_document(experiment: Experiment, best: dict[str, Any]) -> Document:
    """`best` is what `best_facts` says of the experiment."""
    rows = tuple(Row(label, (text,)) for label, text in _rows(best).items())
    missing = f"none: no best.pt in {best['folder'] or 'any folder on this machine'}"
    blocks: list[Block] = [Table(("",), rows), Heading("Weights"), Text(best["weights"] or missing)]
    for title, command in (("Retrain it", best["retrain"]), ("Evaluate it", best["evaluate"])):
        blocks += [Heading(f"{title}, in the project's folder"), Text(command)] if command else []
    if not best["retrain"]:
        parameters = Text(strict_json(best["parameters"]))
        blocks += [Heading("To train it again: the experiment's command, with these parameters")]
        blocks += [Text(best["command"]), parameters]
    title = f"{experiment.name or experiment.id} ({experiment.id}): best of {best['trials']} trials"
    return Document(title, None, (), tuple(blocks))


def _rows(best: dict[str, Any]) -> dict[str, str]:
    percent = best["validation_n"] is not None
    rows = {
        "Trial": f"{best['trial_id']} (no. {best['sequence']})",
        "Hyperparameters": formats.params_text(best["effective"] or best["parameters"]),
        "Validation accuracy" if percent else "Best score": _score_text(best),
    }
    if best["state"] == "RUNNING":
        rows["Preliminary"] = "the experiment is still running"
    if best["parameters_source"] == "event":
        rows["Uncertain"] = "the parameters are NNI's record, which may be another trial's"
    if best["parameters_mismatch"]:
        text = "NNI's page and database have another trial's parameters here; these are the true ones"
        rows["Not as NNI shows"] = text
    if best["optimism"] is not None:
        bias = formats.difference_text(best["optimism"], True)
        rows["Selection bias"] = f"about {bias} too high, as the best of {best['trials']} trials"
    if best["evaluation"]:
        rows["Evaluation"] = f"{_evaluation_text(best['evaluation'])}; not used for the choice"
    return rows


def _score_text(best: dict[str, Any]) -> str:
    n, text = best["validation_n"], formats.score_text(best["score"], best["validation_n"] is not None)
    if n is None:
        mode = "highest" if best["optimise_mode"] == "maximize" else "lowest"
        return f"{text} ({mode} of {best['trials']} trials; n and spread not reported)"
    interval = formats.interval_text(wilson(best["score"], n))
    se = formats.difference_text(best["score_se"], True)
    return f"{text} ± {se} (binomial standard error; 95 % {interval}, n = {n} images)"


def _evaluation_text(accuracy: dict[str, Any]) -> str:
    names = {"top1": "top-1", "top3": "top-3", "macro": "macro"}
    parts = [
        f"{name} {formats.score_text(accuracy[key], True)}" for key, name in names.items() if accuracy[key] is not None
    ]
    if accuracy["top1_se"] is not None:
        parts[0] += f" ± {formats.difference_text(accuracy['top1_se'], True)}"
    return ", ".join(parts) + (f" (n = {accuracy['n']} images)" if accuracy["n"] else "")


def retrain_command(experiment: Experiment, trial: Trial) -> str | None:
    """`python -m trial` with every hyperparameter that the trial used, its cache, and the device, precision and threads of
    the experiment's command; quoted for a shell. Where the trial's own file is gone, the hyperparameters are those of the
    command and of the search, the rest is the trial's default. None for another trial script."""
    if not _is_ours(experiment):
        return None
    flags = _flags(experiment)
    fixed = {name.replace("-", "_"): value for name, value in flags.items() if name not in _NOT_TRAINING}
    words = []
    for name, value in (trial.effective or fixed | trial.parameters).items():
        if name in ("weights", "teacher") and value not in ("imagenet", "none", ""):
            value = _resolved(str(value), experiment)
        words += [f"--{name.replace('_', '-')}", str(value)]
    settings = [word for name in _KEPT if name in flags for word in (f"--{name}", flags[name])]
    return shlex.join(["python", "-m", "trial", *words, *_cache_flag(experiment, trial), *settings])


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


def _flags(experiment: Experiment) -> dict[str, str]:
    """Flags of the trial command, `--name value` and `--name=value`."""
    command, flags = _words(experiment), {}
    for word, following in zip(command, [*command[1:], ""]):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            flags[name] = value if equals else following
    return flags


def _cache_flag(experiment: Experiment, trial: Trial) -> list[str]:
    """From the trial's result.json, or else the command; none: the trial's default."""
    cache = best_result(trial).get("cache") or _flags(experiment).get("cache")
    return ["--cache", _resolved(cache, experiment)] if isinstance(cache, str) else []


def _resolved(path: str, experiment: Experiment) -> str:
    """NNI runs a trial in the code directory, and what is relative there is not elsewhere."""
    return str(Path(experiment.config.get("trialCodeDirectory") or "", path))
