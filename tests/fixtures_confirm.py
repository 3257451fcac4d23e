"""Searches and the experiments that confirm them, in NNI's own schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fixtures_analysis import Recorder, final

from analysis.reading.reader import load_experiment
from analysis.reading.records import Experiment
from analysis.reading.replication import ConfirmationPlan
from experiments import confirm
from trial.hyperparameters import describe_fields

SPACE = {
    "lr": {"_type": "uniform", "_value": [0.0001, 0.1]},
    "momentum": {"_type": "choice", "_value": [0.1, 0.9]},
}
FIELDS = json.loads(json.dumps(describe_fields()))  # as `python -m trial --describe` prints them

# Of the `plan` that conftest.py makes: validation accuracy by configuration and seed.
SCORES = {
    ("rank 1", 1): 0.80, ("rank 2", 1): 0.84, ("default", 1): 0.70,
    ("rank 1", 2): 0.82, ("rank 2", 2): 0.85, ("default", 2): 0.72,
    ("rank 1", 3): 0.81, ("rank 2", 3): 0.83, ("default", 3): 0.68,
}  # fmt: skip


def search(folder: Path, name: str, *trials: tuple[float | None, float], **config: Any) -> Experiment:
    """`trials` are (validation accuracy or None for a failure, lr); momentum is 0.1."""
    settings = {
        "maxTrialNumber": len(trials),
        "trialCodeDirectory": str(folder),
        "trialCommand": "python -m trial",
    } | config
    repeated = {
        name: settings[name] for name in ("trialCommand", "trialCodeDirectory")
    }  # NNI's own copy has them twice
    settings.setdefault("trainingService", {"platform": "local", **repeated})
    recorder = Recorder(folder, name, **({"searchSpace": SPACE, "experimentName": name} | settings))
    for sequence, (accuracy, lr) in enumerate(trials):
        state = "FAILED" if accuracy is None else "SUCCEEDED"
        result = None if accuracy is None else final(accuracy)
        recorder.trial(sequence, result, state=state, lr=lr, momentum=0.1)
    return load_experiment(recorder.folder)


def plan_of(*searches: Experiment, top: int = 2, seeds: int = 3, screen: int = 0) -> ConfirmationPlan:
    """As `confirm` makes it, with the trial's fields known without running it."""
    request = {"experiments": [search.id for search in searches], "top": top, "seeds": seeds, "screen": screen}
    return confirm.plan_of(searches, request, confirm.common_flags(searches), FIELDS)


def confirming(folder: Path, plan: ConfirmationPlan, name: str = "conf0001", **config: Any) -> Recorder:
    """An experiment of this plan without trials, known to NNI's registry in `folder`, which is $HOME/nni-experiments."""
    settings = {"experimentName": plan.experiment, "maxTrialNumber": len(plan.cells), "tuner": {"name": "Batch"}}
    recorder = Recorder(folder, name, **(settings | config))
    file = folder / ".experiment"
    registry = json.loads(file.read_text()) if file.exists() else {}
    entry = {"id": name, "experimentName": plan.experiment, "logDir": str(folder), "startTime": len(registry)}
    file.write_text(json.dumps({**registry, name: {**entry, "status": "STOPPED", "pid": 0}}))
    return recorder


def train(
    recorder: Recorder, plan: ConfirmationPlan, scores: dict[tuple[str, int], float | None], evaluation: float = -0.02
) -> None:
    """One trial a cell in the plan's order, those in `scores` by (name, seed); None fails. Evaluation is apart by
    `evaluation` from validation."""
    cells = [(c, seed) for seed in plan.seeds for c in plan.configurations]
    for sequence, (configuration, seed) in enumerate(cells):
        if (configuration.name, seed) not in scores:
            continue
        accuracy = scores[configuration.name, seed]
        result = None if accuracy is None else final(accuracy) | {"evaluation_top1": accuracy + evaluation}
        state = "FAILED" if accuracy is None else "SUCCEEDED"
        recorder.trial(sequence, result, state=state, **configuration.parameters, seed=seed)
