"""python -m analysis best ID: the trial that validation chose, and the commands that retrain and evaluate it."""

from __future__ import annotations

import math
from typing import Any

from ..reading.locate import AnalysisError
from ..reading.records import Experiment, Trial
from ..reading.values import strict_json
from ..render import formats as words
from ..render.terminal import clean, columns, safe_json, say
from ..stats.best_of_n import optimism_of
from ..stats.compare import evaluation
from ..stats.two_sample import wilson
from .retrain import evaluate_command, retrain_command


def print_best(experiment: Experiment, file_format: str) -> None:
    """`file_format`: "text" or "json". Raises AnalysisError where no trial has a result."""
    found = best_facts(experiment)
    if file_format == "json":
        print(safe_json(found))
        return
    say(clean(f"{experiment.name or experiment.id} ({experiment.id}): best of {found['trials']} trials"))
    say(columns([(label, [text]) for label, text in _rows(found)]))
    missing = f"none: no best.pt in {found['folder'] or 'any folder on this machine'}"
    say(f"\nWeights\n{clean(found['weights'] or missing)}")
    for title, command in (("Retrain it", found["retrain"]), ("Evaluate it", found["evaluate"])):
        if command:
            say(f"\n{title}, in the project's folder\n{clean(command)}")
    if not found["retrain"]:
        say(f"\nTo train it again: the experiment's command, with these parameters\n{clean(found['command'])}")
        say(clean(strict_json(found["parameters"])))


def best_facts(experiment: Experiment) -> dict[str, Any]:
    """What `--format json` prints. `score` is the validation score that chose the trial, `score_se` its binomial standard
    error; `evaluation` was not used for the choice; `weights` is None where there is no best.pt."""
    best = experiment.best
    if best is None:
        counts = ", ".join(f"{n} {state}" for state, n in experiment.counts.items() if n) or "none yet"
        raise AnalysisError(
            f"no trial of {experiment.id} has ended with a result ({counts}); see: python -m analysis show {experiment.id}"
        )
    n, judged, weights = words.validation_n(best), evaluation(best), _weights_file(best)
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
        "evaluation": None if judged is None else judged | {"top1_se": _binomial_se(judged["top1"], judged["n"])},
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


def _rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    percent = found["validation_n"] is not None
    rows = [
        ("Trial", f"{found['trial_id']} (no. {found['sequence']})"),
        ("Hyperparameters", words.params_text(found["effective"] or found["parameters"])),
        ("Validation accuracy" if percent else "Best score", _score_text(found)),
    ]
    if found["state"] == "RUNNING":
        rows.append(("Preliminary", "the experiment is still running"))
    if found["parameters_source"] == "event":
        rows.append(("Uncertain", "the parameters are NNI's record, which may be another trial's"))
    if found["parameters_mismatch"]:
        rows.append(
            (
                "Not as NNI shows",
                "NNI's page and database have another trial's parameters here; these are the true ones",
            )
        )
    if found["optimism"] is not None:
        bias = words.difference_text(found["optimism"], True)
        rows.append(("Too good by the choice", f"about {bias}, as the best of {found['trials']} trials"))
    if found["evaluation"]:
        rows.append(("Evaluation", f"{_evaluation_text(found['evaluation'])}; not used for the choice"))
    return rows


def _score_text(found: dict[str, Any]) -> str:
    n, text = found["validation_n"], words.score_text(found["score"], found["validation_n"] is not None)
    mode = "highest" if found["optimise_mode"] == "maximize" else "lowest"
    if n is None:
        return f"{text} ({mode} of {found['trials']} trials; n and spread not reported)"
    interval = words.interval_text(wilson(found["score"], n))
    se = words.difference_text(found["score_se"], True)
    return f"{text} ± {se} (binomial standard error; 95 % {interval}, n = {n} images)"


def _evaluation_text(judged: dict[str, Any]) -> str:
    parts = [f"top-1 {words.score_text(judged['top1'], True)}"]
    if judged["top1_se"] is not None:
        parts[0] += f" ± {words.difference_text(judged['top1_se'], True)}"
    parts += [f"{name} {words.score_text(judged[key], True)}" for key, name in (("top3", "top-3"), ("macro", "macro"))
              if judged[key] is not None]  # fmt: skip
    return ", ".join(parts) + (f" (n = {judged['n']} images)" if judged["n"] else "")
