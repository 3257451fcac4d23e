"""Of a study's page: every training, and where the numbers come from."""

from __future__ import annotations

from typing import Any

from ..reading.provenance import made_with
from ..render.formats import NONE, optional, params_text, score_text, seconds_text

TRAINING_COLUMNS = [
    "Arm",
    "Seed",
    "State",
    "Validation",
    "Evaluation",
    "Epochs",
    "Time",
    "Experiment",
    "Trial",
    "Reason",
]


def training_cells(result: dict[str, Any], row: dict[str, Any]) -> list[str]:
    arm, seed = next(arm for arm in result["arms"] if arm["name"] == row["arm"]), str(row["seed"])
    values = {
        key: arm[key]["by_seed"].get(seed) for key in ("validation", "evaluation_top1", "epochs_run", "duration_s")
    }
    accuracies = [score_text(values[key], True) for key in ("validation", "evaluation_top1")]
    words = [row["experiment"], optional(row["trial"]), row["reason"]]
    return [
        row["arm"],
        seed,
        row["state"],
        *accuracies,
        optional(values["epochs_run"]),
        seconds_text(values["duration_s"]),
        *words,
    ]


def provenance_rows(result: dict[str, Any]) -> list[tuple[str, list[str]]]:
    told = result["provenance"]
    values = {
        "Study": f"{result['study']}: {result['field']}, seeds {', '.join(map(str, result['seeds']))}",
        "NNI experiments": ", ".join(result["experiments"]) or NONE,
        "Fixed": params_text(result["fields"]),
        "A training's settings": params_text(told["hyperparameters"] or {}),
        "Images": result["images"],
        **made_with(told),
    }
    return [(label, [text]) for label, text in values.items()]
