"""Studies as `python -m experiments study` plans them, and trainings of them in NNI's own schema."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import ROOT
from fixtures_analysis import Recorder

from analysis.reading.replication import Part, StudyPlan, write_plan

CLASSES = ("Bread", "Dairy product", "Dessert", "Egg", "Fried food")
TRAINING = (100, 40, 80, 60, 20)
SETTINGS = {
    "batch_size": 32,
    "lr": 0.01,
    "step_size": 7,
    "epochs": 25,
    "image_px": 32,
    "weights": "none",
    "patience": 0,
    "balance": "none",
}


def part_of(file: str, seeds: int, name: str = "main") -> Part:
    space = json.loads((ROOT / f"search_spaces/study_{file}.json").read_text())
    seed = {"seed": {"_type": "choice", "_value": list(range(seeds))}}
    return Part(name, f"study_{file}_0123abcd", {**seed, **space}, {"lr": "0.01"})


def recorded(home: Path, part: Part, result: Callable[[Any, int], dict[str, Any] | None]) -> Recorder:
    """An experiment of this part in `home`/nni-experiments. `result` gives for value and seed the validation curve, what
    the final result and result.json have more, and the class table of the evaluation; None: the training failed."""
    folder = home / "nni-experiments"
    folder.mkdir(exist_ok=True, parents=True)
    settings = {"experimentName": part.experiment, "searchSpace": part.space, "maxTrialNumber": len(part.cells)}
    name = part.experiment.replace("_", "")[len("study") :][:8]
    recorder = Recorder(folder, name, **settings, tuner={"name": "GridSearch"})
    for sequence, cell in enumerate(part.cells):
        outcome = result(cell[part.field], cell["seed"])
        if outcome is None:
            recorder.trial(sequence, None, state="FAILED", **cell)
            continue
        epochs = [
            {"default": value, "train_accuracy": value - 0.1, "train_loss": 1 - value, "epoch": number}
            for number, value in enumerate(outcome["curve"], 1)
        ]
        trial = recorder.trial(sequence, _final(outcome), *epochs, **cell)
        table = [
            {"id": i, "class": c, "correct": r, "total": 10} for i, (c, r) in enumerate(zip(CLASSES, outcome["right"]))
        ]
        training = [{"id": i, "class": c, "total": n} for i, (c, n) in enumerate(zip(CLASSES, TRAINING))]
        content = {
            "training": {"n": sum(TRAINING), "per_class": training},
            "validation": {"n": 50},
            "evaluation": {"n": 50, "per_class": table},
            "compute": "CPU, 1 threads, fp32",
            "classes": list(CLASSES),
            "cache": "/home/someone/data/tiny_photos",
            "source_digest": "0123456789abcdef",
            "generated": outcome.get("generated"),
            "hyperparameters": SETTINGS | cell,
        }
        content |= {key: outcome[key] for key in ("teacher", "photos_in_two_splits") if key in outcome}
        (recorder.output(trial) / "result.json").write_text(json.dumps(content))
    entry = {"id": recorder.id, "experimentName": part.experiment, "logDir": str(folder), "status": "STOPPED", "pid": 0}
    file = folder / ".experiment"
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(known | {recorder.id: entry}))
    return recorder


def _final(outcome: dict[str, Any]) -> dict[str, Any]:
    best, top1 = max(outcome["curve"]), sum(outcome["right"]) / (10 * len(outcome["right"]))
    return {
        "default": best,
        "train_accuracy": best - 0.1,
        "train_loss": 1.5 - best,
        "val_loss": 1 - best,
        "validation_n": 50,
        "evaluation_top1": top1,
        "evaluation_top3": min(1.0, top1 + 0.1),
        "evaluation_macro": outcome.get("macro", top1),
        "evaluation_n": 50,
        "epochs_run": len(outcome["curve"]),
        "best_epoch": outcome["curve"].index(best) + 1,
        "diverged": outcome.get("diverged", 0),
        "duration_s": 2.0 * len(outcome["curve"]),
        "interrupted": outcome.get("interrupted", 0),
    }


def plan_in(folder: Path, study: str, *parts: Part) -> StudyPlan:
    plan = StudyPlan(study, parts)
    write_plan(folder, plan)
    return plan
