"""The NNI experiment of a confirmation's cells that are still missing: confirm.yml, with confirm_space.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from ..reading.replication import ConfirmationPlan, write_text

EXPERIMENT, SPACE = "confirm.yml", "confirm_space.json"
_DAY_S = 24 * 3600


def write_experiment(folder: Path, plan: ConfirmationPlan, cells: list[dict[str, Any]]) -> Path:
    """confirm.yml and confirm_space.json for `cells`. NNI's Batch tuner hands out a list as it is, each entry flat."""
    write_text(folder / SPACE, json.dumps({"combine_params": {"_type": "choice", "_value": cells}}, indent=1) + "\n")
    longest_s = _seconds(plan.settings.get("maxTrialDuration"))
    config = {
        "experimentName": plan.experiment,
        "searchSpaceFile": SPACE,
        **plan.settings,
        "trialConcurrency": 1,
        "maxTrialNumber": len(cells),
        "maxExperimentDuration": f"{(len(cells) * longest_s)}s" if longest_s else f"{len(cells) * _DAY_S}s",
        "tuner": {"name": "Batch"},
    }
    write_text(folder / EXPERIMENT, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    return folder / EXPERIMENT


def _seconds(duration: Any) -> int | None:
    """NNI's 7200 or "2h" in seconds."""
    if duration is None:
        return None
    text = str(duration).strip()
    factor = {"s": 1, "m": 60, "h": 3600, "d": _DAY_S}.get(text[-1:])
    return round(float(text[:-1]) * factor) if factor else round(float(text))
