"""The studies: parts (a) to (c) of the report, and the imbalance that it leaves alone."""

from __future__ import annotations

# What each study fixes: the settings of the report's part, where they are not the trial's defaults.
STUDIES: dict[str, dict[str, str]] = {
    "early_stopping": {"lr": "0.01"},
    "pretrained": {"lr": "0.01", "patience": "0"},
    "learning_rate": {"patience": "0"},
    "step_size": {"lr": "0.01", "patience": "0"},
    "distill": {"patience": "0"},
    "balance": {"lr": "0.01", "patience": "0"},
}
